from dataclasses import replace
from typing import Any

import pytest
import torch

from grpo_gym.reports import episode_stats, rollout_stats, update_stats
from grpo_gym.update import UpdateSettings
from tests.toys import rollout_of

SETTINGS = UpdateSettings(0.001, 4, 64, clip_low=0.2, clip_high=0.2, ent_coef=0.0, max_grad_norm=0.5)


def test_spread_is_the_mean_over_groups_of_the_deviation_of_returns() -> None:
    # group 1: returns 1 and 3, deviation 1; group 2: 4 and 4, deviation 0
    rollout = rollout_of([[1.0], [1.0, 2.0], [4.0], [2.0, 2.0]], group_size=2)
    assert rollout_stats(rollout, 0.5)["rollout/group_return_std"] == 0.5


def test_a_lone_step_is_one_without_a_living_peer_in_its_group() -> None:
    # of the first group one plays steps 2 and 3 alone, in the second both play one step: 2 of 6 steps
    rollout = rollout_of([[1.0] * 3, [1.0], [1.0], [1.0]], group_size=2)
    assert rollout_stats(rollout, 0.0)["rollout/frac_lone_steps"] == pytest.approx(2 / 6)


def test_idle_steps_are_a_share_of_all_that_were_taken() -> None:
    rollout = rollout_of([[1.0] * 2, [1.0]], group_size=2)
    assert rollout_stats(rollout, 0.0)["rollout/idle_fraction"] == 0.0
    assert rollout_stats(replace(rollout, idle_steps=1), 0.0)["rollout/idle_fraction"] == 0.25


def test_the_share_of_ties_is_passed_on() -> None:
    assert rollout_stats(rollout_of([[1.0], [2.0]], 2), 0.75)["rollout/frac_zero_std_groups"] == 0.75


@pytest.mark.parametrize(
    ("episodes", "successes", "stats"),
    [
        ([], [], {}),
        ([{"r": 1.0, "l": 2}, {"r": 4.0, "l": 3}], [], {"ep_rew_mean": 2.5, "ep_len_mean": 2.5}),
        ([{"r": -1.0, "l": 1}], [1.0, 0.0, 0.0, 0.0], {"ep_rew_mean": -1.0, "ep_len_mean": 1.0, "success_rate": 0.25}),
    ],
)
def test_episodes_are_averaged_and_what_is_unknown_left_out(
    episodes: list[dict[str, Any]], successes: list[float], stats: dict[str, float]
) -> None:
    assert episode_stats(iter(episodes), iter(successes)) == {f"rollout/{name}": value for name, value in stats.items()}


def test_metrics_of_the_update_are_named_and_settings_added() -> None:
    assert update_stats({"loss": -0.5}, SETTINGS, None) == {
        "train/loss": -0.5,
        "train/learning_rate": 0.001,
        "train/clip_range": 0.2,
    }


def test_the_upper_clip_range_is_told_where_it_differs() -> None:
    assert update_stats({}, replace(SETTINGS, clip_high=0.3), None)["train/clip_range_high"] == 0.3


def test_the_deviation_of_actions_is_the_mean_over_their_dimensions() -> None:
    log_std = torch.tensor([1.0, 3.0]).log()
    assert update_stats({}, SETTINGS, log_std)["train/std"] == pytest.approx(2.0)
