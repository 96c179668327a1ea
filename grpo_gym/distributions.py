"""Action distributions without distribution objects' overhead, and the heads that make them.

A distribution turns *given* uniform noise into actions by inverting its distribution function. Who owns the
noise owns the randomness: an episode's actions depend on its own noise and on nothing that happens beside it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from grpo_gym.types import Array

LOG_STD_RANGE = (-20.0, 2.0)
"""A Gaussian's log standard deviation is clamped here: under an entropy bonus it would grow for ever."""

ILLEGAL_LOGIT = -1e8
"""Low enough for probability exactly 0, finite so that 0 · log 0 stays 0."""

N_NODES = 32
"""Points at which the entropy of a squashed Gaussian looks at it."""

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(N_NODES)
_HERMITE = (_NODES, _WEIGHTS / _WEIGHTS.sum())


class Distribution(Protocol):
    """A batch of M action distributions."""

    def sample(self, uniform: Tensor) -> Tensor:
        """Turn noise `[M, noise_size]`, uniform in (0, 1), into actions `[M, ...]`."""
        ...

    def mode(self) -> Tensor:
        """Return the most probable actions `[M, ...]`."""
        ...

    def log_prob(self, actions: Tensor) -> Tensor:
        """Return log-probabilities (or densities, summed over dimensions) in nats, `[M]`."""
        ...

    def entropy(self) -> Tensor:
        """Return the exact entropies in nats, summed over dimensions, `[M]`."""
        ...


class Categorical:
    """Probabilities over n actions; illegal ones have probability exactly 0.

      π(a) = e^{z_a} / Σ_legal e^{z_b}

    The same masked distribution serves sampling, loss and prediction.

    Args:
        logits: z, `[M, n]`.
        action_mask: True where legal, `[M, n]`, at least one in each row; None if all are.
    """

    def __init__(self, logits: Tensor, action_mask: Tensor | None = None):
        if action_mask is not None:
            logits = torch.where(action_mask, logits, ILLEGAL_LOGIT)
        self.log_probs: Tensor = torch.log_softmax(logits, dim=-1)

    def sample(self, uniform: Tensor) -> Tensor:
        """Invert the cumulative distribution: `[M, 1]` → `[M]`.

        Noise is scaled by the rounded total, so that no illegal action at the end of a row can be drawn.
        """
        cumulative = self.log_probs.exp().cumsum(dim=-1)
        actions: Tensor = (cumulative <= uniform * cumulative[:, -1:]).sum(dim=-1)
        return actions

    def mode(self) -> Tensor:
        """Return the most probable action, the first of equals: `[M]`."""
        return self.log_probs.argmax(dim=-1)

    def log_prob(self, actions: Tensor) -> Tensor:
        """Return `log π(a)`: `[M]` integers → `[M]`."""
        chosen: Tensor = self.log_probs.gather(-1, actions[:, None])[:, 0]
        return chosen

    def entropy(self) -> Tensor:
        """Return `−Σ π log π`, between 0 and log n: `[M]`."""
        return -(self.log_probs.exp() * self.log_probs).sum(dim=-1)

    def kl(self, other: Categorical) -> Tensor:
        """Return the exact `KL(self‖other) = Σ π (log π − log π')`: `[M]`."""
        return (self.log_probs.exp() * (self.log_probs - other.log_probs)).sum(dim=-1)

    def __getitem__(self, rows: Tensor) -> Categorical:
        """Return the distributions of these rows."""
        return Categorical(self.log_probs[rows])


