from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from benchmarks import quickstart
from benchmarks.quickstart import Curve, steps_to_best_arm
from grpo_gym import GRPO, recipe
from grpo_gym.recipes import RECIPES

# --- the whole program, with little training -------------------------------------------------------------------

TRAINED = ("CartPole-v1", "grpo/Battleship-v0", "grpo/DynamicBandit-v0")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a short run, and what it printed."""
    folder = tmp_path_factory.mktemp("quickstart") / "out"
    with pytest.MonkeyPatch.context() as patch:
        printed: list[str] = []
        patch.setattr("builtins.print", lambda *words, **_: printed.append(" ".join(map(str, words))))
        quickstart.main(["--share", "0.002", "--output", str(folder)])
    return folder, "\n".join(printed)


def test_the_curves_are_drawn_into_a_png(ran: tuple[Path, str]) -> None:
    content = (ran[0] / "curves.png").read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert len(content) > 10_000


def test_there_is_a_tensorboard_run_of_each_environment(ran: tuple[Path, str]) -> None:
    runs = sorted(path.parent.name for path in (ran[0] / "tensorboard").glob("*/events.out.tfevents.*"))
    assert runs == ["CartPole-v1_1", "grpo-Battleship-v0_1", "grpo-DynamicBandit-v0_1"]


def test_the_agents_are_saved_with_their_recipes(ran: tuple[Path, str]) -> None:
    assert len(list(ran[0].glob("*.zip"))) == 3
    for env_id in TRAINED:
        agent = GRPO.load(ran[0] / env_id.replace("/", "-"))
        assert {name: getattr(agent, name) for name in recipe(env_id)} == recipe(env_id)
        assert agent.num_timesteps >= 0.002 * RECIPES[env_id].total_timesteps


def test_the_table_has_every_environment_with_what_to_compare_it_with(ran: tuple[Path, str]) -> None:
    lines = ran[1].splitlines()
    assert all(any(line.startswith(f"{env_id}  ") for line in lines) for env_id in TRAINED)
    for value, name in [
        ("500.000", "limit, and SB3 PPO (zoo) after 100k steps"),
        ("475.000", "solved"),
        ("0.716", "greedy exact posterior"),
        ("0.500", "microGRPO after 2,000 iterations (its README)"),
        ("0.405", "best fixed order"),
        ("0.153", "random"),
        ("14.104", "discounted Thompson sampling"),
        ("11.600", "UCB1"),
        ("19.230", "uniform"),
    ]:
        assert [line.split(maxsplit=1) for line in lines if line.endswith(f"  {name}")] == [[value, name]]


def test_it_ends_by_saying_how_to_open_what_it_wrote(ran: tuple[Path, str]) -> None:
    folder, printed = ran
    assert printed.splitlines()[-3:] == [
        f"learning curves:  {folder}/curves.png",
        f"all the details:  .venv/bin/tensorboard --logdir {folder}/tensorboard",
        f"watch CartPole:   .venv/bin/grpo-gym play {folder}/CartPole-v1.zip CartPole-v1",
    ]


# --- how soon the best arm is the likeliest --------------------------------------------------------------------

N_GAMES = 4
BEST = {20: 3, 60: 0}
"""The best arm from these steps on, for 20 steps each; at all others the arms are equal."""


class Scripted:
    """Thinks at step t that arm `likeliest(t)` is the best, in all games alike, and pulls arm 1."""

    def __init__(self, likeliest: Callable[[int], int]) -> None:
        self.likeliest, self.t = likeliest, -1
        self.policy = SimpleNamespace(get_distribution=self.get_distribution)

    def get_distribution(self, observations: torch.Tensor) -> Any:
        assert observations.shape[0] == N_GAMES
        self.t += 1
        log_probs = torch.full((N_GAMES, 5), 0.1).log()
        log_probs[:, self.likeliest(self.t)] = torch.tensor(0.6).log()
        return SimpleNamespace(log_probs=log_probs)

    def predict(self, observations: NDArray[Any]) -> tuple[NDArray[Any], None]:
        return np.ones(len(observations), np.int64), None


def best_arm(t: int) -> int:
    return BEST.get(t - t % 20, 4)


@pytest.mark.parametrize(
    ("likeliest", "delays"),
    [
        (best_arm, {20: 0, 60: 0}),  # always knows
        (lambda t: best_arm(t - 3), {20: 3, 60: 3}),  # needs three pulls
        (lambda t: 2, {20: 20, 60: 20}),  # never knows: as long as the regime is
        (lambda t: 3, {20: 0, 60: 20}),  # knows the first by chance
        (lambda t: 1 if t == 25 else best_arm(t), {20: 6, 60: 0}),  # forgets it once, at the sixth step
    ],
)
def test_the_steps_are_counted_until_the_best_arm_stays_the_likeliest(
    likeliest: Callable[[int], int], delays: dict[int, int]
) -> None:
    agent: Any = Scripted(likeliest)
    assert steps_to_best_arm(agent, N_GAMES) == delays
    assert agent.t == 99


def test_a_curve_has_points_at_equal_distances_and_one_where_it_is_asked_for_it() -> None:
    model = SimpleNamespace(num_timesteps=0)
    curve = Curve(lambda agent: agent.num_timesteps / 2, total_timesteps=120)  # a point every 10 steps
    curve.model = model
    for steps in (0, 4, 12, 18, 31):
        model.num_timesteps = curve.num_timesteps = steps
        curve.on_rollout_start()
    curve.add()
    assert curve.points == [(0, 0.0), (12, 6.0), (31, 15.5), (31, 15.5)]
