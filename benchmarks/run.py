"""Run cells of the benchmark: `python -m benchmarks.run --algorithms ppo --tasks CartPole-v1 --settings zoo`.

A cell is one (algorithm, settings, task, seed). What is complete is skipped, so the same command resumes.
Every cell is a process of its own with one thread; one that fails is reported at the end and stops no other.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from benchmarks import learners, tasks
from benchmarks.cell import Cell

RESULTS = Path(__file__).parent / "results"
_ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}


@dataclass(frozen=True)
class Failure:
    """A cell that did not complete, with the end of what it wrote to its standard error."""

    cell: Cell
    reason: str


def plan(
    algorithms: Sequence[str], settings: str, task_names: Sequence[str], seeds: Sequence[int] | None
) -> list[Cell]:
    """Return the cells in the order they are run: by task, then by seed, then by algorithm.

    Args:
        algorithms: names of learners.
        settings: name of the settings.
        task_names: names of tasks.
        seeds: training seeds; None for those each task reports.

    Raises:
        ValueError: if a name is unknown.
    """
    unknown = [name for name in algorithms if name not in learners.LEARNERS]
    if unknown:
        raise ValueError(f"there is no learner {unknown[0]!r}: choose from {', '.join(learners.LEARNERS)}")
    return [
        Cell(algorithm, settings, task, seed)
        for task in map(tasks.find, task_names)
        for seed in (task.seeds if seeds is None else seeds)
        for algorithm in algorithms
    ]


def train(cell: Cell, results: Path, steps: int | None) -> tuple[str, Failure | None]:
    """Train one cell in a new process; return what it says for itself, and how it failed if it did.

    A cell that another run has completed in the meantime is left alone.
    """
    if cell.path(results).exists():
        return "already complete", None
    command = [sys.executable, "-m", "benchmarks.cell", "--results", str(results)]
    command += ["--algorithm", cell.algorithm, "--settings", cell.settings]
    command += ["--task", cell.task.name, "--seed", str(cell.seed)]
    if steps is not None:
        command += ["--steps", str(steps)]
    done = subprocess.run(
        command,
        cwd=Path(__file__).parents[1],
        env={**os.environ, **_ONE_THREAD},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        return done.stdout.strip().splitlines()[-1], None
    last_lines = "\n".join(done.stderr.strip().splitlines()[-8:])
    return "FAILED", Failure(cell, f"exit status {done.returncode}, last lines of its output:\n{last_lines}")


def run(cells: Sequence[Cell], results: Path, workers: int, steps: int | None = None) -> list[Failure]:
    """Train the cells that are not complete, print progress, and return the failures.

    The time left is judged by the env steps done: a guess, since tasks differ in speed.
    """
    waiting = [cell for cell in cells if not cell.path(results).exists()]
    print(f"{len(cells)} cells: {len(cells) - len(waiting)} complete, {len(waiting)} to run", flush=True)
    started, steps_done = time.monotonic(), 0
    steps_total = sum(cell.task.steps for cell in waiting)
    failures = []
    with ThreadPoolExecutor(workers) as pool:
        jobs = {pool.submit(train, cell, results, steps): cell for cell in waiting}
        for number, job in enumerate(as_completed(jobs), start=1):
            said, failure = job.result()
            if failure is not None:
                failures.append(failure)
            steps_done += jobs[job].task.steps
            elapsed = time.monotonic() - started
            left = elapsed * (steps_total / steps_done - 1)
            times = f"elapsed {timedelta(seconds=round(elapsed))}, about {timedelta(seconds=round(left))} left"
            print(f"[{number}/{len(waiting)}] {jobs[job]}: {said}; {times}", flush=True)
    return failures


def listing(cells: Sequence[Cell], results: Path) -> str:
    """Return a table of what is done and what is missing, one line per task, algorithm and settings."""
    rows: dict[tuple[str, str, str], tuple[list[int], list[int]]] = {}
    for cell in cells:
        done, missing = rows.setdefault((cell.task.name, cell.algorithm, cell.settings), ([], []))
        (done if cell.path(results).exists() else missing).append(cell.seed)
    lines = [f"{'task':<26}{'algorithm':<14}{'settings':<10}{'seeds done':<24}missing"]
    for (task, algorithm, settings), (done, missing) in rows.items():
        names = f"{task:<26}{algorithm:<14}{settings:<10}"
        lines.append(f"{names}{' '.join(map(str, done)) or '-':<24}{' '.join(map(str, missing)) or '-'}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; return 0 if every cell is complete, else 1."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--algorithms", nargs="+", required=True, help=f"of {', '.join(learners.LEARNERS)}")
    parser.add_argument("--tasks", nargs="+", default=list(tasks.TASKS), help="names of tasks (default: all)")
    parser.add_argument("--seeds", nargs="+", type=int, help="training seeds (default: those each task reports)")
    parser.add_argument("--settings", default="zoo", help="zoo, default, recipe, … (default: zoo)")
    parser.add_argument("--workers", type=int, default=1, help="cells trained at the same time (default: 1)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--steps", type=int, help="a budget of your own, for a trial; needs its own --results")
    parser.add_argument("--list", action="store_true", help="say what is complete and what is not")
    chosen = parser.parse_args(arguments)
    if chosen.steps is not None and chosen.results.resolve() == RESULTS.resolve():
        parser.error("--steps makes trial runs, which must not mix with results: name a folder by --results")
    try:
        cells = plan(chosen.algorithms, chosen.settings, chosen.tasks, chosen.seeds)
    except ValueError as error:
        parser.error(str(error))
    if chosen.list:
        print(listing(cells, chosen.results))
        return 0
    failures = run(cells, chosen.results.resolve(), chosen.workers, chosen.steps)
    for failure in failures:
        print(f"\n{failure.cell} failed: {failure.reason}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
