"""Ridge regressions by folds."""

import torch
from torch import Tensor

from grpo_gym.cross_fit import CrossFit
from grpo_gym.soft_groups import RIDGES


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_ridge_is_the_one_that_predicts_the_left_out_rows_best() -> None:
    features = torch.cat([torch.ones(60, 1), numbers(60, 8)], dim=1)
    for seed, fold in enumerate((torch.arange(60) % 4, torch.arange(60) // 30)):
        targets = (features[:, 1] + 3 * numbers(60, seed=seed)).double()
        fit = CrossFit.of(features, fold, int(fold.max()) + 1, RIDGES)
        moments = fit.moments(targets)
        errors = [(fit.predict(weights) - targets).square().sum().item() for weights in fit.solve(moments)]
        ridge, chosen = fit.choose(moments)
        assert ridge.start == errors.index(min(errors))
        assert chosen.equal(fit.solve(moments, ridge)[0])
