"""What the report says in numbers: the runs of one task, summed up row by row as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from benchmarks import statistics
from benchmarks.records import Record
from benchmarks.tasks import Task

Run = Sequence[Record]
"""The records of one run in the order of its steps, the last one final."""


@dataclass(frozen=True)
class Entry:
    """All reported runs of one algorithm with one settings on one task, in the order of their seeds."""

    task: Task
    algorithm: str
    settings: str
    runs: tuple[Run, ...]

    @property
    def label(self) -> str:
        """Return the name in tables and figures."""
        return f"{self.algorithm} ({self.settings})"

    @property
    def seeds(self) -> list[int]:
        """Return the training seeds."""
        return [run[-1].seed for run in self.runs]

    @property
    def final_scores(self) -> list[float]:
        """Return every seed's score of the agent that training returned, never of an earlier, better one."""
        return [run[-1].score for run in self.runs]

    @property
    def processors(self) -> set[str]:
        """Return the names of the processors that it ran on; "" where none was noted."""
        return {run[-1].versions.get("processor", "") for run in self.runs}

    @cached_property
    def score(self) -> float:
        """Return the interquartile mean of the final scores."""
        return float(statistics.interquartile_mean(self.final_scores))

    @cached_property
    def interval(self) -> tuple[float, float]:
        """Return the 95 % bootstrap interval of `score`; the same at every call."""
        return statistics.stratified_bootstrap_interval([self.final_scores], np.random.default_rng(0))

    @property
    def command(self) -> str:
        """Return the command that repeats all the runs."""
        return (
            f"python -m benchmarks.run --algorithms {self.algorithm} --settings {self.settings} "
            f"--tasks {self.task.name} --seeds {' '.join(map(str, self.seeds))}"
        )


def entries(task: Task, runs: Sequence[Run]) -> list[Entry]:
    """Return what is to be reported of a task, best score first.

    Left out are runs of other tasks and runs with seeds beyond the reported ones, which are for tuning.
    """
    grouped: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        final = run[-1]
        if final.task == task.name and final.seed in task.seeds:
            grouped.setdefault((final.algorithm, final.settings), []).append(run)
    found = [
        Entry(task, algorithm, settings, tuple(sorted(group, key=lambda run: run[-1].seed)))
        for (algorithm, settings), group in grouped.items()
    ]
    return sorted(found, key=lambda entry: -entry.score)


def first_reached(run: Run, score: float, measure: Callable[[Record], float]) -> float:
    """Return `measure` of the first evaluation whose score is at least `score`; infinite if there is none."""
    return next((measure(record) for record in run if record.score >= score), float("inf"))


def number(value: float) -> str:
    """Write a score with as many digits as it deserves: three or four, none after the point beyond 100."""
    if abs(value) >= 100:
        return f"{value:,.0f}".replace("-", "−")
    return f"{value:.{1 if abs(value) >= 10 else 2}f}".replace("-", "−")


def seconds(value: float) -> str:
    """Write a time in seconds: tenths below 10, whole ones above."""
    return f"{value:.1f}" if value < 10 else f"{value:,.0f}"


def reached(values: Sequence[float], write: Callable[[float], str]) -> str:
    """Write the median over the seeds and how many seeds got there: `32,000 (5/5)`; `–` if fewer than half."""
    n_reached = int(np.sum(np.isfinite(values)))
    middle = float(np.quantile(values, 0.5, method="lower"))
    return f"{write(middle) if np.isfinite(middle) else '–'} ({n_reached}/{len(values)})"


