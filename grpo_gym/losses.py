"""The clipped objective, KL estimators and the aggregation of steps: pure functions of tensors.

Shapes: M valid steps (or the rows of a minibatch). Advantages are constants: no gradient goes through them.
"""

from __future__ import annotations

import torch
from torch import Tensor

AGGREGATIONS = ("step", "trajectory", "group", "constant")
OBJECTIVES = ("clipped", "sequence", "clipped_weights")


def clipped_surrogate(ratio: Tensor, advantages: Tensor, clip_low: float, clip_high: float) -> Tensor:
    """The pessimistic objective of PPO, with a range of its own on either side.

      min(ρ·Â, clip(ρ, 1 − low, 1 + high)·Â)

    The minimum is taken of the products: for Â < 0 that differs from `min(ρ, clip(ρ))·Â`.
    See Schulman et al. 2017 (arXiv 1707.06347); separate ranges: DAPO, Yu et al. 2025 (arXiv 2503.14476).

    Args:
        ratio: ρ = π_θ(a|s) / π_old(a|s), `[M]`.
        advantages: `[M]`.
        clip_low: how far ρ may fall below 1 and still earn, ≥ 0.
        clip_high: how far it may rise above 1, ≥ 0.

    Returns:
        `[M]`, to be maximised.
    """
    clipped = ratio.clamp(1.0 - clip_low, 1.0 + clip_high)
    return torch.minimum(ratio * advantages, clipped * advantages)


def capped_surrogate(ratio: Tensor, advantages: Tensor, clip_low: float, clip_high: float, ratio_cap: float) -> Tensor:
    """The clipped surrogate with the last open side closed: a bad action that became likely costs only so much.

      min(min(ρ, cap)·Â, clip(ρ, 1 − low, 1 + high)·Â)

    Without the cap, Â < 0 and a large ρ make a gradient without bound. Dual clip, Ye et al. 2020 (arXiv 1912.09729),
    where it reads max(min(ρÂ, clip(ρ)Â), cap·Â) for Â < 0; two-sided clip, INTELLECT-2 (arXiv 2505.07291).

    Args:
        ratio: `[M]`.
        advantages: `[M]`.
        clip_low: see `clipped_surrogate`.
        clip_high: see there too.
        ratio_cap: above 1 + `clip_high`.

    Returns:
        `[M]`, to be maximised.
    """
    clipped = ratio.clamp(1.0 - clip_low, 1.0 + clip_high)
    return torch.minimum(ratio.clamp(max=ratio_cap) * advantages, clipped * advantages)


def clipped_weights(log_probs: Tensor, ratio: Tensor, advantages: Tensor, clip_low: float, clip_high: float) -> Tensor:
    """The policy gradient with clipped importance weights: no step loses its gradient.

      stopgrad(clip(ρ, 1 − low, 1 + high))·Â·log π

    CISPO, MiniMax-M1 2025 (arXiv 2506.13585).

    Args:
        log_probs: log π_θ(a|s), with gradient, `[M]`.
        ratio: `[M]`.
        advantages: `[M]`.
        clip_low: see `clipped_surrogate`; 1 for no lower limit.
        clip_high: see there too.

    Returns:
        `[M]`, to be maximised.
    """
    return ratio.detach().clamp(1.0 - clip_low, 1.0 + clip_high) * advantages * log_probs


def sequence_log_ratio(log_ratio: Tensor, trajectories: Tensor) -> Tensor:
    """Give every step the mean log-ratio of its trajectory: the ratio of the whole sequence, length-normalised.

      sᵢ = (π_θ(τᵢ) / π_old(τᵢ))^(1/length of τᵢ) = exp(mean over t of log ρᵢ,ₜ)

    GSPO, Zheng et al. 2025 (arXiv 2507.18071).

    Args:
        log_ratio: log ρ of whole trajectories, `[M]`.
        trajectories: to which each step belongs, `[M]`.

    Returns:
        log s, `[M]`.
    """
    _, place, counts = torch.unique(trajectories, return_inverse=True, return_counts=True)
    sums = log_ratio.new_zeros(len(counts)).index_add(0, place, log_ratio)
    means: Tensor = sums / counts
    return means[place]


def kl_k1(log_prob: Tensor, other_log_prob: Tensor) -> Tensor:
    """Estimate KL(π‖π') from actions of π: `log π − log π'`. Unbiased, may be negative.

    See Schulman, joschu.net/blog/kl-approx.html. Shapes `[M]` → `[M]`, in nats.
    """
    return log_prob - other_log_prob


def kl_k2(log_prob: Tensor, other_log_prob: Tensor) -> Tensor:
    """Estimate KL(π‖π') from actions of π: `(log π − log π')² / 2`. Biased, never negative.

    As a loss on actions of π its gradient is the gradient of KL(π‖π').
    See Schulman, joschu.net/blog/kl-approx.html. Shapes `[M]` → `[M]`, in nats.
    """
    return 0.5 * (log_prob - other_log_prob).square()


def kl_k3(log_prob: Tensor, other_log_prob: Tensor) -> Tensor:
    """Estimate KL(π‖π') from actions of π: `eˣ − x − 1`, x = log π' − log π. Unbiased, never negative.

    Used *as a loss* on actions of π, its gradient is the gradient of KL(π'‖π), not of KL(π‖π').
    See Schulman, joschu.net/blog/kl-approx.html. Shapes `[M]` → `[M]`, in nats.
    """
    difference = other_log_prob - log_prob
    return difference.exp() - difference - 1.0


