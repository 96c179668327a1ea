"""Slots of a Gymnasium vector environment."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from grpo_gym.action_code import ActionCode
from grpo_gym.env_layers import has_time_limit, time_limit
from grpo_gym.layout import Layout
from grpo_gym.types import Array, BoolArray, IntArray, Step


class VectorSlots:
    """Slots of a Gymnasium vector environment.

    One whose `step` takes `env_id` (as EnvPool's does) steps just the slots that play. Any other is stepped
    whole; its idle slots start over where they must, take any legal action, and are counted.

    Args:
        env: accepts a list of seeds and `options={"reset_mask": ...}`; its autoreset is disabled or happens
            at the next step (a slot is always started again before that).

    Raises:
        ValueError: if it does not; the message says how to make one that does.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any]):
        self.env: Any = env  # Gymnasium's own annotations know neither seed lists nor env_id
        self.num_envs = env.num_envs
        self.observation_space, self.action_space = env.single_observation_space, env.single_action_space
        self.has_time_limit = has_time_limit(env)
        self.time_limit = time_limit(env)
        self.name = env.spec.id if env.spec else type(env).__name__
        self.takes_env_id = "env_id" in inspect.signature(env.step).parameters
        self._seeds = [0] * self.num_envs
        self._check()
        self._ended = np.ones(self.num_envs, np.bool_)
        self._n_actions = 0  # of a mask; 0 while there was none
        single: Sequence[gym.Env[Any, Any]] = getattr(self.env, "envs", ())
        masked = len(single) > 0 and single[0].has_wrapper_attr("action_masks")
        self._mask_methods = [one.get_wrapper_attr("action_masks") for one in single] if masked else []

    # looked at late: whether a space is supported is the policy's to say
    @cached_property
    def _layout(self) -> Layout:
        return Layout(self.observation_space)

    @cached_property
    def _code(self) -> ActionCode:
        return ActionCode(self.action_space)

    @cached_property
    def _idle_actions(self) -> Array:
        return self._code.any_legal(None, self.num_envs)

    def _check(self) -> None:
        advice = (
            "pass the environment's id, or gymnasium.make_vec(id, n, vectorization_mode='sync', "
            "vector_kwargs={'autoreset_mode': 'Disabled'})"
        )
        mode = self.env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)
        if mode not in (AutoresetMode.DISABLED, AutoresetMode.NEXT_STEP):
            raise ValueError(f"{self.name} resets itself in the same step (autoreset_mode={mode}); {advice}")
        try:
            self.env.reset(seed=self._seeds)
            self.env.reset(seed=self._seeds, options={"reset_mask": np.ones(self.num_envs, np.bool_)})
        except Exception as error:
            raise ValueError(
                f"{self.name} ({type(self.env).__name__}) cannot form groups: it does not accept a list of seeds "
                f"with options={{'reset_mask': ...}} ({type(error).__name__}: {error}); {advice}"
            ) from error

    def start(self, slots: IntArray, seeds: IntArray) -> tuple[Array, BoolArray | None]:
        """See `Slots.start`."""
        for slot, seed in zip(slots.tolist(), seeds.tolist(), strict=True):
            self._seeds[slot] = seed
        mask = np.zeros(self.num_envs, np.bool_)
        mask[slots] = True
        self._ended[slots] = False
        # a fresh dictionary each time: vector environments pop the mask out of it
        observations, info = self.env.reset(seed=list(self._seeds), options={"reset_mask": mask})
        masks = self._masks(info, self.num_envs)
        if masks is not None:
            self._idle_actions[slots] = self._code.any_legal(masks[slots])
        return self._layout.pack(observations)[slots], None if masks is None else masks[slots]

    def step(self, slots: IntArray, actions: Array) -> Step:
        """See `Slots.step`."""
        if self.takes_env_id:
            # copies: the environment may write the next step into the same arrays
            seen, *answer, info = self.env.step(self._code.layout.unpack(actions), slots)
            rewards, ended, cut = map(np.array, answer)
            masks, successes = self._masks(info, len(slots)), _successes(info, len(slots))
            return Step(np.array(self._layout.pack(seen)), rewards, ended, cut, masks, successes, len(slots))
        idle = self._ended.nonzero()[0]
        idle = idle[~np.isin(idle, slots)]
        if len(idle):
            self.start(idle, np.array([self._seeds[slot] for slot in idle.tolist()]))
        everyone = self._idle_actions.copy()  # a legal action of every slot
        everyone[slots] = actions
        observations, rewards, ended, cut, info = self.env.step(self._code.layout.unpack(everyone))
        self._ended = ended | cut
        masks = self._masks(info, self.num_envs)
        if masks is not None:
            self._idle_actions = self._code.any_legal(masks)
            masks = masks[slots]
        seen = self._layout.pack(observations)[slots]
        successes = _successes(info, self.num_envs)
        told = [successes[slot] for slot in slots.tolist()] if successes else ()
        return Step(seen, rewards[slots], ended[slots], cut[slots], masks, told, self.num_envs)

    def _masks(self, info: dict[str, Any], n_rows: int) -> BoolArray | None:
        """Read the masks `[n_rows, n_actions]`; nothing is legal where none was given, as after an episode's end."""
        if self._mask_methods:
            return self._code.read_masks([method() for method in self._mask_methods], n_rows, self.name)
        if "action_mask" in info:
            masks = self._code.read_masks(info["action_mask"], n_rows, self.name)
            self._n_actions = masks.shape[1]
            return masks
        return np.zeros((n_rows, self._n_actions), np.bool_) if self._n_actions else None

    def close(self) -> None:
        """Close the vector environment."""
        self.env.close()


def _successes(info: dict[str, Any], n_rows: int) -> Sequence[dict[str, Any]]:
    """Give each row its `is_success`, all that training reads of infos; nothing where the environment has none."""
    if "is_success" not in info:
        return ()
    given = info.get("_is_success", np.ones(n_rows, np.bool_))
    return [{"is_success": x} if is_given else {} for x, is_given in zip(info["is_success"], given, strict=True)]
