"""The plan of one iteration: where each group starts, and which randomness each episode owns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from grpo_gym.types import Array, BoolArray, FloatArray, IntArray

FIRST_TRAINING_SEED = 2**24
"""Training never resets an environment to a smaller seed than this: those are yours for evaluation."""

LAST_TRAINING_SEED = 2**31 - 1
"""The largest seed that every environment accepts (some keep seeds in 32 bits)."""

NOISE_MARGIN = 2.0**-22
"""Uniform noise is kept this far from 0 and 1, where float32 sums and the normal quantile still behave."""


@dataclass(frozen=True)
class Plan:
    """Which episodes an iteration consists of, fixed before the first step is taken.

    Episodes that happen to end early never displace longer ones: the plan says which count, not the clock.

    Attributes:
        seeds: the reset seed of each group, `[P]`.
        group_size: members of each group, G.
        noise_seeds: the seed of each episode's own action noise, `[N]`; members of a group start alike and
            act differently, and an episode is the same whichever slot or process plays it.
    """

    seeds: IntArray
    group_size: int
    noise_seeds: IntArray

    @property
    def n_episodes(self) -> int:
        """Episodes N = P·G."""
        return len(self.seeds) * self.group_size

    @property
    def episode_seeds(self) -> IntArray:
        """The reset seed of each episode, `[N]`: every member of a group has its group's."""
        return np.repeat(self.seeds, self.group_size)


def plan(rng: np.random.Generator, n_groups: int, group_size: int) -> Plan:
    """Draw the plan of one iteration.

    Args:
        rng: the only source of randomness.
        n_groups: groups P.
        group_size: members of each group, G ≥ 2.

    Returns:
        A plan of P groups whose seeds differ, all of them at least `FIRST_TRAINING_SEED`.
    """
    drawn: Array = np.array([], dtype=np.int64)
    while len(drawn) < n_groups:  # repeated only when two groups drew the same seed
        drawn = np.unique(rng.integers(FIRST_TRAINING_SEED, LAST_TRAINING_SEED, size=n_groups))
    noise_seeds = rng.integers(0, np.iinfo(np.int64).max, size=n_groups * group_size)
    return Plan(rng.permutation(drawn), group_size, noise_seeds)


def uniform_noise(rng: np.random.Generator, shape: tuple[int, ...]) -> FloatArray:
    """Draw noise that every distribution can turn into actions: float32, in [2⁻²², 1 − 2⁻²²]."""
    return np.clip(rng.random(shape, dtype=np.float32), NOISE_MARGIN, 1.0 - NOISE_MARGIN)


def unequal_starts(first_observations: Array, group_size: int) -> BoolArray:
    """Tell which groups did not start alike although their members were reset to the same seed.

    Args:
        first_observations: the first observation of each episode, `[N, ...]`.
        group_size: members of each group, G.

    Returns:
        `[P]`, True where some member's first observation differs from the first member's.
    """
    grouped = first_observations.reshape(-1, group_size, *first_observations.shape[1:])
    differs = grouped != grouped[:, :1]
    return np.asarray(differs.reshape(len(grouped), -1).any(axis=1))
