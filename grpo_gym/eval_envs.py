"""Environments of any kind as one batch to play in: `EnvList` of single ones, `VectorEnvs` of a vector one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from gymnasium import wrappers
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import batch_space, iterate

from grpo_gym.env_layers import Info, is_monitor, is_true_end, layers_of
from grpo_gym.types import ENVPOOL, Array, BoolArray

EnvFactory = Callable[[], gym.Env[Any, Any]]


@dataclass(frozen=True)
class Moment:
    """The state of a batch of n environments after a step or a reset.

    Attributes:
        observations: what to act upon next, stacked: `[n, ...]`, or a dict of such.
        infos: what came with these observations, one dict for each environment.
        starts: the observation is the first of an episode, `[n]`.
        idle: the next action will not be played (nothing left to play, or due for a reset), `[n]`.
        rewards: of the step, `[n]`.
        dones: the step ended an episode, `[n]`.
        cut: it did so only because the episode was too long, `[n]`.
        step_infos: what came with the step; at an end, before the reset.
    """

    observations: Any
    infos: list[Info]
    starts: BoolArray
    idle: BoolArray
    rewards: Array
    dones: BoolArray
    cut: BoolArray
    step_infos: list[Info]


class EvalBatch(Protocol):
    """A batch of environments to play in."""

    n_envs: int
    action_space: gym.Space[Any]
    layers: list[Any]
    monitored: bool

    def reset(self) -> Moment:
        """Start the first episode of each environment."""
        ...

    def step(self, actions: Any) -> Moment:
        """Play `[n, ...]` actions; start the next episode where one has ended."""
        ...

    def find_mask_method(self) -> Callable[[], Sequence[Any]] | None:
        """Return what reads the masks of all environments through `action_masks()`, if they offer that."""
        ...

    def render(self) -> Any:
        """Draw."""
        ...


class EnvList:
    """Single environments, each with a queue of reset seeds: one episode for each.

    Args:
        envs: equal environments.
        queues: for each environment the seeds of its episodes; None resets without a seed.
        max_episode_steps: longer episodes are cut; None for no limit.
    """

    def __init__(
        self,
        envs: Sequence[gym.Env[Any, Any]],
        queues: Sequence[Sequence[int | None]],
        max_episode_steps: int | None,
    ) -> None:
        self.n_envs, self.action_space = len(envs), envs[0].action_space
        self.layers = list(layers_of(envs[0]))
        self.monitored = any(map(is_monitor, self.layers))
        self._envs = envs
        self._queues = [list(queue) for queue in queues]
        self._limit = np.inf if max_episode_steps is None else max_episode_steps
        self._lengths = np.zeros(self.n_envs, np.int64)
        # An environment without an episode to play is reset all the same: its row must hold something.
        self._idle = np.array([not queue for queue in self._queues])
        self._observations: list[Any] = [None] * self.n_envs
        self._infos: list[Info] = [{} for _ in envs]

    def reset(self) -> Moment:
        """Start the first episode of each environment."""
        for slot in range(self.n_envs):
            self._start(slot)
        return _opening(stack(self._observations), list(self._infos), self._idle.copy())

    def step(self, actions: Any) -> Moment:
        """Step the environments that are not idle, and start the next episode where one has ended."""
        actions = each_action(actions, self.action_space)
        rewards = np.zeros(self.n_envs)
        dones, cut, starts = (np.zeros(self.n_envs, np.bool_) for _ in range(3))
        for slot in map(int, np.flatnonzero(~self._idle)):
            observation, reward, terminated, truncated, info = self._envs[slot].step(actions[slot])
            self._observations[slot], self._infos[slot] = observation, info
            rewards[slot] = reward
            self._lengths[slot] += 1
            ended = bool(terminated or truncated)
            cut[slot] = not ended and self._lengths[slot] >= self._limit
            dones[slot] = ended or cut[slot]
        step_infos = list(self._infos)
        for slot in map(int, np.flatnonzero(dones)):
            life_lost = not cut[slot] and not is_true_end(step_infos[slot], self.monitored)
            starts[slot] = life_lost or bool(self._queues[slot])
            if starts[slot]:
                self._start(slot, life_lost)
            else:
                self._idle[slot] = True
        idle = self._idle.copy()
        observations = stack(self._observations)
        return Moment(observations, list(self._infos), starts, idle, rewards, dones, cut, step_infos)

    def find_mask_method(self) -> Callable[[], Sequence[Any]] | None:
        """Return what reads the masks, None for idle environments."""
        return self._read_masks if self._envs[0].has_wrapper_attr("action_masks") else None

    def render(self) -> Any:
        """Draw the first environment."""
        return self._envs[0].render()

    def _start(self, slot: int, same_episode: bool = False) -> None:
        seed = self._queues[slot].pop(0) if self._queues[slot] and not same_episode else None
        self._observations[slot], self._infos[slot] = self._envs[slot].reset(seed=seed)
        self._lengths[slot] = 0

    def _read_masks(self) -> list[Any]:
        # An ended episode has no legal actions to tell of, and its environment may object to the question.
        return [
            None if idle else env.get_wrapper_attr("action_masks")()
            for env, idle in zip(self._envs, self._idle, strict=True)
        ]


class VectorEnvs:
    """A Gymnasium vector environment.

    Args:
        env: the environment. Its `metadata["autoreset_mode"]` says what follows an end: the reset in the
            same step, a further step that does nothing but reset, or a reset that we must ask for.
        waves: for each `reset` to come, a seed for each sub-environment; afterwards resets have no seeds.

    Raises:
        ValueError: if the environment does not name its autoreset mode.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], waves: Sequence[Sequence[int]] = ()) -> None:
        if "autoreset_mode" not in env.metadata:
            raise ValueError(
                f'{env} does not say in metadata["autoreset_mode"] when it resets an ended sub-environment; '
                "set it to a gymnasium.vector.AutoresetMode"
            )
        self.n_envs, self.action_space = env.num_envs, env.single_action_space
        self.layers = list(layers_of(env))
        self._env = env
        self._waves = [list(wave) for wave in waves]
        self._mode = AutoresetMode(env.metadata["autoreset_mode"])
        # Gymnasium's vector recorder counts rightly, in all its versions, with next-step resets alone. When
        # only some environments are reset, it forgets the running episodes of the others.
        trusted = [
            layer
            for layer in self.layers
            if self._mode is AutoresetMode.NEXT_STEP or not isinstance(layer, wrappers.vector.RecordEpisodeStatistics)
        ]
        self.monitored = any(map(is_monitor, trusted))
        self._ignores_record = self._mode is AutoresetMode.DISABLED and len(trusted) < len(self.layers)
        self._idle = np.zeros(self.n_envs, np.bool_)

    def reset(self) -> Moment:
        """Start the first episode of each sub-environment."""
        # `seed` as a list is understood by SyncVectorEnv and AsyncVectorEnv, though not by the base type.
        seeds: Any = self._waves.pop(0) if self._waves else None
        observations, infos = self._env.reset(seed=seeds)
        self._idle = np.zeros(self.n_envs, np.bool_)
        return _opening(observations, split_infos(infos, self.n_envs), self._idle.copy())

    def step(self, actions: Any) -> Moment:
        """Step all sub-environments; leave no trace of the manner in which they reset."""
        observations, rewards, terminated, truncated, infos = self._env.step(actions)
        dones = np.asarray(terminated, np.bool_) | np.asarray(truncated, np.bool_)
        rows = split_infos(infos, self.n_envs)
        step_infos = [row.pop("final_info", row) for row in rows]
        starts = dones.copy()
        if self._mode is AutoresetMode.NEXT_STEP:
            # After an end comes a step that ignores its action and only resets.
            starts, self._idle = self._idle, dones
        elif self._mode is AutoresetMode.DISABLED and dones.any():
            observations, infos = self._env.reset(options={"reset_mask": dones.copy()})
            fresh = split_infos(infos, self.n_envs)
            rows = [new if done else row for row, new, done in zip(rows, fresh, dones, strict=True)]
        if self._ignores_record:
            for info in step_infos:
                info.pop("episode", None)
        never = np.zeros(self.n_envs, np.bool_)
        return Moment(observations, rows, starts, self._idle.copy(), np.asarray(rewards), dones, never, step_infos)

    def find_mask_method(self) -> Callable[[], Sequence[Any]] | None:
        """Return what reads the masks of all sub-environments."""
        base: Any = self._env.unwrapped
        if isinstance(base, SyncVectorEnv):
            offered = base.envs[0].has_wrapper_attr("action_masks")
        elif isinstance(base, AsyncVectorEnv):
            # A worker that is asked for what it does not have ends: look at an environment of our own.
            probe = base.env_fns[0]()
            offered = probe.has_wrapper_attr("action_masks")
            probe.close()
        else:
            return getattr(base, "action_masks", None)
        return (lambda: base.call("action_masks")) if offered else None

    def render(self) -> Any:
        """Draw all sub-environments."""
        return self._env.render()


