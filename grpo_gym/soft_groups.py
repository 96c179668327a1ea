"""Soft groups: compare a step with every step of the other episodes, weighted by how alike the states are.

A kernel smoother over the steps of one iteration, and of some before it, in closed form. It is *not* a value network:
it has no gradient steps and no weights that live on, is made anew for each iteration from its episodes and theirs, and
nothing of it is kept for `predict`. It *is* a fitted estimate of the state's value under the acting policy, which is
why it can bootstrap: it stands between GRPO, whose baseline is the mean of a few peers, and PPO, whose baseline is a
network trained over the whole run.

Observations come through the policy's `flatten`. Of Discrete and MultiDiscrete ones it makes a 1 among zeros for each
entry, so that states are the more alike the more entries they share. A Box it lays out number by number, and of an
image the means over 8×8 fields of each channel: two images are alike where their fields are, and one that is shifted
by more than a field is not.

Shapes: T longest episode, P groups, G members, N = P·G episodes, M valid steps, d numbers an observation, D random
features, p = 1 + 2·min(d, `N_DIRECT`) + D features in all.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from grpo_gym.advantages import all_alike, generalized_advantages, returns_to_go
from grpo_gym.cross_fit import CrossFit, predict
from grpo_gym.types import Compared, FeatureMap, Rollout
from grpo_gym.visited import Visited, join

N_FOLDS = 4
"""Parts into which the members of each group are dealt; each part is judged by the others alone."""

RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
"""Ridge parameters tried; the one that predicts the left-out episodes best, all folds together, is taken.

Through this one choice a step's own return touches its V̂: with 12 episodes of at most three steps it shrinks the
policy gradient by 2 %. A choice for each fold by the other folds alone does so by less, but left half as much again
unexplained on Acrobot: with few episodes some fold then chooses badly.
"""

BANDWIDTHS = (0.5, 1.0, 2.0)
"""Widths of the kernel, in median distances between states; a third of the features has each."""

RIDGES_WITH_GUESS = (*RIDGES, 1.0, 10.0)
"""Where there is a guess to be kept to: of the last nothing is left but the mean of what it leaves."""

ROWS_OF_GUESS = 8192
"""The guess is fitted to about so many steps, evenly taken: neighbours say much the same, and each costs p² sums."""

N_FEATURES = 255
"""Random features D: the error of the kernel falls with 1/√D, the cost of the solve grows with D².

Fewer are not enough even for three numbers: with 96, Pendulum came to -257, -284, -299 and -199 (seeds 103 to 106)
where it comes to -174, -168, -178 and -168.
"""

N_DIRECT = 128
"""Of more numbers than these an observation's low-order terms are made of as many random mixtures: p stays small."""

N_FITS = 25
"""At most so many fits where episodes were cut: each takes what comes after their last step from the one before."""

N_CHOICES = 5
"""In so many of them a ridge is chosen; those that follow keep the last."""

AT_REST = 1e-3
"""They end when nothing that comes after a cut changes by more than this part of the largest."""

CLIP = 5.0
"""Standardised observations are clipped here, so that an outlier does not rule the squares."""


