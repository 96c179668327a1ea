"""Returns, and the scale of advantages: pure functions of rewards and masks.

Shapes: T longest episode, P groups, G members, N = P·G episodes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from grpo_gym.types import Compared

SCALES = ("group", "batch", "none", "group_episodes", "batch_episodes", "batch_returns")
TRUNCATED = ("keep", "drop", "drop_bad")


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
    result = torch.where(mask, rewards.double(), 0.0)
    steps = result.unbind()  # views, made all at once: indexing one by one takes longer than the sums
    for earlier, later in zip(steps[-2::-1], steps[:0:-1], strict=True):
        earlier.add_(later, alpha=gamma)
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


def scale(advantages: Tensor, mask: Tensor, group_size: int, how: str, returns: Tensor | None = None) -> Tensor:
    """Divide advantages by a standard deviation over the group or the batch.

      Â ← Â / σ,  σ² = mean of Â² − (mean of Â)², over valid steps (no Bessel correction)

    Nothing is subtracted: an advantage keeps its sign. Where σ is 0, all Â are equal; equal *zeros* stay
    exactly 0 and anything else is divided by 1.

    "group" and "batch" count every step, so that long episodes count more. Of language models it is the episodes
    that are counted: "group_episodes" (GRPO, arXiv 2402.03300) and "batch_episodes" (Magistral, arXiv 2506.10910),
    where groups that tie do not count, take one advantage of each, its first; "batch_returns" (Lite-PPO,
    arXiv 2508.08221) the deviation of the returns themselves, what differs between groups included. "none": Dr. GRPO,
    arXiv 2503.20783.

    Args:
        advantages: `[T, N]`, zero where `mask` is False.
        mask: `[T, N]`.
        group_size: members of a group, G.
        how: one of `SCALES`.
        returns: of each episode, `[N]`, for "batch_returns".

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
    first, members = advantages[:1], mask.shape[1]
    if how == "group_episodes":
        return advantages / _standard_deviation(first, mask[:1], group_size)
    if how == "batch_episodes":
        teaches = (first != 0).view(-1, group_size).any(dim=1).repeat_interleave(group_size)[None, :]
        return advantages / _standard_deviation(first, teaches, members)
    if how == "batch_returns":
        assert returns is not None
        return advantages / _standard_deviation(returns[None, :], mask[:1], members).to(advantages.dtype)
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


def silence_narrow_groups(compared: Compared, group_size: int, min_std: float) -> Compared:
    """Set the advantages of groups to 0 whose returns deviate by less than `min_std`: they are dropped as if tied.

    Args:
        compared: of whole episodes, unless `min_std` is 0.
        group_size: members of a group, G.
        min_std: in reward units; microGRPO has 3.5e-4.
    """
    if min_std == 0:
        return compared
    wide = (group_spread(compared.returns[0], group_size) >= min_std).repeat_interleave(group_size)
    return compared._replace(advantages=torch.where(wide, compared.advantages, 0.0))


def may_be_learned(truncated: Tensor, advantages: Tensor, how: str) -> Tensor:
    """Tell which episodes stay in the loss: overlong filtering.

    An episode that a limit cut says less about its actions than one that ended. DAPO, Yu et al. 2025
    (arXiv 2503.14476), leaves them all out. One-sided, only those leave that would be punished: what was good before
    the cut stays good.

    Args:
        truncated: the episode was ended by a time limit, `[N]`.
        advantages: `[T, N]`.
        how: "keep", "drop" or "drop_bad".

    Returns:
        `[N]`, bool.

    Raises:
        ValueError: if `how` is not one of these.
    """
    if how == "keep":
        return torch.ones_like(truncated)
    if how == "drop":
        return ~truncated
    if how == "drop_bad":
        return ~truncated | (advantages.sum(dim=0) >= 0)
    raise ValueError(f"truncated_episodes={how!r} is not known; choose from {', '.join(TRUNCATED)}")


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