def _opening(observations: Any, infos: list[Info], idle: BoolArray) -> Moment:
    n = len(infos)
    nothing = np.zeros(n, np.bool_)
    return Moment(observations, infos, np.ones(n, np.bool_), idle, np.zeros(n), nothing, nothing, infos)


def make_envs(env: str | EnvSpec | EnvFactory, n_envs: int, render: bool) -> list[gym.Env[Any, Any]]:
    """Make `n_envs` environments from an id, a spec or a function; with `render`, the first two open windows.

    For an environment of EnvPool's these are Gymnasium's of the same name, which can be seeded one by one.

    Raises:
        ValueError: if Gymnasium has none of that name.
    """
    if isinstance(env, str) and env.startswith(ENVPOOL):
        env_id = env.removeprefix(ENVPOOL)
        if env_id not in gym.registry:
            raise ValueError(
                f"{env!r} is EnvPool's alone: Gymnasium has no {env_id!r} to evaluate in. Pass "
                f"envpool.make({env_id!r}, env_type='gymnasium', num_envs=8, seed=1), or another environment"
            )
        env = env_id
    made: list[gym.Env[Any, Any]] = []
    try:
        for _ in range(n_envs):
            if isinstance(env, str | EnvSpec):
                made.append(gym.make(env, render_mode="human") if render else gym.make(env))
            else:
                made.append(env())
    except BaseException:
        for one in made:
            one.close()
        raise
    return made


