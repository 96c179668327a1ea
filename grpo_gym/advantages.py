"""Returns, and the scale of advantages: pure functions of rewards and masks.

Shapes: T longest episode, P groups, G members, N = P·G episodes.
"""

from __future__ import annotations

import torch
from torch import Tensor

SCALES = ("group", "batch", "none")


def returns_to_go(rewards: Tensor, mask: Tensor, gamma: float) -> Tensor:
    """Discounted sum of the rewards from each step to the end of its episode.

      Gₜ = rₜ + γ·Gₜ₊₁,  G after the last step = 0

    A time limit is treated as a real end: what would have come after it is not guessed. Summed in float64, so
    that episodes with the same rewards in another order tie.

    Args:
        rewards: `[T, N]`, in reward units.
        mask: True where a step was taken, `[T, N]`.
        gamma: discount in [0, 1].

    Returns:
        `[T, N]`, float64, zero where `mask` is False.
    """
    kept = torch.where(mask, rewards.double(), 0.0)
    result = torch.empty_like(kept)
    running = torch.zeros_like(kept[0])
    for t in range(len(kept) - 1, -1, -1):
        running = kept[t] + gamma * running
        result[t] = running
    return torch.where(mask, result, 0.0)


def generalized_advantages(
    rewards: Tensor, mask: Tensor, values: Tensor, tail: Tensor, gamma: float, gae_lambda: float
) -> Tensor:
    """Compare λ-returns with an estimate of the state's value.

      δₜ = rₜ + γ Vₜ₊₁ − Vₜ,  Âₜ = δₜ + γλ Âₜ₊₁

    See Schulman et al. 2015 (arXiv 1506.02438).

    Args:
        rewards: `[T, N]`.
        mask: True where a step was taken, `[T, N]`.
        values: V of each step's state, `[T, N]`.
        tail: V of what was seen after the last step, `[N]`; 0 where the episode terminated.
        gamma: discount in [0, 1].
        gae_lambda: λ in [0, 1]; 1 compares whole returns, 0 single steps.

    Returns:
        `[T, N]`, zero where `mask` is False.
    """
    last = mask & ~torch.cat([mask[1:], torch.zeros_like(mask[:1])])
    following = torch.cat([values[1:], torch.zeros_like(values[:1])])
    deltas = rewards + gamma * torch.where(last, tail[None, :], following) - values
    return returns_to_go(deltas, mask, gamma * gae_lambda)


def scale(advantages: Tensor, mask: Tensor, group_size: int, how: str) -> Tensor:
    """Divide advantages by their standard deviation over the group or the batch.

      Â ← Â / σ,  σ² = mean of Â² − (mean of Â)², over valid steps (no Bessel correction)

    Nothing is subtracted: an advantage keeps its sign. Where σ is 0, all Â are equal; equal *zeros* stay
    exactly 0 and anything else is divided by 1.

    Group: GRPO, arXiv 2402.03300. Batch: Lite-PPO, arXiv 2508.08221. None: Dr. GRPO, arXiv 2503.20783.

    Args:
        advantages: `[T, N]`, zero where `mask` is False.
        mask: `[T, N]`.
        group_size: members of a group, G.
        how: "group", "batch" or "none".

    Returns:
        `[T, N]`.

    Raises:
        ValueError: if `how` is not one of these.
    """
    if how == "none":
        return advantages
    if how == "batch":
        return advantages / _standard_deviation(advantages, mask, group_size=mask.shape[1])
    if how == "group":
        return advantages / _standard_deviation(advantages, mask, group_size)
    raise ValueError(f"scale_rewards={how!r} is not known; choose from {', '.join(SCALES)}")


def _standard_deviation(x: Tensor, mask: Tensor, group_size: int) -> Tensor:
    """σ over the valid steps of each group, repeated to `[1, N]`; 1 where there is no spread."""
    count = _group_sum(mask.to(x.dtype), group_size)
    mean = _group_sum(torch.where(mask, x, 0.0), group_size) / count.clamp(min=1)
    deviation = torch.where(mask, x - mean.repeat_interleave(group_size), 0.0)
    variance = _group_sum(deviation.square(), group_size) / count.clamp(min=1)
    # float32 rounding of equal values leaves a σ of about 1e-7 of their size, which must not be divided by
    rounding = 1e-6 * mean.abs()
    sigma = variance.sqrt()
    sigma = torch.where(sigma > rounding, sigma, torch.ones_like(sigma))
    return sigma.repeat_interleave(group_size)[None, :]


def _group_sum(x: Tensor, group_size: int) -> Tensor:
    """`[T, N]` → `[P]`."""
    return x.sum(dim=0).view(-1, group_size).sum(dim=1)


def no_spread(low: Tensor, high: Tensor) -> Tensor:
    """Tell where nothing but the rounding of sums lies between the two: the same rewards in another order tie."""
    rounding = 1e-12 if low.dtype == torch.float64 else 1e-6
    return high - low <= rounding * torch.maximum(low.abs(), high.abs())


def all_alike(rewards: Tensor, mask: Tensor) -> bool:
    """Tell whether all trajectories are equally long and no reward differs from any other: nothing can be learned.

    Args:
        rewards: `[T, N]`.
        mask: True where a step was taken, `[T, N]`.
    """
    return bool(mask.all()) and bool((rewards == rewards[0, 0]).all())


def group_spread(returns: Tensor, group_size: int) -> Tensor:
    """Standard deviation of the episode returns within each group, without Bessel correction.

    Args:
        returns: `[N]`.
        group_size: members of a group, G.

    Returns:
        `[P]`, in reward units; 0 where all members tie.
    """
    grouped = returns.double().view(-1, group_size)
    tied = grouped.amax(dim=1) == grouped.amin(dim=1)
    return torch.where(tied, 0.0, grouped.std(dim=1, correction=0))


def groups_with_spread(advantages: Tensor, groups: Tensor) -> Tensor:
    """Tell which groups teach anything: those in which some advantage is not 0.

    Args:
        advantages: `[T, N]`, exactly 0 where all that is compared ties.
        groups: the group of each trajectory, `[N]`, in 0…P−1.

    Returns:
        `[P]`, bool.
    """
    teaches = (advantages != 0).any(dim=0)
    n_groups = int(groups.max()) + 1
    return torch.zeros(n_groups, dtype=torch.bool).index_put_((groups[teaches],), torch.tensor(True))
