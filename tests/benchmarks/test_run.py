from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import records, run
from benchmarks.cell import Cell
from tests.benchmarks.test_records import FINAL

CELLS = run.plan(["ppo"], "zoo", ["CartPole-v1", "Hopper-v5"], [0, 1])


def complete(cell: Cell, results: Path) -> None:
    with records.writing(cell.path(results)) as writer:
        writer.append(FINAL)


def test_cells_are_planned_by_task_then_seed_then_algorithm() -> None:
    cells = run.plan(["ppo", "a2c"], "zoo", ["CartPole-v1"], [0, 4])
    assert [str(cell) for cell in cells] == [
        "ppo zoo CartPole-v1 seed 0",
        "a2c zoo CartPole-v1 seed 0",
        "ppo zoo CartPole-v1 seed 4",
        "a2c zoo CartPole-v1 seed 4",
    ]


def test_without_seeds_the_reported_ones_are_run() -> None:
    cells = run.plan(["ppo"], "zoo", ["CartPole-v1", "LunarLander-v3", "Hopper-v5"], None)
    assert [cell.seed for cell in cells] == [*range(10), *range(5), *range(5)]


def test_complete_cells_are_skipped_and_a_failure_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    complete(CELLS[0], tmp_path)
    trained = []

    def train(cell: Cell, results: Path, steps: int | None) -> tuple[str, run.Failure | None]:
        trained.append(str(cell))
        if cell == CELLS[1]:
            return "FAILED", run.Failure(cell, "exit status 1")
        complete(cell, results)
        return "score 1.0", None

    monkeypatch.setattr(run, "train", train)
    failures = run.run(CELLS, tmp_path, workers=1)
    assert [failure.cell for failure in failures] == [CELLS[1]]
    assert trained == ["ppo zoo CartPole-v1 seed 1", "ppo zoo Hopper-v5 seed 0", "ppo zoo Hopper-v5 seed 1"]
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "4 cells: 1 complete, 3 to run"
    assert printed[1].startswith("[1/3] ppo zoo CartPole-v1 seed 1: FAILED; elapsed 0:00:00, about 0:00:0")
    assert printed[3].startswith("[3/3] ppo zoo Hopper-v5 seed 1: score 1.0; elapsed")

    trained.clear()
    assert [failure.cell for failure in run.run(CELLS, tmp_path, workers=1)] == [CELLS[1]]
    assert trained == ["ppo zoo CartPole-v1 seed 1"]


def test_a_cell_completed_by_another_run_in_the_meantime_is_left_alone(tmp_path: Path) -> None:
    complete(CELLS[0], tmp_path)
    assert run.train(CELLS[0], tmp_path, None) == ("already complete", None)


def test_the_list_says_what_is_done_and_what_is_missing(tmp_path: Path) -> None:
    complete(CELLS[1], tmp_path)
    lines = [line.split() for line in run.listing(CELLS, tmp_path).splitlines()]
    assert lines == [
        ["task", "algorithm", "settings", "seeds", "done", "missing"],
        ["CartPole-v1", "ppo", "zoo", "1", "0"],
        ["Hopper-v5", "ppo", "zoo", "-", "0", "1"],
    ]


def test_a_real_cell_that_fails_is_reported_with_its_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # a peer has no recipe; where the peers are not installed the import fails, which is a failure just as well
    names = ["--algorithms", "ppo", "--settings", "recipe", "--tasks", "CartPole-v1", "--seeds", "0"]
    assert run.main([*names, "--results", str(tmp_path)]) == 1
    assert "ppo recipe CartPole-v1 seed 0 failed: exit status 1" in capsys.readouterr().err
    assert records.read_all(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--algorithms", "pp0"], "there is no learner 'pp0'"),
        (["--algorithms", "ppo", "--tasks", "CartPole"], "there is no task 'CartPole'"),
        (["--algorithms", "ppo", "--steps", "100"], "must not mix with results"),
    ],
)
def test_a_wrong_command_line_is_explained(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run.main(arguments)
    assert message in capsys.readouterr().err