def task_table(found: Sequence[Entry], reference: Entry | None) -> str:
    """Return the Markdown table of one task.

    Args:
        found: its entries, at least one.
        reference: the entry whose score the last column is about; None leaves the column out. Seconds of rows that
            ran on another processor are marked.
    """
    threshold = found[0].task.threshold
    heads = ["algorithm", "settings", "n", "final score, IQM", "95 % interval", "every seed", "steps"]
    heads += ["CPU s", f"steps to {number(threshold)}", f"CPU s to {number(threshold)}"]
    if reference is not None:
        heads += [f"CPU s to {reference.label}'s {number(reference.score)}"]
    lines = ["| " + " | ".join(heads) + " |", "|---|---|" + "--:|" * (len(heads) - 2)]
    for entry in found:
        elsewhere = "" if reference is None or entry.processors == reference.processors else " †"
        cells = [
            entry.algorithm,
            entry.settings,
            str(len(entry.runs)),
            f"**{number(entry.score)}**",
            " … ".join(map(number, entry.interval)),
            ", ".join(map(number, entry.final_scores)),
            f"{_median([run[-1].steps for run in entry.runs]):,.0f}",
            seconds(_median([run[-1].cpu_seconds for run in entry.runs])) + elsewhere,
            reached([first_reached(run, threshold, lambda one: one.steps) for run in entry.runs], "{:,.0f}".format),
            reached([first_reached(run, threshold, lambda one: one.cpu_seconds) for run in entry.runs], seconds),
        ]
        if reference is not None:
            times = [first_reached(run, reference.score, lambda one: one.cpu_seconds) for run in entry.runs]
            cells.append(reached(times, seconds))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def aggregate_table(by_task: Sequence[Sequence[Entry]], reference: tuple[str, str]) -> str | None:
    """Return the Markdown table over all tasks, each algorithm against the reference on the tasks of both.

    Every task weighs the same, however many seeds it has.

    Args:
        by_task: the entries of each task.
        reference: (algorithm, settings) of the one that is compared with.

    Returns:
        The table; None if no algorithm shares a task with the reference.
    """
    base = {entry.task.name: entry for task in by_task for entry in task if _key(entry) == reference}
    keys = sorted({_key(entry) for task in by_task for entry in task} - {reference})
    lines = []
    for key in keys:
        mine = [entry for task in by_task for entry in task if _key(entry) == key and entry.task.name in base]
        if not mine:
            continue
        theirs = [base[entry.task.name] for entry in mine]
        better = statistics.probability_of_improvement(
            [entry.final_scores for entry in mine], [entry.final_scores for entry in theirs]
        )
        cells = [mine[0].label, f"{len(mine)}", _normalized_score(mine), _normalized_score(theirs), f"{better:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    if not lines:
        return None
    name = f"{reference[0]} ({reference[1]})"
    head = f"| algorithm | tasks shared | normalised score | {name} on the same tasks | P(better than {name}) |"
    return "\n".join([head, "|---|--:|--:|--:|--:|", *lines])


def ladder_table(
    by_task: Sequence[Sequence[Entry]], rungs: Sequence[str], head: str = "rung", prefix: str = "ladder_"
) -> str:
    """Return the Markdown table of the ladder: a row for each rung that was run, a column for each task.

    Args:
        by_task: the entries of each task, at least one in each, of one algorithm with the rungs as settings.
        rungs: the names of the settings, the lowest first.
        head: what a rung is called.
        prefix: of the names of the settings, left out.
    """
    columns = [{entry.settings: entry for entry in found} for found in by_task]
    heads = [head, *(found[0].task.name for found in by_task)]
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "--:|" * len(by_task)]
    for rung in rungs:
        if any(rung in column for column in columns):
            cells = [_ladder_cell(column.get(rung)) for column in columns]
            lines.append("| " + " | ".join([rung.removeprefix(prefix), *cells]) + " |")
    return "\n".join(lines)


def _ladder_cell(entry: Entry | None) -> str:
    if entry is None:
        return "–"
    low, high = map(number, entry.interval)
    return f"**{number(entry.score)}** ({low} … {high}), n = {len(entry.runs)}"


def normalized_scores(entry: Entry) -> list[float]:
    """Return the final scores on the scale on which random play is 0 and solved is 1."""
    scaled = statistics.normalized(entry.final_scores, entry.task.random_score, entry.task.threshold)
    return [float(score) for score in scaled]


def _normalized_score(found: Sequence[Entry]) -> str:
    scores: list[ArrayLike] = [normalized_scores(entry) for entry in found]
    middle = statistics.mean_over_tasks(scores)
    low, high = statistics.stratified_bootstrap_interval(scores, np.random.default_rng(0))
    return f"{middle:.2f} ({low:.2f} … {high:.2f})".replace("-", "−")


def _key(entry: Entry) -> tuple[str, str]:
    return entry.algorithm, entry.settings


def _median(values: Sequence[float]) -> float:
    return float(np.median(values))
