from collections import Counter
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, Text
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from grpo_gym import GroupReport, check_group_env
from grpo_gym.doctor import RandomActor, random_effects
from tests.toys import (
    UNIT_BOX,
    BadNumber,
    CountingVectorEnv,
    Endless,
    IgnoresSeed,
    MaskedByInfo,
    MaskedByMethod,
    NothingLegal,
    Raises,
    Walk,
    WrongShape,
)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its warnings into the working folder


def check(env: Any, n_groups: int = 4, group_size: int = 4, max_episode_steps: int = 40, **kwargs: Any) -> GroupReport:
    return check_group_env(env, n_groups, group_size, max_episode_steps=max_episode_steps, **kwargs)


def exact(report: GroupReport) -> list[str]:
    return [proof.method for proof in report.snapshots if proof.exact]


class Payday(gym.Env[Any, Any]):
    """One step; the return is `per_start` times what the seed draws, plus `per_action` times the action."""

    observation_space = Box(-10.0, 10.0, (1,), np.float32)
    action_space = Discrete(5)

    def __init__(self, per_start: float, per_action: float):
        self.per_start, self.per_action = per_start, per_action

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.start = self.np_random.standard_normal()
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        return np.zeros(1, np.float32), self.per_start * self.start + self.per_action * action, True, False, {}


# --- healthy environments --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "env",
    [
        "CartPole-v1",
        gym.spec("CartPole-v1"),
        lambda: gym.make("CartPole-v1"),
        gym.make("CartPole-v1"),
    ],
    ids=["id", "spec", "factory", "env"],
)
def test_whatever_describes_an_environment_gets_the_same_report(env: Any) -> None:
    report = check(env)
    assert (report.name, report.has_time_limit) == ("CartPole-v1", True)
    assert (report.equal_starts, report.equal_transitions) == (True, True)
    assert exact(report) == ["deepcopy", "replay"]
    assert report.problems == ()
    assert str(report) == str(check("CartPole-v1"))


def test_cartpole_ends_by_falling_and_earns_its_length() -> None:
    report = check("CartPole-v1", max_episode_steps=1000)
    assert (report.terminated, report.truncated, report.cut) == (1, 0, 0)
    assert report.return_mean == report.mean_length
    assert 15 < report.mean_length < 30


@pytest.mark.parametrize("env_id", ["FrozenLake-v1", "grpo_envs:grpo/Battleship-v0", "grpo_envs:grpo/Bandit-v0"])
def test_other_healthy_environments_repeat_themselves(env_id: str) -> None:
    report = check(env_id)
    assert (report.equal_starts, report.equal_transitions) == (True, True)
    assert exact(report) == ["deepcopy", "replay"]


def test_lunar_lander_is_compared_by_state_and_replayed() -> None:
    pytest.importorskip("Box2D", reason="needs the extra box2d")
    report = check("LunarLander-v3", n_groups=8, group_size=8, max_episode_steps=200)
    assert (report.equal_starts, report.equal_transitions) == (True, True)
    assert exact(report) == ["replay"]
    assert report.recommended_baseline == "soft_groups"
    assert report.problems == ()


@pytest.mark.parametrize(("limit", "expected"), [(500, None), (501, 128)])
def test_where_random_play_lasts_long_segments_are_recommended(limit: int, expected: int | None) -> None:
    report = check(lambda: gym.make("Pendulum-v1", max_episode_steps=limit), max_episode_steps=1000)
    assert (report.terminated, report.recommended_n_steps) == (0, expected)
    assert ("n_steps=128" in str(report)) == (expected is not None)


def test_half_cheetah_is_not_copied_but_restored() -> None:
    pytest.importorskip("mujoco", reason="needs the extra mujoco")
    report = check("HalfCheetah-v5", n_groups=2, group_size=2)
    assert (report.equal_starts, report.equal_transitions) == (True, True)
    assert exact(report) == ["mujoco", "replay"]
    assert report.cut == 1
    assert report.problems == ()  # it was cut here, but it has a time limit


@pytest.mark.parametrize("env", [MaskedByInfo, MaskedByMethod])
def test_only_legal_actions_are_played(env: type[Walk]) -> None:
    assert check(env).problems == ()  # they refuse illegal ones


def test_the_same_seed_gives_the_same_report_and_another_seed_another() -> None:
    assert str(check(Walk, seed=1)) == str(check(Walk, seed=1)) != str(check(Walk, seed=2))


def test_the_global_generators_are_left_alone() -> None:
    before = torch.get_rng_state()
    check(Walk)
    assert torch.equal(torch.get_rng_state(), before)