class DiagonalGaussian:
    """Independent normal distributions, one for each of d action dimensions.

    Args:
        mean: μ, `[M, d]`.
        log_std: log σ, `[d]` or `[M, d]`.
    """

    def __init__(self, mean: Tensor, log_std: Tensor):
        self.mean = mean
        self.log_std = log_std.expand_as(mean)

    def sample(self, uniform: Tensor) -> Tensor:
        """Return `μ + σ·Φ⁻¹(u)`: `[M, d]` → `[M, d]`. `1 − u` gives the mirrored action."""
        normal: Tensor = torch.special.ndtri(uniform)
        return self.mean + self.log_std.exp() * normal

    def mode(self) -> Tensor:
        """Return the mean, `[M, d]`."""
        return self.mean

    def log_prob(self, actions: Tensor) -> Tensor:
        """Return `Σ_d −(a − μ)²/2σ² − log σ − log √2π`: `[M, d]` → `[M]`."""
        standardised = (actions - self.mean) * torch.exp(-self.log_std)
        return (-0.5 * standardised.square() - self.log_std - 0.5 * math.log(2 * math.pi)).sum(dim=-1)

    def entropy(self) -> Tensor:
        """Return `Σ_d log σ + (1 + log 2π)/2`: `[M]`; may be negative."""
        return (self.log_std + 0.5 * (1 + math.log(2 * math.pi))).sum(dim=-1)

    def kl(self, other: DiagonalGaussian) -> Tensor:
        """Return the exact `KL(self‖other) = Σ_d log σ'/σ + (σ² + (μ − μ')²)/2σ'² − 1/2`: `[M]`."""
        ratio = (2 * (self.log_std - other.log_std)).exp()
        distance = ((self.mean - other.mean) * torch.exp(-other.log_std)).square()
        return (other.log_std - self.log_std + 0.5 * (ratio + distance - 1.0)).sum(dim=-1)

    def __getitem__(self, rows: Tensor) -> DiagonalGaussian:
        """Return the distributions of these rows."""
        return type(self)(self.mean[rows], self.log_std[rows])


class SquashedGaussian(DiagonalGaussian):
    """The hyperbolic tangent of a Gaussian, in (−1, 1) in each dimension.

    Its actions are kept as they are *before* the tangent, u; `GaussianStyle.within` applies it on the way to the
    environment. So log-probabilities need no inverse of a tangent that rounding has made 1. The mode is that of u:
    tanh of it is the median.
    """

    def log_prob(self, actions: Tensor) -> Tensor:
        """Return `Σ_d log N(u) − log(1 − tanh² u)`, the density of tanh u: `[M, d]` → `[M]`."""
        return super().log_prob(actions) - _log_slope(actions).sum(dim=-1)

    def entropy(self) -> Tensor:
        """Return the entropy of tanh u, `H(u) + E[Σ_d log(1 − tanh² u)]`: `[M]`; at most d·log 2.

        There is no closed form; the mean is a Gauss-Hermite quadrature of `N_NODES` nodes, which has a gradient and
        no noise. A dimension's error is below 1e-6 for σ ≤ 1, 2e-4 for σ ≤ 2, and 0.1 for the largest σ allowed.
        """
        nodes, weights = (torch.as_tensor(x, dtype=self.mean.dtype, device=self.mean.device) for x in _HERMITE)
        at = self.mean[..., None] + self.log_std.exp()[..., None] * nodes
        return super().entropy() + (_log_slope(at) * weights).sum(dim=(-1, -2))


def _log_slope(u: Tensor) -> Tensor:
    """Return `log(1 − tanh² u) = 2·(log 2 − |u| − log(1 + e^(−2|u|)))`, without loss where the tangent is 1."""
    distance = u.abs()
    return 2 * (math.log(2) - distance - torch.log1p(torch.exp(-2 * distance)))


class CategoricalHead(nn.Module):
    """From features to a `Categorical` over the actions of a Discrete space.

    Attributes:
        noise_size: uniform numbers that one action takes.
    """

    noise_size = 1

    def __init__(self, n_features: int, space: gym.spaces.Discrete):
        super().__init__()
        self.start, self.dtype = int(space.start), space.dtype
        self.linear = nn.Linear(n_features, int(space.n))

    def forward(self, features: Tensor, action_mask: Tensor | None = None) -> Categorical:
        """`[M, n_features]` → M distributions."""
        return self.distribution(self.linear(features), action_mask)

    def distribution(self, outputs: Tensor, action_mask: Tensor | None = None) -> Categorical:
        """Outputs of the linear layer, `[M, n]` → M distributions."""
        return Categorical(outputs, action_mask)

    def to_env(self, actions: Array) -> Array:
        """Shift network indices 0…n−1 to the actions of the space, of its type: `[M]` → `[M]`."""
        return (actions + self.start if self.start else actions).astype(self.dtype, copy=False)


