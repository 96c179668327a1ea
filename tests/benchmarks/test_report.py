from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks import figures, records, report, tables, tasks
from benchmarks.records import Record
from benchmarks.tables import Run
from tests.benchmarks.test_records import FINAL

CARTPOLE = tasks.find("CartPole-v1")


def run_of(seed: int, scores: Sequence[float], algorithm: str = "ppo", settings: str = "zoo") -> Run:
    """Return a run with an evaluation every 100 steps, a second of processor time each."""
    points = [
        dataclasses.replace(
            FINAL,
            kind="point",
            algorithm=algorithm,
            settings=settings,
            seed=seed,
            score=score,
            steps=100 * i,
            cpu_seconds=float(i),
        )
        for i, score in enumerate(scores, start=1)
    ]
    return [*points[:-1], dataclasses.replace(points[-1], kind="final")]


SLOW = [run_of(0, [20, 400, 500]), run_of(1, [20, 475, 470]), run_of(2, [20, 30, 499])]
FAST = [run_of(seed, [480, 500, 500], "mine", "recipe") for seed in (0, 1)]


def test_an_entry_is_about_final_scores_never_about_the_best() -> None:
    (entry,) = tables.entries(CARTPOLE, SLOW)
    assert entry.final_scores == [500, 470, 499]
    assert round(entry.score, 3) == 489.667
    assert entry.interval == (470.0, 500.0)


def test_tuning_seeds_and_other_tasks_are_not_reported() -> None:
    elsewhere = [dataclasses.replace(record, task="Acrobot-v1") for record in run_of(1, [1, 2])]
    (entry,) = tables.entries(CARTPOLE, [run_of(0, [1, 2]), run_of(100, [500, 500]), elsewhere])
    assert entry.seeds == [0]


def test_the_best_score_stands_first() -> None:
    assert [entry.label for entry in tables.entries(CARTPOLE, SLOW + FAST)] == ["mine (recipe)", "ppo (zoo)"]


def test_a_threshold_counts_as_reached_at_equality_and_at_the_first_time() -> None:
    assert [tables.first_reached(run, 475, lambda record: record.steps) for run in SLOW] == [300, 200, 300]
    assert tables.first_reached(SLOW[0], 501, lambda record: record.steps) == math.inf


@pytest.mark.parametrize(
    ("values", "expected"),
    [([300.0, 200.0, 300.0], "300 (3/3)"), ([100.0, math.inf], "100 (1/2)"), ([1.0, math.inf, math.inf], "– (1/3)")],
)
def test_a_median_of_which_half_is_missing_is_not_given(values: list[float], expected: str) -> None:
    assert tables.reached(values, "{:.0f}".format) == expected


@pytest.mark.parametrize(
    ("value", "expected"), [(500, "500"), (-169.4, "−169"), (88.04, "88.0"), (0.7161, "0.72"), (4815.2, "4,815")]
)
def test_scores_are_written_with_the_digits_they_deserve(value: float, expected: str) -> None:
    assert tables.number(value) == expected


def test_the_table_of_a_task() -> None:
    found = tables.entries(CARTPOLE, SLOW + FAST)
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in tables.task_table(found, found[1]).split("\n")
    ]
    assert rows[0][-3:] == ["steps to 475", "CPU s to 475", "CPU s to ppo (zoo)'s 490"]
    assert rows[2] == [
        "mine", "recipe", "2", "**500**", "500 … 500", "500, 500", "300", "3.0", "100 (2/2)", "1.0 (2/2)", "2.0 (2/2)",
    ]  # fmt: skip
    assert rows[3] == [
        "ppo", "zoo", "3", "**490**", "470 … 500", "500, 470, 499", "300", "3.0", "300 (3/3)", "3.0 (3/3)", "3.0 (2/3)",
    ]  # fmt: skip


def test_seconds_of_another_processor_are_marked() -> None:
    other: list[Run] = [
        [dataclasses.replace(record, versions={"processor": "other"}) for record in run] for run in FAST
    ]
    found = tables.entries(CARTPOLE, SLOW + other)
    mine, peer = tables.task_table(found, found[1]).splitlines()[2:]
    assert "| 300 | 3.0 † |" in mine
    assert "†" not in peer
    assert "†" not in tables.task_table(found, None)


def test_defaults_are_compared_with_defaults() -> None:
    defaults: list[Run] = [[dataclasses.replace(record, settings="default") for record in run] for run in SLOW + FAST]
    for_zoo, untuned = report.overview([tables.entries(CARTPOLE, SLOW + defaults)], profile=False).split("Of untuned")
    assert "P(better than ppo (zoo))" in for_zoo
    assert "P(better than ppo (default))" in untuned
    assert "| mine (default) |" in untuned
    assert "(zoo)" not in untuned


def test_over_all_tasks_only_shared_ones_are_compared() -> None:
    by_task = [tables.entries(CARTPOLE, SLOW + FAST)]
    table = tables.aggregate_table(by_task, ("ppo", "zoo"))
    assert table is not None
    # 500 beats 470 and 499 and ties with 500: 2.5 of 3
    assert table.splitlines()[-1].startswith("| mine (recipe) | 1 | 1.06 (1.06 … 1.06) |")
    assert table.splitlines()[-1].endswith("| 0.83 |")
    assert tables.aggregate_table(by_task, ("ars", "zoo")) is None


def test_curves_are_put_on_a_common_axis() -> None:
    (entry,) = tables.entries(CARTPOLE, [run_of(0, [0, 10, 20]), run_of(1, [4, 4, 4])])
    grid, curves = figures.on_grid(entry, lambda record: record.steps, n_grid=5)
    np.testing.assert_array_equal(grid, [100, 150, 200, 250, 300])
    np.testing.assert_array_equal(curves, [[0, 5, 10, 15, 20], [4, 4, 4, 4, 4]])


def test_a_band_of_one_run_is_that_run() -> None:
    middle, low, high = figures.band(np.array([[1.0, 2.0]]), np.random.default_rng(0))
    for line in (middle, low, high):
        np.testing.assert_array_equal(line, [1.0, 2.0])


def write_raw(run: Sequence[Record], results: Path) -> None:
    final = run[-1]
    with records.writing(records.path_of(results, final.task, final.algorithm, final.settings, final.seed)) as writer:
        for record in run:
            writer.append(record)


def test_the_report_is_made_from_the_raw_files_alone(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for run in SLOW + FAST:
        write_raw(run, tmp_path)
    report.main(["--results", str(tmp_path)])
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    command = "python -m benchmarks.run --algorithms mine --settings recipe --tasks CartPole-v1 --seeds 0 1\n"
    assert text.index(command) < text.index("| mine | recipe | 2 | **500** |")
    assert "![Performance profile](profile.png)" in text
    assert {path.name for path in tmp_path.glob("*.png")} == {"CartPole-v1.png", "profile.png"}


def test_a_folder_without_results_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        report.main(["--results", str(tmp_path)])
    assert "no complete run below" in capsys.readouterr().err
