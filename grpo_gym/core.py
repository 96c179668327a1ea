"""The mathematics without the agent: pure functions of tensors, for a loop of your own. See docs/core.md."""

from __future__ import annotations

from torch import Tensor

from grpo_gym.advantages import generalized_advantages, returns_to_go, scale
from grpo_gym.baselines import group_mean, leave_one_out, live_peers, shrunk_peers
from grpo_gym.distributions import Categorical, DiagonalGaussian
from grpo_gym.losses import (
    aggregation_weights,
    capped_surrogate,
    clipped_surrogate,
    clipped_weights,
    grpo_loss,
    kl_k1,
    kl_k2,
    kl_k3,
    sequence_log_ratio,
)
from grpo_gym.standardised import every_step, process_supervision, time_index

__all__ = [
    "Categorical",
    "DiagonalGaussian",
    "aggregation_weights",
    "capped_surrogate",
    "clipped_surrogate",
    "clipped_weights",
    "cross_entropy",
    "entropy",
    "every_step",
    "exact_kl",
    "generalized_advantages",
    "group_mean",
    "grpo_loss",
    "kl_k1",
    "kl_k2",
    "kl_k3",
    "leave_one_out",
    "live_peers",
    "process_supervision",
    "returns_to_go",
    "scale",
    "sequence_log_ratio",
    "shrunk_peers",
    "time_index",
]


def entropy(logits: Tensor, action_mask: Tensor | None = None) -> Tensor:
    """Return `H(π) = −Σ π log π`, with its gradient: `[M, n]` → `[M]`, in nats.

    Args:
        logits: of n actions, `[M, n]`.
        action_mask: True where legal, `[M, n]`; None if all are.
    """
    return Categorical(logits, action_mask).entropy()


def cross_entropy(logits: Tensor, actions: Tensor, action_mask: Tensor | None = None) -> Tensor:
    """Return `−log π(a)`, the loss of imitating actions: `[M, n]`, `[M]` → `[M]`, in nats.

    Its mean over actions drawn from π is the entropy, but has no gradient: it is no entropy bonus.

    Args:
        logits: of n actions, `[M, n]`.
        actions: integers, `[M]`.
        action_mask: True where legal, `[M, n]`; None if all are.
    """
    return -Categorical(logits, action_mask).log_prob(actions)


def exact_kl(logits: Tensor, other_logits: Tensor, action_mask: Tensor | None = None) -> Tensor:
    """Return `KL(π‖π') = Σ π (log π − log π')`: `[M, n]`, `[M, n]` → `[M]`, in nats.

    Args:
        logits: of π, `[M, n]`.
        other_logits: of π', `[M, n]`.
        action_mask: True where legal, of both, `[M, n]`; None if all are.
    """
    return Categorical(logits, action_mask).kl(Categorical(other_logits, action_mask))