def test_every_step_of_groups_and_twins_is_counted() -> None:
    counter: Counter[str] = Counter()
    report = check(SyncVectorEnv([lambda: Walk(counter=counter)] * 3, autoreset_mode=AutoresetMode.DISABLED))
    assert report.n_steps == counter["steps"] > 0


# --- vector environments ---------------------------------------------------------------------------------------


def test_a_vector_environment_is_checked_but_for_snapshots_and_left_open() -> None:
    closed: list[int] = []

    class Closing(Walk):
        def close(self) -> None:
            closed.append(1)

    env = SyncVectorEnv([Closing] * 2, autoreset_mode=AutoresetMode.DISABLED)
    report = check(env)
    assert (report.equal_starts, report.equal_transitions, report.snapshots) == (True, True, ())
    assert report.problems == ()
    assert closed == []
    env.close()


def test_a_native_vector_environment_is_checked_too() -> None:
    report = check(CountingVectorEnv(3, copy=False))
    assert (report.equal_starts, report.equal_transitions) == (True, True)
    assert report.return_mean == 1 + 2 + 3 + 4


def test_environments_made_here_are_closed() -> None:
    closed: list[int] = []

    class Closing(Walk):
        def close(self) -> None:
            closed.append(id(self))

    check(Closing)
    assert len(set(closed)) >= 3


# --- sick environments -----------------------------------------------------------------------------------------


def test_unequal_starts_are_found_and_no_baseline_by_the_start_is_recommended() -> None:
    report = check(IgnoresSeed)
    assert (report.equal_starts, report.equal_transitions) == (False, None)
    assert set(report.unexplained) == {"batch", "soft_groups"}
    (problem,) = report.problems
    assert "self.np_random" in problem


class Drifting(Walk):
    """Starts alike, but draws its noise from a generator of its own that no seed resets."""

    def __init__(self) -> None:
        super().__init__()
        self.own = np.random.default_rng(0)

    def step(self, action: Any) -> Any:
        self.x += float(self.own.uniform(-0.01, 0.01))
        return super().step(action)


class Remembers(Walk):
    """Pays more in each episode than in the one before."""

    resets = 0

    def reset(self, **kwargs: Any) -> Any:
        self.resets += 1
        return super().reset(**kwargs)

    def _reward(self) -> float:
        return float(self.resets)


@pytest.mark.parametrize("env", [Drifting, Remembers])
def test_unequal_transitions_are_found(env: type[Walk]) -> None:
    report = check(env)
    assert (report.equal_starts, report.equal_transitions) == (True, False)
    assert exact(report) == ["deepcopy"]
    (problem,) = report.problems
    assert "forget" in problem


def test_an_endless_environment_is_cut_and_needs_a_limit() -> None:
    report = check(Endless)
    assert (report.terminated, report.truncated, report.cut, report.mean_length) == (0, 0, 1, 40)
    (problem,) = report.problems
    assert "TimeLimit" in problem
    mended = check(lambda: gym.wrappers.TimeLimit(Endless(), 10))
    assert (mended.terminated, mended.truncated, mended.cut, mended.mean_length) == (0, 1, 0, 10)
    assert mended.problems == ()


def test_a_reward_that_never_varies_teaches_nothing() -> None:
    class Flat(Walk):
        def _reward(self) -> float:
            return 0.0

    report = check(Flat)
    assert (report.tied_groups, report.within_std, report.between_std) == (1, 0, 0)
    assert report.recommended_baseline == "soft_groups"
    (problem,) = report.problems
    assert "teaches nothing" in problem


class Old(Walk):
    def step(self, action: Any) -> Any:
        return super().step(action)[:4]


class Seedless(Walk):
    def reset(self) -> Any:  # type: ignore[override]
        raise AssertionError


class Mission(Walk):
    observation_space = Dict({"x": UNIT_BOX, "mission": Text(5)})  # type: ignore[assignment]


