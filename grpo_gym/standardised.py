"""Comparisons that are standardised as they are made: by step rewards, or by time index.

Shapes: T longest episode, P groups, G members, N = P·G episodes; episode n is in group n // G.
"""

from __future__ import annotations

import torch
from torch import Tensor

from grpo_gym.advantages import all_alike, no_spread, returns_to_go
from grpo_gym.types import Compared, Rollout


def process_supervision(rewards: Tensor, mask: Tensor, group_size: int, gamma: float = 1.0) -> Compared:
    """Standardise every step reward over its group, and credit a step with what comes from it on.

      r̃ = (r − mean r) / std r  over all steps of the group,  Âₙ,ₜ = Σ_{k≥t} γ^{k−t} r̃ₙ,ₖ

    GRPO with process supervision, Shao et al. 2024 (arXiv 2402.03300), §4.1.3, there with γ = 1. A constant reward
    becomes 0: where each step survived earns the same, as in CartPole, nothing is learned.

    Args:
        rewards: `[T, N]`, in reward units.
        mask: True where a step was taken, `[T, N]`.
        group_size: members of a group, G.
        gamma: discount in [0, 1].

    Returns:
        Advantages `[T, N]` in deviations; exactly 0 in a group whose step rewards all tie. Values in reward units: the
        return of a mean reward at each step to come.
    """
    exact = torch.where(mask, rewards.double(), 0.0)
    infinity = torch.tensor(torch.inf, dtype=exact.dtype)
    count = _of_groups(mask.double().sum(dim=0), group_size)
    mean = _of_groups(exact.sum(dim=0), group_size) / count
    deviation = torch.where(mask, exact - mean, 0.0)
    sigma = (_of_groups(deviation.square().sum(dim=0), group_size) / count).sqrt()
    low = torch.where(mask, exact, infinity).amin(dim=0).view(-1, group_size).amin(dim=1)
    high = torch.where(mask, exact, -infinity).amax(dim=0).view(-1, group_size).amax(dim=1)
    tied = no_spread(low, high).repeat_interleave(group_size)
    standardised = torch.where(tied, 0.0, deviation / torch.where(tied, 1.0, sigma))
    values = returns_to_go(mean.expand(mask.shape), mask, gamma)
    return Compared(returns_to_go(standardised, mask, gamma), returns_to_go(exact, mask, gamma), values)


def _of_groups(x: Tensor, group_size: int) -> Tensor:
    """Sum over the members of each group, for each of them: `[N]` → `[N]`."""
    return x.view(-1, group_size).sum(dim=1).repeat_interleave(group_size)


def time_index(returns: Tensor, mask: Tensor) -> Compared:
    """Standardise returns-to-go over all episodes at the same step; those that ended count as 0.

      Âₙ,ₜ = (Gₙ,ₜ − meanₜ) / stdₜ,  meanₜ and stdₜ over all N episodes, G = 0 after the end

    GR2PO (arXiv 2609.19850). The zero tail makes survival itself good where rewards are positive, bad where they are
    negative. The mean holds Gₙ,ₜ itself, which shrinks the advantage by (N−1)/N.

    Args:
        returns: returns-to-go in reward units, `[T, N]`, zero where `mask` is False.
        mask: `[T, N]`.

    Returns:
        Advantages `[T, N]` in deviations; exactly 0 at a step at which all tie, and where no step was taken. Values in
        reward units: the mean at the step.
    """
    mean = returns.mean(dim=1, keepdim=True)
    sigma = returns.std(dim=1, correction=0, keepdim=True)
    tied = no_spread(returns.amin(dim=1, keepdim=True), returns.amax(dim=1, keepdim=True))
    advantages = torch.where(mask & ~tied, (returns - mean) / torch.where(tied, 1.0, sigma), 0.0)
    return Compared(advantages, returns, torch.where(mask, mean, 0.0))


def every_step(returns: Tensor, rollout: Rollout) -> Tensor:
    """Compare each return-to-go with the mean of those of all steps of the iteration, itself included.

      Âₙ,ₜ = Gₙ,ₜ − mean over all valid steps

    REINFORCE++, Hu 2025 (arXiv 2501.03262), before its division by the deviation over the batch.

    Args:
        returns: returns-to-go in reward units, `[T, N]`.
        rollout: what was earned.

    Returns:
        `[T, N]`; exactly 0 if all steps tie, where all trajectories are equally long and no reward differs from any
        other, and where no step was taken.
    """
    valid = returns[rollout.mask]
    if all_alike(rollout.rewards, rollout.mask) or bool(no_spread(valid.amin(), valid.amax())):
        return torch.zeros_like(returns)
    return torch.where(rollout.mask, returns - valid.mean(), 0.0)
