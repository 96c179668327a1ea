"""Toy environments, each with one virtue or one vice, and hand-made rollouts."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, VectorEnv

from grpo_gym.groups import Plan, plan
from grpo_gym.policy import MlpPolicy
from grpo_gym.rollout import collect
from grpo_gym.types import Array, BoolArray, IntArray, Rollout, Slots
from grpo_gym.vec import make_slots

Info = dict[str, Any]
StepResult = tuple[Any, Any, bool, bool, Info]

UNIT_BOX = Box(-1.0, 1.0, (2,), np.float32)


class Walk(gym.Env[Any, Any]):
    """A noisy walk on a line; start and noise come from the seed. Observation `[x, t]`, reward −|x|.

    It terminates outside [−1.8, 1.8], is truncated after `limit` steps, accepts only actions of its space, and
    counts every step that it takes in `counter["steps"]`.
    """

    observation_space = Box(-100.0, 100.0, (2,), np.float32)

    def __init__(self, action_space: Discrete | Box | None = None, limit: int = 6, counter: Counter[str] | None = None):
        self.action_space: Discrete | Box = action_space or Discrete(3)
        self.limit = limit
        self.counter = Counter() if counter is None else counter

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Any, Info]:
        super().reset(seed=seed)
        self.x, self.t = float(self.np_random.uniform(-0.5, 0.5)), 0
        return self._observation(), self._info()

    def step(self, action: Any) -> StepResult:
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        self.counter["steps"] += 1
        if isinstance(self.action_space, Discrete):
            self.x += float(action - self.action_space.start) - 1.0
        else:
            self.x += float(action.sum())
        self.x += 0.1 * float(self.np_random.standard_normal())
        self.t += 1
        return self._observation(), self._reward(), abs(self.x) > 1.8, self.t >= self.limit, self._info()

    def _observation(self) -> Any:
        return np.array([self.x, self.t], np.float32)

    def _reward(self) -> Any:
        return -abs(self.x)

    def _info(self) -> Info:
        return {}


class IdentityDiscrete(gym.Env[Any, Any]):
    """Shows a number; naming it earns 1. Discrete in and out, both counted from `start`."""

    def __init__(self, n: int = 3, start: int = 0, length: int = 4):
        self.space = Discrete(n, start=start)
        self.observation_space = self.action_space = self.space
        self.length = length

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Any, Info]:
        super().reset(seed=seed)
        self.t = 0
        return self._draw(), {}

    def step(self, action: Any) -> StepResult:
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        reward = float(action == self.shown)
        self.t += 1
        return self._draw(), reward, False, self.t >= self.length, {}

    def _draw(self) -> np.int64:
        self.shown = self.space.start + self.np_random.integers(self.space.n)
        return np.int64(self.shown)


class IdentityBox(gym.Env[Any, Any]):
    """Shows a point; the closer the action, the more it earns. Box in and out."""

    observation_space = action_space = UNIT_BOX

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Any, Info]:
        super().reset(seed=seed)
        self.t = 0
        return self._draw(), {}

    def step(self, action: Any) -> StepResult:
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        reward = -float(np.square(action - self.shown).sum())
        self.t += 1
        return self._draw(), reward, False, self.t >= 4, {}

    def _draw(self) -> Array:
        self.shown = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return self.shown


class Recall(gym.Env[Any, Any]):
    """Shows one of two cues, then nothing for `delay` steps, then asks for it: naming it earns 1.

    Observation `[is it cue 0, is it cue 1, is it asked]`; without a memory half of the answers are right.
    """

    observation_space = Box(0.0, 1.0, (3,), np.float32)
    action_space = Discrete(2)

    def __init__(self, delay: int = 4):
        self.delay = delay

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Any, Info]:
        super().reset(seed=seed)
        self.cue, self.t = int(self.np_random.integers(2)), 0
        return np.eye(3, dtype=np.float32)[self.cue], {}

    def step(self, action: Any) -> StepResult:
        asked = self.t > self.delay
        self.t += 1
        observation = np.array([0, 0, self.t > self.delay], np.float32)
        return observation, float(asked and action == self.cue), asked, False, {}


class MaskedByInfo(Walk):
    """Which two of three actions are legal changes with t; `info["action_mask"]` says so, until the end."""

    def step(self, action: Any) -> StepResult:
        assert self.legal()[action], f"action {action} is illegal at t={self.t}"
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated, truncated, {} if self.last_info_is_bare and truncated else info

    def legal(self) -> BoolArray:
        return np.array([action != self.t % 3 for action in range(3)])

    def _info(self) -> Info:
        return {"action_mask": self.legal().astype(np.int8)}

    last_info_is_bare = False


class BareLastInfo(MaskedByInfo):
    """As `MaskedByInfo`, but the info of the last step has no mask: there is no next action."""

    last_info_is_bare = True

    def _reward(self) -> float:
        self.x = 0.0  # never terminates: all episodes end together
        return 1.0


class MaskedByMethod(MaskedByInfo):
    """The same masks, told by sb3-contrib's `action_masks()`."""

    def action_masks(self) -> BoolArray:
        return self.legal()

    def _info(self) -> Info:
        return {}


