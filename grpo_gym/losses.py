"""The clipped objective, KL estimators and the aggregation of steps: pure functions of tensors.

Shapes: M valid steps (or the rows of a minibatch). Advantages are constants: no gradient goes through them.
"""

from __future__ import annotations

import torch
from torch import Tensor

AGGREGATIONS = ("step", "trajectory", "constant")


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


def aggregation_weights(mask: Tensor, how: str, horizon: int | None = None) -> Tensor:
    """The share of each step in the loss, so that the loss is a plain mean of `weight · term`.

      step:        every step alike,          L = Σ_steps / M                      (DAPO, arXiv 2503.14476)
      trajectory:  every episode alike,       L = mean over episodes of their mean (GRPO, arXiv 2402.03300)
      constant:    divided by a fixed length, L = Σ_steps / (N · horizon)          (Dr. GRPO, arXiv 2503.20783)

    Groups without spread are taken out before this, so they count neither above nor below the line.

    Args:
        mask: True where a step was taken, `[T, N]`.
        how: "step", "trajectory" or "constant".
        horizon: the fixed length of "constant", in steps; T when None.

    Returns:
        `[T, N]`, zero where no step was taken. Its mean over the M steps is 1 for "step" and
        "trajectory", and mean length / horizon for "constant".

    Raises:
        ValueError: if `how` is not one of these.
    """
    lengths = mask.sum(dim=0)
    n_steps, n_episodes = lengths.sum(), len(lengths)
    if how == "step":
        weights = torch.ones(())
    elif how == "trajectory":
        weights = n_steps / (n_episodes * lengths)
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
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of one minibatch, and what it is made of.

      L = −mean(w · clipped(ρ, Â)) − ent_coef · mean(w · H(π))

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

    Returns:
        The loss, a scalar with gradient, and detached 0-d tensors: `loss`, `policy_gradient_loss`,
        `entropy_loss` = −mean H, `approx_kl` = mean k3, `clip_fraction_low` = share of ρ < 1 − low,
        `clip_fraction_high` = share of ρ > 1 + high, `clip_fraction` = their sum.
    """
    log_ratio = log_probs - old_log_probs
    ratio = log_ratio.exp()
    policy_gradient_loss = -(weights * clipped_surrogate(ratio, advantages, clip_low, clip_high)).mean()
    loss = policy_gradient_loss
    if ent_coef != 0.0:
        loss = loss - ent_coef * (weights * entropy).mean()
    with torch.no_grad():
        low = (ratio < 1.0 - clip_low).float().mean()
        high = (ratio > 1.0 + clip_high).float().mean()
        metrics = {
            "loss": loss.detach(),
            "policy_gradient_loss": policy_gradient_loss.detach(),
            "entropy_loss": -entropy.detach().mean(),
            "approx_kl": (ratio - 1.0 - log_ratio).mean(),
            "clip_fraction": low + high,
            "clip_fraction_low": low,
            "clip_fraction_high": high,
        }
    return loss, metrics
