"""Running normalisation of observations, kept inside the policy and frozen while episodes are played."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RunningNormalizer(nn.Module):
    """Shift and scale each dimension by the mean and deviation of all observations so far.

      x ← clip((x − mean) / √(variance + 1e-8), −10, 10)

    Means of batches are merged exactly (Chan, Golub & LeVeque 1979), in float64. `update` is called between
    rollouts only, so that all steps of a rollout and its update see one and the same function. Until the
    first update it is the identity (but for the clip).

    Args:
        size: dimensions d.
    """

    clip = 10.0

    def __init__(self, size: int):
        super().__init__()
        self.mean: Tensor
        self.variance: Tensor
        self.count: Tensor
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("variance", torch.ones(size, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """`[M, d]` float32 → `[M, d]` float32."""
        shift, scale = self.shift_and_scale()
        return ((x - shift) * scale).clamp(-self.clip, self.clip)

    def shift_and_scale(self) -> tuple[Tensor, Tensor]:
        """Return what is subtracted and what is then multiplied by, `[d]` float32 each."""
        return self.mean.float(), (self.variance + 1e-8).rsqrt().float()

    @torch.no_grad()
    def update(self, x: Tensor) -> None:
        """Take `[M, d]` more observations into the statistics.

        Args:
            x: not normalised, finite, M ≥ 1.
        """
        batch = x.double()
        n_new = float(len(batch))
        mean, variance = batch.mean(dim=0), batch.var(dim=0, correction=0)
        if self.count == 0:
            self.mean.copy_(mean)
            self.variance.copy_(variance)
        else:
            total = self.count + n_new
            difference = mean - self.mean
            self.variance.copy_(
                (self.variance * self.count + variance * n_new) / total
                + difference.square() * self.count * n_new / total**2
            )
            self.mean.add_(difference * n_new / total)
        self.count.add_(n_new)
