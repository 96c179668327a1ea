from dataclasses import replace
from typing import Any

import pytest
import torch

from grpo_gym.baselines import BASELINES, Comparison
from grpo_gym.reports import episode_stats, rollout_stats, update_stats
from grpo_gym.types import Rollout
from grpo_gym.update import UpdateSettings
from tests.toys import rollout_of

SETTINGS = UpdateSettings(0.001, 4, 64, clip_low=0.2, clip_high=0.2, ent_coef=0.0, max_grad_norm=0.5)


def of(rollout: Rollout, tied_share: float = 0.0, baseline: str = "live_peers") -> dict[str, float]:
    return rollout_stats(rollout, BASELINES[baseline](rollout, Comparison(gamma=1.0)), tied_share)


def test_spread_is_the_mean_over_groups_of_the_deviation_of_returns() -> None:
    # group 1: returns 1 and 3, deviation 1; group 2: 4 and 4, deviation 0
    rollout = rollout_of([[1.0], [1.0, 2.0], [4.0], [2.0, 2.0]], group_size=2)
    assert of(rollout)["rollout/group_return_std"] == 0.5


def test_a_lone_step_is_one_without_a_living_peer_in_its_group() -> None:
    # of the first group one plays steps 2 and 3 alone, in the second both play one step: 2 of 6 steps
    rollout = rollout_of([[1.0] * 3, [1.0], [1.0], [1.0]], group_size=2)
    assert of(rollout)["rollout/frac_lone_steps"] == pytest.approx(2 / 6)


def test_live_peers_are_the_other_members_that_live_at_the_same_step() -> None:
    # at the first step three have 2 peers each, at the second two have 1 each, at the third one has none
    rollout = rollout_of([[1.0] * 3, [1.0] * 2, [1.0]], group_size=3)
    assert of(rollout)["rollout/live_peers"] == pytest.approx((3 * 2 + 2 * 1 + 1 * 0) / 6)


def test_pieces_of_episodes_have_neither_live_peers_nor_a_spread() -> None:
    rollout = replace(rollout_of([[1.0] * 3, [1.0]], group_size=2), terminated=torch.tensor([True, False]))
    assert set(of(rollout)) == {
        "rollout/frac_zero_std_groups",
        "rollout/idle_fraction",
        "rollout/unexplained_variance",
    }


@pytest.mark.parametrize(
    ("baseline", "unexplained"),
    [
        # returns-to-go 0, 2, 10, 12: mean 6, variance (36 + 16 + 16 + 36) / 4 = 26
        ("live_peers", 4 / 26),  # residuals −2, 2, −2, 2
        ("outcome", 1 / 26),  # residuals −1, 1, −1, 1
        ("leave_one_out", 4 / 26),
        ("batch", 16 / 9),  # a mean without oneself: each residual is 4/3 of that from 6
        ("scalar", 16 / 9),
    ],
)
def test_what_a_baseline_leaves_unexplained(baseline: str, unexplained: float) -> None:
    rollout = rollout_of([[0.0], [2.0], [10.0], [12.0]], group_size=2)
    assert of(rollout, baseline=baseline)["rollout/unexplained_variance"] == pytest.approx(unexplained)


def test_one_number_for_an_episode_explains_nothing_within_it() -> None:
    # returns-to-go 3, 2, 1 twice, variance 2/3; the mean return of the other is 3: residuals 0, −1, −2 twice
    rollout = rollout_of([[1.0] * 3] * 2, group_size=2)
    assert of(rollout, baseline="leave_one_out")["rollout/unexplained_variance"] == 1.0
    assert of(rollout, baseline="live_peers")["rollout/unexplained_variance"] == 0.0


def test_where_all_returns_are_equal_there_is_nothing_to_explain() -> None:
    assert "rollout/unexplained_variance" not in of(rollout_of([[0.1], [0.1]], 2))


def test_idle_steps_are_a_share_of_all_that_were_taken() -> None:
    rollout = rollout_of([[1.0] * 2, [1.0]], group_size=2)
    assert of(rollout)["rollout/idle_fraction"] == 0.0
    assert of(replace(rollout, idle_steps=1))["rollout/idle_fraction"] == 0.25


def test_the_share_of_ties_is_passed_on() -> None:
    assert of(rollout_of([[1.0], [2.0]], 2), tied_share=0.75)["rollout/frac_zero_std_groups"] == 0.75


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
