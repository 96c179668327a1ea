"""Slots of EnvPool, which steps in C++. Needs the extra "envpool"; imported only when asked for."""

from __future__ import annotations

import difflib
from typing import Any

import numpy as np

from grpo_gym.extras import need
from grpo_gym.layout import Layout
from grpo_gym.types import ENVPOOL, Array, IntArray, Step

envpool: Any = need("envpool", "envpool", f"env='{ENVPOOL}...'")

NO_LIMIT = 2**31 - 1
"""What EnvPool has for the time limit of an environment without one."""


class EnvPoolSlots:
    """Slots of EnvPool. Only those that play are stepped.

    EnvPool's environments take a seed when their pool is made and never again; what they draw at later resets
    depends on what was played before. So slots that are started together become a new pool, and every episode is the
    first of its environment. That costs little if all slots start at once, as they do where each plays one
    episode of a plan; slots that start one by one, in segments or with fewer slots than episodes, are as many
    pools, each stepped by itself.

    Args:
        env_id: EnvPool's name of the environment, without prefix.
        n_slots: episodes in play at the same time.

    Raises:
        ValueError: if EnvPool has no such environment, or several agents play in it.
    """

    def __init__(self, env_id: str, n_slots: int):
        known = envpool.list_all_envs()
        if env_id not in known:
            close = difflib.get_close_matches(env_id, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "envpool.list_all_envs() tells which there are"
            raise ValueError(f"EnvPool has no environment {env_id!r}; {hint}")
        self._env_id, self.num_envs, self.name = env_id, n_slots, f"{ENVPOOL}{env_id}"
        probe = self._make([0])
        config = probe.spec.config
        if config.max_num_players > 1:
            raise ValueError(f"{self.name} is for {config.max_num_players} players; expected an environment for one")
        self.observation_space, self.action_space = probe.observation_space, probe.action_space
        self._layout = Layout(self.observation_space)
        self.has_time_limit = config.max_episode_steps < NO_LIMIT
        self.time_limit = config.max_episode_steps if self.has_time_limit else None
        self._pools: dict[int, Any] = {}
        self._n_made = 0
        self._pool_of = np.full(n_slots, -1)
        self._env_of = np.zeros(n_slots, np.int32)  # in its pool

    def _make(self, seeds: list[int]) -> Any:
        return envpool.make(self._env_id, env_type="gymnasium", num_envs=len(seeds), env_seed=seeds)

    def start(self, slots: IntArray, seeds: IntArray) -> tuple[Array, None]:
        """See `Slots.start`."""
        pool = self._make(seeds.tolist())
        self._n_made += 1
        self._pools[self._n_made] = pool
        self._pool_of[slots], self._env_of[slots] = self._n_made, np.arange(len(slots))
        for left in set(self._pools) - set(self._pool_of.tolist()):
            del self._pools[left]
        return self._layout.pack(pool.reset()[0]), None

    def step(self, slots: IntArray, actions: Array) -> Step:
        """See `Slots.step`."""
        k, layout = len(slots), self._layout
        observations = np.empty((k, *layout.shape), layout.dtype)
        rewards, terminated, truncated = np.empty(k), np.empty(k, np.bool_), np.empty(k, np.bool_)
        pools = self._pool_of[slots]
        for number in np.unique(pools):
            rows = (pools == number).nonzero()[0]
            answer = self._pools[int(number)].step(actions[rows], self._env_of[slots[rows]])
            observations[rows] = layout.pack(answer[0])
            rewards[rows], terminated[rows], truncated[rows] = answer[1:4]
        return Step(observations, rewards, terminated, truncated, None, (), k)

    def close(self) -> None:
        """Release the pools."""
        self._pools.clear()
