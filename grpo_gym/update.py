"""Change the weights. The only module that does."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from grpo_gym.gradient_noise import GradientNoise
from grpo_gym.losses import aggregation_weights, grpo_loss
from grpo_gym.mlp_learner import MlpLearner, knows
from grpo_gym.policy_model import PolicyModel
from grpo_gym.references import loss_to_reference
from grpo_gym.types import Batch, Rollout


@dataclass(frozen=True)
class UpdateSettings:
    """What one update is done with; schedules are already resolved to numbers.

    Attributes:
        learning_rate: of the optimiser.
        n_epochs: passes over the batch.
        batch_size: rows of a minibatch, or whole trajectories of about so many rows in all if the policy has a
            memory; None or more than there are: the whole batch at once.
        clip_low: see `losses.clipped_surrogate`.
        clip_high: see `losses.clipped_surrogate`.
        ent_coef: weight of the entropy bonus.
        max_grad_norm: gradients are scaled down to this norm.
        target_kl: stop before the step at which `approx_kl` exceeds 1.5 times this; None for never.
        objective: see `losses.grpo_loss`.
        ratio_cap: see there too.
        kl_coef: weight of the KL divergence from the reference.
        kl_estimator: see `references.divergence`.
    """

    learning_rate: float
    n_epochs: int
    batch_size: int | None
    clip_low: float
    clip_high: float
    ent_coef: float
    max_grad_norm: float
    target_kl: float | None = None
    objective: str = "clipped"
    ratio_cap: float | None = None
    kl_coef: float = 0.0
    kl_estimator: str = "k3"


def make_batch(
    policy: PolicyModel,
    rollout: Rollout,
    advantages: Tensor,
    aggregation: str,
    horizon: int | None = None,
    whole_trajectories: bool = False,
) -> Batch:
    """Flatten a rollout into what the update sees, on the policy's device.

    Args:
        policy: preprocesses and normalises the observations, once.
        rollout: M steps, all of them to be learned from.
        advantages: `[T, N]`.
        aggregation: see `losses.aggregation_weights`.
        horizon: see there too.
        whole_trajectories: the loss looks at whole trajectories: minibatches shall not take them apart, as they never
            do where the policy has a memory.
    """
    weights = aggregation_weights(rollout.mask, aggregation, horizon, rollout.groups)
    masks, device = rollout.action_masks, policy.device
    trajectories = None
    if whole_trajectories or rollout.memories is not None:
        trajectories = torch.arange(len(rollout.lengths)).repeat_interleave(rollout.lengths).to(device)
    with torch.no_grad():
        observations = policy.preprocess(rollout.observations.to(device))
    return Batch(
        observations,
        rollout.actions.to(device),
        rollout.log_probs.to(device),
        rollout.flat(advantages).float().to(device),
        rollout.flat(weights).float().to(device),
        None if masks is None else masks.to(device),
        trajectories,
        memories=None if rollout.memories is None else rollout.memories.to(device),
    )


def update(
    policy: PolicyModel,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    settings: UpdateSettings,
    generator: torch.Generator,
) -> dict[str, float]:
    """Make the passes over one batch.

    Args:
        policy: changed in place.
        optimizer: of the policy's parameters.
        batch: M rows, M ≥ 1.
        settings: resolved numbers.
        generator: orders the minibatches.

    Returns:
        Metrics averaged over all minibatches that were stepped on, `grad_norm` before clipping among them,
        `gradient_noise_scale` of the first pass if it has several, and `n_updates`, the number of optimiser steps.

    Raises:
        FloatingPointError: if a gradient is not finite; that step is not taken.
    """
    for group in optimizer.param_groups:
        group["lr"] = settings.learning_rate
    n_rows = len(batch)
    size = min(settings.batch_size or n_rows, n_rows)
    epochs = [_minibatches(batch, -(-n_rows // size), generator) for _ in range(settings.n_epochs)]
    n_parts = len(epochs[0])
    learner: MlpLearner | AutogradLearner
    plain = settings.objective == "clipped" and settings.ratio_cap is None and batch.reference is None
    if plain and knows(policy, optimizer):
        learner = MlpLearner(policy, optimizer, batch, settings.clip_low, settings.clip_high, settings.ent_coef)
    else:
        learner = AutogradLearner(policy, optimizer, batch, settings)
    totals: dict[str, Any] = {}
    noise = GradientNoise()
    n_updates = 0
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is found by its norm, and said once
            for index in itertools.chain(*epochs):
                metrics: dict[str, Any] = learner.differentiate(index)
                if settings.target_kl is not None and metrics["approx_kl"] > 1.5 * settings.target_kl:
                    break
                if 1 < n_parts > n_updates:
                    noise.add(learner.gradients())
                metrics["grad_norm"] = norm = learner.clip(settings.max_grad_norm)
                if not math.isfinite(norm):
                    raise FloatingPointError(
                        f"the gradient is not finite after {n_updates} optimiser steps of this update; the next was "
                        f"not taken: lower learning_rate (now {settings.learning_rate}) or scale the rewards"
                    )
                learner.descend(settings.learning_rate)
                n_updates += 1
                for name, value in metrics.items():
                    totals[name] = totals[name] + value if name in totals else value
    finally:
        if n_updates:
            learner.store()
    metrics_of_all = {name: float(value) / n_updates for name, value in totals.items()}
    noise_scale = noise.scale(n_rows / n_parts)
    if noise_scale is not None:
        metrics_of_all["gradient_noise_scale"] = noise_scale
    return {**metrics_of_all, "n_updates": n_updates}


class AutogradLearner:
    """Learns whatever policy by whatever loss; has the methods of `MlpLearner`, which can do less, and that sooner.

    Args:
        policy: changed in place.
        optimizer: of its parameters.
        batch: M rows, of which minibatches are taken.
        settings: those of the loss are used.
    """

    def __init__(self, policy: PolicyModel, optimizer: torch.optim.Optimizer, batch: Batch, settings: UpdateSettings):
        self._policy, self._optimizer, self._batch, self._settings = policy, optimizer, batch, settings
        self._parameters = [p for p in policy.parameters() if p.requires_grad]

    def differentiate(self, index: Tensor) -> dict[str, Tensor]:
        """Take the gradient of the loss of these rows; return its metrics, as 0-d tensors."""
        rows, settings = self._batch.select(index), self._settings
        distribution = self._policy(*rows.inputs)
        log_probs = distribution.log_prob(rows.actions)
        loss, metrics = grpo_loss(
            log_probs,
            distribution.entropy(),
            rows.old_log_probs,
            rows.advantages,
            rows.weights,
            settings.clip_low,
            settings.clip_high,
            settings.ent_coef,
            settings.objective,
            settings.ratio_cap,
            rows.trajectories if settings.objective == "sequence" else None,
            loss_to_reference(settings.kl_estimator, distribution, log_probs, rows),
            settings.kl_coef,
        )
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        return metrics

    def gradients(self) -> list[Tensor]:
        """Return the gradient of the last minibatch, a tensor for each parameter."""
        return [p.grad for p in self._parameters if p.grad is not None]

    def clip(self, max_norm: float) -> Tensor:
        """Scale the gradient down to this norm; return the norm it had."""
        return nn.utils.clip_grad_norm_(self._parameters, max_norm)

    def descend(self, learning_rate: float) -> None:
        """Take a step of the optimiser, at the learning rate of its groups."""
        self._optimizer.step()

    def store(self) -> None:
        """Do nothing: policy and optimiser were changed in place."""


def _minibatches(batch: Batch, n_parts: int, generator: torch.Generator) -> list[Tensor]:
    """Split a fresh permutation into nearly equal parts, of rows or of whole trajectories.

    A short last part, down to a single row, would weigh as much as a full one: so the rows are spread evenly.
    Trajectories that are whole for the sake of a memory are put together to parts of about equally many rows; those
    that the loss looks at, to parts of equally many trajectories. Where they are longer than a part there are fewer.
    """
    if batch.trajectories is None:
        return list(torch.randperm(len(batch), generator=generator).tensor_split(n_parts))
    trajectories = batch.trajectories.cpu()
    lengths = trajectories.bincount()
    order = torch.randperm(len(lengths), generator=generator)
    if batch.memories is None:
        parts = order.tensor_split(min(n_parts, len(order)))
    else:
        middles = lengths[order].cumsum(0) - lengths[order] / 2
        _, counts = torch.unique_consecutive((middles * n_parts / len(batch)).long(), return_counts=True)
        parts = torch.split(order, counts.tolist())
    return [torch.isin(trajectories, chosen).nonzero()[:, 0] for chosen in parts]
