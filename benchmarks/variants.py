"""The whole family on the same tasks, with the same networks, groups, steps and passes: what is left are its formulas.

    python -m benchmarks.variants --seeds 0 1 2

A cell is one (variant, task, seed), trained by `benchmarks.run`; what is complete is skipped, so the same command
resumes. Raw results lie in `benchmarks/results/variants/raw`, the table beside them in `README.md`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import records, run, tables, tasks
from benchmarks.tasks import Task
from grpo_gym.recipes import recipe
from grpo_gym.variants import VARIANTS

TASK_NAMES = ("CartPole-v1", "Battleship-v0", "DynamicBandit-v0", "LunarLander-v3")
RESULTS = run.RESULTS / "variants"
PREFIX = "variant_"

SETTINGS = (f"{PREFIX}default", *(f"{PREFIX}{name}" for name in VARIANTS))
"""Names of the settings: `GRPO`'s defaults in place of a variant, and each variant."""

_NOT_FROM_THE_RECIPE = ("baseline", "gae_lambda", "n_steps")


def arguments(task: Task, settings: str) -> dict[str, Any]:
    """Return the constructor arguments of a variant: the recipe's sizes, schedule and network, and its formulas.

    What the recipe and the variant both say, as the number of groups, is the recipe's, so that variants differ in what
    they compute and not in how much. The discount is the variant's, where it was published with one.

    Raises:
        ValueError: if the family is not measured on this task.
    """
    if task.name not in TASK_NAMES:
        raise ValueError(f"{settings} is not for {task.name}: the family is measured on {', '.join(TASK_NAMES)}")
    name = settings.removeprefix(PREFIX)
    common = {key: value for key, value in recipe(task.env_id).items() if key not in _NOT_FROM_THE_RECIPE}
    if name == "default":
        return common
    if "gamma" in VARIANTS[name]:
        del common["gamma"]
    return {"variant": name, **common}


def report(results: Path) -> Path:
    """Write the table of all complete runs below `results` and return its path."""
    runs = records.read_all(results)
    by_task = [found for name in TASK_NAMES if (found := tables.entries(tasks.find(name), runs))]
    budgets = ", ".join(f"{found[0].task.name} {found[0].runs[0][-1].steps:,}" for found in by_task)
    command = "\n".join(
        f"python -m benchmarks.variants --tasks {found[0].task.name} --seeds {' '.join(map(str, _seeds(found)))}"
        for found in by_task
    )
    table = tables.ladder_table(by_task, SETTINGS, "variant", PREFIX)
    text = (
        "# The family\n\nOne learner, one network, the same number of groups, members, passes and rows in a minibatch "
        "(the recipe's of each task); only the variant differs, `grpo_gym.variant(name)` shows in what. `default` is "
        "none of them: soft groups. Final greedy score on the common seeds: IQM, 95 % interval, number of training "
        f"seeds. Env steps: {budgets}.\n\n```\n{command}\n```\n\n{table}\n"
    )
    path = results / "README.md"
    path.write_text(text, encoding="utf-8")
    return path


def _seeds(found: Sequence[tables.Entry]) -> list[int]:
    return sorted({run[-1].seed for entry in found for run in entry.runs})


def main(chosen_arguments: Sequence[str] | None = None) -> int:
    """Run the cells that are not complete and write the table; return 0 if none failed, else 1."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.variants", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ["default", *VARIANTS]
    parser.add_argument("--variants", nargs="+", default=names, choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--tasks", nargs="+", default=TASK_NAMES, choices=TASK_NAMES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="training seeds (default: 0 1 2)")
    parser.add_argument("--workers", type=int, default=1, help="cells trained at the same time (default: 1)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--steps", type=int, help="a budget of your own, for a trial; needs its own --results")
    chosen = parser.parse_args(chosen_arguments)
    if chosen.steps is not None and chosen.results.resolve() == RESULTS.resolve():
        parser.error("--steps makes trial runs, which must not mix with results: name a folder by --results")
    cells = [
        cell for name in chosen.variants for cell in run.plan(["grpo"], f"{PREFIX}{name}", chosen.tasks, chosen.seeds)
    ]
    failures = run.run(cells, chosen.results.resolve(), chosen.workers, chosen.steps)
    for failure in failures:
        print(f"\n{failure.cell} failed: {failure.reason}", file=sys.stderr)
    if any(cell.path(chosen.results).exists() for cell in cells):
        print(report(chosen.results).read_text(encoding="utf-8"))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