def stack(rows: Sequence[Any]) -> Any:
    """Stack n observations to `[n, ...]`; dicts and tuples stay dicts and tuples, of such arrays."""
    first = rows[0]
    if isinstance(first, Mapping):
        return {key: stack([row[key] for row in rows]) for key in first}
    if isinstance(first, tuple):
        return tuple(stack(column) for column in zip(*rows, strict=True))
    return np.stack([np.asarray(row) for row in rows])


def each_action(actions: Any, space: gym.Space[Any]) -> Any:
    """Return a sequence of actions: of a batch of dicts or tuples of arrays `[n, ...]` n dicts or tuples."""
    structured = isinstance(space, gym.spaces.Dict | gym.spaces.Tuple)
    return list(iterate(batch_space(space), actions)) if structured else actions


def split_infos(infos: Any, n_envs: int) -> list[Info]:
    """Turn the infos of a vector environment into one dict for each sub-environment.

    Gymnasium keeps an array for each key, and under `_key` which sub-environments the key came from.
    """
    if not isinstance(infos, Mapping):
        return [dict(info) for info in infos]  # as `DictInfoToList` leaves them
    rows: list[Info] = [{} for _ in range(n_envs)]
    for key, values in infos.items():
        if key.startswith("_") and key[1:] in infos:
            continue
        present = infos.get(f"_{key}")
        nested = split_infos(values, n_envs) if isinstance(values, Mapping) else values
        each = hasattr(nested, "__len__") and len(nested) == n_envs
        for slot in range(n_envs):
            if present is None or present[slot]:
                rows[slot][key] = nested[slot] if each else nested
    return rows
