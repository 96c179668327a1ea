"""The raw result files: one JSON line per evaluation, one file per run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import IO, Literal

Kind = Literal["point", "final"]


@dataclass(frozen=True)
class Record:
    """One evaluation of one run. Every line says all that is needed to read it alone.

    Attributes:
        kind: "point" along the run, "final" for the agent that training returned (one a run, the last line).
        algorithm: name of the learner, as in `benchmarks.learners`.
        settings: "zoo", "default", "recipe" or the name of an ablation.
        task: name of the task, as in `benchmarks.tasks`.
        env_id: Gymnasium id with version.
        env_kwargs: arguments of `gymnasium.make`.
        seed: training seed.
        steps: env steps taken so far, every step of every copy counted.
        score: mean of `scores`.
        scores: raw, undiscounted, unnormalised returns of the 20 evaluation episodes, deterministic actions.
        wall_seconds: time spent training so far; evaluation is not in it.
        cpu_seconds: processor time of the process spent training so far; evaluation is not in it. The one
            to compare where the machine is shared.
        threads: torch threads.
        versions: versions of Python and of the packages that matter, and the processor (until 2026-11-22 it was not
            noted).
        command: the command that repeats the run.
        diagnostics: numbers the learner adds, by name; may be empty.
    """

    kind: Kind
    algorithm: str
    settings: str
    task: str
    env_id: str
    env_kwargs: Mapping[str, object]
    seed: int
    steps: int
    score: float
    scores: tuple[float, ...]
    wall_seconds: float
    cpu_seconds: float
    threads: int
    versions: Mapping[str, str]
    command: str
    diagnostics: Mapping[str, float] = field(default_factory=dict)


_FIELDS = frozenset(f.name for f in fields(Record))


def path_of(results: Path, task: str, algorithm: str, settings: str, seed: int) -> Path:
    """Return where the raw file of a run lies below `results`."""
    return results / "raw" / task / f"{algorithm}-{settings}-seed{seed}.jsonl"


def to_line(record: Record) -> str:
    """Return the record as one line of JSON, with its line end."""
    return json.dumps(asdict(record), allow_nan=False) + "\n"


def from_line(line: str) -> Record:
    """Return the record in one line of JSON.

    Raises:
        ValueError: if the line is not JSON or its fields are not exactly those of `Record`.
    """
    values = json.loads(line)
    if not isinstance(values, dict) or values.keys() != _FIELDS:
        found = sorted(values) if isinstance(values, dict) else type(values).__name__
        raise ValueError(f"a result line has {found}, expected the fields {sorted(_FIELDS)}: run the cell again")
    return Record(**{**values, "scores": tuple(values["scores"])})


def read(path: Path) -> list[Record]:
    """Return the records of one complete run, in the order of its steps.

    Raises:
        ValueError: if the file does not end with its "final" record, or a line cannot be read.
    """
    records = [from_line(line) for line in path.read_text(encoding="utf-8").splitlines()]
    if not records or records[-1].kind != "final":
        raise ValueError(f"{path} has no final record: delete it and run the cell again")
    return records


def read_all(results: Path) -> list[list[Record]]:
    """Return all complete runs below `results`, one list of records a run, sorted by path."""
    return [read(path) for path in sorted((results / "raw").glob("*/*.jsonl"))]


class Writer:
    """Appends records to the file of a run that is not complete yet."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def append(self, record: Record) -> None:
        """Write one line and flush it, so that a long run can be watched."""
        self._stream.write(to_line(record))
        self._stream.flush()


@contextmanager
def writing(path: Path) -> Iterator[Writer]:
    """Open the file of a run under a temporary name and give it its own name when the block succeeds.

    A file with its own name is therefore complete, which is all that resuming needs to know. What a failed
    run wrote stays under the temporary name, `….jsonl.partial`, until the cell is run again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as stream:
        yield Writer(stream)
    os.replace(partial, path)
