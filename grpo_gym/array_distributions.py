"""`Categorical` and `DiagonalGaussian` in NumPy, with their slopes: for small networks sooner than in torch.

Arrays stand on end, `[n, B]`: what is summed over a distribution's few numbers is then added row to row. For B ≥ 2
a column is the same, bit by bit, whatever is beside it.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn

from grpo_gym.distributions import ILLEGAL_LOGIT, LOG_STD_RANGE, Categorical, DiagonalGaussian
from grpo_gym.types import Array, BoolArray, FloatArray


class ArrayCategorical:
    """Probabilities over n actions; see `distributions.Categorical`.

    Args:
        outputs: logits, `[n, B]`, overwritten.
        action_masks: `[B, n]` or None.

    Attributes:
        entropy: in nats, `[B]`.
        log_std_slopes: None: it has no standard deviation.
    """

    log_std_slopes = None

    def __init__(self, outputs: FloatArray, action_masks: BoolArray | None = None):
        if action_masks is not None:
            outputs[~action_masks.T] = ILLEGAL_LOGIT
        # by the functions themselves: an array's methods take as long again to find them
        outputs -= np.maximum.reduce(outputs)
        self._weights = np.exp(outputs)
        self._total = np.add.reduce(self._weights)
        outputs -= np.log(self._total)
        self._log_p = outputs

    @cached_property
    def _p(self) -> FloatArray:
        p: FloatArray = self._weights / self._total
        return p

    @cached_property
    def entropy(self) -> FloatArray:  # noqa: D102
        entropy: FloatArray = -np.add.reduce(self._p * self._log_p)
        return entropy

    def sample(self, uniform: FloatArray) -> Array:
        """Turn noise `[B, 1]` into actions `[B]`."""
        cumulative = np.add.accumulate(self._weights)
        actions: Array = np.add.reduce(cumulative <= uniform[:, 0] * cumulative[-1], dtype=np.int64)
        return actions

    def mode(self) -> Array:
        """Return the most probable actions, `[B]`."""
        best: Array = self._weights.argmax(axis=0).astype(np.int64, copy=False)
        return best

    def log_prob(self, actions: Array) -> FloatArray:
        """Return log π(a): `[B]` → `[B]`."""
        log_prob: FloatArray = self._log_p[actions, np.arange(len(actions))]
        return log_prob

    def slopes(self, actions: Array, by_log_prob: FloatArray, by_entropy: FloatArray | None) -> FloatArray:
        """From slopes by log π(a) and by the entropy, `[B]` or None, to those by the outputs, `[n, B]`.

        ∂log π(a)/∂z = 1ₐ − π,  ∂H/∂z = −π (log π + H)
        """
        by_both = by_log_prob if by_entropy is None else by_log_prob + by_entropy * (self._log_p + self.entropy)
        slopes: FloatArray = self._p * -by_both
        slopes[actions, np.arange(len(actions))] += by_log_prob
        return slopes


class ArrayGaussian:
    """Independent normal distributions of d numbers; see `distributions.DiagonalGaussian`.

    Args:
        outputs: means, `[d, B]`.
        log_std: `[d]`, not clamped yet.

    Attributes:
        entropy: in nats, `[B]`.
        log_std_slopes: the sum of slopes by `log_std`, `[d]`, once `slopes` was called.
    """

    def __init__(self, outputs: FloatArray, log_std: FloatArray):
        self._mean, self._log_std = outputs, np.clip(log_std, *LOG_STD_RANGE)
        self._free = self._log_std == log_std
        self._precision = np.exp(-self._log_std)[:, None]

    @cached_property
    def entropy(self) -> FloatArray:  # noqa: D102
        each = (self._log_std + np.float32(0.5 * (1 + math.log(2 * math.pi)))).sum()
        return np.full(self._mean.shape[1], each)

    def sample(self, uniform: FloatArray) -> Array:
        """Turn noise `[B, d]` into actions `[B, d]`."""
        normal = torch.special.ndtri(torch.from_numpy(uniform)).numpy()
        actions: Array = normal * np.exp(self._log_std) + self._mean.T
        return actions

    def mode(self) -> Array:
        """Return the means, `[B, d]`."""
        return np.ascontiguousarray(self._mean.T)

    def log_prob(self, actions: Array) -> FloatArray:
        """Return the log density of actions, `[B, d]` → `[B]`."""
        z = self._standardised(actions)
        constant = (self._log_std + np.float32(0.5 * math.log(2 * math.pi))).sum()
        log_prob: FloatArray = -0.5 * (z * z).sum(axis=0) - constant
        return log_prob

    def slopes(self, actions: Array, by_log_prob: FloatArray, by_entropy: FloatArray | None) -> FloatArray:
        """From slopes by the log density and by the entropy, `[B]` or None, to those by the outputs, `[d, B]`.

        ∂log π/∂μ = z/σ,  ∂log π/∂log σ = z² − 1,  ∂H/∂log σ = 1,  z = (a − μ)/σ
        """
        z = self._standardised(actions)
        slopes: FloatArray = z * by_log_prob
        by_log_std = (slopes * z).sum(axis=1) - by_log_prob.sum() + (0.0 if by_entropy is None else by_entropy.sum())
        self.log_std_slopes = np.where(self._free, by_log_std, np.float32(0.0))
        slopes *= self._precision
        return slopes

    def _standardised(self, actions: Array) -> FloatArray:
        z: FloatArray = np.subtract(actions.T, self._mean, order="C")
        z *= self._precision
        return z


ArrayDistribution = ArrayCategorical | ArrayGaussian


def find_kind(head: Any) -> type[ArrayCategorical] | type[ArrayGaussian] | None:
    """Tell which of the two an action head makes; None if it makes something else."""
    with torch.no_grad():
        kind = type(head.distribution(torch.zeros(1, head.linear.out_features)))
    if kind is DiagonalGaussian and isinstance(head.log_std, nn.Parameter):
        return ArrayGaussian
    return ArrayCategorical if kind is Categorical else None
