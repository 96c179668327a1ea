"""Laws of the bandits: what arms pay, what is seen, and what the oracle says."""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from grpo_envs import BanditEnv, BanditVectorEnv, DynamicBanditEnv, DynamicBanditVectorEnv
from grpo_envs.bandits import judge
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

FIXED: dict[str, Any] = {"n_arms": 3, "means": (0.2, 0.9, 0.5)}


@pytest.mark.parametrize(
    ("name", "single", "vector", "n_arms"),
    [
        ("grpo/Bandit-v0", BanditEnv, BanditVectorEnv, 10),
        ("grpo/DynamicBandit-v0", DynamicBanditEnv, DynamicBanditVectorEnv, 5),
    ],
)
def test_the_bandits_are_registered(name: str, single: type, vector: type, n_arms: int) -> None:
    env = gym.make(f"grpo_envs:{name}")
    assert type(env.unwrapped) is single
    assert env.action_space == gym.spaces.Discrete(n_arms)
    assert env.observation_space.shape == (n_arms + 1,)
    many = gym.make_vec(name, 4, vectorization_mode="vector_entry_point")
    assert type(many) is vector
    assert many.metadata["autoreset_mode"] is AutoresetMode.DISABLED
    assert many.observation_space.shape == (4, n_arms + 1)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("grpo/Bandit-v0", {}),
        ("grpo/Bandit-v0", {"noise": "gaussian"}),
        ("grpo/Bandit-v0", FIXED),
        ("grpo/DynamicBandit-v0", {}),
        ("grpo/DynamicBandit-v0", {"noise": "bernoulli"}),
        ("grpo/DynamicBandit-v0", {"noise": "gaussian", "noise_std": 0.5}),
    ],
)
def test_gymnasium_finds_nothing_to_warn_of(name: str, options: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Gaussian rewards are truly unbounded, which the checker finds unusual
        if options.get("noise") == "gaussian":
            warnings.filterwarnings("ignore", message=".*infinity. This is probably too")
        check_env(gym.make(name, **options).unwrapped)


def test_the_observation_is_the_last_arm_and_its_reward_and_starts_at_zero() -> None:
    env = DynamicBanditEnv(schedule=[(1, (0.25, 0.5)), (1, (0.5, 0.25))])
    observation, _ = env.reset(seed=0)
    assert observation.tolist() == [0, 0, 0]
    assert observation.dtype == np.float32
    observation, reward, terminated, truncated, _ = env.step(1)
    assert observation.tolist() == [0, 1, 0.5]
    assert (reward, terminated, truncated) == (0.5, False, False)
    observation, reward, terminated, truncated, _ = env.step(1)
    assert observation.tolist() == [0, 1, 0.25]
    assert (reward, terminated, truncated) == (0.25, False, True)


def test_a_game_is_cut_at_its_horizon() -> None:
    env = BanditEnv(horizon=3)
    env.reset(seed=0)
    assert [env.step(0)[2:4] for _ in range(3)] == [(False, False), (False, False), (False, True)]
    with pytest.raises(gym.error.ResetNeeded, match="call reset"):
        env.step(0)


def test_an_arm_that_is_not_there_is_refused() -> None:
    env = BanditEnv(**FIXED)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"action=3 is not an arm; expected 0 … 2"):
        env.step(3)


def test_info_tells_the_best_arm_and_the_regret_of_the_step() -> None:
    env = BanditEnv(**FIXED)
    _, info = env.reset(seed=0)
    assert info == {"regime": 0, "best_arm": 1, "regret": 0.0}
    assert env.step(2)[-1] == {"regime": 0, "best_arm": 1, "regret": pytest.approx(0.4)}
    assert env.step(1)[-1] == {"regime": 0, "best_arm": 1, "regret": 0.0}


def test_equal_arms_have_no_best_and_ties_go_to_the_lowest() -> None:
    means = np.array([[0.4, 0.4, 0.4], [0.1, 0.7, 0.7], [0.3, 0.2, 0.1]])
    best_arm, regret = judge(means, np.array([2, 0, -1]))
    assert best_arm.tolist() == [-1, 1, 0]
    assert regret.tolist() == [0.0, pytest.approx(0.6), 0.0]


