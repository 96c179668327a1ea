import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from grpo_envs.bandit_players import UniformArms

from benchmarks import bandit_regret
from benchmarks.bandit_regret import Windowed, delay, play
from grpo_gym import GRPO


class Clairvoyant:
    """Pulls the best arm from `late` steps after each switch on, before that arm 1."""

    def __init__(self, late: int) -> None:
        self.late = late

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        t = 0 if state is None else state
        arm = 3 if 20 + self.late <= t < 40 else 0 if 60 + self.late <= t < 80 else 1
        return np.full(len(observation), arm), t + 1


@pytest.mark.parametrize("noise", [None, "gaussian", "bernoulli"])
def test_regret_and_delay_of_a_known_player(noise: str | None) -> None:
    scores = play(Clairvoyant(late=3), noise, n_games=2)
    # three steps of 0.8 − 0.2, and three of 0.7 − 0.1
    assert scores["regret by regime"] == {"20": pytest.approx(1.8), "60": pytest.approx(1.8)}
    assert scores["regret"] == pytest.approx(3.6)
    assert scores["delays"] == {"20": 3, "60": 3}


def test_who_draws_at_random_has_the_regret_of_chance() -> None:
    # 20 · (0.8 − 0.28) + 20 · (0.7 − 0.26)
    assert play(UniformArms(5, seed=0), None, n_games=500)["regret"] == pytest.approx(19.2, abs=0.2)


def test_a_delay_lasts_until_the_last_mistake() -> None:
    assert delay(np.array([True, False, True, False])) == 3
    assert delay(np.array([False, False])) == 0
    assert delay(np.array([True, True])) == 2


def test_the_window_holds_the_last_pulls_the_oldest_first() -> None:
    seen: list[Any] = []

    class Watching:
        def predict(self, observation: Any, deterministic: bool) -> tuple[Any, None]:
            seen.append(observation)
            return np.zeros(1), None

    player, state = Windowed(Watching(), 2), None  # type: ignore[arg-type]
    for reward in (0.0, 1.0, 2.0):
        _, state = player.predict(np.full((1, 6), reward, np.float32), state)
    assert [window[0, :, 0].tolist() for window in seen] == [[0, 0], [0, 1], [1, 2]]


def test_it_writes_what_it_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bandit_regret, "N_GAMES", 5)

    def train(noise: str | None, window: int, seed: int) -> GRPO:
        return bandit_regret_train(noise, window, seed, 1)

    bandit_regret_train = bandit_regret.train
    monkeypatch.setattr(bandit_regret, "train", train)
    output = tmp_path / "out.jsonl"
    bandit_regret.main(["--seeds", "0", "--noise", "none", "bernoulli", "--output", str(output)])
    assert len(output.read_text().splitlines()) == 2
    written = output.with_suffix(".md").read_text()
    assert "| bernoulli | GRPO, 1 seeds |" in written
    assert "| none | Thompson sampling, discount 0.9 |" in written


@pytest.mark.parametrize("noise", bandit_regret.NOISES)
def test_the_stored_results_find_the_best_arm_within_ten_steps_of_each_switch(noise: str) -> None:
    records = [json.loads(line) for line in bandit_regret.RESULTS.read_text().splitlines()]
    rows = [record for record in records if record["noise"] == noise]
    assert len(rows) == 5
    assert max(max(row["delays"].values()) for row in rows) <= 10
    thompson = play(
        bandit_regret.PLAYERS["Thompson sampling, discount 0.9"]("gaussian" if noise == "gaussian" else "bernoulli"),
        bandit_regret.NOISES[noise],
        200,
    )
    assert max(row["regret"] for row in rows) < thompson["regret"]
