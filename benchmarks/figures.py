"""What the report shows: learning curves and the performance profile. Needs matplotlib, imported when used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import statistics
from benchmarks.records import Record
from benchmarks.statistics import Floats
from benchmarks.tables import Entry, normalized_scores

_COLORS = {"grpo": "#d62728", "ppo": "#1f77b4", "maskable_ppo": "#17becf", "a2c": "#2ca02c", "ars": "#9467bd"}
_OTHER_COLORS = ("#ff7f0e", "#8c564b", "#e377c2", "#bcbd22", "#7f7f7f")
_LINES = {"zoo": "-", "recipe": "-", "default": "--"}
_N_GRID = 120


def on_grid(
    entry: Entry, measure: Callable[[Record], float], logarithmic: bool = False, n_grid: int = _N_GRID
) -> tuple[Floats, Floats]:
    """Return the curves of an entry's runs on a common axis.

    Runs are not evaluated at exactly the same steps, and never at the same seconds: each is interpolated
    linearly between its evaluations, from the latest first one to the earliest last one.

    Args:
        entry: the runs.
        measure: what is along the axis, of a record.
        logarithmic: whether the points of the axis have equal ratios instead of equal distances.
        n_grid: points of the axis.

    Returns:
        The axis, shape `[n_grid]`, and the scores, shape `[n_runs, n_grid]`.
    """
    axes = [np.array([measure(record) for record in run], dtype=np.float64) for run in entry.runs]
    spread = np.geomspace if logarithmic else np.linspace
    grid = spread(max(axis[0] for axis in axes), min(axis[-1] for axis in axes), n_grid)
    curves = [
        np.interp(grid, axis, [record.score for record in run]) for axis, run in zip(axes, entry.runs, strict=True)
    ]
    return grid, np.stack(curves)


def band(curves: Floats, rng: np.random.Generator, n_resamples: int = 500) -> tuple[Floats, Floats, Floats]:
    """Return interquartile mean and ends of its 95 % bootstrap interval at each point of the axis.

    Args:
        curves: scores, shape `[n_runs, n_grid]`.
        rng: source of the resamples; whole runs are drawn.
        n_resamples: number of resamples.
    """
    n_runs = len(curves)
    resamples = statistics.interquartile_mean(curves[rng.integers(n_runs, size=(n_resamples, n_runs))], axis=1)
    low, high = np.quantile(resamples, [0.025, 0.975], axis=0)
    return statistics.interquartile_mean(curves, axis=0), low, high


def save_learning_curves(entries: Sequence[Entry], path: Path) -> None:
    """Draw score against env steps and against processor seconds of training, and save it as a PNG."""
    plt = _pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), sharey=True, layout="constrained")
    styles, task = _styles(entries), entries[0].task
    for axes, measure, logarithmic in (
        (left, lambda one: one.steps, False),
        (right, lambda one: max(one.cpu_seconds, 0.001), True),  # the records are rounded to a millisecond
    ):
        for entry in entries:
            grid, curves = on_grid(entry, measure, logarithmic)
            middle, low, high = band(curves, np.random.default_rng(0))
            color, line = styles[entry.label]
            axes.fill_between(grid, low, high, color=color, alpha=0.15, linewidth=0)
            if len(entries) <= 3:  # with more of them single runs are clutter
                axes.plot(grid, curves.T, color=color, alpha=0.25, linewidth=0.6)
            axes.plot(grid, middle, color=color, linestyle=line, linewidth=2, label=f"{entry.label}, n = {len(curves)}")
        axes.axhline(task.threshold, color="0.35", linestyle=":", linewidth=1)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    left.set(xlabel="env steps", ylabel="score of 20 unseen episodes, deterministic")
    left.xaxis.set_major_formatter(plt.FuncFormatter(_short))
    left.set_xlim(left=0)
    # one diverging run must not flatten all the others: the axis ends somewhat below random play
    left.set_ylim(bottom=max(left.get_ylim()[0], task.random_score - 0.5 * (task.threshold - task.random_score)))
    right.set(xlabel="processor seconds of training, one thread (log scale)", xscale="log")
    right.xaxis.set_major_locator(plt.LogLocator(subs=(1, 2, 5)))
    right.xaxis.set_major_formatter(plt.FuncFormatter(_short))
    right.xaxis.set_minor_formatter(plt.NullFormatter())
    figure.suptitle(task.name, fontweight="bold")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def save_performance_profile(by_algorithm: Sequence[Sequence[Entry]], path: Path) -> None:
    """Draw which share of runs scores above each normalised score, and save it as a PNG.

    Args:
        by_algorithm: the entries of each algorithm, all on the same tasks.
        path: file to write.
    """
    plt = _pyplot()
    figure, axes = plt.subplots(figsize=(6.5, 4.2), layout="constrained")
    thresholds = np.linspace(-0.1, 1.5, 321)
    styles = _styles([entries[0] for entries in by_algorithm])
    for entries in by_algorithm:
        shares = statistics.performance_profile([normalized_scores(entry) for entry in entries], thresholds)
        color, line = styles[entries[0].label]
        axes.plot(thresholds, shares, color=color, linestyle=line, linewidth=2, label=entries[0].label)
    axes.axvline(1, color="0.35", linestyle=":", linewidth=1)
    axes.set(xlabel="normalised score τ: 0 random play, 1 solved", ylabel="share of runs above τ", ylim=(-0.02, 1.02))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _styles(entries: Sequence[Entry]) -> dict[str, tuple[str, str]]:
    """Return color and line of each label: one color an algorithm, but ablations of one differ in color."""
    styles: dict[str, tuple[str, str]] = {}
    spare = iter(_OTHER_COLORS * len(entries))
    for entry in entries:
        known = entry.settings in _LINES and entry.algorithm in _COLORS
        color = _COLORS[entry.algorithm] if known else next(spare)
        styles[entry.label] = color, _LINES.get(entry.settings, "-.")
    return styles


def _short(value: float, _position: int) -> str:
    """Write 0.5, 20, 100k, 1.5M."""
    for size, suffix in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{suffix}"
    return f"{value:g}"


def _pyplot() -> Any:
    """Import matplotlib's pyplot without a display."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    return plt
