import math
from typing import Any

import numpy as np
import pytest
import torch

from grpo_gym import arguments
from grpo_gym.policy import MlpPolicy

GOOD: dict[str, Any] = {
    "group_size": 8,
    "n_groups": 4,
    "n_epochs": 4,
    "stats_window_size": 100,
    "max_resamples": 0,
    "vine_states": 16,
    "vine_continuations": 4,
    "batch_size": 256,
    "n_envs": None,
    "n_workers": 1,
    "n_steps": None,
    "value_window": 16,
    "max_episode_steps": None,
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "ent_coef": 0.0,
    "max_grad_norm": 0.5,
    "target_kl": None,
    "baseline": "live_peers",
    "scale_rewards": "batch",
    "aggregation": "step",
    "objective": "clipped",
    "ratio_cap": None,
    "min_group_std": 0.0,
    "truncated_episodes": "keep",
    "kl_coef": 0.0,
    "kl_estimator": "k3",
    "kl_in": "loss",
    "reference_update": None,
    "reference_kl": None,
    "reward_functions": None,
    "adapter_rank": None,
    "policy_class": MlpPolicy,
}


def test_good_arguments_pass() -> None:
    arguments.check(GOOD)
    arguments.check({**GOOD, "group_size": 2, "batch_size": None, "n_envs": 1, "gamma": 1, "target_kl": 0.01})


@pytest.mark.parametrize("value", [1, 0, -3, 2.5, "8", None, True])
def test_a_group_of_fewer_than_two_is_refused_and_the_reason_given(value: Any) -> None:
    with pytest.raises(ValueError, match=r"group_size=.*at least 2: one episode has nothing to be compared with") as e:
        arguments.check({**GOOD, "group_size": value})
    assert f"group_size={value!r}" in str(e.value)


@pytest.mark.parametrize(
    "name", ["n_groups", "n_epochs", "stats_window_size", "batch_size", "n_envs", "max_episode_steps", "value_window"]
)
@pytest.mark.parametrize("value", [0, -1, 1.5, "4", math.nan, False])
def test_impossible_sizes_are_refused_by_name_and_value(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name}={value!r} must be a whole number, at least 1"):
        arguments.check({**GOOD, name: value})


def test_resampling_may_be_zero_but_not_less() -> None:
    with pytest.raises(ValueError, match="max_resamples=-1 must be a whole number, at least 0"):
        arguments.check({**GOOD, "max_resamples": -1})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gamma", -0.1),
        ("gamma", 1.1),
        ("gamma", math.nan),
        ("gamma", "0.9"),
        ("gamma", None),
        ("gae_lambda", 1.01),
        ("gae_lambda", -0.1),
        ("ent_coef", -1e-9),
        ("ent_coef", math.inf),
        ("max_grad_norm", 0),
        ("max_grad_norm", math.inf),
        ("max_grad_norm", True),
        ("target_kl", 0.0),
        ("target_kl", -1),
        ("kl_coef", -0.1),
        ("kl_coef", math.inf),
        ("min_group_std", -1),
        ("ratio_cap", 0),
        ("reference_update", 0),
        ("reference_kl", 0.0),
    ],
)
def test_impossible_numbers_are_refused_by_name_and_value(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name}={value!r} must be a finite number") as caught:
        arguments.check({**GOOD, name: value})
    if name in ("gamma", "gae_lambda"):
        assert "at least 0.0, at most 1.0" in str(caught.value)


@pytest.mark.parametrize(
    "name",
    ["baseline", "scale_rewards", "aggregation", "objective", "truncated_episodes", "kl_estimator", "kl_in"],
)
@pytest.mark.parametrize("value", ["nonsense", None, 3, ["step"]])
def test_unknown_choices_are_refused_and_the_known_are_listed(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match="is not known; choose from") as caught:
        arguments.check({**GOOD, name: value})
    assert f"{name}={value!r}" in str(caught.value)
    assert GOOD[name] in str(caught.value)


@pytest.mark.parametrize("kind", [np.int64, np.int32])
def test_numpy_integers_are_whole_numbers(kind: type[np.integer[Any]]) -> None:
    arguments.check({**GOOD, "group_size": kind(8), "batch_size": kind(64)})


@pytest.mark.parametrize("kind", [np.float64, np.float32])
def test_numpy_floats_are_numbers(kind: type[np.floating[Any]]) -> None:
    arguments.check({**GOOD, "gamma": kind(0.5), "ent_coef": kind(0.0)})


def test_a_misspelt_argument_gets_the_closest_known_name() -> None:
    with pytest.raises(TypeError, match=r"no argument 'lerning_rate'; did you mean 'learning_rate'\?"):
        arguments.refuse_unknown(["lerning_rate"], ["learning_rate", "gamma"])


def test_an_argument_like_none_is_answered_with_all_of_them() -> None:
    with pytest.raises(TypeError, match="no argument 'xyz'; known are learning_rate, gamma"):
        arguments.refuse_unknown(["xyz"], ["learning_rate", "gamma"])