def test_the_default_schedule_is_flat_arm_3_flat_arm_0_flat() -> None:
    env = DynamicBanditEnv()
    env.reset(seed=0)
    seen = []
    for _ in range(100):
        *_, info = env.step(1)
        seen.append((info["regime"], info["best_arm"], round(info["regret"], 6)))
    flat = -1, 0.0
    expected = [(0, *flat)] * 20 + [(1, 3, 0.6)] * 20 + [(2, *flat)] * 20 + [(3, 0, 0.6)] * 20
    assert seen == expected + [(4, *flat)] * 20


def test_without_noise_an_arm_pays_its_mean() -> None:
    env = DynamicBanditEnv()
    env.reset(seed=0)
    rewards = [env.step(3)[1] for _ in range(100)]
    assert rewards == [0.4] * 20 + [0.8] * 20 + [0.4] * 20 + [0.2] * 20 + [0.4] * 20


def test_bernoulli_arms_pay_one_as_often_as_their_mean() -> None:
    env = BanditVectorEnv(2000, n_arms=3, means=(0.0, 0.7, 1.0), horizon=3)
    env.reset(seed=0)
    pays = [env.step(np.full(2000, arm))[1] for arm in range(3)]
    assert (pays[0] == 0).all()
    assert set(pays[1].tolist()) == {0.0, 1.0}
    # standard error 0.01
    assert pays[1].mean() == pytest.approx(0.7, abs=0.04)
    assert (pays[2] == 1).all()


def test_gaussian_arms_pay_their_mean_plus_unit_noise() -> None:
    env = BanditVectorEnv(4000, n_arms=2, means=(5.0, -1.0), noise="gaussian", horizon=1)
    env.reset(seed=0)
    _, rewards, *_ = env.step(np.zeros(4000, dtype=int))
    assert rewards.mean() == pytest.approx(5.0, abs=0.07)
    assert rewards.std() == pytest.approx(1.0, abs=0.05)


def test_gaussian_noise_of_the_dynamic_bandit_has_the_deviation_asked_for() -> None:
    for options, deviation in (({}, 0.1), ({"noise_std": 0.5}, 0.5)):
        env = DynamicBanditVectorEnv(4000, noise="gaussian", **options)  # type: ignore[arg-type]
        env.reset(seed=0)
        _, rewards, *_ = env.step(np.zeros(4000, dtype=int))
        assert rewards.mean() == pytest.approx(0.4, abs=deviation * 0.07)
        assert rewards.std() == pytest.approx(deviation, rel=0.05)


@pytest.mark.parametrize("noise", ["bernoulli", "gaussian"])
def test_games_of_one_seed_pay_the_same_whatever_was_pulled_before(noise: str) -> None:
    one, other = BanditEnv(noise=noise, horizon=6), BanditEnv(noise=noise, horizon=6)
    one.reset(seed=7)
    other.reset(seed=7)
    paid = [one.step(4)[1] for _ in range(6)]
    # the other game takes another way, and meets arm 4 at odd steps alone
    paid_on_another_way = [other.step(4 if step % 2 else step)[1] for step in range(6)]
    assert paid_on_another_way[1::2] == paid[1::2]


def test_the_same_noise_is_drawn_whatever_the_means_are() -> None:
    low = BanditEnv(2, horizon=50, noise="gaussian", means=(0.0, 0.0))
    high = BanditEnv(2, horizon=50, noise="gaussian", means=(3.0, 0.0))
    low.reset(seed=1)
    high.reset(seed=1)
    assert [high.step(0)[1] - low.step(0)[1] for _ in range(50)] == pytest.approx([3.0] * 50)


