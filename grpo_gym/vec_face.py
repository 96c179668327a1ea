"""Training slots with the face of a stable-baselines3 `VecEnv`, which scripts play in after training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import wrappers

from grpo_gym.env_layers import layers_of
from grpo_gym.groups import FIRST_TRAINING_SEED
from grpo_gym.types import Array, BoolArray, IntArray, Slots


class VecFace:
    """What `agent.get_env()` returns: `reset() → obs`, `step(actions) → (obs, rewards, dones, infos)`, `render()`.

    An ended slot is started again in the same step; the info of its last step has `"terminal_observation"` and
    `"TimeLimit.truncated"`. Episodes start from seeds that training never uses, and playing here does not disturb
    training. All other attributes are the slots' own.

    Args:
        slots: to play in.
        set_aside: called before each `reset`, for training to leave the slots.
    """

    def __init__(self, slots: Slots, set_aside: Callable[[], None]):
        self.slots, self._set_aside = slots, set_aside
        self._rng = np.random.default_rng()
        self._actions: Array | None = None

    def __getattr__(self, name: str) -> Any:
        if name == "slots":  # not made yet, as while it is unpickled
            raise AttributeError(name)
        return getattr(self.slots, name)

    def seed(self, seed: int | None = None) -> list[int | None]:
        """Make what is played from now on repeatable."""
        self._rng = np.random.default_rng(seed)
        return [None if seed is None else seed + slot for slot in range(self.slots.num_envs)]

    def reset(self) -> Array:
        """Start all slots, and return what they show, `[n, ...]`."""
        self._set_aside()
        return self._start(np.arange(self.slots.num_envs)).copy()

    def step(self, actions: Any) -> tuple[Array, Array, BoolArray, list[dict[str, Any]]]:
        """Step all slots, and start those again whose episode ends."""
        everyone = np.arange(self.slots.num_envs)
        step = self.slots.step(everyone, np.asarray(actions))
        observations, dones = step.observations.copy(), step.terminated | step.truncated
        infos: list[dict[str, Any]] = [dict(info) for info in step.infos] or [{} for _ in everyone]
        for slot in dones.nonzero()[0].tolist():
            infos[slot]["terminal_observation"] = step.observations[slot].copy()
            infos[slot]["TimeLimit.truncated"] = bool(step.truncated[slot] and not step.terminated[slot])
        if dones.any():
            observations[dones] = self._start(dones.nonzero()[0])
        return observations, step.rewards.astype(np.float32), dones, infos

    def step_async(self, actions: Any) -> None:
        """Keep the actions for `step_wait`."""
        self._actions = np.asarray(actions)

    def step_wait(self) -> tuple[Array, Array, BoolArray, list[dict[str, Any]]]:
        """Take the step that `step_async` asked for."""
        return self.step(self._actions)

    def render(self, mode: str | None = None) -> Any:
        """Draw the first slot, as its `render_mode` says; `mode` is accepted for stable-baselines3's sake."""
        ours = wrappers.OrderEnforcing, wrappers.TimeLimit  # which training steps past, see `EnvSlots`
        return next(layer for layer in layers_of(self._chosen(0)[0]) if not isinstance(layer, ours)).render()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Return an attribute of each environment, whichever wrapper has it."""
        return [env.get_wrapper_attr(attr_name) for env in self._chosen(indices)]

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Call a method of each environment, whichever wrapper has it."""
        return [env.get_wrapper_attr(method_name)(*args, **kwargs) for env in self._chosen(indices)]

    def _chosen(self, indices: Any) -> list[Any]:
        envs: list[Any] = list(self.slots.envs)  # type: ignore[attr-defined]
        return envs if indices is None else [envs[index] for index in np.atleast_1d(indices)]

    def _start(self, slots: IntArray) -> Array:
        observations, _ = self.slots.start(slots, self._rng.integers(FIRST_TRAINING_SEED, size=len(slots)))
        return observations
