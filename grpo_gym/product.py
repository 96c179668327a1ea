"""Distributions of actions that have several parts: choices, and real numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from grpo_gym.distributions import Categorical, DiagonalGaussian


class MultiCategorical:
    """k independent choices among n₁, …, n_k alternatives each.

    Args:
        choices: of M·k rows, the k choices of each action one after the other, alternatives that a choice does not
            have illegal.
        k: choices of an action.
    """

    def __init__(self, choices: Categorical, k: int):
        self.choices, self.k = choices, k

    def sample(self, uniform: Tensor) -> Tensor:
        """Choose by one number each: `[M, k]` → `[M, k]`."""
        return self.choices.sample(uniform.reshape(-1, 1)).view(-1, self.k)

    def mode(self) -> Tensor:
        """Return the most probable alternatives, `[M, k]`."""
        return self.choices.mode().view(-1, self.k)

    def log_prob(self, actions: Tensor) -> Tensor:
        """Return `Σ_k log π_k(a_k)`: `[M, k]` integers → `[M]`."""
        return self._summed(self.choices.log_prob(actions.reshape(-1)))

    def entropy(self) -> Tensor:
        """Return `Σ_k H(π_k)`, between 0 and `Σ_k log n_k`: `[M]`."""
        return self._summed(self.choices.entropy())

    def kl(self, other: MultiCategorical) -> Tensor:
        """Return the exact `KL(self‖other)`, the sum over the choices: `[M]`."""
        return self._summed(self.choices.kl(other.choices))

    def __getitem__(self, rows: Tensor) -> MultiCategorical:
        """Return the distributions of these rows, by their numbers or as a mask."""
        owner = torch.arange(len(self.choices.log_probs) // self.k, device=rows.device)[rows]
        choices = owner[:, None] * self.k + torch.arange(self.k, device=rows.device)
        return MultiCategorical(self.choices[choices.reshape(-1)], self.k)

    def _summed(self, values: Tensor) -> Tensor:
        return values.view(-1, self.k).sum(dim=1)


class Product:
    """k choices, and d real numbers independent of them.

    An action is `k + d` floats: the indices of the choices, then the numbers.

    Args:
        choices: k ≥ 1 of them.
        reals: d ≥ 1 of them.
    """

    def __init__(self, choices: MultiCategorical, reals: DiagonalGaussian):
        self.choices, self.reals, self.k = choices, reals, choices.k

    def sample(self, uniform: Tensor) -> Tensor:
        """`[M, k + d]` → `[M, k + d]`."""
        k = self.k
        return torch.cat([self.choices.sample(uniform[:, :k]).float(), self.reals.sample(uniform[:, k:])], dim=1)

    def mode(self) -> Tensor:
        """Return the most probable of each part, `[M, k + d]`."""
        return torch.cat([self.choices.mode().float(), self.reals.mode()], dim=1)

    def log_prob(self, actions: Tensor) -> Tensor:
        """Return the sum over the parts: `[M, k + d]` → `[M]`."""
        return self.choices.log_prob(actions[:, : self.k].long()) + self.reals.log_prob(actions[:, self.k :])

    def entropy(self) -> Tensor:
        """Return the sum over the parts, `[M]`; of the choices in nats, of the numbers relative to their unit."""
        return self.choices.entropy() + self.reals.entropy()

    def kl(self, other: Product) -> Tensor:
        """Return the exact `KL(self‖other)`, the sum over the parts: `[M]`."""
        return self.choices.kl(other.choices) + self.reals.kl(other.reals)

    def __getitem__(self, rows: Tensor) -> Product:
        """Return the distributions of these rows, by their numbers or as a mask."""
        return Product(self.choices[rows], self.reals[rows])
