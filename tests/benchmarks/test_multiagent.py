"""Laws of the games' benchmark: the exact player is exact, and what is measured is not measured again."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

pytest.importorskip("pettingzoo", reason="games of several agents; grpo_gym[multiagent] brings it")

from benchmarks import multiagent
from benchmarks.multiagent import TASKS, main
from benchmarks.tictactoe import ExactPlayer, after, play_all_lines, value
from grpo_gym import GRPO
from grpo_gym.marl_evaluation import RandomPlayer, play_match


def test_tic_tac_toe_is_a_draw_and_a_double_threat_is_won() -> None:
    assert value((0,) * 9) == 0
    assert value((1, 1, 0, -1, -1, 0, 0, 0, 0)) == 1
    assert value((-1, -1, -1, 1, 1, 0, 0, 0, 0)) == -1
    assert after((0, 1, -1, 0, 0, 0, 0, 0, 0), 0) == (-1, -1, 1, 0, 0, 0, 0, 0, 0)


def test_the_exact_player_draws_with_itself_and_never_loses() -> None:
    pytest.importorskip("pygame", reason="PettingZoo's tic-tac-toe imports it")
    env = multiagent.TICTACTOE
    assert play_match(env, ExactPlayer(), ExactPlayer(1), 20) == (0, 20, 0)
    wins, _, losses = play_match(env, ExactPlayer(), RandomPlayer(gym.spaces.Discrete(9)), 40)
    assert losses == 0
    assert wins > 20


def test_an_opening_follows_from_the_seed_and_leaves_the_game_open() -> None:
    pytest.importorskip("pygame", reason="PettingZoo's tic-tac-toe imports it")
    from benchmarks.openings import Openings

    game, again = Openings(), Openings()
    lengths = set()
    for seed in range(40):
        game.reset(seed=seed)
        again.reset(seed=seed)
        planes = game.observe(game.agent_selection)["observation"]
        assert np.array_equal(planes, again.observe(again.agent_selection)["observation"])
        assert not any(game.terminations.values())
        lengths.add(int(planes.sum()))
    assert lengths == {0, 1, 2, 3, 4, 5, 6}


def test_no_reply_beats_the_exact_player_and_some_beat_the_one_who_takes_the_first_cell() -> None:
    class First:
        def predict(
            self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
        ) -> tuple[Any, Any]:
            return observation["action_mask"].argmax(axis=-1), state

    assert play_all_lines(ExactPlayer()).lost == 0
    assert play_all_lines(First()).lost > 0


def test_what_is_there_is_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []

    def train(task: Any, algorithm: str, seed: int) -> dict[str, Any]:
        asked.append((task.name, algorithm, seed))
        return {"task": task.name, "algorithm": algorithm, "seed": seed, "scores": {"random": [9, 1, 0]}}

    monkeypatch.setattr(multiagent, "train", train)
    words = ["--tasks", "duel", "simple_spread", "--seeds", "0", "1", "--output", str(tmp_path / "results.jsonl")]
    main(words)
    games = ["simple_spread"]
    assert asked == [("duel", "grpo", seed) for seed in (0, 1)] + [
        (name, algorithm, seed) for name in games for algorithm in ("grpo", "ppo", "random") for seed in (0, 1)
    ]
    main(words)
    assert len(asked) == 8
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 8
    row = "| duel | grpo | 0 |  |  | random: 9–1–0 |"
    assert row in capsys.readouterr().out
    assert row in (tmp_path / "results.md").read_text()


def test_the_tables_say_what_was_measured() -> None:
    learned = {"mean return of a player": -18.26, "standard error": 0.41}
    records: list[dict[str, Any]] = [
        {
            "task": "simple_spread",
            "algorithm": "grpo",
            "seed": 1,
            "steps": 51_200,
            "cpu_seconds": 12.3,
            "before": {"mean return of a player": -70.0, "standard error": 2.0},
            "scores": learned,
        },
        {
            "task": "throughput",
            "command": "make it so",
            "scores": {"grpo": {"runs": [3000, 2000], "median": 2500}, "ppo": {"runs": [400, 600], "median": 500}},
        },
    ]
    text = multiagent.report(records)
    assert "| simple_spread | grpo | 1 | 51,200 | 12 | -70.0 → -18.3 ± 0.4 |" in text
    assert "| ppo | 400, 600 | 500 | 5.0 |" in text


def test_a_run_is_recorded_with_its_steps_and_its_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiagent, "N_GAMES", 20)
    task = dataclasses.replace(next(task for task in TASKS if task.name == "duel"), steps=100)
    record = multiagent.train(task, "grpo", seed=100)
    assert record["steps"] >= 100
    assert record["agent_steps"] == record["steps"]
    assert {name: sum(score) for name, score in record["scores"].items()} == {
        "random": 20,
        "fixed order": 20,
        "posterior hunter": 20,
    }
    assert '"chosen": [0]' in multiagent.to_line(record)


def test_the_duels_network_sees_the_players_own_shots_and_nothing_else() -> None:
    task = next(task for task in TASKS if task.name == "duel")
    agent: Any = GRPO(task.policy, task.make, seed=0, **task.settings)
    (policy,) = (learner.policy for learner in agent.learners.values())
    boards = torch.randint(-1, 2, (4, 3, 5, 5), generator=torch.Generator().manual_seed(0)).to(torch.int8)
    others, own = boards.clone(), boards.clone()
    others[:, 1:] *= -1
    own[:, 0] *= -1
    played, with_others, with_own = (policy.get_distribution(x).log_probs for x in (boards, others, own))
    assert torch.equal(with_others, played)
    assert not torch.equal(with_own, played)
