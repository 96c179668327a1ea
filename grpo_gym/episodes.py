"""Episodes being written down, and finished ones taken apart and put together by groups."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from grpo_gym.groups import Plan, uniform_noise
from grpo_gym.types import Array, BoolArray, FloatArray, IntArray, Rollout, Step

NOISE_BLOCK = 128
"""Steps for which an episode draws its action noise at a time."""


class EpisodeRecorder:
    """Transitions in the order in which they came, and each episode's running totals."""

    def __init__(self, plan: Plan, noise_size: int):
        n = plan.n_episodes
        self.lengths = np.zeros(n, np.int64)
        self.returns = np.zeros(n)
        self.truncated = np.zeros(n, np.bool_)
        self._final: dict[int, Array] = {}
        self._streams = [np.random.Generator(np.random.Philox(key=seed)) for seed in plan.noise_seeds.tolist()]
        self._noise = np.empty((n, NOISE_BLOCK, noise_size), np.float32)
        self._columns: dict[str, list[Array]] = {
            name: [] for name in ("row", "t", "observations", "actions", "log_probs", "masks", "rewards")
        }

    def noise(self, rows: IntArray) -> FloatArray:
        """Return the noise for the next action of each episode, `[k, noise_size]`."""
        at = self.lengths[rows] % NOISE_BLOCK
        for row in rows[at == 0].tolist():
            self._noise[row] = uniform_noise(self._streams[row], self._noise.shape[1:])
        return self._noise[rows, at]

    def add(
        self,
        rows: IntArray,
        observations: Array,
        actions: Array,
        log_probs: FloatArray,
        masks: BoolArray | None,
        step: Step,
    ) -> None:
        """Write down one step of the episodes `rows`, `[k]`."""
        columns = self._columns
        columns["row"].append(rows)
        columns["t"].append(self.lengths[rows])
        columns["observations"].append(observations)
        columns["actions"].append(actions)
        columns["log_probs"].append(log_probs)
        columns["rewards"].append(step.rewards)
        if masks is not None:
            columns["masks"].append(masks)
        self.lengths[rows] += 1
        self.returns[rows] += step.rewards

    def end(self, rows: IntArray, terminated: BoolArray, observations: Array) -> None:
        """Write down how the episodes `rows`, `[k]`, ended, and what was seen last, `[k, ...]`."""
        self.truncated[rows] = ~terminated
        self._final.update(zip(rows.tolist(), observations.copy(), strict=True))

    def rollout(self, plan: Plan, idle_steps: int) -> Rollout:
        """Sort what was written into whole episodes."""
        row, t = self._joined("row"), self._joined("t")
        order = np.lexsort((t, row))  # episode after episode, each in the order of time
        rewards = np.zeros((int(self.lengths.max()), plan.n_episodes), np.float32)
        rewards[t, row] = self._joined("rewards")
        mask = np.arange(len(rewards))[:, None] < self.lengths[None, :]
        masks = torch.from_numpy(self._joined("masks")[order]) if self._columns["masks"] else None
        return Rollout(
            observations=torch.from_numpy(self._joined("observations")[order]),
            actions=torch.from_numpy(self._joined("actions")[order]),
            log_probs=torch.from_numpy(self._joined("log_probs")[order]),
            action_masks=masks,
            rewards=torch.from_numpy(rewards),
            mask=torch.from_numpy(mask),
            terminated=torch.from_numpy(~self.truncated),
            truncated=torch.from_numpy(self.truncated),
            final_observations=torch.from_numpy(np.stack([self._final[row] for row in range(plan.n_episodes)])),
            seeds=plan.seeds,
            group_size=plan.group_size,
            idle_steps=idle_steps,
        )

    def _joined(self, name: str) -> Any:
        return np.concatenate(self._columns[name])


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
        seeds=np.concatenate([r.seeds for r in rollouts]),
        group_size=rollouts[0].group_size,
        idle_steps=sum(r.idle_steps for r in rollouts),
    )


def select_groups(rollout: Rollout, kept: torch.Tensor) -> Rollout:
    """Keep some of the groups.

    Args:
        rollout: N = P·G episodes.
        kept: True for the groups to keep, `[P]`, at least one.
    """
    episodes = kept.repeat_interleave(rollout.group_size)
    rows = rollout.flat(episodes[None, :].expand(rollout.mask.shape))
    return Rollout(
        observations=rollout.observations[rows],
        actions=rollout.actions[rows],
        log_probs=rollout.log_probs[rows],
        action_masks=None if rollout.action_masks is None else rollout.action_masks[rows],
        rewards=rollout.rewards[:, episodes],
        mask=rollout.mask[:, episodes],
        terminated=rollout.terminated[episodes],
        truncated=rollout.truncated[episodes],
        final_observations=rollout.final_observations[episodes],
        seeds=rollout.seeds[kept.numpy()],
        group_size=rollout.group_size,
        idle_steps=rollout.idle_steps,
    )
