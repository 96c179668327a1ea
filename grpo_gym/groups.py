"""The plan of an iteration: where each group starts, and which randomness each episode owns."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from grpo_gym.noise import GOLDEN, mix
from grpo_gym.types import Array, BoolArray, FloatArray, IntArray

FIRST_TRAINING_SEED = 2**24
"""Training never resets an environment to a smaller seed than this: those are yours for evaluation."""

LAST_TRAINING_SEED = 2**31 - 1
"""The largest seed that every environment accepts (some keep seeds in 32 bits)."""

LARGEST_NOISE_SEED = np.iinfo(np.int64).max
"""Seeds of action noise are starts of a generator with 2⁶⁴ states: any number will do."""


@dataclass(frozen=True)
class Jobs:
    """Episodes to be begun, one for each of k slots.

    Attributes:
        groups: number of the group, `[k]`.
        members: which member of the group, `[k]`, in 0…G−1.
        seeds: the reset seed, `[k]`.
        noise_seeds: the seed of the episode's own action noise, `[k]`; members of a group start alike and act
            differently, and an episode is the same whichever slot or process plays it.
    """

    groups: IntArray
    members: IntArray
    seeds: IntArray
    noise_seeds: IntArray

    def select(self, index: IntArray | slice) -> Jobs:
        """Return some of the jobs."""
        return Jobs(self.groups[index], self.members[index], self.seeds[index], self.noise_seeds[index])


@dataclass(frozen=True)
class Plan:
    """Which episodes an iteration consists of, fixed before the first step is taken.

    Episodes that happen to end early never displace longer ones: the plan says which count, not the clock.

    Attributes:
        seeds: the reset seed of each group, `[P]`.
        group_size: members of each group, G.
        noise_seeds: see `Jobs`, `[N]`.
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

    def queue(self) -> PlanQueue:
        """Return the plan's episodes as a queue, to be played once."""
        return PlanQueue(self)


@dataclass(frozen=True)
class InPlay:
    """Episodes that were cut and will go on: what it takes to bring environments back to where they stand.

    Attributes:
        slots: where they are played, `[k]`.
        jobs: what they are, k of them.
        lengths: steps that each has behind it, `[k]`.
        actions: sent to the environment, one episode after the other, `[Σ lengths, ...]`.
        observations: seen last, `[k, ...]`: the proof that a replay came to the same place.
        memories: what the policy remembers of each, `[k, h]`; the weights that made it may be gone.
    """

    slots: IntArray
    jobs: Jobs
    lengths: IntArray
    actions: Array
    observations: Array
    memories: FloatArray

    @staticmethod
    def none() -> InPlay:
        """Return no episodes."""
        empty = np.zeros(0, np.int64)
        return InPlay(empty, Jobs(empty, empty, empty, empty), empty, empty, empty, np.zeros((0, 0), np.float32))

    def split(self, sizes: IntArray) -> list[InPlay]:
        """Part the slots into ranges of these sizes, numbered from 0 in each part."""
        owner = np.repeat(np.arange(len(self.slots)), self.lengths)
        parts = []
        for first, size in zip(np.cumsum(sizes) - sizes, sizes, strict=True):
            here = ((self.slots >= first) & (self.slots < first + size)).nonzero()[0]
            actions = self.actions[np.isin(owner, here)]
            jobs, lengths = self.jobs.select(here), self.lengths[here]
            slots = self.slots[here] - first
            parts.append(InPlay(slots, jobs, lengths, actions, self.observations[here], self.memories[here]))
        return parts

    @staticmethod
    def join(parts: Sequence[InPlay], sizes: IntArray) -> InPlay:
        """Undo `split`."""
        numbered = [
            (part, first) for part, first in zip(parts, np.cumsum(sizes) - sizes, strict=True) if len(part.slots)
        ]
        if not numbered:
            return InPlay.none()
        names = ("groups", "members", "seeds", "noise_seeds")
        return InPlay(
            np.concatenate([part.slots + first for part, first in numbered]),
            Jobs(*(np.concatenate([getattr(part.jobs, name) for part, _ in numbered]) for name in names)),
            np.concatenate([part.lengths for part, _ in numbered]),
            np.concatenate([part.actions for part, _ in numbered]),
            np.concatenate([part.observations for part, _ in numbered]),
            np.concatenate([part.memories for part, _ in numbered]),
        )


