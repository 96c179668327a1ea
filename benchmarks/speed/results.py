"""The record of a case, one JSON line each, and the Markdown table made of all of them."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from benchmarks.cell import processor
from benchmarks.speed.case import Values

LINES, TABLE = "speed.jsonl", "speed.md"


@dataclass(frozen=True)
class Record:
    """All that was measured of one case, and where.

    Attributes:
        case: its name.
        about: see `case.Case`.
        compared: see there too.
        rounds: what each round found, in order; a side that did not get there has infinite values.
        command: the command that repeats it.
        threads: of torch, and as the environment variables say for the other libraries.
        versions: of Python and of the packages that matter.
        machine: processor and cores.
        load: average number of busy processes in the minute before the case; more than there are cores means
            that the sides waited for each other's neighbours, not for each other.
    """

    case: str
    about: str
    compared: Sequence[tuple[str, str | None]]
    rounds: Sequence[Values]
    command: str
    threads: Mapping[str, int]
    versions: Mapping[str, str]
    machine: Mapping[str, str | int]
    load: float


def machine() -> dict[str, str | int]:
    """Return the processor's name and the number of cores; never a host's name."""
    return {"cpu": processor(), "cores": os.cpu_count() or 1}


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the lower quartile, the median and the upper quartile, each one of the values.

    The value at rank ⌈q·n⌉: nothing is interpolated, so infinite values are allowed.
    """
    ordered = sorted(values)
    low, middle, high = (ordered[math.ceil(q * len(ordered)) - 1] for q in (0.25, 0.5, 0.75))
    return low, middle, high


def ratios(rounds: Sequence[Values], side: str, reference: str, unit: str) -> list[float]:
    """Divide one side by the other, round by round; a round in which neither got there compares nothing."""
    pairs = [(one[side][unit], one[reference][unit]) for one in rounds]
    return [ours / theirs for ours, theirs in pairs if math.isfinite(ours) or math.isfinite(theirs)]


def rows(record: Record) -> list[list[str]]:
    """Return the table's rows of one case, one for each comparison and unit, as the texts of their cells."""
    found = []
    for side, reference in record.compared:
        for unit in record.rounds[0][side]:
            values = [one[side][unit] for one in record.rounds]
            cells = [record.case, unit, side, _median(values)]
            if reference is None:
                cells += ["", "", "", f"{_number(min(values))} … {_number(max(values))}"]
            elif unit in record.rounds[0][reference]:
                low, middle, high = quartiles(ratios(record.rounds, side, reference, unit) or [math.inf])
                cells += [reference, _median([one[reference][unit] for one in record.rounds])]
                cells += [f"**{_number(middle)}**", f"{_number(low)} … {_number(high)}"]
            else:
                continue
            found.append([*cells, str(len(record.rounds))])
    return found


def table(records: Sequence[Record]) -> str:
    """Return the whole Markdown page: the rows of all cases, what the cases are, and where they were measured."""
    heads = ["case", "unit", "A", "A's median", "B", "B's median", "A / B", "quartiles", "rounds"]
    lines = [
        "# Speed",
        "",
        "Made by `python -m benchmarks.speed`. The claims are the ratios A / B, median and quartiles over rounds in",
        "which both sides were measured one straight after the other, with one thread. The figures themselves drift",
        "with whatever else the machine does; processor seconds (CPU) drift least. What was never reached is –, and",
        "a ratio of 0 says that A got there and B did not. Where there is no B: the least and the largest of A.",
        "",
        "| " + " | ".join(heads) + " |",
        "|---|---|---|--:|---|--:|--:|--:|--:|",
    ]
    lines += ["| " + " | ".join(cells) + " |" for record in records for cells in rows(record)]
    lines += ["", "## The cases", ""]
    lines += [f"- **{record.case}**: {record.about} `{record.command}`" for record in records]
    lines += ["", "## Where", ""]
    places: dict[str, list[str]] = {}
    for record in records:
        places.setdefault(_place(record), []).append(f"{record.case} (load {record.load:.1f})")
    lines += [f"- {place}: {', '.join(cases)}" for place, cases in places.items()]
    return "\n".join(lines) + "\n"


def to_line(record: Record) -> str:
    """Return the record as one line of JSON, with its line end; infinite values become null."""
    values = asdict(record)
    values["rounds"] = [
        {
            side: {unit: value if math.isfinite(value) else None for unit, value in found.items()}
            for side, found in one.items()
        }
        for one in record.rounds
    ]
    return json.dumps(values, allow_nan=False, ensure_ascii=False) + "\n"


def from_line(line: str) -> Record:
    """Return the record in one line of JSON.

    Raises:
        ValueError: if its fields are not exactly those of `Record`.
    """
    values = json.loads(line)
    if values.keys() != {field.name for field in fields(Record)}:
        raise ValueError(f"a line of {LINES} has the fields {sorted(values)}: delete it and measure the case again")
    values["compared"] = [tuple(pair) for pair in values["compared"]]
    values["rounds"] = [
        {
            side: {unit: math.inf if value is None else value for unit, value in found.items()}
            for side, found in one.items()
        }
        for one in values["rounds"]
    ]
    return Record(**values)


def store(record: Record, results: Path, order: Sequence[str]) -> None:
    """Put the record in the place of the case's earlier one, and make the table again.

    Args:
        record: of a case.
        results: folder of the two files.
        order: names of all cases, in the order of the table.
    """
    results.mkdir(parents=True, exist_ok=True)
    path = results / LINES
    stored = map(from_line, path.read_text(encoding="utf-8").splitlines()) if path.exists() else ()
    by_case = {one.case: one for one in (*stored, record) if one.case in order}
    records = sorted(by_case.values(), key=lambda one: order.index(one.case))
    path.write_text("".join(map(to_line, records)), encoding="utf-8")
    (results / TABLE).write_text(table(records), encoding="utf-8")


def _median(values: Sequence[float]) -> str:
    """Write the median, and how many rounds got there if not all did."""
    n_reached = sum(map(math.isfinite, values))
    text = _number(quartiles(values)[1])
    return text if n_reached == len(values) else f"{text} ({n_reached} of {len(values)})"


def _number(value: float) -> str:
    """Write three digits, all of them before the point from 100 on."""
    if not math.isfinite(value):
        return "–"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}" if value else "0"


def _place(record: Record) -> str:
    """Write the machine, the threads and the versions."""
    parts = {**record.machine, **record.threads, **record.versions}
    return ", ".join(f"{name} {value}" for name, value in parts.items())
