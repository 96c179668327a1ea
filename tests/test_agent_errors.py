import re
import warnings
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from grpo_gym import GRPO
from grpo_gym.arguments import NOT_HERE
from tests.agents import all_finite, small, weights_digest
from tests.toys import BadNumber, IdentityDiscrete, IgnoresSeed, NothingLegal, Walk, WrongShape

NAN, INF = float("nan"), float("inf")

# --- arguments -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("group_size", [1, 0, -3, 2.5, "8", True, None]),
        ("n_groups", [0, -1, 1.5, None]),
        ("n_epochs", [0, 2.0]),
        ("batch_size", [0, -8, 64.0, "all"]),
        ("n_envs", [0, 1.5]),
        ("max_episode_steps", [0, -1, 100.0]),
        ("max_resamples", [-1, 0.5, None]),
        ("stats_window_size", [0, None]),
        ("gamma", [1.5, -0.1, NAN, "0.9", None]),
        ("ent_coef", [-0.01, NAN, INF, "auto"]),
        ("max_grad_norm", [0, -1.0, NAN, INF]),
        ("target_kl", [0, -0.1, NAN]),
        ("learning_rate", [NAN, INF, -1e-3, "fast", "lin_fast", "lin_nan"]),
        ("clip_range", [NAN, -0.2, "wide"]),
        ("clip_range_high", [INF, -0.2, "wide"]),
        ("baseline", ["critic", "", "Outcome"]),
        ("scale_rewards", ["both", True]),
        ("aggregation", ["mean", None]),
        ("seed", [-1, 0.5, "zero"]),
        ("device", ["gpu"]),
        ("policy", ["LstmPolicy", int, None, 3.0, torch.nn.Linear]),
    ],
)
def test_an_impossible_argument_is_refused_naming_it_and_its_value(name: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(ValueError, match=name) as caught:
            GRPO(**{"policy": "MlpPolicy", "env": IdentityDiscrete, name: value})
        shown = value if isinstance(value, float) else repr(value)
        assert str(shown) in str(caught.value)


@pytest.mark.parametrize("name", ["learning_rate", "clip_range"])
@pytest.mark.parametrize("value", [None, True, [0.1]])
def test_what_can_be_no_schedule_is_refused_naming_it(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=re.escape(f"{name}={value!r}")):
        small(IdentityDiscrete, **{name: value})


def test_a_group_of_one_is_told_why() -> None:
    with pytest.raises(ValueError, match="one episode has nothing to be compared with"):
        small(IdentityDiscrete, group_size=1)


@pytest.mark.parametrize("name", sorted(NOT_HERE))
def test_arguments_of_ppo_are_refused_with_the_reason(name: str) -> None:
    with pytest.raises(TypeError, match=name) as caught:
        small(IdentityDiscrete, **{name: 1})
    assert NOT_HERE[name] in str(caught.value)


@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [
        ("group_sise", "group_size"),
        ("learningrate", "learning_rate"),
        ("n_group", "n_groups"),
        ("entcoef", "ent_coef"),
        ("clip_range_hi", "clip_range_high"),
        ("normalise_observations", "normalize_observations"),
    ],
)
def test_a_misspelt_argument_gets_the_right_one_suggested(misspelt: str, meant: str) -> None:
    with pytest.raises(TypeError, match=f"'{misspelt}'; did you mean '{meant}'"):
        small(IdentityDiscrete, **{misspelt: 1})


def test_an_argument_like_no_other_gets_the_list_of_all() -> None:
    with pytest.raises(TypeError, match=r"'xyzzy'; known are policy, env, learning_rate, .*, device"):
        small(IdentityDiscrete, xyzzy=1)


def test_a_value_network_is_refused() -> None:
    with pytest.raises(ValueError, match="critic-free"):
        small(IdentityDiscrete, policy_kwargs={"net_arch": {"pi": [8], "vf": [8]}})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to use")
def test_a_gpu_that_is_not_there_becomes_the_cpu() -> None:
    assert [small(IdentityDiscrete, device=name).device.type for name in ("auto", "cuda", "cuda:1")] == ["cpu"] * 3


@pytest.mark.parametrize("value", ["step", 3, object()])
def test_what_is_no_callback_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="callback is a"):
        small(IdentityDiscrete).learn(10, callback=value)


@pytest.mark.parametrize("value", [0, -1])
def test_an_impossible_log_interval_is_refused_before_anything_is_played(value: int) -> None:
    agent = small(IdentityDiscrete)
    with pytest.raises(ValueError, match=f"log_interval={value}"):
        agent.learn(24, log_interval=value)
    assert agent.num_timesteps == 0


# --- environments ----------------------------------------------------------------------------------------------


class Unseedable(VectorEnv[Any, Any, Any]):
    """Takes one seed for all its slots, as vector environments of long ago did."""

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012 Gymnasium's own way
    num_envs = 2
    single_observation_space = observation_space = spaces.Box(0.0, 1.0, (1,))
    single_action_space = action_space = spaces.Discrete(2)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        if not isinstance(seed, int):
            raise TypeError(f"one seed, not {seed}")
        return np.zeros((2, 1), np.float32), {}


