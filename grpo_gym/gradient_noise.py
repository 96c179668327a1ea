"""How much of a minibatch's gradient is noise."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


class GradientNoise:
    """The simple noise scale, from the gradients of the minibatches of one pass over a batch.

      B = tr Σ / |ḡ|²,  tr Σ = b/(n − 1) · Σᵢ |gᵢ − ḡ|²,  ḡ = mean of g₁ … gₙ, of b rows each

    From B rows a gradient is as much signal as noise: far fewer waste steps, far more waste rows. |ḡ|² holds the
    noise of all M = n·b rows, so that noise alone gives about M and more is not told apart; steps taken between the
    minibatches count as noise too. See McCandlish et al. 2018 (arXiv 1812.06162).
    """

    def __init__(self) -> None:
        self._n = 0
        self._sum = self._squares = torch.zeros(())

    def add(self, gradients: Iterable[Tensor]) -> None:
        """Take in the gradient of one minibatch, one tensor for each parameter."""
        gradient = torch.cat([part.flatten() for part in gradients])
        self._n += 1
        self._sum = gradient if self._n == 1 else self._sum + gradient
        self._squares = self._squares.to(gradient.device) + gradient.dot(gradient)

    def scale(self, batch_size: float) -> float | None:
        """Return B in rows.

        Args:
            batch_size: rows of a minibatch, b.

        Returns:
            None of fewer than two minibatches, or where their gradients add up to nothing.
        """
        mean_square = (self._sum / max(self._n, 1)).square().sum().item()
        if self._n < 2 or mean_square == 0.0:
            return None
        around = self._squares.item() - self._n * mean_square
        return batch_size * max(around, 0.0) / (self._n - 1) / mean_square