def random_fourier_features(x: Tensor, n_features: int = N_FEATURES) -> FeatureMap:
    """Make a map whose inner products approximate a Gaussian kernel of three widths, plus low-order terms.

      φ(x) = [1, x̄, x̄², √(2/D)·cos(W x̄ + b)],  W ~ N(0, 1/σ²), b ~ U(0, 2π),  x̄ standardised

    σ is the median distance between states (of 512 drawn ones) times each of `BANDWIDTHS`. Where d > `N_DIRECT`,
    U x̄ takes the place of x̄ in the two low-order terms, U ~ N(0, 1/d). All that is random comes from a generator
    with a fixed seed: the same states always give the same map.
    See Rahimi & Recht 2007, "Random features for large-scale kernel machines".

    Args:
        x: the states that the map is made for, `[M, d]`.
        n_features: D.

    Returns:
        A function `[m, d]` → `[m, p]`.
    """
    generator = torch.Generator().manual_seed(0)
    mean, deviation = x.mean(dim=0), x.std(dim=0, correction=0)
    deviation = torch.where(deviation > 1e-6, deviation, torch.ones_like(deviation))

    def standardise(y: Tensor) -> Tensor:
        return ((y - mean) / deviation).clamp(-CLIP, CLIP)

    drawn = standardise(x[torch.randint(len(x), (512,), generator=generator)])
    distance = torch.pdist(drawn).median().clamp(min=1e-3)
    widths = distance * torch.tensor(BANDWIDTHS).repeat(-(-n_features // len(BANDWIDTHS)))[:n_features]
    frequencies = torch.randn(x.shape[1], n_features, generator=generator) / widths
    phases = 2 * math.pi * torch.rand(n_features, generator=generator)
    mixtures = torch.randn(x.shape[1], N_DIRECT, generator=generator) / math.sqrt(x.shape[1])

    def features(y: Tensor) -> Tensor:
        z = standardise(y)
        waves = math.sqrt(2.0 / n_features) * torch.cos(z @ frequencies + phases)
        direct = z if z.shape[1] <= N_DIRECT else z @ mixtures
        return torch.cat([torch.ones(len(z), 1), direct, direct.square(), waves], dim=1)

    return features


def soft_group_values(
    rollout: Rollout, gamma: float, flatten: FeatureMap, earlier: Sequence[Visited] = ()
) -> tuple[Tensor, Tensor]:
    """Estimate the value of every state that was visited from the episodes that it is not part of.

      V̂ = V₀ + φ·w

    V₀ is a fit to earlier iterations, if there are any: a first guess that knows more states, but of policies that
    are gone. The present iteration's episodes correct it, as far as that predicts left-out ones best: a small ridge
    forgets V₀ where there is anything to be seen, a large one leaves it but for a constant.

    Folds are dealt by member: the peers of an episode from the same seed, who know its start best, all but its
    fold's stay in. Of V₀ all episodes are part: none of them has seen what is judged now.

    Args:
        rollout: N ≥ 2 trajectories of G ≥ 2 members.
        gamma: discount.
        flatten: observations `[m, ...]` → `[m, d]`.
        earlier: iterations that went before, the oldest first.

    Returns:
        V̂ of each step `[T, N]`, zero where none was taken, and of what was seen last, `[N]`, zero where the
        episode terminated.
    """
    n_folds = min(N_FOLDS, rollout.group_size)
    latest = Visited.of(rollout, flatten)
    bounds = _bounds(torch.cat([visited.rewards for visited in (*earlier, latest)]), gamma)
    guess = (
        _fit(join(earlier), gamma, n_folds, bounds, RIDGES, n_rows=ROWS_OF_GUESS).everywhere if earlier else _nothing
    )
    fitted = _fit(latest, gamma, n_folds, bounds, RIDGES_WITH_GUESS if earlier else RIDGES, guess)
    return rollout.padded(fitted.values), fitted.tail


class _Fitted(NamedTuple):
    """Values of the states that were visited, each by its fold's weights, and of any other, by their mean.

    Attributes:
        values: of each step that was fitted, `[M]`.
        tail: of what was seen last, `[N]`; 0 where the episode terminated.
        everywhere: states `[m, d]` → values `[m]`.
    """

    values: Tensor
    tail: Tensor
    everywhere: FeatureMap


def _nothing(states: Tensor) -> Tensor:
    return torch.zeros(len(states), dtype=torch.float64)


def _fit(
    visited: Visited,
    gamma: float,
    n_folds: int,
    bounds: tuple[float, float],
    ridges: Sequence[float],
    guess: FeatureMap = _nothing,
    n_rows: int = sys.maxsize,
) -> _Fitted:
    """Fit what a guess leaves of the values, by folds, to all steps or evenly to about so many.

    What comes after the last step of a trajectory that was truncated or cut nobody saw; it is taken from the guess,
    then from a first fit, and so on until it comes to rest, at most `N_FITS` times, and kept within the bounds: fits
    of fits that overshoot would run away.
    """
    fold, mask = visited.members % n_folds, visited.mask
    rows = slice(None, None, -(-len(visited.states) // n_rows))
    states, owners = visited.states[rows], visited.owners[rows]
    to_features = random_fourier_features(states)
    fit = CrossFit.of(to_features(states), fold[owners], n_folds, ridges)
    last = to_features(visited.last_states).double()
    guessed, guessed_last = guess(states), guess(visited.last_states)
    seen, weight_of_tail = (x.T[mask.T][rows] for x in _returns(visited.padded_rewards, mask, gamma))
    moments = fit.moments(seen - guessed)
    carried = None if visited.terminated.all() else fit.moments_of(weight_of_tail, owners, len(fold))

    def after(correction: Tensor | float) -> Tensor:
        return torch.where(visited.terminated, 0.0, (guessed_last + correction).clamp(*bounds))

    tail = after(0.0)
    for n in range(N_FITS):
        targets = moments if carried is None else moments.index_add(0, fold, carried * tail[:, None])
        if n < N_CHOICES:
            ridge, weights = fit.choose(targets)
        else:
            weights = fit.solve(targets, ridge)[0]
        before, tail = tail, after(predict(weights, last, fold))
        if (tail - before).abs().max() <= AT_REST * tail.abs().max():
            break  # at once, where all episodes ended by themselves

    def everywhere(states: Tensor) -> Tensor:
        return guess(states) + to_features(states).double() @ weights.mean(dim=0)

    return _Fitted(guessed + fit.predict(weights), tail, everywhere)


def _is_the_same(earlier: Visited, rollout: Rollout) -> bool:
    """Tell whether nobody ever earned anything but what all of this rollout earned, or came to another end."""
    if (rollout.terminated | rollout.truncated).all():
        same_end = (earlier.lengths == len(rollout.mask)).all()
    else:
        same_end = ~earlier.terminated.any()
    return bool(same_end & (earlier.rewards == rollout.rewards[0, 0]).all())


def _bounds(rewards: Tensor, gamma: float) -> tuple[float, float]:
    """Return what the least and what the largest reward, or 0, would come to for ever; for γ = 1 that is nothing."""
    if gamma >= 1:
        return -math.inf, math.inf
    return min(float(rewards.min()), 0.0) / (1 - gamma), max(float(rewards.max()), 0.0) / (1 - gamma)


def _returns(rewards: Tensor, mask: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """Returns-to-go of the rewards that were seen, and the weight in them of what comes after; `[T, N]` both."""
    ahead = mask.sum(dim=0) - torch.arange(len(mask))[:, None]
    weight_of_tail = torch.where(mask, torch.tensor(gamma, dtype=torch.float64) ** ahead, 0.0)
    return returns_to_go(rewards, mask, gamma), weight_of_tail


def soft_groups(
    rollout: Rollout, gamma: float, gae_lambda: float, flatten: FeatureMap, earlier: Sequence[Visited] = ()
) -> Compared:
    """Compare λ-returns with the soft group's estimate of the state.

      δₜ = rₜ + γ V̂(sₜ₊₁) − V̂(sₜ),  Âₜ = Σ_k (γλ)ᵏ δₜ₊ₖ

    λ = 1 compares whole returns and is unbiased whatever V̂ is, but for what comes after a truncation or a cut and
    for the choice of the ridge (see `RIDGES`); a smaller λ trusts V̂ more and the dice less. See Schulman et al.
    2015 (arXiv 1506.02438).

    Args:
        rollout: N ≥ 2 trajectories of G ≥ 2 members.
        gamma: discount.
        gae_lambda: λ in [0, 1].
        flatten: observations `[m, ...]` → `[m, d]`.
        earlier: iterations that went before, the oldest first, to which V̂ is fitted as well.

    Returns:
        Advantages that are exactly 0 if all trajectories are equally long and no reward differs from any other, nor
        in what is remembered: a fit of nothing would be noise, and scaled up.
    """
    if all_alike(rollout.rewards, rollout.mask) and all(_is_the_same(iteration, rollout) for iteration in earlier):
        returns = returns_to_go(rollout.rewards, rollout.mask, gamma)
        return Compared(torch.zeros_like(returns), returns, returns)
    values, tail = soft_group_values(rollout, gamma, flatten, earlier)
    advantages = generalized_advantages(rollout.rewards, rollout.mask, values, tail, gamma, gae_lambda)
    seen, weight_of_tail = _returns(rollout.rewards, rollout.mask, gamma)
    return Compared(advantages, seen + weight_of_tail * tail, values)