class Queue(Protocol):
    """What tells the slots which episode to play next.

    Attributes:
        group_size: members of a group, G.
    """

    group_size: int

    def take(self, slots: IntArray) -> Jobs:
        """Return the next episodes for the first of these slots; none for the others."""
        ...


class PlanQueue:
    """The episodes of a plan in their order: each goes to the next slot that is free."""

    def __init__(self, plan: Plan):
        self.group_size = plan.group_size
        number = np.arange(plan.n_episodes)
        self._jobs = Jobs(number // plan.group_size, number % plan.group_size, plan.episode_seeds, plan.noise_seeds)
        self._next = 0

    @property
    def n_episodes(self) -> int:
        """Episodes of the plan, or of this part of it."""
        return len(self._jobs.seeds)

    def split(self, n_parts: int) -> list[PlanQueue]:
        """Deal the groups into queues of nearly equal length, at most `n_parts`, in their order."""
        groups = np.unique(self._jobs.groups)
        parts = []
        for chosen in np.array_split(groups, min(n_parts, len(groups))):
            part = copy.copy(self)
            part._jobs = self._jobs.select(np.isin(self._jobs.groups, chosen).nonzero()[0])
            parts.append(part)
        return parts

    def take(self, slots: IntArray) -> Jobs:
        """See `Queue.take`."""
        taken = self._jobs.select(slice(self._next, self._next + len(slots)))
        self._next += len(taken.seeds)
        return taken


class EndlessQueue:
    """Episodes without end, for rollouts that are cut before their episodes end.

    Slot s is member `s % G` of the slots' group `s // G`. The k-th episodes of such a group start from one seed,
    whenever each member comes to it: seeds are a function of (key, s // G, k), and so do not depend on the clock.

    Args:
        key: the only source of randomness, ≥ 0.
        n_groups: groups of slots, P.
        group_size: members of each, G.

    Attributes:
        n_begun: episodes that each slot has begun, `[P·G]`; with `key`, all there is to be saved.
    """

    def __init__(self, key: int, n_groups: int, group_size: int):
        self.key, self.group_size = key, group_size
        self.n_begun = np.zeros(n_groups * group_size, np.int64)
        self._first = 0

    def split(self, sizes: IntArray) -> list[EndlessQueue]:
        """Part the slots into ranges of these sizes, each a multiple of G, numbered from 0 in each part."""
        parts = []
        for begun, first in zip(np.split(self.n_begun, np.cumsum(sizes)[:-1]), np.cumsum(sizes) - sizes, strict=True):
            part = copy.copy(self)
            part.n_begun, part._first = begun.copy(), int(first)
            parts.append(part)
        return parts

    def take(self, slots: IntArray) -> Jobs:
        """See `Queue.take`; there is always a next one."""
        slot_groups, members = np.divmod(slots + self._first, self.group_size)
        k = self.n_begun[slots]
        self.n_begun[slots] += 1
        groups = (slot_groups << 32) + k
        common = mix(np.uint64(self.key) + groups.astype(np.uint64) * GOLDEN)
        seeds = FIRST_TRAINING_SEED + common % np.uint64(LAST_TRAINING_SEED - FIRST_TRAINING_SEED)
        own = mix(common + (1 + members).astype(np.uint64) * GOLDEN) >> np.uint64(1)
        return Jobs(groups, members, seeds.astype(np.int64), own.astype(np.int64))


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
    noise_seeds = rng.integers(0, LARGEST_NOISE_SEED, size=n_groups * group_size)
    return Plan(rng.permutation(drawn), group_size, noise_seeds)


def unequal_starts(first_observations: Array, groups: IntArray) -> BoolArray:
    """Tell which groups did not start alike although their members were reset to the same seed.

    Args:
        first_observations: the first observation of each episode, `[N, ...]`.
        groups: the group of each episode, `[N]`, in 0…P−1.

    Returns:
        `[P]`, True where some member's first observation differs from the first member's.
    """
    present, first, index = np.unique(groups, return_index=True, return_inverse=True)
    differs = first_observations != first_observations[first][index]
    return np.bincount(index, differs.reshape(len(groups), -1).any(axis=1), len(present)) > 0