def test_means_are_drawn_anew_by_each_seed_and_zero_is_a_seed() -> None:
    env = BanditEnv()
    drawn = []
    for seed in (0, 0, 1, None):
        env.reset(seed=seed)
        drawn.append(env._deal.means.tolist())
    assert drawn[0] == drawn[1]
    assert drawn[1] != drawn[2] != drawn[3]
    assert 0 <= np.min(drawn) < np.max(drawn) <= 1


def test_given_means_stay_whatever_the_seed() -> None:
    env = BanditEnv(**FIXED)
    for seed in (0, 1):
        env.reset(seed=seed)
        assert env._deal.means.tolist() == [[0.2, 0.9, 0.5]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_arms": 1}, "take 2 or more"),
        ({"horizon": 0}, "at least 1 step"),
        ({"noise": "cauchy"}, "choose from bernoulli, gaussian"),
        ({"means": (0.1, 0.2)}, "pass n_arms=2"),
        ({"n_arms": 2, "means": (0.1, 1.2)}, "probabilities"),
        ({"n_arms": 2, "means": (0.1, float("nan"))}, "finite"),
    ],
)
def test_a_stationary_bandit_that_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BanditEnv(**options)
    with pytest.raises(ValueError, match=message):
        BanditVectorEnv(2, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": []}, "schedule is empty"),
        ({"schedule": [(0, (0.1, 0.2))]}, "at least 1 step"),
        ({"schedule": [(1, (0.1, 0.2)), (1, (0.1, 0.2, 0.3))]}, "the same number"),
        ({"schedule": [(1, (2.0, 0.2))], "noise": "bernoulli"}, "probabilities"),
        ({"noise": "none"}, "choose from None, bernoulli, gaussian"),
        ({"noise_std": 0.1}, "noise='gaussian'"),
        ({"noise": "gaussian", "noise_std": 0.0}, "a number > 0"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DynamicBanditEnv(**options)
    with pytest.raises(ValueError, match=message):
        DynamicBanditVectorEnv(2, **options)


def test_the_reward_bounds_are_those_of_the_noise() -> None:
    bounds = []
    for env in (
        BanditEnv(),
        BanditEnv(noise="gaussian"),
        DynamicBanditEnv(schedule=[(1, (-2.0, 3.0))]),
        DynamicBanditEnv(schedule=[(1, (2.0, 3.0))]),
    ):
        space = env.observation_space
        assert isinstance(space, gym.spaces.Box)
        bounds.append((space.low[-1], space.high[-1]))
    # the last reward is 0 at the start, so 0 is always within
    assert bounds == [(0, 1), (-np.inf, np.inf), (-2, 3), (0, 3)]


def test_text_and_picture_mark_the_pulled_arm() -> None:
    env = DynamicBanditEnv(schedule=[(4, (0.25, 1.0))], render_mode="ansi")
    env.reset(seed=0)
    env.step(1)
    assert env.render() == "step 1/4  regime 0   0.25  [1.00]  reward 1.00"
    env = DynamicBanditEnv(schedule=[(4, (0.25, 1.0))], render_mode="rgb_array")
    env.reset(seed=0)
    before = env.render()
    assert (before.shape, before.dtype) == ((96, 64, 3), np.uint8)
    # heights 0.25 and 1 of 96 pixels, 28 of 32 wide
    assert (before != 255).any(axis=2).sum(axis=0).tolist() == [0, 0, *[24] * 28, 0, 0, 0, 0, *[96] * 28, 0, 0]
    env.step(1)
    changed = (env.render() != before).any(axis=2)
    assert changed[:, 34:62].all()
    assert changed.sum() == 96 * 28


def test_what_was_returned_is_never_changed_later() -> None:
    env = BanditVectorEnv(2, horizon=5)
    first, _ = env.reset(seed=0)
    second, rewards, _, _, infos = env.step([1, 2])
    kept = second.copy(), rewards.copy(), infos["regret"].copy()
    env.step([3, 4])
    env.reset(seed=9)
    assert not first.any()
    for now, then in zip((second, rewards, infos["regret"]), kept, strict=True):
        assert (now == then).all()