class NothingLegal(MaskedByInfo):
    """From t = 2 on no action is legal."""

    def legal(self) -> BoolArray:
        return np.full(3, self.t < 2)


class IgnoresSeed(Walk):
    """Starts somewhere else each time, whatever the seed."""

    starts: Iterator[int] = itertools.count()

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Any, Info]:
        return super().reset(seed=next(self.starts))


class BadNumber(Walk):
    """Returns `value` as observation or reward once `step` steps were taken."""

    def __init__(self, what: str, value: float, step: int):
        super().__init__()
        self.what, self.value, self.bad_step = what, value, step

    def _observation(self) -> Any:
        bad = self.what == "observation" and self.t == self.bad_step
        return np.array([self.x, self.value if bad else self.t], np.float32)

    def _reward(self) -> Any:
        return self.value if self.what == "reward" and self.t == self.bad_step else 1.0


class Rewarding(Walk):
    """Returns whatever `reward` is as its reward."""

    def __init__(self, reward: Any):
        super().__init__(limit=2)
        self.reward = reward

    def _reward(self) -> Any:
        return self.reward


class Endless(Walk):
    """Never ends."""

    def step(self, action: Any) -> StepResult:
        observation, reward, _, _, info = super().step(action)
        return observation, reward, False, False, info


class CopiesBuffer(Walk):
    """Writes each observation into one array, and hands out copies of it."""

    def __init__(self, action_space: Discrete | Box | None = None):
        super().__init__(action_space)
        self.buffer = np.zeros(2, np.float32)

    def _observation(self) -> Any:
        self.buffer[:] = self.x, self.t
        return self.buffer.copy()


class ReusesBuffer(CopiesBuffer):
    """Hands out the array itself, which the next step overwrites."""

    def _observation(self) -> Any:
        super()._observation()
        return self.buffer


class WrongShape(Walk):
    """Returns three numbers where two are promised, once `step` steps were taken."""

    def __init__(self, step: int):
        super().__init__()
        self.bad_step = step

    def _observation(self) -> Any:
        return np.zeros(3 if self.t == self.bad_step else 2, np.float32)


class Raises(Walk):
    """Raises `error` at step `step`, as often as it gets there."""

    def __init__(self, error: BaseException, step: int):
        super().__init__()
        self.error, self.bad_step = error, step

    def step(self, action: Any) -> StepResult:
        if self.t + 1 == self.bad_step:
            raise self.error
        return super().step(action)


class Diary(gym.Env[Any, Any]):
    """Observation `[number of the episode, t]`, reward 1000 · number + t, length 1 + number % `longest`."""

    observation_space = Box(0.0, 1e6, (2,), np.float32)
    action_space = Discrete(2)

    def __init__(self, numbers: Iterator[int], longest: int = 3):
        self.numbers, self.longest = numbers, longest

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Any, Info]:
        super().reset(seed=seed)
        self.number, self.t = next(self.numbers), 0
        return np.array([self.number, 0], np.float32), {}

    def step(self, action: Any) -> StepResult:
        reward = 1000 * self.number + self.t
        self.t += 1
        end = self.t > self.number % self.longest
        return np.array([self.number, self.t], np.float32), reward, end, False, {}


