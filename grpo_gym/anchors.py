"""Comparisons of steps that meet in the same place: in a state that repeats exactly, or in a bin of states and times.

Shapes: T longest episode, N episodes, M valid steps, d numbers an observation.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from grpo_gym.advantages import all_alike, no_spread
from grpo_gym.types import FeatureMap, Rollout

TIME_BIN = 16
"""Steps that share a time bin."""

N_PLANES = 6
"""Random planes that cut the space of observations into 2⁶ cells."""


def anchor_states(returns: Tensor, rollout: Rollout) -> Tensor:
    """Compare each step with all steps of its group that saw exactly the same.

      Âₙ,ₜ = Gₙ,ₜ − mean of Gⱼ,ₖ over the steps (j, k) of the group with sⱼ,ₖ = sₙ,ₜ, itself included

    The step-level part of GiGPO, Feng et al. 2025 (arXiv 2505.10978), without its division by a deviation; the
    whole adds the episode's advantage. For observations that repeat, as in grids and games: of continuous ones none
    does but the first. As published the mean contains the step itself, and with it every visit that the same
    trajectory pays to the state: that shrinks the advantage.

    Args:
        returns: returns-to-go in reward units, `[T, N]`.
        rollout: what was seen.

    Returns:
        `[T, N]`; exactly 0 where no other step of the group saw the same, where all that did tie, and where no step
        was taken.
    """
    values = rollout.flat(returns)
    groups = rollout.groups.repeat_interleave(rollout.lengths)
    _, seen = torch.unique(rollout.observations.reshape(len(values), -1), dim=0, return_inverse=True)
    _, anchor = torch.unique(torch.stack([seen, groups]), dim=1, return_inverse=True)
    count = anchor.bincount()
    means = torch.zeros(len(count), dtype=values.dtype).index_add_(0, anchor, values) / count
    return rollout.padded(torch.where(_tied(values, anchor), 0.0, values - means[anchor]))


def bins(returns: Tensor, rollout: Rollout, flatten: FeatureMap) -> Tensor:
    """Compare each step with the other trajectories that came through the same bin of states and times.

      f(s, t) = (⌊t/16⌋, the sides of 6 random planes on which the standardised observation lies)
      Âₙ,ₜ = Gₙ,ₜ − mean of G at the first visit of f(sₙ,ₜ, t), over the trajectories j ≠ n that visit it

    Of a trajectory that stays in a bin the first visit counts alone, or it would count many times with nearly the
    same return. See GPG, Chen et al. 2025 (arXiv 2510.03679), which leaves f open; the planes are Charikar's SimHash
    (2002), the same for all rollouts. Different from the paper, a trajectory's own visit is left out of the mean.

    Args:
        returns: returns-to-go in reward units, `[T, N]`.
        rollout: what was seen.
        flatten: observations `[m, ...]` → `[m, d]`.

    Returns:
        `[T, N]`; exactly 0 where no other trajectory visits the bin, where all in it tie, where all trajectories are
        equally long and no reward differs from any other, and where no step was taken.
    """
    if all_alike(rollout.rewards, rollout.mask):
        return torch.zeros_like(returns)
    values = rollout.flat(returns)
    trajectory = torch.arange(len(rollout.groups)).repeat_interleave(rollout.lengths)
    time = rollout.flat(torch.arange(len(returns))[:, None].expand(returns.shape))
    cell = (time // TIME_BIN) * 2**N_PLANES + _sides(flatten(rollout.observations))
    n_cells = int(cell.max()) + 1
    # NumPy returns the first of equal keys, and steps are in the order of time
    visits, first, visit = np.unique((trajectory * n_cells + cell).numpy(), return_index=True, return_inverse=True)
    firsts, visited = values[first], torch.from_numpy(visits % n_cells)
    n_others = visited.bincount(minlength=n_cells)[cell] - 1
    sums = torch.zeros(n_cells, dtype=values.dtype).index_add_(0, visited, firsts)
    others = (sums[cell] - firsts[visit]) / n_others.clamp(min=1)
    nothing = (n_others == 0) | _tied(values, cell)
    return rollout.padded(torch.where(nothing, 0.0, values - others))


def _sides(x: Tensor) -> Tensor:
    """Number the cell of each observation: `[m, d]` → `[m]`, in 0…2^`N_PLANES` − 1."""
    deviation = x.std(dim=0, correction=0)
    standardised = (x - x.mean(dim=0)) / torch.where(deviation > 1e-6, deviation, torch.ones_like(deviation))
    planes = torch.randn(x.shape[1], N_PLANES, generator=torch.Generator().manual_seed(0))
    return ((standardised @ planes > 0) * 2 ** torch.arange(N_PLANES)).sum(dim=1)


def _tied(values: Tensor, place: Tensor) -> Tensor:
    """Tell which of the values `[M]` tie with all others of their place `[M]`."""
    extremes = torch.zeros(int(place.max()) + 1, dtype=values.dtype)
    low = extremes.scatter_reduce(0, place, values, "amin", include_self=False)
    high = extremes.scatter_reduce(0, place, values, "amax", include_self=False)
    return no_spread(low, high)[place]
