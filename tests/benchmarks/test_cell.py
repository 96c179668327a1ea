from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import cell, learners, records, tasks
from benchmarks.cell import Cell, Stopwatch
from benchmarks.evaluation import Evaluator
from benchmarks.learners import OnProgress, Trained
from benchmarks.tasks import Task

TASK = dataclasses.replace(tasks.find("CartPole-v1"), steps=100, n_evaluations=4)


def push_left(observations: NDArray[Any], masks: NDArray[Any] | None) -> NDArray[Any]:
    assert masks is None
    return np.zeros(len(observations), dtype=np.int64)


class Stepper:
    """A learner that reports every 10 steps and passes the budget of 100 by 10."""

    def train(self, task: Task, seed: int, settings: str, on_progress: OnProgress) -> Trained:
        for steps in range(10, 120, 10):
            on_progress(steps, push_left, {"seed": float(seed)})
        return Trained(110, push_left)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fake_learner", SimpleNamespace(STEPPER=Stepper()))
    monkeypatch.setattr(learners, "LEARNERS", {"fake": "fake_learner:STEPPER"})


@pytest.mark.usefixtures("fake")
def test_a_run_is_evaluated_at_equal_distances_and_once_more_at_its_end(tmp_path: Path) -> None:
    one = Cell("fake", "zoo", TASK, 7)
    returned = cell.train(one, tmp_path)
    found = records.read(one.path(tmp_path))
    # a quarter of 100 steps is 25: passed at 30, 50 and 80; the fourth evaluation is that of the final agent
    assert [(record.kind, record.steps) for record in found] == [
        ("point", 30),
        ("point", 50),
        ("point", 80),
        ("final", 110),
    ]
    assert found[-1] == returned
    assert [record.diagnostics for record in found] == [{"seed": 7.0}] * 3 + [{}]
    assert {record.threads for record in found} == {1}
    assert found[0].command == "python -m benchmarks.run --algorithms fake --settings zoo --tasks CartPole-v1 --seeds 7"
    assert found[0].versions["gymnasium"][0].isdigit()
    assert found[0].versions["processor"] == cell.processor()


@pytest.mark.usefixtures("fake")
def test_the_same_policy_scores_the_same_at_every_evaluation(tmp_path: Path) -> None:
    one = Cell("fake", "zoo", TASK, 0)
    cell.train(one, tmp_path)
    scores = [record.scores for record in records.read(one.path(tmp_path))]
    assert scores == [scores[0]] * 4
    assert len(scores[0]) == 20
    # a cart that is always pushed to the left drops its pole within 8 to 10 steps, one reward each
    assert all(8 <= score <= 10 for score in scores[0])


def test_evaluation_is_left_out_of_both_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    clocks = SimpleNamespace(perf_counter=lambda: clock.now, process_time=lambda: clock.now / 2)
    monkeypatch.setattr(cell, "time", clocks)
    stopwatch = Stopwatch()
    clock.now = 10.0
    assert stopwatch.pause() == (10.0, 5.0)
    clock.now = 50.0
    stopwatch.resume()
    clock.now = 52.0
    assert stopwatch.pause() == (12.0, 6.0)


def test_evaluation_seeds_are_fixed_and_far_from_the_training_seeds() -> None:
    assert tasks.EVALUATION_SEEDS[:2] == (10_000_019, 10_000_020)
    assert len(set(tasks.EVALUATION_SEEDS)) == 20
    assert max(max(task.seeds) for task in tasks.TASKS.values()) == 9


class Countdown:
    """Ends after as many steps as its seed says; pays 1 a step; only the action that it last named is legal."""

    def reset(self, *, seed: int) -> tuple[NDArray[Any], dict[str, Any]]:
        self._left = seed
        return self._state()

    def step(self, action: int) -> tuple[NDArray[Any], float, bool, bool, dict[str, Any]]:
        assert action == self._left % 2
        self._left -= 1
        observation, info = self._state()
        return observation, 1.0, self._left == 0, False, info

    def close(self) -> None: ...

    def _state(self) -> tuple[NDArray[Any], dict[str, Any]]:
        legal = np.arange(2) == self._left % 2
        return np.array([self._left]), {"action_mask": legal.astype(np.int8)}


def test_masks_reach_the_policy_and_finished_episodes_leave_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Task, "make_env", lambda self: Countdown())
    batches = []

    def obey(observations: NDArray[Any], masks: NDArray[Any] | None) -> NDArray[Any]:
        assert masks is not None
        batches.append(len(observations))
        return np.asarray(masks.argmax(axis=1))

    evaluator = Evaluator(dataclasses.replace(TASK, masked=True), seeds=(1, 3, 2))
    assert evaluator.scores(obey) == (1.0, 3.0, 2.0)
    assert batches == [3, 2, 1]
    evaluator.close()


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no learner 'pp0': choose from grpo, ppo, a2c, ars"):
        learners.load("pp0")
    with pytest.raises(ValueError, match=r"no task 'CartPole': choose from CartPole-v1, "):
        tasks.find("CartPole")
