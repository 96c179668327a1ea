"""What an episode or a step is compared with. A baseline is a function `(Rollout, Comparison) -> Compared`.

Shapes: T longest episode, P groups, G members, N = P·G episodes; episode n is in group n // G.
Every baseline here leaves an episode's own actions out of what it is compared with, or says that it
does not, and returns exactly 0 where there is nothing to be compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from grpo_gym.advantages import no_spread, returns_to_go
from grpo_gym.anchors import anchor_states, bins
from grpo_gym.soft_groups import soft_groups
from grpo_gym.standardised import every_step, process_supervision, time_index
from grpo_gym.types import Compared, FeatureMap, Rollout
from grpo_gym.visited import Visited


@dataclass(frozen=True)
class Comparison:
    """What a baseline needs to know besides the episodes.

    Attributes:
        gamma: discount in [0, 1].
        gae_lambda: λ in [0, 1], for baselines that estimate the value of a state.
        flatten: observations `[m, ...]` → `[m, d]`, the same for ever.
        earlier: iterations that went before, the oldest first, for baselines that estimate the value of a state.
    """

    gamma: float
    gae_lambda: float = 1.0
    flatten: FeatureMap = lambda observations: observations.flatten(1).float()
    earlier: Sequence[Visited] = ()


Baseline = Callable[[Rollout, Comparison], Compared]
"""What a step is compared with; see `Compared` for what comes of it."""


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

    All episodes of an iteration as one group, whatever their seed, are the one scalar that earlier comparisons with
    PPO gave to critic-free learners: the baseline "scalar".

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


def shrunk_peers(values: Tensor, mask: Tensor, group_size: int) -> Tensor:
    """Compare with the live peers of the group, drawn toward the whole batch where those say little.

      b = w·(mean of the k live peers at t) + (1 − w)·(mean of the others in the batch at t)
      w = k / (k + σ²_within / σ²_between)

    The best linear mixture of the two if starts differ by σ_between and members of a group by σ_within around
    it; both are estimated once for the iteration, around the batch's mean at each t (one-way random effects).
    Where starts do not matter, w goes to 0 and no small-group noise is added; where they are all that matters,
    w goes to 1. See James–Stein shrinkage; for GRPO: arXiv 2511.03710.

    The judged return is among those that w is estimated from, once in all of them: with 12 episodes of at most
    three steps that shrinks the policy gradient by 1.5 %.

    Args:
        values: see `live_peers`.
        mask: `[T, N]`.
        group_size: members of a group, G ≥ 2.

    Returns:
        `[T, N]`; exactly 0 where all that live at t tie, and where `mask` is False.
    """
    n_steps, n_episodes = values.shape
    shape = (n_steps, n_episodes // group_size, group_size)
    group, batch = live_peers(values, mask, group_size), live_peers(values, mask, n_episodes)
    live = mask.view(shape)
    count = live.sum(dim=2)
    mean = torch.where(mask, values, 0.0).sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True).clamp(min=1)
    around = torch.where(mask, values - mean, 0.0).view(shape)
    centre = around.sum(dim=2) / count.clamp(min=1)
    n_free = (count - 1).clamp(min=0).sum().clamp(min=1)
    within = torch.where(live, around - centre[:, :, None], 0.0).square().sum() / n_free
    several = count > 1
    excess = torch.where(several, centre.square() - within / count.clamp(min=1), 0.0)
    between = (excess.sum() / several.sum().clamp(min=1)).clamp(min=0)
    peers = (count[:, :, None] - 1).clamp(min=0)
    weight = peers * between / (peers * between + within).clamp(min=1e-12)
    weight = weight.expand(shape).reshape(n_steps, n_episodes)
    return weight * group + (1 - weight) * batch


def _others_at_t(values: Tensor, live: Tensor) -> Tensor:
    """`values[T, P, G]` minus the mean of the other live members; 0 for a lone one or a tie."""
    count = live.sum(dim=2, keepdim=True)
    others = (values.sum(dim=2, keepdim=True) - values) / (count - 1).clamp(min=1)
    infinity = torch.inf
    low = torch.where(live, values, infinity).amin(dim=2, keepdim=True)
    high = torch.where(live, values, -infinity).amax(dim=2, keepdim=True)
    return torch.where(live & (count > 1) & ~no_spread(low, high), values - others, 0.0)


def _check_group(returns: Tensor) -> None:
    if returns.shape[1] < 2:
        raise ValueError(
            f"group_size={returns.shape[1]}: a group needs at least 2 members, "
            "one episode has nothing to be compared with"
        )


def _tied(returns: Tensor) -> Tensor:
    return no_spread(returns.amin(dim=1, keepdim=True), returns.amax(dim=1, keepdim=True))


def _of_steps(compare: Callable[[Tensor, Rollout], Tensor]) -> Baseline:
    """Make a baseline of a function `(returns-to-go, rollout) -> advantages`, all `[T, N]`."""

    def baseline(rollout: Rollout, comparison: Comparison) -> Compared:
        returns = returns_to_go(rollout.rewards, rollout.mask, comparison.gamma)
        advantages = compare(returns, rollout)
        return Compared(advantages, returns, returns - advantages)

    return baseline


def _of_episodes(compare: Callable[[Tensor], Tensor], group_size: Callable[[Rollout], int]) -> Baseline:
    """Make a baseline of a function of episode returns `[P, G]`: all steps of an episode have its advantage."""

    def baseline(rollout: Rollout, comparison: Comparison) -> Compared:
        returns = returns_to_go(rollout.rewards, rollout.mask, comparison.gamma)
        advantages = compare(returns[0].view(-1, group_size(rollout))).reshape(-1)
        spread, values = (torch.where(rollout.mask, x, 0.0) for x in (advantages, returns[0] - advantages))
        return Compared(spread, returns, values)

    return baseline


def _anchored(rollout: Rollout, comparison: Comparison) -> Compared:
    """Add to the episode's advantage that of each step among those that saw the same."""
    advantages, returns, values = BASELINES["outcome"](rollout, comparison)
    steps = anchor_states(returns, rollout)
    return Compared(advantages + steps, returns, torch.where(steps == 0, values, returns - steps))