class Words(Walk):
    def __init__(self) -> None:
        super().__init__()
        self.action_space = Text(5)  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("env", "words"),
    [
        (lambda: Raises(KeyError("mine"), step=2), ["KeyError: 'mine'"]),
        (lambda: BadNumber("reward", np.nan, 1), ["the reward is not finite", "wrapper"]),
        (lambda: BadNumber("observation", np.inf, 1), ["the observation is not finite"]),
        (lambda: WrongShape(1), ["shape (3,)", "observation_space says (2,)"]),
        (NothingLegal, ["action mask allows nothing", "end the episode"]),
        (Old, ["ValueError: not enough values"]),
        (Seedless, ["unexpected keyword argument 'seed'"]),
        (Mission, ["not supported", "its part 'mission' is a Text", "FlattenObservation"]),
        (Words, ["Text", "not supported; expected Box, Discrete, MultiDiscrete, MultiBinary"]),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_an_environment_that_cannot_be_played_is_a_report_with_the_reason(env: Any, words: list[str]) -> None:
    report = check(env)
    (problem,) = report.problems
    assert [word for word in words if word not in problem] == []
    assert report.recommended_baseline is None
    assert (report.equal_starts, report.equal_transitions, report.snapshots) == (None, None, ())
    assert "PROBLEM" in str(report)


# --- what is no environment, and arguments that cannot work ----------------------------------------------------


@pytest.mark.parametrize(
    ("env", "error", "said"),
    [
        ("CartPol-v1", ValueError, "there is no environment"),
        (3, TypeError, "expected an environment id"),
        (gym.make_vec("CartPole-v1", 2), ValueError, "vectorization_mode='sync'"),
    ],
)
def test_what_is_no_environment_is_refused(env: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        check(env)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"n_groups": 1}, "n_groups=1 must be a whole number, at least 2: starts"),
        ({"group_size": 1}, "group_size=1 must be a whole number, at least 2"),
        ({"max_episode_steps": 0}, "max_episode_steps=0"),
        ({"seed": -1}, "seed=-1"),
        ({"gamma": 1.5}, "gamma=1.5"),
    ],
)
def test_arguments_that_cannot_work_are_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check(Walk, **arguments)


# --- variance and recommendation -------------------------------------------------------------------------------


def test_variance_is_taken_apart_by_hand() -> None:
    # within: both 2; means 2 and 6, whose variance 8 contains 2 / 2 of the members'
    assert random_effects(torch.tensor([[1.0, 3.0], [5.0, 7.0]])) == (2.0, 7.0)


def test_groups_that_differ_less_than_chance_have_no_variance_between() -> None:
    assert random_effects(torch.tensor([[1.0, 3.0], [1.0, 3.0]])) == (2.0, 0.0)


def test_where_the_start_decides_all_no_member_differs() -> None:
    report = check(lambda: Payday(per_start=1.0, per_action=0.0))
    assert (report.within_std, report.start_share, report.tied_groups) == (0, 1, 1)
    assert report.between_std > 0.3


def test_where_the_start_decides_most_live_peers_are_recommended() -> None:
    report = check(lambda: Payday(per_start=10.0, per_action=0.1), n_groups=8)
    assert report.start_share > 0.95
    assert report.recommended_baseline == "live_peers"
    assert report.unexplained["live_peers"] < 0.05
    assert report.unexplained["batch"] > 0.9


def test_where_the_start_decides_nothing_the_batch_is_recommended() -> None:
    report = check(lambda: Payday(per_start=0.0, per_action=1.0), n_groups=32)
    assert report.start_share < 0.25  # 1 / G: at this share the two would be as good
    assert report.recommended_baseline == "batch"
    assert report.unexplained["batch"] < report.unexplained["live_peers"]


def test_soft_groups_are_not_tried_on_pictures() -> None:
    class Picture(Walk):
        observation_space = Box(-100.0, 100.0, (24, 24), np.float32)

        def _observation(self) -> Any:
            return np.full((24, 24), self.x, np.float32)

    assert set(check(Picture).unexplained) == {"live_peers", "batch", "shrunk"}


# --- the random actor ------------------------------------------------------------------------------------------


def noise(*values: float) -> Any:
    return np.array(values, np.float32)[:, None]


def test_noise_chooses_among_all_actions_or_the_legal_ones() -> None:
    actor = RandomActor(Discrete(4, start=7))
    actions, log_probs = actor.act(np.zeros((4, 1)), noise(0.1, 0.3, 0.6, 0.9))
    assert actor.to_env(actions).tolist() == [7, 8, 9, 10]
    assert log_probs.tolist() == [0, 0, 0, 0]
    masks = np.array([[False, True, False, True]] * 4)
    actions, _ = actor.act(np.zeros((4, 1)), noise(0.1, 0.3, 0.6, 0.9), masks)
    assert actor.to_env(actions).tolist() == [8, 8, 10, 10]


def test_noise_fills_a_box_evenly() -> None:
    actor = RandomActor(Box(np.array([[0.0, -2.0]], np.float32), np.array([[4.0, 2.0]], np.float32)))
    assert actor.noise_size == 2
    actions, _ = actor.act(np.zeros((1, 1)), np.array([[0.25, 0.5]], np.float32))
    assert actor.to_env(actions).tolist() == [[[1.0, 0.0]]]
    assert actor.to_env(actions).dtype == np.float32