@pytest.mark.parametrize("name", arguments.NOT_HERE)
def test_an_argument_of_ppo_without_a_place_here_is_explained(name: str) -> None:
    with pytest.raises(TypeError, match=f"no argument '{name}': ") as caught:
        arguments.refuse_unknown([name], ["learning_rate"])
    assert arguments.NOT_HERE[name] in str(caught.value)


def test_no_unknown_argument_is_no_error() -> None:
    arguments.refuse_unknown([], ["learning_rate"])


@pytest.mark.parametrize(
    ("given", "steps"), [(100, 100), (2e4, 20_000), (1e15, 10**15), (0.5, 1), (np.int64(7), 7), (np.float32(8), 8)]
)
def test_any_positive_number_of_steps_can_be_asked_for(given: Any, steps: int) -> None:
    assert arguments.total_timesteps(given) == steps
    assert isinstance(arguments.total_timesteps(given), int)


@pytest.mark.parametrize("given", [0, -5, math.nan, math.inf, "1000", None, True])
def test_an_impossible_number_of_steps_is_refused_by_name(given: Any) -> None:
    with pytest.raises(ValueError, match=f"total_timesteps={given!r} must be a finite number, above 0"):
        arguments.total_timesteps(given)


def test_the_cpu_is_the_cpu() -> None:
    assert arguments.device("cpu") == torch.device("cpu")
    assert arguments.device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize("wanted", ["auto", "cuda", "cuda:1"])
def test_a_gpu_that_is_not_there_becomes_the_cpu(wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert arguments.device(wanted) == torch.device("cpu")


@pytest.mark.parametrize(("wanted", "found"), [("auto", "cuda"), ("cuda", "cuda"), ("cuda:1", "cuda:1")])
def test_a_gpu_that_is_there_is_used(wanted: str, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert arguments.device(wanted) == torch.device(found)


def test_a_nonsense_device_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="device='quantum' is not known; expected 'auto', 'cpu' or 'cuda'"):
        arguments.device("quantum")


SEGMENTS = {**GOOD, "n_steps": 64, "baseline": "soft_groups"}


def test_segments_go_with_a_baseline_that_can_bootstrap() -> None:
    arguments.check(SEGMENTS)
    arguments.check({**SEGMENTS, "n_envs": 32, "scale_rewards": "none"})


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("baseline", "live_peers", "expected soft_groups, or n_steps=None for whole episodes"),
        ("scale_rewards", "group", "expected 'batch' or 'none', or n_steps=None"),
        ("aggregation", "trajectory", "expected 'step', or n_steps=None"),
        ("max_resamples", 2, "expected 0, or n_steps=None"),
        ("min_group_std", 0.1, "expected 0, or n_steps=None"),
        ("objective", "sequence", "expected 'clipped' or 'clipped_weights', or n_steps=None"),
        ("reward_functions", [("one", len, 1.0)], "expected None, or n_steps=None"),
        ("n_envs", 16, "n_envs is n_groups * group_size = 32, not 16"),
    ],
)
def test_what_needs_whole_episodes_is_refused_with_segments(name: str, value: Any, expected: str) -> None:
    with pytest.raises(ValueError, match="n_steps=64 cuts episodes before they end") as caught:
        arguments.check({**SEGMENTS, name: value})
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"scale_rewards": "group_episodes"}, "baseline='live_peers' gives each step its own; expected leave_one_out"),
        ({"scale_rewards": "batch_episodes", "baseline": "process"}, "baseline='process' gives each step its own"),
        ({"ratio_cap": 3.0, "objective": "clipped_weights"}, "ratio_cap is for what is clipped by a minimum"),
        (
            {"kl_coef": 0.1, "reference_update": 1.5},
            "reference_update=1.5 must be whole iterations from 1 on, or a share",
        ),
        ({"reference_update": 5}, "kl_coef=0: there is no reference to update or to keep near"),
        ({"reference_kl": 0.1}, "kl_coef=0: there is no reference"),
        ({"adapter_rank": 0}, "adapter_rank=0 must be a whole number, at least 1"),
    ],
)
def test_members_of_the_family_that_cannot_be_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        arguments.check({**GOOD, **given})


def test_all_of_the_family_that_can_be_passes() -> None:
    arguments.check({**GOOD, "kl_coef": 0.1, "reference_update": 5, "reference_kl": 0.1, "adapter_rank": 1})
    arguments.check({**GOOD, "kl_coef": 0.1, "reference_update": 0.5, "ratio_cap": 3.0})
    for baseline in ("outcome", "leave_one_out", "scalar"):
        arguments.check({**GOOD, "scale_rewards": "batch_episodes", "baseline": baseline})
    arguments.check({**SEGMENTS, "objective": "clipped_weights", "kl_coef": 0.1, "kl_in": "reward"})
