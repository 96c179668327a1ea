"""Make the report from the raw files alone: `python -m benchmarks.report`.

Writes `README.md` and one figure per task into the folder of the results. Nothing is trained.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks import figures, records, tables
from benchmarks.ladder import RUNGS
from benchmarks.run import RESULTS
from benchmarks.tables import Entry, Run
from benchmarks.tasks import EVALUATION_SEEDS, TASKS, Task

REFERENCE = ("ppo", "zoo")
"""The peer that everything is compared with."""

UNTUNED = ("ppo", "default")
"""The peer that untuned settings are compared with: defaults, and ours with the advice for long episodes."""

_HEAD = f"""# Results

Made by `python -m benchmarks.report` from the files in `raw/` alone; do not edit. Under each command stands what
it gave. Rows that lose stay in.

- **Score**: mean undiscounted, unnormalised return of {len(EVALUATION_SEEDS)} episodes with deterministic actions,
  from env seeds {EVALUATION_SEEDS[0]} … {EVALUATION_SEEDS[-1]}, which no training run sees. It is the score of the
  *final* agent, not of the best one on the way.
- **Steps**: every step of every copy of the environment. A peer finishes the rollout it is in, so it can pass the
  budget by part of one; this is in its favour.
- **IQM**: interquartile mean over the seeds, with the 95 % bootstrap interval (Agarwal et al. 2021, arXiv
  2108.13264). Of 10 seeds the 2 best and 2 worst are left out, of 5 one each, of 3 none. An interval of 3 seeds is
  nearly lowest to highest.
- **CPU s**: processor seconds of training on one thread, evaluation excluded; median over the seeds. Absolute values
  depend on the machine: compare rows. † another processor than the reference's: its seconds compare with other
  rows so marked alone.
- **to X**: first evaluation with a score of at least X, median over the seeds, and how many seeds got there. Scores
  are taken at 20 points, so these are rounded up to a twentieth of the run.
- **Figures**: interquartile mean over the seeds and its 95 % interval, single runs as thin lines where there is
  room; dotted, the score at which the task counts as solved. What falls far below random play leaves the figure.
  Seconds are as in the table, † too.
- **Settings**: `zoo` as published by rl-baselines3-zoo for that environment; `default` the algorithm's own defaults,
  untuned; `segments` ours with `n_steps=128` and no other argument, as is advised where all episodes are long;
  `segments_1` the same with `value_window=1`: values fitted to one iteration alone;
  `recipe` ours for that environment, tuned on seeds that are not reported.
- Seeds reported: 10 where a run of the slowest peer takes less than a minute, 5 below fifteen; where n is less, fewer
  were run.
"""


def section(task: Task, found: Sequence[Entry]) -> str:
    """Return the part of the report about one task; `found` holds at least one entry."""
    reference = next((entry for entry in found if (entry.algorithm, entry.settings) == REFERENCE), None)
    arguments = ", ".join(f"{name}={value!r}" for name, value in task.env_kwargs.items())
    about = f"`{task.env_id}`{f' with {arguments}' if arguments else ''}, budget {task.steps:,} env steps."
    commands = "\n".join(entry.command for entry in found)
    figure = f"![Learning curves of {task.name}]({task.name}.png)"
    table = tables.task_table(found, reference)
    return f"## {task.name}\n\n{about}\n\n```\n{commands}\n```\n\n{table}\n\n{figure}\n"


def ladder_section(by_task: Sequence[Sequence[Entry]]) -> str:
    """Return the part of the report about the ladder; empty if none of it was run."""
    if not by_task:
        return ""
    places: dict[tuple[str, str, tuple[int, ...]], list[str]] = {}
    for entry in (entry for rung in RUNGS for found in by_task for entry in found if entry.settings == rung):
        places.setdefault((entry.algorithm, entry.settings, tuple(entry.seeds)), []).append(entry.task.name)
    commands = "\n".join(
        f"python -m benchmarks.run --algorithms {algorithm} --settings {rung} "
        f"--tasks {' '.join(tasks)} --seeds {' '.join(map(str, seeds))}"
        for (algorithm, rung, seeds), tasks in places.items()
    )
    text = (
        "What each baseline is worth: the same learner and arguments on every rung (the recipe's), "
        "whole episodes, only what a step is compared with differs. Final score: IQM, 95 % interval, number of seeds. "
        "`soft_1` compares whole returns with the soft groups' values, `soft` λ-returns of λ = 0.95."
    )
    return f"## The ladder\n\n{text}\n\n```\n{commands}\n```\n\n{tables.ladder_table(by_task, list(RUNGS))}\n"


def overview(by_task: Sequence[Sequence[Entry]], profile: bool) -> str:
    """Return the part of the report over all tasks; empty if nothing is compared yet."""
    table = tables.aggregate_table(by_task, REFERENCE)
    if table is None:
        return ""
    untuned = [
        [entry for entry in found if entry.settings in ("default", "segments", "segments_1")] for found in by_task
    ]
    defaults = tables.aggregate_table(untuned, UNTUNED)
    text = (
        "## Over all tasks\n\nScores normalised task by task: 0 is random play, 1 the task's threshold; the IQM of "
        "each task, then their mean, so that every task weighs the same, however many seeds it has. P is the "
        "probability that a run drawn at random beats one of the reference on the same task; 0.5 is a draw. "
        f"Algorithms are compared on the tasks both have run.\n\n{table}\n"
    )
    if profile:
        text += "\nShare of runs above each normalised score, on the tasks that all of these have run:\n"
        text += "\n![Performance profile](profile.png)\n"
    if defaults is not None:
        text += f"\nOf untuned defaults, compared with each other in the same way:\n\n{defaults}\n"
    return text


def profiled(by_task: Sequence[Sequence[Entry]]) -> list[list[Entry]]:
    """Return the entries of the algorithms that share a profile: the reference and those with all its tasks.

    Empty if only the reference is left.
    """
    by_key: dict[tuple[str, str], list[Entry]] = {}
    for found in by_task:
        for entry in found:
            by_key.setdefault((entry.algorithm, entry.settings), []).append(entry)
    wanted = {entry.task.name for entry in by_key.get(REFERENCE, [])}
    chosen = [
        [entry for entry in found if entry.task.name in wanted]
        for found in by_key.values()
        if wanted and wanted <= {entry.task.name for entry in found}
    ]
    return chosen if len(chosen) > 1 else []


def write(results: Path, runs: Sequence[Run]) -> Path:
    """Write report and figures of the runs into `results` and return the path of the report."""
    rungs = [run for run in runs if run[-1].settings in RUNGS]
    others = [run for run in runs if run[-1].settings not in RUNGS]
    on_ladder, by_task = (
        [found for task in TASKS.values() if (found := tables.entries(task, some))] for some in (rungs, others)
    )
    for found in by_task:
        figures.save_learning_curves(found, results / f"{found[0].task.name}.png")
    together = profiled(by_task)
    if together:
        figures.save_performance_profile(together, results / "profile.png")
    parts = [_HEAD, overview(by_task, bool(together)), ladder_section(on_ladder)]
    parts += [section(found[0].task, found) for found in by_task]
    path = results / "README.md"
    path.write_text("\n".join(part for part in parts if part), encoding="utf-8")
    return path


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the report of the results folder named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    results: Path = parser.parse_args(arguments).results
    runs = records.read_all(results)
    if not runs:
        parser.error(f"no complete run below {results / 'raw'}: train some with python -m benchmarks.run")
    print(f"{len(runs)} runs: {write(results, runs)}")


if __name__ == "__main__":
    main()
