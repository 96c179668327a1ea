"""The gradient of a plain perceptron written out by hand, and Adam, in NumPy: torch's overhead would be most of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeGuard

import numpy as np
import torch
from torch import Tensor, nn

from grpo_gym import acting
from grpo_gym.array_distributions import ArrayCategorical, ArrayDistribution, ArrayGaussian, find_kind
from grpo_gym.optimizers import ADAMS
from grpo_gym.policy import MlpPolicy
from grpo_gym.types import Array, Batch, FloatArray


def _tanh_slope(y: FloatArray) -> Array:
    y *= y
    return np.subtract(1, y, out=y)


SLOPES: dict[type[nn.Module], Callable[[FloatArray], Array]] = {nn.Tanh: _tanh_slope, nn.ReLU: lambda y: y > 0}
"""Derivatives of `acting.ACTIVATIONS`, as functions of what comes out of them, which they may overwrite."""


class MlpLearner:
    """Does what autograd does with `losses.grpo_loss`, and what `torch.optim.Adam` does: equal but for rounding.

    All weights are one vector, and so are their gradients and each of Adam's two means. They are copies: policy and
    optimiser stay as they are until `store`, and then are as torch would have left them.

    Args:
        policy: `knows(policy, optimizer)`.
        optimizer: of its parameters.
        batch: M rows, of which minibatches are taken.
        clip_low: see `losses.clipped_surrogate`.
        clip_high: see there too.
        ent_coef: weight of the entropy bonus.
    """

    def __init__(
        self,
        policy: MlpPolicy,
        optimizer: torch.optim.Optimizer,
        batch: Batch,
        clip_low: float,
        clip_high: float,
        ent_coef: float,
    ):
        self._parameters, self._optimizer = list(policy.parameters()), optimizer
        self._weights = _joined(self._parameters)
        self._gradient = np.zeros_like(self._weights)
        states = [optimizer.state.get(p) for p in self._parameters]
        self._n_steps = int(_steps_taken(states).pop())
        first, second = (
            [torch.zeros_like(p) if s is None else s[name] for p, s in zip(self._parameters, states, strict=True)]
            for name in ("exp_avg", "exp_avg_sq")
        )
        self._means, self._mean_squares = _joined(first), _joined(second)
        pairs = zip(self._split(self._weights), self._split(self._gradient), strict=True)
        own = dict(zip(self._parameters, pairs, strict=True))
        modules, head = list(policy.body), policy.head
        self._layers = [(*own[one.weight], *own[one.bias]) for one in (*modules[::2], head.linear)]  # type: ignore[index]
        self._activations = [(acting.ACTIVATIONS[type(one)], SLOPES[type(one)]) for one in modules[1::2]]
        log_std = getattr(head, "log_std", None)
        self._log_std = None if log_std is None else own[log_std]
        self._observations, self._actions = batch.observations.numpy(), batch.actions.numpy()
        self._numbers = torch.stack([batch.old_log_probs, batch.advantages, batch.weights]).numpy()
        self._masks = None if batch.action_masks is None else batch.action_masks.numpy()
        self._clip_low, self._clip_high, self._ent_coef = clip_low, clip_high, ent_coef

    def differentiate(self, index: Tensor) -> dict[str, float]:
        """Take the gradient of the loss of these rows; return the metrics of `losses.grpo_loss`."""
        rows, n_rows = index.numpy(), len(index)
        actions = self._actions.take(rows, axis=0)
        old_log_probs, advantages, shares = self._numbers.take(rows, axis=1)
        hidden = [self._observations.take(rows, axis=0)]
        for (weight, _, bias, _), (activation, _) in zip(self._layers, self._activations, strict=False):
            x = hidden[-1].dot(weight.T)
            x += bias
            activation(x)
            hidden.append(x)
        weight, _, bias, _ = self._layers[-1]
        outputs = weight.dot(hidden[-1].T)
        outputs += bias[:, None]
        distribution: ArrayDistribution
        if self._log_std is None:
            distribution = ArrayCategorical(outputs, None if self._masks is None else self._masks[rows])
        else:
            distribution = ArrayGaussian(outputs, self._log_std[0])
        entropy = distribution.entropy
        log_ratio = distribution.log_prob(actions) - old_log_probs
        ratio = np.exp(log_ratio)
        low, high = ratio < 1.0 - self._clip_low, ratio > 1.0 + self._clip_high
        # of the two products the smaller is the clipped one, which has no slope, where ρ moved on in Â's direction
        clipped = np.where(advantages > 0, high, low)
        shares /= n_rows
        gains = shares * advantages
        bounded = np.minimum(np.maximum(ratio, 1.0 - self._clip_low), 1.0 + self._clip_high)
        surrogate = gains.dot(np.where(clipped, bounded, ratio))
        gains *= ratio
        gains[clipped] = 0.0
        by_entropy = -self._ent_coef * shares if self._ent_coef else None
        self._propagate(hidden, distribution.slopes(actions, -gains, by_entropy))
        if self._log_std is not None and distribution.log_std_slopes is not None:
            self._log_std[1][:] = distribution.log_std_slopes
        share_low, share_high = np.count_nonzero(low) / n_rows, np.count_nonzero(high) / n_rows
        return {
            "loss": -surrogate - self._ent_coef * shares.dot(entropy),
            "policy_gradient_loss": -surrogate,
            "entropy_loss": -np.add.reduce(entropy) / n_rows,
            "approx_kl": np.add.reduce(ratio - 1.0 - log_ratio) / n_rows,
            "clip_fraction": share_low + share_high,
            "clip_fraction_low": share_low,
            "clip_fraction_high": share_high,
        }

    def _propagate(self, hidden: Sequence[FloatArray], slopes: FloatArray) -> None:
        """Go back from the slopes of the loss by the outputs, `[n, B]`, to those by the weights."""
        for k in reversed(range(len(self._layers))):
            weight, weight_slopes, _, bias_slopes = self._layers[k]
            slopes.dot(hidden[k], out=weight_slopes)
            np.add.reduce(slopes, axis=1, out=bias_slopes)
            if k:
                below = slopes.T.dot(weight)
                below *= self._activations[k - 1][1](hidden[k])
                slopes = below.T

    def gradients(self) -> list[Tensor]:
        """Return the gradient of the last minibatch, as one vector."""
        return [torch.from_numpy(self._gradient)]

    def clip(self, max_norm: float) -> float:
        """Scale the gradient down to this norm, as `nn.utils.clip_grad_norm_` does; return the norm it had."""
        norm = math.sqrt(self._gradient.dot(self._gradient))
        self._gradient *= min(1.0, max_norm / (norm + 1e-6))
        return norm

    def descend(self, learning_rate: float) -> None:
        """Take a step of Adam.

          m ← m + (1 − β₁)(g − m),  v ← v + (1 − β₂)(g² − v),  θ ← θ − lr · m̂ / (√v̂ + ε),  m̂ = m / (1 − β₁ᵗ)

        See Kingma & Ba 2015 (arXiv 1412.6980).
        """
        group = self._optimizer.param_groups[0]
        (beta_1, beta_2), epsilon = group["betas"], group["eps"]
        self._n_steps += 1
        self._means += (1.0 - beta_1) * (self._gradient - self._means)
        self._mean_squares *= beta_2
        self._mean_squares += (1.0 - beta_2) * self._gradient * self._gradient
        scale = np.sqrt(self._mean_squares)
        scale /= math.sqrt(1.0 - beta_2**self._n_steps)
        scale += epsilon
        self._weights -= learning_rate / (1.0 - beta_1**self._n_steps) * self._means / scale

    @torch.no_grad()
    def store(self) -> None:
        """Give the policy its weights, and the optimiser its state."""
        parts = (self._split(x) for x in (self._weights, self._means, self._mean_squares))
        for parameter, weights, means, mean_squares in zip(self._parameters, *parts, strict=True):
            parameter.copy_(torch.from_numpy(weights))
            self._optimizer.state[parameter] = {
                "step": torch.tensor(float(self._n_steps)),
                "exp_avg": torch.from_numpy(means),
                "exp_avg_sq": torch.from_numpy(mean_squares),
            }

    def _split(self, vector: FloatArray) -> list[FloatArray]:
        """Cut a vector of all parameters into views of their shapes."""
        sizes = [p.numel() for p in self._parameters]
        parts = np.split(vector, np.cumsum(sizes)[:-1])
        return [part.reshape(p.shape) for part, p in zip(parts, self._parameters, strict=True)]


def knows(policy: object, optimizer: torch.optim.Optimizer) -> TypeGuard[MlpPolicy]:
    """Tell whether `MlpLearner` can stand in: a plain `MlpPolicy` on the CPU, all of it learned, by plain Adam."""
    if type(policy) is not MlpPolicy or type(optimizer) not in ADAMS or not acting.knows(policy):
        return False
    parameters, group = list(policy.parameters()), optimizer.param_groups[0]
    given = [p for one in optimizer.param_groups for p in one["params"]]
    return (
        list(map(id, given)) == list(map(id, parameters))
        and len(optimizer.param_groups) == 1
        and not any(group[name] for name in ("weight_decay", "amsgrad", "maximize", "differentiable"))
        and all(p.requires_grad and p.device.type == "cpu" and p.dtype == torch.float32 for p in parameters)
        and len(_steps_taken([optimizer.state.get(p) for p in parameters])) == 1
        and not any(p._backward_hooks for p in parameters)
        and find_kind(policy.head) is not None
    )


def _steps_taken(states: Sequence[dict[str, Tensor] | None]) -> set[float]:
    return {float(state["step"]) if state else 0.0 for state in states}


def _joined(parts: Sequence[Tensor]) -> FloatArray:
    return torch.cat([part.detach().flatten() for part in parts]).numpy()
