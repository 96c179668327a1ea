"""Trajectories being written down, and finished ones taken apart and put together by groups."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from grpo_gym.groups import Jobs
from grpo_gym.types import Array, BoolArray, FloatArray, IntArray, Rollout, Step


class TrajectoryRecorder:
    """The transitions of one iteration, in the order in which they came."""

    def __init__(self) -> None:
        self.idle_steps = 0
        self._jobs: list[Jobs] = []
        self._starts: list[BoolArray] = []
        self._memories: list[FloatArray] = []
        self._n_trajectories = 0
        self._columns: dict[str, list[Array]] = {
            name: [] for name in ("row", "observations", "actions", "log_probs", "masks", "rewards")
        }
        self._ends: dict[str, list[Array]] = {name: [] for name in ("row", "terminated", "truncated", "observations")}

    def begin(self, jobs: Jobs, starts: bool, memories: FloatArray | None = None) -> IntArray:
        """Open a trajectory for each job, and return their rows.

        Args:
            jobs: k of them.
            starts: their episodes begin here.
            memories: what the policy remembers of each, `[k, h]`; None, or h = 0, if it has no memory.
        """
        rows = np.arange(self._n_trajectories, self._n_trajectories + len(jobs.seeds))
        self._n_trajectories += len(rows)
        self._jobs.append(jobs)
        self._starts.append(np.full(len(rows), starts))
        self._memories.append(np.zeros((len(rows), 0), np.float32) if memories is None else memories)
        return rows

    def add(
        self,
        rows: IntArray,
        observations: Array,
        actions: Array,
        log_probs: FloatArray,
        masks: BoolArray | None,
        step: Step,
    ) -> None:
        """Write down one step of the trajectories `rows`, `[k]`."""
        columns = self._columns
        columns["row"].append(rows)
        columns["observations"].append(observations)
        columns["actions"].append(actions)
        columns["log_probs"].append(log_probs)
        columns["rewards"].append(step.rewards)
        if masks is not None:
            columns["masks"].append(masks)
        self.idle_steps += step.n_steps - len(rows)

    def end(self, rows: IntArray, terminated: BoolArray, truncated: BoolArray, observations: Array) -> None:
        """Write down how the trajectories `rows`, `[k]`, ended, and what was seen last, `[k, ...]`."""
        ends = self._ends
        ends["row"].append(rows)
        ends["terminated"].append(terminated)
        ends["truncated"].append(truncated)
        ends["observations"].append(observations)

    def rollout(self, group_size: int) -> Rollout:
        """Sort what was written: by group, by member, each trajectory in the order of time.

        The order does not depend on which slot played what, or when.
        """
        numbers = np.concatenate([jobs.groups for jobs in self._jobs])
        members = np.concatenate([jobs.members for jobs in self._jobs])
        sequence = np.lexsort((members, numbers))
        rank = np.argsort(sequence)
        row = rank[np.concatenate(self._columns["row"])]
        order = np.argsort(row, kind="stable")  # steps were added in the order of time
        lengths = np.bincount(row, minlength=self._n_trajectories)
        mask = np.arange(lengths.max())[:, None] < lengths
        rewards = np.zeros(mask.T.shape, np.float32)
        rewards[mask.T] = self._sorted("rewards", order)
        ended = np.argsort(rank[np.concatenate(self._ends["row"])])
        seeds = np.concatenate([jobs.seeds for jobs in self._jobs])[sequence]
        _, first, groups = np.unique(numbers[sequence], return_index=True, return_inverse=True)
        masks = torch.from_numpy(self._sorted("masks", order)) if self._columns["masks"] else None
        memories = torch.from_numpy(np.concatenate(self._memories)[sequence])
        return Rollout(
            observations=torch.from_numpy(self._sorted("observations", order)),
            actions=torch.from_numpy(self._sorted("actions", order)),
            log_probs=torch.from_numpy(self._sorted("log_probs", order)),
            action_masks=masks,
            rewards=torch.from_numpy(rewards).T.contiguous(),  # step by step they are looked at
            mask=torch.from_numpy(mask),
            terminated=torch.from_numpy(np.concatenate(self._ends["terminated"])[ended]),
            truncated=torch.from_numpy(np.concatenate(self._ends["truncated"])[ended]),
            final_observations=torch.from_numpy(np.concatenate(self._ends["observations"])[ended]),
            starts=torch.from_numpy(np.concatenate(self._starts)[sequence]),
            groups=torch.from_numpy(groups),
            members=torch.from_numpy(members[sequence]),
            seeds=seeds[first],
            group_size=group_size,
            idle_steps=self.idle_steps,
            memories=memories if memories.shape[1] else None,
        )

    def _sorted(self, name: str, order: IntArray) -> Any:
        return np.concatenate(self._columns[name]).take(order, axis=0)


def concatenate(rollouts: list[Rollout]) -> Rollout:
    """Put the groups of several rollouts side by side.

    Args:
        rollouts: at least one, all with the same group size and the same kind of masks.
    """
    longest = max(len(r.rewards) for r in rollouts)

    def padded(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pad(x, (0, 0, 0, longest - len(x)))

    def joined(name: str) -> torch.Tensor:
        return torch.cat([getattr(r, name) for r in rollouts])

    seeds = np.concatenate([r.seeds for r in rollouts])
    first = np.cumsum([0, *(len(r.seeds) for r in rollouts)])
    return Rollout(
        observations=joined("observations"),
        actions=joined("actions"),
        log_probs=joined("log_probs"),
        action_masks=None if rollouts[0].action_masks is None else joined("action_masks"),
        rewards=torch.cat([padded(r.rewards) for r in rollouts], dim=1),
        mask=torch.cat([padded(r.mask) for r in rollouts], dim=1),
        terminated=joined("terminated"),
        truncated=joined("truncated"),
        final_observations=joined("final_observations"),
        starts=joined("starts"),
        groups=torch.cat([r.groups + int(n) for r, n in zip(rollouts, first, strict=False)]),
        members=joined("members"),
        seeds=seeds,
        group_size=rollouts[0].group_size,
        idle_steps=sum(r.idle_steps for r in rollouts),
        memories=None if rollouts[0].memories is None else joined("memories"),
    )


def select_groups(rollout: Rollout, kept: torch.Tensor) -> Rollout:
    """Keep the trajectories of some of the groups.

    Args:
        rollout: of P groups.
        kept: True for the groups to keep, `[P]`, at least one.
    """
    return select_episodes(rollout, kept[rollout.groups])


def select_episodes(rollout: Rollout, episodes: torch.Tensor) -> Rollout:
    """Keep some of the trajectories, and the groups that have any left.

    Args:
        rollout: of N trajectories.
        episodes: True for those to keep, `[N]`, at least one.
    """
    if bool(episodes.all()):
        return rollout
    kept = torch.zeros(len(rollout.seeds), dtype=torch.bool).index_fill_(0, rollout.groups[episodes], True)
    rows = rollout.flat(episodes[None, :].expand(rollout.mask.shape))
    return replace(
        rollout,
        observations=rollout.observations[rows],
        actions=rollout.actions[rows],
        log_probs=rollout.log_probs[rows],
        action_masks=None if rollout.action_masks is None else rollout.action_masks[rows],
        rewards=rollout.rewards[:, episodes],
        mask=rollout.mask[:, episodes],
        terminated=rollout.terminated[episodes],
        truncated=rollout.truncated[episodes],
        final_observations=rollout.final_observations[episodes],
        starts=rollout.starts[episodes],
        groups=(kept.cumsum(0) - 1)[rollout.groups[episodes]],
        members=rollout.members[episodes],
        seeds=rollout.seeds[kept.numpy()],
        memories=None if rollout.memories is None else rollout.memories[episodes],
    )