@dataclass(frozen=True)
class GaussianStyle:
    """How the real numbers of an action are drawn; arguments of the policies.

    Attributes:
        log_std_init: initial log standard deviation.
        state_dependent_std: the network gives the log standard deviation too, as a difference from `log_std_init`;
            without, it is one parameter a dimension.
        squash_output: draw within the bounds by a `SquashedGaussian`, rather than clip what is outside.
    """

    log_std_init: float = 0.0
    state_dependent_std: bool = False
    squash_output: bool = False

    def n_outputs(self, size: int) -> int:
        """Outputs of the network for so many dimensions."""
        return 2 * size if self.state_dependent_std else size

    def parameter(self, size: int) -> nn.Parameter | None:
        """Make the log standard deviation `[size]`, if it is a parameter."""
        return None if self.state_dependent_std else nn.Parameter(torch.full((size,), float(self.log_std_init)))

    def distribution(self, outputs: Tensor, log_std: Tensor | None) -> DiagonalGaussian:
        """Make M distributions of outputs `[M, n_outputs]` and the parameter, if there is one."""
        if log_std is None:
            outputs, difference = outputs.chunk(2, dim=1)
            log_std = self.log_std_init + difference
        kind = SquashedGaussian if self.squash_output else DiagonalGaussian
        return kind(outputs, log_std.clamp(*LOG_STD_RANGE))

    def within(self, actions: Array, low: Array, high: Array) -> Array:
        """Bring actions `[M, *shape]` into the bounds `[*shape]`: squashed, or else clipped."""
        if self.squash_output:
            actions = low + (np.tanh(actions) + 1) / 2 * (high - low)
        return np.clip(actions, low, high)


CLIPPED = GaussianStyle()
"""A Gaussian with a standard deviation that does not depend on the state, clipped to the bounds."""


class GaussianHead(nn.Module):
    """From features to the distribution of a Box's actions.

    Actions are brought within the bounds on their way to the environment only; the log-probability is that of the
    action before clipping.

    Attributes:
        noise_size: uniform numbers that one action takes, d.
    """

    def __init__(self, n_features: int, space: gym.spaces.Box, style: GaussianStyle = CLIPPED):
        super().__init__()
        self.noise_size = math.prod(space.shape)
        self.low, self.high, self.shape = space.low, space.high, space.shape
        self.dtype, self.style = space.dtype, style
        self.linear = nn.Linear(n_features, style.n_outputs(self.noise_size))
        self.log_std = style.parameter(self.noise_size)

    def forward(self, features: Tensor, action_mask: Tensor | None = None) -> DiagonalGaussian:
        """`[M, n_features]` → M distributions."""
        return self.distribution(self.linear(features), action_mask)

    def distribution(self, outputs: Tensor, action_mask: Tensor | None = None) -> DiagonalGaussian:
        """Outputs of the linear layer, `[M, n]` → M distributions.

        Raises:
            ValueError: if there is an action mask: only discrete actions can be masked.
        """
        if action_mask is not None:
            raise ValueError("an action mask was given for a Box action space; only discrete actions have one")
        return self.style.distribution(outputs, self.log_std)

    def to_env(self, actions: Array) -> Array:
        """Bring into the bounds, and give the space's shape and type: `[M, d]` → `[M, *shape]`."""
        shaped = actions.reshape(len(actions), *self.shape)
        return self.style.within(shaped, self.low, self.high).astype(self.dtype)
