"""One cell of the benchmark: train one algorithm with one seed on one task and write its raw file.

Started by `benchmarks.run` as a process of its own, so that every run has the same fresh start, one thread,
and cannot take others with it when it fails.
"""

from __future__ import annotations

import argparse
import dataclasses
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from benchmarks import learners, records, tasks
from benchmarks.evaluation import Evaluator
from benchmarks.records import Kind, Record, Writer

_PACKAGES = ("torch", "gymnasium", "numpy", "stable_baselines3", "sb3_contrib", "grpo_gym", "mujoco", "box2d")


@dataclass(frozen=True)
class Cell:
    """Names one run: everything that decides what it computes."""

    algorithm: str
    settings: str
    task: tasks.Task
    seed: int

    def path(self, results: Path) -> Path:
        """Return where its raw file lies."""
        return records.path_of(results, self.task.name, self.algorithm, self.settings, self.seed)

    def command(self) -> str:
        """Return the command that repeats it."""
        return (
            f"python -m benchmarks.run --algorithms {self.algorithm} --settings {self.settings} "
            f"--tasks {self.task.name} --seeds {self.seed}"
        )

    def __str__(self) -> str:
        return f"{self.algorithm} {self.settings} {self.task.name} seed {self.seed}"


class Stopwatch:
    """Wall and processor seconds of the time it runs, pauses left out. Starts at once."""

    def __init__(self) -> None:
        self._wall = self._cpu = 0.0
        self.resume()

    def resume(self) -> None:
        """Go on counting."""
        self._started = (time.perf_counter(), time.process_time())

    def pause(self) -> tuple[float, float]:
        """Stop counting and return (wall, processor) seconds counted so far."""
        self._wall += time.perf_counter() - self._started[0]
        self._cpu += time.process_time() - self._started[1]
        return self._wall, self._cpu


class Recorder:
    """Evaluates a run at equal distances in env steps and writes what it finds. An `OnProgress`.

    Args:
        cell: the run.
        evaluator: scores a policy.
        writer: takes the records.
        stopwatch: the clock of training; paused while the recorder works.
        threads: torch threads of the process, for the record.
    """

    def __init__(self, cell: Cell, evaluator: Evaluator, writer: Writer, stopwatch: Stopwatch, threads: int) -> None:
        self._cell, self._evaluator, self._writer, self._stopwatch = cell, evaluator, writer, stopwatch
        self._threads = threads
        self._versions = {**versions(), "processor": processor()}
        self._interval = cell.task.steps / cell.task.n_evaluations
        self._n_done = 0

    def __call__(self, steps: int, predict: learners.Predict, diagnostics: Mapping[str, float] | None = None) -> None:
        """Evaluate if a multiple of the interval has been passed, the last one excepted: that is `final`."""
        n_passed = min(int(steps / self._interval), self._cell.task.n_evaluations - 1)
        if n_passed > self._n_done:
            self._n_done = n_passed
            self._record("point", steps, predict, diagnostics or {})

    def final(self, trained: learners.Trained) -> Record:
        """Evaluate what training returned."""
        return self._record("final", trained.steps, trained.predict, trained.diagnostics)

    def _record(self, kind: Kind, steps: int, predict: learners.Predict, diagnostics: Mapping[str, float]) -> Record:
        wall_seconds, cpu_seconds = self._stopwatch.pause()
        scores = self._evaluator.scores(predict)
        cell = self._cell
        record = Record(
            kind=kind,
            algorithm=cell.algorithm,
            settings=cell.settings,
            task=cell.task.name,
            env_id=cell.task.env_id,
            env_kwargs=dict(cell.task.env_kwargs),
            seed=cell.seed,
            steps=steps,
            score=sum(scores) / len(scores),
            scores=scores,
            wall_seconds=round(wall_seconds, 3),
            cpu_seconds=round(cpu_seconds, 3),
            threads=self._threads,
            versions=self._versions,
            command=cell.command(),
            diagnostics=dict(diagnostics),
        )
        self._writer.append(record)
        self._stopwatch.resume()
        return record


def processor() -> str:
    """Return the processor's name: seconds compare within one."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text(encoding="utf-8").splitlines() if about.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def versions() -> dict[str, str]:
    """Return the version of Python and of each installed package that can change a result."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _warm_up() -> None:
    """Take one optimizer step on one number: torch imports for about a second on the first one."""
    import torch

    parameter = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.Adam([parameter])
    parameter.square().sum().backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def train(cell: Cell, results: Path) -> Record:
    """Train one cell in this process, write its raw file, and return its final record.

    Imports and first-use costs are over before the clocks start, or they would be most of a short run.
    """
    import torch

    torch.set_num_threads(1)
    _warm_up()
    learner = learners.load(cell.algorithm)
    evaluator = Evaluator(cell.task)
    with records.writing(cell.path(results)) as writer:
        recorder = Recorder(cell, evaluator, writer, Stopwatch(), torch.get_num_threads())
        record = recorder.final(learner.train(cell.task, cell.seed, cell.settings, recorder))
    evaluator.close()
    return record


def main() -> None:
    """Train the cell named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--algorithm", required=True)
    parser.add_argument("--settings", required=True)
    parser.add_argument("--task", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--steps", type=int)
    chosen = parser.parse_args()
    task = tasks.find(chosen.task)
    if chosen.steps is not None:
        task = dataclasses.replace(task, steps=chosen.steps)
    record = train(Cell(chosen.algorithm, chosen.settings, task, chosen.seed), chosen.results)
    print(f"score {record.score:.1f} after {record.steps:,} steps, {record.cpu_seconds:.0f} s of processor time")


if __name__ == "__main__":
    main()
