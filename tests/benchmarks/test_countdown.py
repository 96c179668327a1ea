import json
from pathlib import Path
from typing import Any

import pytest
from grpo_envs.countdown_players import ExactSolver

from benchmarks import countdown
from benchmarks.countdown import Player, accuracies, solved, table
from grpo_gym import GRPO
from tests.agents import small


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(countdown, "N_PROBLEMS", 20)
    monkeypatch.setattr(countdown, "K", 3)


def test_who_never_fails_solves_everything() -> None:
    assert solved(ExactSolver(4), 4, 2).all()
    assert solved(ExactSolver(4), 3, 2).shape == (2, 20)


def test_greedy_play_repeats_itself_and_sampled_play_does_not() -> None:
    agent = small("grpo/Countdown-v0")
    greedy, drawn = (solved(Player(agent, greedy=greedy), 3, 4) for greedy in (True, False))
    assert (greedy == greedy[0]).all()
    assert (drawn != drawn[0]).any()


def test_the_best_of_k_is_never_worse_than_the_mean_and_both_is_the_mean_of_the_counts() -> None:
    scores = accuracies(small("grpo/Countdown-v0"), "mask")
    for numbers in ("3", "4"):
        assert scores[numbers]["best of 3"] >= scores[numbers]["sampled"]
    assert scores["both"]["sampled"] == pytest.approx((scores["3"]["sampled"] + scores["4"]["sampled"]) / 2)


def test_where_illegal_tokens_are_punished_the_player_must_avoid_them_itself() -> None:
    agent = small("grpo/Countdown-v0")
    assert accuracies(agent, "mask")["3"]["sampled"] > accuracies(agent, "punish")["3"]["sampled"] == 0


def test_it_writes_what_it_measured_and_does_not_measure_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained: list[tuple[Any, ...]] = []

    def train(seed: int, steps: int, invalid: str) -> tuple[GRPO, float]:
        trained.append((seed, steps, invalid))
        return small("grpo/Countdown-v0"), 1.5

    monkeypatch.setattr(countdown, "train", train)
    output = tmp_path / "out.jsonl"
    for _ in range(2):
        countdown.main(["--seeds", "3", "4", "--steps", "50", "--output", str(output)])
    assert trained == [(seed, 50, invalid) for invalid in ("mask", "punish") for seed in (3, 4)]
    assert len(output.read_text().splitlines()) == 4
    written = output.with_suffix(".md").read_text()
    assert written in capsys.readouterr().out
    assert "| mask | both |" in written
    assert "| random legal tokens | 4 |" in written


def test_the_table_has_the_mean_the_smallest_and_the_largest() -> None:
    def record(greedy: float) -> dict[str, Any]:
        scores = {"greedy": greedy, "sampled": 0.5, "best of 3": 1.0}
        held_out = {"3": scores, "4": scores, "both": scores}
        return {"invalid": "mask", "held_out": held_out, "steps": 1_000, "cpu_seconds": 9.0}

    assert "| mask | 3 | 0.600 [0.400, 0.800] | 0.500 [0.500, 0.500]" in table([record(0.4), record(0.8)])


def test_the_stored_results_solve_most_held_out_problems_within_ten_minutes() -> None:
    records = [json.loads(line) for line in countdown.RESULTS.read_text().splitlines()]
    masked = [record for record in records if record["invalid"] == "mask"]
    assert {row["seed"] for row in masked} >= {0, 1, 2}
    assert all(row["cpu_seconds"] <= 600 for row in masked)
    assert min(row["held_out"]["both"]["greedy"] for row in masked) >= 0.6
    assert {record["seed"] for record in records if record["invalid"] == "punish"} >= {0, 1, 2}
