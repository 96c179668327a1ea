"""The tasks of the benchmark: which environment, how many env steps, how many seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import gymnasium

EVALUATION_SEEDS = tuple(10_000_019 + i for i in range(20))
"""Env seeds of the 20 scored episodes: the same for every algorithm, far from every training seed."""


@dataclass(frozen=True)
class Task:
    """One environment with its budget.

    Attributes:
        name: short name with version, as used on the command line and in paths.
        env_id: Gymnasium id with version; `grpo_envs:` in front imports the package that registers it.
        steps: training budget in env steps, every step of every copy counted.
        n_seeds: training seeds reported, `0 … n_seeds − 1`: 10 where a run takes the slowest peer less than
            a minute, 5 where it takes less than fifteen. Settings are tuned on other seeds.
        random_score: mean score of uniformly random actions, over 100 episodes from seed 10_000_019 on.
        threshold: score at which the task counts as solved; the report says when it was first reached. The
            two make the scale 0 … 1 on which tasks are put together.
        env_kwargs: arguments of `gymnasium.make`.
        n_evaluations: evaluations along the run, at equal distances in env steps, the final one included.
        masked: whether the environment says which actions are legal, in `info["action_mask"]`.
    """

    name: str
    env_id: str
    steps: int
    n_seeds: int
    random_score: float
    threshold: float
    env_kwargs: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    n_evaluations: int = 20
    masked: bool = False

    @property
    def seeds(self) -> tuple[int, ...]:
        """Return the training seeds that are reported."""
        return tuple(range(self.n_seeds))

    def make_env(self) -> gymnasium.Env[Any, Any]:
        """Return one new, unwrapped-by-us copy of the environment, its time limit included."""
        return gymnasium.make(self.env_id, **dict(self.env_kwargs))


def _public(name: str, steps: int, n_seeds: int, random_score: float, threshold: float) -> Task:
    """Return a task of Gymnasium's own, named as its id."""
    return Task(name, name, steps, n_seeds, random_score, threshold)


_ALL = (
    _public("CartPole-v1", 100_000, 10, random_score=22.6, threshold=475),
    _public("Acrobot-v1", 200_000, 10, random_score=-499, threshold=-90),
    _public("MountainCar-v0", 500_000, 5, random_score=-200, threshold=-115),
    _public("MountainCarContinuous-v0", 100_000, 5, random_score=-32.2, threshold=90),
    _public("Pendulum-v1", 100_000, 10, random_score=-1209, threshold=-200),
    _public("LunarLander-v3", 500_000, 5, random_score=-184, threshold=200),
    _public("BipedalWalker-v3", 1_000_000, 5, random_score=-100, threshold=250),
    _public("HalfCheetah-v5", 500_000, 5, random_score=-294, threshold=4_500),
    _public("Hopper-v5", 500_000, 5, random_score=15.7, threshold=2_400),
    _public("Walker2d-v5", 500_000, 5, random_score=0.99, threshold=2_000),
    # random_score is exact; the placement, which leans to the top left, is that of the GRPO code compared with
    Task(
        "Battleship-v0",
        "grpo_envs:grpo/Battleship-v0",
        steps=1_000_000,
        n_seeds=5,
        random_score=0.153,
        threshold=0.70,
        env_kwargs=MappingProxyType({"placement": "top_left"}),
        masked=True,
    ),
    # five minutes of one core for us; the exact posterior's greedy hunter has 0.716
    Task(
        "Battleship-5M",
        "grpo_envs:grpo/Battleship-v0",
        steps=5_000_000,
        n_seeds=5,
        random_score=0.153,
        threshold=0.70,
        env_kwargs=MappingProxyType({"placement": "top_left"}),
        masked=True,
    ),
    # the best arm of ten, known from the start, earns 90.9 a game on average
    Task("Bandit-v0", "grpo_envs:grpo/Bandit-v0", 100_000, 10, random_score=51, threshold=80),
    # the best arm in every regime, known from the start, earns 54 a game
    Task("DynamicBandit-v0", "grpo_envs:grpo/DynamicBandit-v0", 100_000, 10, random_score=34.8, threshold=50),
)

TASKS: Mapping[str, Task] = MappingProxyType({task.name: task for task in _ALL})
"""Every task by its name, in the order of the report."""


def find(name: str) -> Task:
    """Return the task of that name.

    Raises:
        ValueError: if there is none; the message lists the names there are.
    """
    if name not in TASKS:
        raise ValueError(f"there is no task {name!r}: choose from {', '.join(TASKS)}")
    return TASKS[name]
