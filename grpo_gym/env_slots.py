"""Slots of single environments, stepped one after the other."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import wrappers

from grpo_gym.action_code import ActionCode
from grpo_gym.env_layers import has_time_limit, time_limit
from grpo_gym.faults import explain
from grpo_gym.layout import Layout
from grpo_gym.types import Array, BoolArray, IntArray, Step


class EnvSlots:
    """Slots made of single environments, stepped one after the other without copies in between.

    What `gymnasium.make` puts around an environment, `TimeLimit` and `OrderEnforcing`, is stepped past: the limit is
    kept for all slots at once, and the order is ours. Any other wrapper is left where it is, with all inside it.
    Discrete actions are passed as NumPy integers, as `SyncVectorEnv` does.

    Args:
        make_env: makes one environment; called `n_slots` times.
        n_slots: episodes in play at the same time.
    """

    def __init__(self, make_env: Callable[[], gym.Env[Any, Any]], n_slots: int):
        self.envs = [make_env() for _ in range(n_slots)]
        for env in self.envs:
            if not isinstance(env, gym.Env):
                raise TypeError(f"{make_env} made a {type(env).__name__}, expected a gymnasium.Env")
        if len({id(env.unwrapped) for env in self.envs}) < n_slots:
            raise ValueError(f"{make_env} returned the same environment twice; expected a new one at each call")
        first = self.envs[0]
        self.num_envs = n_slots
        self.observation_space, self.action_space = first.observation_space, first.action_space
        self.has_time_limit = has_time_limit(first)
        self.time_limit = time_limit(first)
        self.name = first.spec.id if first.spec else type(first.unwrapped).__name__
        bare = [peeled(env) for env in self.envs]
        self._bare = [env for env, _ in bare]
        self._limits = np.array([limit for _, limit in bare], np.int64)
        self._mask_method = first.has_wrapper_attr("action_masks")
        self._has_masks = self._mask_method
        self._seeds = np.zeros(n_slots, dtype=np.int64)
        self._lengths = np.zeros(n_slots, dtype=np.int64)

    # looked at late: whether a space is supported is the policy's to say
    @cached_property
    def _layout(self) -> Layout:
        return Layout(self.observation_space)

    @cached_property
    def _code(self) -> ActionCode:
        return ActionCode(self.action_space)

    def start(self, slots: IntArray, seeds: IntArray) -> tuple[Array, BoolArray | None]:
        """See `Slots.start`."""
        observations = np.empty((len(slots), *self._layout.shape), self._layout.dtype)
        infos, slot, seed = [], 0, 0
        try:
            for row, (slot, seed) in enumerate(zip(slots.tolist(), seeds.tolist(), strict=True)):
                observation, info = self._bare[slot].reset(seed=seed)
                observations[row] = self._checked(observation, slot)
                infos.append(info)
                self._seeds[slot], self._lengths[slot] = seed, 0
        except Exception as error:
            explain(
                error,
                f"{self.name}: reset(seed={seed}) of slot {slot} raised this; reset must return 2 values "
                "(observation, info)",
            )
            raise
        self._has_masks = self._has_masks or "action_mask" in infos[0]
        masks = self._masks(slots, infos, np.zeros(len(slots), np.bool_)) if self._has_masks else None
        return observations, masks

    def step(self, slots: IntArray, actions: Array) -> Step:
        """See `Slots.step`."""
        envs, code = self._bare, self._code.layout
        chosen: Any = actions if code.is_plain else [code.unpack_one(action) for action in actions]
        answers: list[Any] = []  # observations are perhaps an environment's own buffer, written to at its next step
        slot, action, is_plain = 0, None, self._layout.is_plain
        try:
            for slot, action in zip(slots.tolist(), chosen, strict=True):
                answer = envs[slot].step(action)
                answers.append(answer if is_plain else self._read(slot, answer))
            columns = self._side_by_side(answers)
            if columns is None:
                # `action` is for the message
                for row, (slot, action) in enumerate(zip(slots.tolist(), chosen, strict=True)):  # noqa: B007
                    answers[row] = self._read(slot, answers[row])
                columns = self._side_by_side(answers)
                assert columns is not None
        except Exception as error:
            explain(
                error,
                f"{self.name}: step {self._lengths[slot] + 1} of the episode with seed {self._seeds[slot]} "
                f"in slot {slot} raised this, for action {action!r}; step must return 5 values "
                "(observation, reward, terminated, truncated, info), the reward a number",
            )
            raise
        observations, rewards, over, timed_out, infos = columns
        lengths = self._lengths[slots] + 1
        self._lengths[slots] = lengths
        timed_out |= lengths >= self._limits[slots]
        masks = self._masks(slots, infos, over | timed_out) if self._has_masks else None
        return Step(observations, rewards, over, timed_out, masks, infos, len(slots))

    def _side_by_side(self, answers: Sequence[Any]) -> tuple[Array, Array, BoolArray, BoolArray, Sequence[Any]] | None:
        """Make columns of what `step` returned; None if something there has to be looked at one by one."""
        try:
            seen, given, ended, cut, infos = zip(*answers, strict=True)
            observations, rewards = np.array(seen, self._layout.dtype), np.array(given)
            over, timed_out = np.array(ended, np.bool_), np.array(cut, np.bool_)
        except (TypeError, ValueError, OverflowError, RuntimeError):
            return None
        of_each = (len(answers),)
        if observations.shape != of_each + self._layout.shape or rewards.dtype.kind not in "biuf":
            return None
        if not rewards.shape == over.shape == timed_out.shape == of_each:
            return None
        return observations, rewards.astype(np.float64, copy=False), over, timed_out, infos

    def close(self) -> None:
        """Close every environment."""
        for env in self.envs:
            env.close()

    def _read(self, slot: int, answer: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Take apart what `step` returned, and make of it what columns can be made of.

        Raises:
            ValueError, TypeError, OverflowError: if that is not possible, the observation is not of its space, or the
                reward no number.
        """
        observation, reward, ended, cut, info = answer
        row = np.array(self._checked(observation, slot), self._layout.dtype)
        return row, _number(reward), bool(ended), bool(cut), info

    def _checked(self, observation: Any, slot: int) -> Array:
        try:
            return self._layout.pack_one(observation)
        except ValueError as error:
            raise ValueError(f"{self.name}: slot {slot} returned {error}") from error

    def _masks(self, slots: IntArray, infos: Sequence[dict[str, Any]], ended: BoolArray) -> BoolArray:
        if self._mask_method:
            told = [self.envs[slot].get_wrapper_attr("action_masks")() for slot in slots.tolist()]
            return self._code.read_masks(told, len(slots), self.name)
        given = [info.get("action_mask") for info in infos]
        for row, mask in enumerate(given):
            if mask is None and ended[row]:
                given[row] = np.zeros(self._code.mask_size, np.bool_)
            elif mask is None:
                raise ValueError(
                    f"{self.name}: slot {slots[row]} gave no info['action_mask'] in the middle of its episode, but did "
                    "before; expected one with every observation"
                )
        return self._code.read_masks(given, len(slots), self.name)


def _number(reward: Any) -> float:
    """Accept what NumPy and Python call a number, and nothing that merely reads like one.

    Raises:
        TypeError: if it is none.
    """
    array = np.asarray(reward)
    if array.shape != () or array.dtype.kind not in "biuf":
        raise TypeError(f"the reward is {reward!r}, a {type(reward).__name__}; expected a single number")
    return float(array)


def peeled(env: gym.Env[Any, Any]) -> tuple[gym.Env[Any, Any], int]:
    """Take Gymnasium's own outermost wrappers off, and tell the time limit that they had."""
    limit = sys.maxsize
    while type(env) in (wrappers.TimeLimit, wrappers.OrderEnforcing):
        if isinstance(env, wrappers.TimeLimit):
            limit = min(limit, env._max_episode_steps)
        env = env.env  # type: ignore[attr-defined]
    return env, limit
