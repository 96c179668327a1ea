"""What an episode or a step is compared with. A baseline is a function `Rollout -> advantages`.

Shapes: T longest episode, P groups, G members, N = P·G episodes; episode n is in group n // G.
Every baseline here leaves an episode's own actions out of what it is compared with, or says that it
does not, and returns exactly 0 where there is nothing to be compared with.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from grpo_gym.advantages import returns_to_go
from grpo_gym.types import Rollout

Baseline = Callable[[Rollout, float], Tensor]
"""`(rollout, gamma) -> advantages [T, N]`, not scaled, zero where no step was taken."""


def group_mean(returns: Tensor) -> Tensor:
    """Compare each episode's return with the mean of its group, itself included.

      Âᵢ = Rᵢ − mean_j Rⱼ

    See GRPO, Shao et al. 2024 (arXiv 2402.03300), and without a scale Dr. GRPO, Liu et al. 2025
    (arXiv 2503.20783). The mean contains Rᵢ itself, which shrinks the advantage by (G−1)/G.

    Args:
        returns: episode returns in reward units, shape `[P, G]`, G ≥ 2.

    Returns:
        Advantages, shape `[P, G]`; exactly 0 in a group whose members tie.

    Raises:
        ValueError: if G < 2: one episode has nothing to be compared with.
    """
    _check_group(returns)
    advantages = returns - returns.mean(dim=1, keepdim=True)
    return torch.where(_tied(returns), torch.zeros_like(advantages), advantages)


def leave_one_out(returns: Tensor) -> Tensor:
    """Compare each episode's return with the mean of the *other* members of its group.

      Âᵢ = Rᵢ − mean_{j≠i} Rⱼ = G/(G−1) · (Rᵢ − mean R)

    Unbiased, where the plain group mean shrinks the advantage by (G−1)/G.
    See RLOO, Ahmadian et al. 2024 (arXiv 2402.14740).

    Args:
        returns: episode returns in reward units, shape `[P, G]`, G ≥ 2.

    Returns:
        Advantages, shape `[P, G]`; exactly 0 in a group whose members tie.

    Raises:
        ValueError: if G < 2: one episode has nothing to be compared with.
    """
    group_size = returns.shape[1]
    return group_mean(returns) * (group_size / (group_size - 1))


def live_peers(values: Tensor, mask: Tensor, group_size: int) -> Tensor:
    """Compare each step with the other members of its group that still live at the same step.

      Âₙ,ₜ = Gₙ,ₜ − mean of Gⱼ,ₜ over j ≠ n in the group with mask[t, j]

    A time-dependent, input-dependent baseline (Mao et al. 2018, arXiv 1807.02264) with the group of GRPO.
    A lone survivor has no peer: it is compared with all other episodes of the batch that live at t; if
    there is none either, its advantage is 0, never its whole return.

    Args:
        values: what is compared, `[T, N]`, usually returns-to-go in reward units.
        mask: `[T, N]`.
        group_size: members of a group, G ≥ 2; G = N compares with the whole batch.

    Returns:
        `[T, N]`; exactly 0 where all compared members tie, and where `mask` is False.

    Raises:
        ValueError: if G < 2.
    """
    n_steps, n_episodes = values.shape
    grouped = torch.where(mask, values, 0.0).view(n_steps, -1, group_size)
    _check_group(grouped[0])
    live = mask.view(n_steps, -1, group_size)
    advantages = _others_at_t(grouped, live)
    lone = live & (live.sum(dim=2, keepdim=True) == 1)
    if group_size < n_episodes and bool(lone.any()):
        whole = _others_at_t(grouped.reshape(n_steps, 1, -1), live.reshape(n_steps, 1, -1))
        advantages = torch.where(lone, whole.view_as(advantages), advantages)
    return advantages.view(n_steps, n_episodes)


def _others_at_t(values: Tensor, live: Tensor) -> Tensor:
    """`values[T, P, G]` minus the mean of the other live members; 0 for a lone one or a tie."""
    count = live.sum(dim=2, keepdim=True)
    others = (values.sum(dim=2, keepdim=True) - values) / (count - 1).clamp(min=1)
    infinity = torch.inf
    low = torch.where(live, values, infinity).amin(dim=2, keepdim=True)
    high = torch.where(live, values, -infinity).amax(dim=2, keepdim=True)
    return torch.where(live & (count > 1) & (low < high), values - others, 0.0)


def _check_group(returns: Tensor) -> None:
    if returns.shape[1] < 2:
        raise ValueError(
            f"group_size={returns.shape[1]}: a group needs at least 2 members, "
            "one episode has nothing to be compared with"
        )


def _tied(returns: Tensor) -> Tensor:
    return (returns == returns[:, :1]).all(dim=1, keepdim=True)


def _per_episode(rollout: Rollout, gamma: float, compare: Callable[[Tensor], Tensor]) -> Tensor:
    """Spread one advantage per episode over all its steps."""
    returns = returns_to_go(rollout.rewards, rollout.mask, gamma)[0]
    advantages = compare(returns.view(-1, rollout.group_size)).reshape(-1)
    return torch.where(rollout.mask, advantages[None, :], 0.0)


def _outcome(rollout: Rollout, gamma: float) -> Tensor:
    return _per_episode(rollout, gamma, group_mean)


def _outcome_leave_one_out(rollout: Rollout, gamma: float) -> Tensor:
    return _per_episode(rollout, gamma, leave_one_out)


def _live_peers(rollout: Rollout, gamma: float) -> Tensor:
    return live_peers(returns_to_go(rollout.rewards, rollout.mask, gamma), rollout.mask, rollout.group_size)


BASELINES: dict[str, Baseline] = {
    "outcome": _outcome,
    "leave_one_out": _outcome_leave_one_out,
    "live_peers": _live_peers,
}
"""Baselines by the name that `GRPO(baseline=...)` takes."""