BASELINES: dict[str, Baseline] = {
    "scalar": _of_episodes(leave_one_out, lambda r: len(r.groups)),
    "outcome": _of_episodes(group_mean, lambda r: r.group_size),
    "leave_one_out": _of_episodes(leave_one_out, lambda r: r.group_size),
    "vine": _of_episodes(leave_one_out, lambda r: r.group_size),
    "anchor_states": _anchored,
    "bins": lambda r, c: _of_steps(lambda g, r: bins(g, r, c.flatten))(r, c),
    "batch": _of_steps(lambda g, r: live_peers(g, r.mask, len(r.groups))),
    "live_peers": _of_steps(lambda g, r: live_peers(g, r.mask, r.group_size)),
    "shrunk": _of_steps(lambda g, r: shrunk_peers(g, r.mask, r.group_size)),
    "every_step": _of_steps(every_step),
    "process": lambda r, c: process_supervision(r.rewards, r.mask, r.group_size, c.gamma),
    "time_index": lambda r, c: time_index(returns_to_go(r.rewards, r.mask, c.gamma), r.mask),
    "soft_groups": lambda r, c: soft_groups(r, c.gamma, c.gae_lambda, c.flatten, c.earlier),
}
"""Baselines by the name that `GRPO(baseline=...)` takes. "scalar" is `leave_one_out` of one group: all episodes.
"vine" is what `vine.Vine` begins with."""

OF_EPISODES = frozenset({"outcome", "leave_one_out", "scalar"})
"""Those that give all steps of an episode the same advantage."""

BOOTSTRAPPING = frozenset({"soft_groups"})
"""Those that estimate what comes after a trajectory's end, and so can do without whole episodes."""