def aggregation_weights(mask: Tensor, how: str, horizon: int | None = None, groups: Tensor | None = None) -> Tensor:
    """The share of each step in the loss, so that the loss is a plain mean of `weight · term`.

      step:        every step alike,          L = Σ_steps / M                      (DAPO, arXiv 2503.14476)
      trajectory:  every episode alike,       L = mean over episodes of their mean (GRPO, arXiv 2402.03300)
      group:       every group alike,         L = mean over groups of the mean over their steps (microGRPO)
      constant:    divided by a fixed length, L = Σ_steps / (N · horizon)          (Dr. GRPO, arXiv 2503.20783)

    Groups without spread are taken out before this, so they count neither above nor below the line.

    Args:
        mask: True where a step was taken, `[T, N]`.
        how: one of `AGGREGATIONS`.
        horizon: the fixed length of "constant", in steps; T when None.
        groups: for "group", to which each episode belongs, `[N]`, in 0…P−1.

    Returns:
        `[T, N]`, zero where no step was taken. Its mean over the M steps is mean length / horizon for "constant",
        1 for the others.

    Raises:
        ValueError: if `how` is not one of these.
    """
    lengths = mask.sum(dim=0)
    n_steps, n_episodes = lengths.sum(), len(lengths)
    if how == "step":
        weights = torch.ones(())
    elif how == "trajectory":
        weights = n_steps / (n_episodes * lengths)
    elif how == "group" and groups is not None:
        steps_of_groups = groups.bincount(weights=lengths).float()
        weights = (n_steps / (len(steps_of_groups) * steps_of_groups))[groups]
    elif how == "constant":
        weights = n_steps / (n_episodes * (horizon or len(mask)))
    else:
        raise ValueError(f"aggregation={how!r} is not known; choose from {', '.join(AGGREGATIONS)}")
    return torch.where(mask, weights, 0.0)


def grpo_loss(
    log_probs: Tensor,
    entropy: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    weights: Tensor,
    clip_low: float,
    clip_high: float,
    ent_coef: float = 0.0,
    objective: str = "clipped",
    ratio_cap: float | None = None,
    trajectories: Tensor | None = None,
    kl: Tensor | None = None,
    kl_coef: float = 0.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of one minibatch, and what it is made of.

      L = −mean(w · J(ρ, Â)) − ent_coef · mean(w · H(π)) + kl_coef · mean(w · KL)

    J is `clipped_surrogate`, `capped_surrogate` if there is a `ratio_cap`, the same of `sequence_log_ratio` for
    "sequence", or `clipped_weights`.

    The entropy is the distribution's own, with its gradient; the mean of −log π(a) over sampled actions
    would have none.

    Args:
        log_probs: `log π_θ(a|s)`, with gradient, `[M]`.
        entropy: `H(π_θ(·|s))` in nats, with gradient, `[M]`.
        old_log_probs: under the policy that acted, `[M]`.
        advantages: `[M]`.
        weights: from `aggregation_weights`, `[M]`.
        clip_low: see `clipped_surrogate`.
        clip_high: see `clipped_surrogate`.
        ent_coef: weight of the entropy bonus, ≥ 0.
        objective: one of `OBJECTIVES`.
        ratio_cap: see `capped_surrogate`; None for none.
        trajectories: for "sequence", to which trajectory each row belongs, `[M]`; all rows of each.
        kl: estimates of KL(π_θ‖π_ref), with gradient, `[M]`; None without a reference.
        kl_coef: weight of their mean, ≥ 0.

    Returns:
        The loss, a scalar with gradient, and detached 0-d tensors: `loss`, `policy_gradient_loss`,
        `entropy_loss` = −mean H, `approx_kl` = mean k3, `clip_fraction_low` = share of ρ < 1 − low,
        `clip_fraction_high` = share of ρ > 1 + high, `clip_fraction` = their sum; with a reference
        `reference_kl` = mean KL.
    """
    log_ratio = log_probs - old_log_probs
    step_ratio = log_ratio.exp()
    ratio = step_ratio if trajectories is None else sequence_log_ratio(log_ratio, trajectories).exp()
    if objective == "clipped_weights":
        gain = clipped_weights(log_probs, ratio, advantages, clip_low, clip_high)
    elif ratio_cap is not None:
        gain = capped_surrogate(ratio, advantages, clip_low, clip_high, ratio_cap)
    else:
        gain = clipped_surrogate(ratio, advantages, clip_low, clip_high)
    policy_gradient_loss = -(weights * gain).mean()
    loss = policy_gradient_loss
    if ent_coef != 0.0:
        loss = loss - ent_coef * (weights * entropy).mean()
    if kl is not None and kl_coef != 0.0:
        loss = loss + kl_coef * (weights * kl).mean()
    with torch.no_grad():
        low = (ratio < 1.0 - clip_low).float().mean()
        high = (ratio > 1.0 + clip_high).float().mean()
        metrics = {
            "loss": loss.detach(),
            "policy_gradient_loss": policy_gradient_loss.detach(),
            "entropy_loss": -entropy.detach().mean(),
            "approx_kl": (step_ratio - 1.0 - log_ratio).mean(),
            "clip_fraction": low + high,
            "clip_fraction_low": low,
            "clip_fraction_high": high,
        }
        if kl is not None:
            metrics["reference_kl"] = kl.detach().mean()
    return loss, metrics
