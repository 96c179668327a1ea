"""What a fit of values needs to know of an iteration, kept for those that follow.

Shapes: N trajectories, the longest of T steps, M steps in all, d numbers of a state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from grpo_gym.types import FeatureMap, Rollout


@dataclass(frozen=True)
class Visited:
    """States that were visited, and what was earned there; flat arrays hold one trajectory after the other.

    Attributes:
        states: flattened observations, `[M, d]`.
        rewards: `[M]`.
        lengths: steps of each trajectory, `[N]`.
        terminated: its episode ended by itself, `[N]`.
        last_states: what was seen after its last step, `[N, d]`.
        seeds: the reset seed of its episode, `[N]`.
        members: which member of its group it is, `[N]`.
    """

    states: Tensor
    rewards: Tensor
    lengths: Tensor
    terminated: Tensor
    last_states: Tensor
    seeds: Tensor
    members: Tensor

    @staticmethod
    def of(rollout: Rollout, flatten: FeatureMap) -> Visited:
        """Take from a rollout what a fit needs of it."""
        return Visited(
            states=flatten(rollout.observations),
            rewards=rollout.flat(rollout.rewards),
            lengths=rollout.lengths,
            terminated=rollout.terminated,
            last_states=flatten(rollout.final_observations),
            seeds=torch.from_numpy(rollout.seeds)[rollout.groups],
            members=rollout.members,
        )

    @property
    def mask(self) -> Tensor:
        """True where a step was taken, `[T, N]`."""
        return torch.arange(int(self.lengths.max()))[:, None] < self.lengths

    @property
    def padded_rewards(self) -> Tensor:
        """The rewards, `[T, N]`, zero after a trajectory's end."""
        mask = self.mask.T
        return self.rewards.new_zeros(mask.shape).masked_scatter_(mask, self.rewards).T

    @property
    def owners(self) -> Tensor:
        """The trajectory of each step, `[M]`."""
        return torch.arange(len(self.lengths)).repeat_interleave(self.lengths)


def join(iterations: Sequence[Visited]) -> Visited:
    """Put iterations together, the oldest first: pieces of one episode become one trajectory.

    An episode is known by its reset seed and its member, and its pieces are in the order of time.

    Args:
        iterations: at least one.

    Returns:
        One trajectory for each episode, sorted by seed and member.
    """

    def joined(name: str) -> Tensor:
        return torch.cat([getattr(iteration, name) for iteration in iterations])

    keys = torch.stack([joined("seeds"), joined("members")], dim=1)
    found, episode = torch.unique(keys, dim=0, return_inverse=True)
    seeds, members = found.unbind(dim=1)
    lengths = joined("lengths")
    order = torch.argsort(episode.repeat_interleave(lengths), stable=True)
    zeros = torch.zeros_like(seeds)
    final = zeros.scatter_reduce(0, episode, torch.arange(len(episode)), "amax")
    return Visited(
        states=joined("states")[order],
        rewards=joined("rewards")[order],
        lengths=zeros.index_add(0, episode, lengths),
        terminated=joined("terminated")[final],
        last_states=joined("last_states")[final],
        seeds=seeds,
        members=members,
    )
