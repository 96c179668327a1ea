"""Measure our speed beside others': `python -m benchmarks.speed --only collect update`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.speed import results
from benchmarks.speed.cases import CASES, find
from benchmarks.speed.fresh import fresh

RESULTS = Path(__file__).parents[1] / "results"


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line asks for; return 0 if every case was measured, else 1."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", default=list(CASES), help="cases, or how their names begin"
    )
    parser.add_argument("--repeats", type=int, help="rounds (default: each case's own number); of `solve`: seeds")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of speed.jsonl and speed.md")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, for a trial; needs its own --results")
    parser.add_argument("--list", action="store_true", help="say which cases there are")
    chosen = parser.parse_args(arguments)
    if chosen.quick and chosen.results.resolve() == RESULTS.resolve():
        parser.error("--quick makes trial runs, which must not mix with results: name a folder by --results")
    if chosen.repeats is not None and chosen.repeats < 1:
        parser.error(f"--repeats {chosen.repeats} measures nothing: give a number from 1 on")
    try:
        names = find(chosen.only)
    except ValueError as error:
        parser.error(str(error))
    if chosen.list:
        for name in names:
            print(f"{name} ({CASES[name].repeats} rounds): {CASES[name].about}")
        return 0
    failed = []
    for name in names:
        print(f"{name}: {CASES[name].about}", flush=True)
        try:
            line = fresh("benchmarks.speed.cases:measured_line", name, chosen.repeats, chosen.quick)
        except RuntimeError as error:
            failed.append(f"{name} failed: {error}")
            continue
        record = results.from_line(line)
        results.store(record, chosen.results, list(CASES))
        for cells in results.rows(record):
            print("    " + " | ".join(cells[1:]), flush=True)
    print("".join(f"\n{one}" for one in failed), file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