class CountingVectorEnv(VectorEnv[Any, Any, Any]):
    """Steps the slots `env_id` only, as EnvPool does. Observation t, reward 1 + t, four steps; `copy` or not."""

    metadata = {"autoreset_mode": AutoresetMode.DISABLED}  # noqa: RUF012 Gymnasium's own way

    def __init__(self, num_envs: int, copy: bool):
        self.num_envs, self.copy = num_envs, copy
        self.single_observation_space = Box(0.0, 100.0, (1,), np.float32)
        self.single_action_space = Discrete(2)
        self.t = np.zeros(num_envs, np.int64)
        self.observations, self.rewards = np.zeros((num_envs, 1), np.float32), np.zeros(num_envs)
        self.ended = np.zeros(num_envs, np.bool_)

    def reset(self, *, seed: Any = None, options: Info | None = None) -> tuple[Any, Info]:
        assert len(seed) == self.num_envs
        chosen = (options or {}).pop("reset_mask", np.ones(self.num_envs, np.bool_))
        self.t[chosen] = 0
        self.observations[:, 0] = self.t
        return self._given(self.observations), {}

    def step(self, actions: Any, env_id: Any = None) -> tuple[Any, Any, Any, Any, Info]:
        k = len(env_id)
        self.t[env_id] += 1
        self.observations[:k, 0] = self.rewards[:k] = self.t[env_id]
        self.ended[:k] = self.t[env_id] >= 4
        given = [self._given(x[:k]) for x in (self.observations, self.rewards, self.ended)]
        return given[0], given[1], given[2], np.zeros(k, np.bool_), {}

    def _given(self, x: Array) -> Array:
        return x.copy() if self.copy else x


def policy_for(slots: Slots, seed: int = 0, **kwargs: Any) -> MlpPolicy:
    """A policy with repeatable weights that differ enough for actions to depend on observations."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MlpPolicy(slots.observation_space, slots.action_space, (8,), ortho_init=False, **kwargs)


def a_plan(n_groups: int, group_size: int, seed: int = 0) -> Plan:
    return plan(np.random.default_rng(seed), n_groups, group_size)


def play(env: Any, n_slots: int, n_groups: int = 2, group_size: int = 3, seed: int = 0, **kwargs: Any) -> Rollout:
    """Play a small plan in whatever `make_slots` takes."""
    slots = make_slots(env, n_slots)
    rollout = collect(slots, policy_for(slots), a_plan(n_groups, group_size, seed), **kwargs)
    slots.close()
    assert rollout is not None
    return rollout


def rollout_of(rewards: Sequence[Sequence[float]], group_size: int) -> Rollout:
    """A rollout with these rewards, one list an episode; nothing else in it matters."""
    lengths = torch.tensor([len(episode) for episode in rewards])
    padded = torch.zeros(int(lengths.max()), len(rewards))
    for n, episode in enumerate(rewards):
        padded[: len(episode), n] = torch.tensor(episode)
    mask = torch.arange(len(padded))[:, None] < lengths
    zeros = torch.zeros(int(lengths.sum()))
    seeds: IntArray = np.arange(len(rewards) // group_size)
    return Rollout(
        observations=zeros[:, None],
        actions=zeros.long(),
        log_probs=zeros,
        action_masks=None,
        rewards=padded,
        mask=mask,
        terminated=torch.ones(len(rewards), dtype=torch.bool),
        truncated=torch.zeros(len(rewards), dtype=torch.bool),
        final_observations=torch.zeros(len(rewards), 1),
        starts=torch.ones(len(rewards), dtype=torch.bool),
        groups=torch.arange(len(rewards)) // group_size,
        members=torch.arange(len(rewards)) % group_size,
        seeds=seeds,
        group_size=group_size,
    )
