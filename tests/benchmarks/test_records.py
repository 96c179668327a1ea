from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from benchmarks import records
from benchmarks.records import Record

POINT = Record(
    kind="point",
    algorithm="ppo",
    settings="zoo",
    task="CartPole-v1",
    env_id="CartPole-v1",
    env_kwargs={},
    seed=3,
    steps=5000,
    score=20.5,
    scores=(20.0, 21.0),
    wall_seconds=1.5,
    cpu_seconds=1.25,
    threads=1,
    versions={"python": "3.11.7"},
    command="python -m benchmarks.run --algorithms ppo",
)
FINAL = dataclasses.replace(POINT, kind="final", steps=10000)


def test_a_line_holds_every_field_and_gives_the_record_back() -> None:
    line = records.to_line(POINT)
    assert line.count("\n") == 1
    assert line.endswith("\n")
    assert json.loads(line) == {
        "kind": "point",
        "algorithm": "ppo",
        "settings": "zoo",
        "task": "CartPole-v1",
        "env_id": "CartPole-v1",
        "env_kwargs": {},
        "seed": 3,
        "steps": 5000,
        "score": 20.5,
        "scores": [20.0, 21.0],
        "wall_seconds": 1.5,
        "cpu_seconds": 1.25,
        "threads": 1,
        "versions": {"python": "3.11.7"},
        "command": "python -m benchmarks.run --algorithms ppo",
        "diagnostics": {},
    }
    assert records.from_line(line) == POINT


def test_a_line_of_another_schema_is_refused() -> None:
    with pytest.raises(ValueError, match="expected the fields"):
        records.from_line('{"algorithm": "ppo"}')


def test_a_score_that_is_not_a_number_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        records.to_line(dataclasses.replace(POINT, score=float("nan")))


def test_the_path_names_the_run() -> None:
    path = records.path_of(Path("results"), "CartPole-v1", "ppo", "zoo", 3)
    assert path == Path("results/raw/CartPole-v1/ppo-zoo-seed3.jsonl")


def test_a_run_has_its_file_only_when_it_is_complete(tmp_path: Path) -> None:
    path = records.path_of(tmp_path, "CartPole-v1", "ppo", "zoo", 3)
    with records.writing(path) as writer:
        writer.append(POINT)
        assert not path.exists()
        writer.append(FINAL)
    assert records.read(path) == [POINT, FINAL]
    assert [one.name for one in path.parent.iterdir()] == ["ppo-zoo-seed3.jsonl"]


def test_a_run_that_fails_leaves_no_file_of_that_name(tmp_path: Path) -> None:
    path = records.path_of(tmp_path, "CartPole-v1", "ppo", "zoo", 3)
    with pytest.raises(ValueError, match="not JSON compliant"), records.writing(path) as writer:
        writer.append(dataclasses.replace(POINT, score=float("inf")))
    assert not path.exists()
    assert records.read_all(tmp_path) == []
    with records.writing(path) as writer:
        writer.append(FINAL)
    assert records.read_all(tmp_path) == [[FINAL]]


def test_a_file_without_a_final_record_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.jsonl"
    path.write_text(records.to_line(POINT))
    with pytest.raises(ValueError, match="no final record"):
        records.read(path)
