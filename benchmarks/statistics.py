"""Statistics of few runs: pure functions of arrays of scores.

After Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical precipice" (arXiv
2108.13264): with a handful of seeds, report interquartile means with intervals, not best or mean scores.
"Per task" arguments are sequences of one-dimensional arrays, one a task, since tasks differ in their number
of seeds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Floats = NDArray[np.float64]


def interquartile_mean(scores: ArrayLike, axis: int | None = None) -> Floats:
    """Return the mean of the middle half of the scores.

    Of n scores, the ⌊n/4⌋ lowest and as many of the highest are left out: none of 3, one each of 5, two each
    of 10. Less noisy than the median, and unlike the mean not moved by one lucky or broken run.

    Args:
        scores: at least one score, any shape.
        axis: the axis of the runs; None takes all scores together.

    Raises:
        ValueError: if there is no score or one is not finite.
    """
    return np.asarray(stats.trim_mean(_finite(scores), proportiontocut=0.25, axis=axis), dtype=np.float64)


def mean_over_tasks(scores: Sequence[ArrayLike]) -> float:
    """Return the mean over tasks of each task's interquartile mean.

      1/M Σₘ IQM(xₘ)

    Every task weighs the same, however many seeds it has. Over all runs at once, as in the paper, which has as many
    on each task, a task with more seeds would weigh more, and one on which all fail could be left out as an outlier.

    Args:
        scores: per task, one normalised score a seed.

    Raises:
        ValueError: if there is no task, a task has no score, or a score is not finite.
    """
    if not scores:
        raise ValueError("no task to average over: give one array of scores per task")
    return float(np.mean([interquartile_mean(one) for one in scores]))


def stratified_bootstrap_interval(
    scores: Sequence[ArrayLike], rng: np.random.Generator, confidence: float = 0.95, n_resamples: int = 2000
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of `mean_over_tasks`; of one task, that of its interquartile mean.

    Seeds are drawn anew with replacement within each task (the strata), so that every resample holds every
    task as often as the data do. With 3 seeds there are 10 distinct resamples: the interval is then close
    to lowest-to-highest, and says no more than that.

    Args:
        scores: per task, one score a seed.
        rng: source of the resamples.
        confidence: probability inside the interval.
        n_resamples: number of resamples.

    Raises:
        ValueError: if there is no task, a task has no score, or a score is not finite.
    """
    if not scores:
        raise ValueError("no task to resample: give one array of scores per task")
    strata = [_finite(one) for one in scores]
    drawn = [one[rng.integers(one.size, size=(n_resamples, one.size))] for one in strata]
    values = np.mean([interquartile_mean(resamples, axis=1) for resamples in drawn], axis=0)
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def probability_of_improvement(scores: Sequence[ArrayLike], others: Sequence[ArrayLike]) -> float:
    """Return how probable it is that a run beats a run of the other algorithm, on a task drawn at random.

      P(X > Y) = 1/M Σₘ 1/(NK) Σᵢ Σⱼ ( 1[xₘᵢ > yₘⱼ] + ½ 1[xₘᵢ = yₘⱼ] )

    0.5 says that neither is better. How much better does not enter, so no score has to be normalised.

    Args:
        scores: per task, one score a seed.
        others: the same tasks in the same order; the number of seeds may differ.

    Raises:
        ValueError: if there is no task, the numbers of tasks differ, a task has no score, or one is not finite.
    """
    if not scores or len(scores) != len(others):
        raise ValueError(f"{len(scores)} tasks against {len(others)}: give both algorithms the same tasks, at least 1")
    each = []
    for mine, theirs in zip(scores, others, strict=True):
        difference = _finite(mine)[:, np.newaxis] - _finite(theirs)[np.newaxis, :]
        each.append(np.mean((difference > 0) + 0.5 * (difference == 0)))
    return float(np.mean(each))


def performance_profile(scores: Sequence[ArrayLike], thresholds: ArrayLike) -> Floats:
    """Return which share of runs scores above each threshold, every task weighing the same.

      F(τ) = 1/M Σₘ 1/N Σₙ 1[xₘₙ > τ]

    Args:
        scores: per task, one normalised score a seed, so that one threshold means the same on every task.
        thresholds: τ, shape `[K]`.

    Returns:
        Shares between 0 and 1, shape `[K]`, falling as the threshold rises.

    Raises:
        ValueError: if there is no task, a task has no score, or a score is not finite.
    """
    if not scores:
        raise ValueError("no task to profile: give one array of scores per task")
    limits = np.asarray(thresholds, dtype=np.float64)
    each = [np.mean(_finite(one)[:, np.newaxis] > limits, axis=0) for one in scores]
    return np.asarray(np.mean(each, axis=0), dtype=np.float64)


def normalized(scores: ArrayLike, low: float, high: float) -> Floats:
    """Return the scores on the scale on which `low` (random play) is 0 and `high` (solved) is 1.

    Raises:
        ValueError: if `high` is not above `low`, or a score is not finite.
    """
    if not high > low:
        raise ValueError(f"the scale runs from {low} to {high}: the upper end must be above the lower")
    return (_finite(scores) - low) / (high - low)


def _finite(scores: ArrayLike) -> Floats:
    """Return the scores as an array, or say what is wrong with them."""
    values = np.asarray(scores, dtype=np.float64)
    if values.size == 0 or not np.all(np.isfinite(values)):
        raise ValueError(f"expected at least one score, all finite, got {values.tolist()}")
    return values
