"""Ridge regressions by folds: each is judged by the others alone.

Shapes: K folds, M rows, Mₖ of them in fold k, p features, R ridges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class CrossFit:
    """Ridge regressions of the folds on everything but themselves, for several targets on the same features.

      w₋ₖ = (A₋ₖ + r·M·I)⁻¹ m₋ₖ,  Aₖ = ΦₖᵀΦₖ,  mₖ = Φₖᵀyₖ,  V̂(s) = φ(s)·w₋ₖ for s in fold k

    V̂(s) = Σᵢ cᵢ(s)·yᵢ is a weighted mean of the *other* folds' targets: but for the choice of r, no step sees its own
    return. Targets come in by their moments mₖ alone, so that to fit once more costs nothing for each row.

    Attributes:
        features: Φ of each fold's own rows, K of `[Mₖ, p]`, float64; the first is 1.
        rows: which ones they are, K of `[Mₖ]`.
        grams: A of each fold's own rows, `[K, p, p]`.
        factors: Cholesky factors of A₋ₖ + r·M·I, `[R, K, p, p]`.
    """

    features: list[Tensor]
    rows: list[Tensor]
    grams: Tensor
    factors: Tensor

    @staticmethod
    def of(features: Tensor, fold: Tensor, n_folds: int, ridges: Sequence[float]) -> CrossFit:
        """Factorise once; every target is then solved for cheaply."""
        rows = [(fold == k).nonzero()[:, 0] for k in range(n_folds)]
        # in float32 the rounding of A is larger than a small ridge
        parts = [features[own].double() for own in rows]
        grams = torch.stack([part.T @ part for part in parts])
        penalties = len(features) * torch.tensor(ridges, dtype=torch.float64)[:, None].repeat(1, features.shape[1])
        # the constant is hardly penalised: it is the plain mean of the peers, to which the rest is added
        penalties[:, 0] *= 1e-3
        systems = (grams.sum(dim=0) - grams).repeat(len(ridges), 1, 1, 1)
        systems.diagonal(dim1=-2, dim2=-1).add_(penalties[:, None])
        return CrossFit(parts, rows, grams, torch.linalg.cholesky(systems))

    def moments(self, targets: Tensor) -> Tensor:
        """Return m of the targets `[M]`: `[K, p]`."""
        return torch.stack([part.T @ targets[rows] for part, rows in zip(self.features, self.rows, strict=True)])

    def moments_of(self, weights: Tensor, owners: Tensor, n_owners: int) -> Tensor:
        """Return Σ cᵢ·φ(sᵢ) over the rows of each owner, with weights c `[M]` and owners `[M]`: `[n_owners, p]`."""
        found = torch.zeros(n_owners, self.grams.shape[1], dtype=torch.float64)
        for part, rows in zip(self.features, self.rows, strict=True):
            found.index_add_(0, owners[rows], part * weights[rows, None])
        return found

    def solve(self, moments: Tensor, ridges: slice = slice(None)) -> Tensor:
        """Fit targets by their moments `[K, p]`, with each of these ridges: `[R, K, p]`."""
        others, sums = moments.sum(dim=0) - moments, self.grams[:, 0].sum(dim=0) - self.grams[:, 0]
        # what is common to all that a fold is judged by is no matter of likeness
        means = others[:, :1] / sums[:, :1]
        factors = self.factors[ridges]
        centred = (others - means * sums)[None, :, :, None].expand(len(factors), -1, -1, -1)
        # what `torch.cholesky_solve` does, without its copies of the factors, which take longer than the solve
        half = torch.linalg.solve_triangular(factors, centred, upper=False)
        weights: Tensor = torch.linalg.solve_triangular(factors.mT, half, upper=True)[..., 0]
        weights[..., 0] += means[:, 0]
        return weights

    def choose(self, moments: Tensor) -> tuple[slice, Tensor]:
        """Fit targets by their moments `[K, p]`: the ridge that predicts left-out rows best, its weights `[K, p]`.

        Σᵢ (yᵢ − V̂ᵢ)² = Σₖ w₋ₖᵀ (Aₖ w₋ₖ − 2 mₖ) + Σᵢ yᵢ², of which the last is the same for every ridge.
        """
        weights = self.solve(moments)
        columns = weights.permute(1, 2, 0)  # [K, p, R]: as matrices they need no copies
        errors = (columns * (self.grams @ columns - 2 * moments[..., None])).sum(dim=(0, 1))
        best = int(errors.argmin())
        return slice(best, best + 1), weights[best]

    def predict(self, weights: Tensor) -> Tensor:
        """Predict each row by its fold's weights `[K, p]`: `[M]`."""
        predicted = torch.cat([part @ w for part, w in zip(self.features, weights, strict=True)])
        return torch.empty_like(predicted).index_copy_(0, torch.cat(self.rows), predicted)


def predict(weights: Tensor, features: Tensor, fold: Tensor) -> Tensor:
    """Predict rows `[m, p]` of the given folds `[m]` by `weights[fold]`: `[m]`."""
    return (features @ weights.T).gather(1, fold[:, None])[:, 0]