class Uncopyable(Walk):
    """Holds what `copy.deepcopy` cannot copy, as a simulator's handle does."""

    def __deepcopy__(self, memo: Any) -> Any:
        raise TypeError("a handle of the simulator")


def same_step() -> Any:
    return SyncVectorEnv([Walk] * 2, autoreset_mode=AutoresetMode.SAME_STEP)


@pytest.mark.parametrize(
    ("env", "error", "said"),
    [
        ("CartPol-v1", ValueError, r"'CartPol-v1'.*CartPole.*import grpo_envs"),
        ("no_such_module:Env-v0", ValueError, "no_such_module"),
        (3, TypeError, r"env=3 is a int; expected an environment id"),
        (Uncopyable(), ValueError, r"no spec.*a handle of the simulator.*pass a function that makes it"),
        (lambda: "walk", TypeError, "made a str, expected a gymnasium.Env"),
        (Unseedable(), ValueError, r"Unseedable.*does not accept a list of seeds.*one seed, not.*make_vec"),
        (same_step(), ValueError, r"resets itself in the same step.*make_vec"),
    ],
)
def test_what_cannot_form_groups_is_refused_with_what_to_pass(env: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        small(env)


def test_an_environment_with_a_spec_is_made_anew_from_it() -> None:
    agent = small(gym.make("CartPole-v1"))
    assert agent.n_envs == 6
    assert agent.learn(20).num_timesteps >= 20


def test_an_agent_without_an_environment_cannot_learn() -> None:
    with pytest.raises(ValueError, match=r"no environment.*set_env"):
        GRPO("MlpPolicy", None).learn(10)


def test_an_agent_made_without_an_environment_learns_once_it_has_one() -> None:
    agent = GRPO("MlpPolicy", None, seed=0)
    agent.set_env(IdentityDiscrete)
    assert agent.learn(10).num_timesteps >= 10


UNSUPPORTED: list[gym.Space[Any]] = [
    spaces.Tuple((spaces.Discrete(2), spaces.Text(3))),
    spaces.Text(5),
    spaces.Graph(spaces.Box(0.0, 1.0, (1,)), None),
    spaces.Sequence(spaces.Discrete(2)),
    spaces.Dict({"mission": spaces.Text(4)}),
    spaces.Dict({"outer": spaces.Dict({"inner": spaces.OneOf([spaces.Discrete(2)])})}),
]


def with_spaces(observation_space: Any, action_space: Any) -> Callable[[], Walk]:
    def make() -> Walk:
        env = Walk(action_space)
        env.observation_space = observation_space
        return env

    return make


@pytest.mark.parametrize("space", UNSUPPORTED, ids=str)
def test_unsupported_observations_are_refused_at_construction_naming_the_space(space: gym.Space[Any]) -> None:
    with pytest.raises(ValueError, match=r"expected Box, Discrete, .*gymnasium\.wrappers") as caught:
        small(with_spaces(space, None))
    assert str(space) in str(caught.value)


@pytest.mark.parametrize("space", UNSUPPORTED, ids=str)
def test_unsupported_actions_are_refused_at_construction_naming_the_space(space: gym.Space[Any]) -> None:
    with pytest.raises(ValueError, match=r"the action space .*; expected Box, Discrete, MultiDiscrete") as caught:
        small(with_spaces(spaces.Box(0.0, 1.0, (2,)), space))
    assert str(space) in str(caught.value)


@pytest.mark.parametrize(("low", "high"), [(-INF, INF), (0.0, INF), (-INF, 1.0)])
def test_unbounded_actions_are_refused_at_construction(low: float, high: float) -> None:
    with pytest.raises(ValueError, match=r"infinite bounds.*RescaleAction"):
        small(lambda: Walk(spaces.Box(low, high, (2,))))


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("what", ["observation", "reward"])
def test_numbers_that_are_not_finite_stop_training_before_they_reach_the_weights(what: str, value: float) -> None:
    agent = small(lambda: BadNumber(what, value, step=2))
    before = weights_digest(agent)
    with pytest.raises(ValueError, match=f"BadNumber: the {what} is not finite .* at step 2 of the episode with seed"):
        agent.learn(100)
    assert weights_digest(agent) == before


@pytest.mark.parametrize("step", [0, 2])
def test_an_observation_of_another_shape_is_refused_naming_both(step: int) -> None:
    with pytest.raises(ValueError, match=r"shape \(3,\), but observation_space says \(2,\)"):
        small(lambda: WrongShape(step)).learn(100)


def test_a_state_without_a_legal_action_is_refused() -> None:
    with pytest.raises(ValueError, match=r"NothingLegal: the action mask allows nothing at step 2"):
        small(NothingLegal).learn(100)


# --- an environment that ignores its seed ----------------------------------------------------------------------


def test_members_that_start_differently_are_warned_of_once_and_learned_from_all_the_same() -> None:
    agent = small(IgnoresSeed)
    before = weights_digest(agent)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        agent.learn(100)
        agent.learn(100, reset_num_timesteps=False)
    assert [str(w.message).split(":")[0] for w in caught] == ["IgnoresSeed"]
    assert "reset(seed=...) does not repeat the start" in str(caught[0].message)
    assert weights_digest(agent) != before
    assert all_finite(agent)


def test_a_healthy_environment_is_not_warned_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small(Walk).learn(100)
