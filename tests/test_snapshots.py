import copy
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpo_envs  # noqa: F401 registers the environments
import gymnasium as gym
import numpy as np
import pytest

from grpo_gym.snapshots import METHODS, MakeEnv, Proof, by_mujoco, by_replay, prove, proven_method
from tests.toys import UNIT_BOX, IgnoresSeed, MaskedByInfo, MaskedByMethod, Raises, ReusesBuffer, Walk

BOX2D, MUJOCO = ("Box2D", "box2d"), ("mujoco", "mujoco")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its warnings into the working folder


def maker(env_id: str, needs: tuple[str, str] | None = None, **kwargs: Any) -> MakeEnv:
    if needs is not None:
        pytest.importorskip(needs[0], reason=f"needs the extra {needs[1]}")
    return lambda: gym.make(env_id, disable_env_checker=True, **kwargs)


def verdicts(make_env: MakeEnv, max_steps: int = 40) -> dict[str, bool]:
    return {method: prove(method, make_env, 3, max_steps).exact for method in METHODS}


def course(env: gym.Env[Any, Any], actions: Any) -> list[Any]:
    """What stepping gives, as far as the episode goes."""
    seen = []
    for action in actions:
        observation, reward, terminated, truncated, _ = env.step(action)
        seen.append((np.asarray(observation).tolist(), float(reward), terminated, truncated))
        if terminated or truncated:
            break
    return seen


class Noisy(Walk):
    """Draws its noise from a generator that all environments share, as `np.random` is."""

    shared = np.random.default_rng(0)

    def step(self, action: Any) -> Any:
        self.x += float(self.shared.uniform(-0.01, 0.01))
        return super().step(action)


class Locked(Walk):
    """Holds something that Python cannot copy."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


# --- which way is exact for which environment ------------------------------------------------------------------


@pytest.mark.parametrize(
    "env_id",
    [
        "CartPole-v1",
        "Acrobot-v1",
        "MountainCar-v0",
        "Pendulum-v1",
        "FrozenLake-v1",
        "CliffWalking-v1",
        "grpo/Battleship-v0",
        "grpo/DynamicBandit-v0",
    ],
)
def test_environments_in_plain_python_can_be_copied_and_replayed(env_id: str) -> None:
    assert verdicts(maker(env_id)) == {"deepcopy": True, "mujoco": False, "replay": True}


def test_box2d_cannot_be_copied_but_lunar_lander_can_be_replayed() -> None:
    assert verdicts(maker("LunarLander-v3", BOX2D)) == {"deepcopy": False, "mujoco": False, "replay": True}


@pytest.mark.parametrize("env_id", ["HalfCheetah-v5", "Hopper-v5"])
def test_mujoco_is_not_copied_by_deepcopy_but_by_its_state_and_by_replay(env_id: str) -> None:
    make_env = maker(env_id, MUJOCO)
    assert verdicts(make_env) == {"deepcopy": False, "mujoco": True, "replay": True}
    assert prove("deepcopy", make_env).reason == "restored after 0 steps, step 1 differs in observation and reward"


@pytest.mark.parametrize("env_id", ["Ant-v5", "Humanoid-v5"])
def test_what_mujoco_derived_in_its_last_step_comes_back_too(env_id: str) -> None:
    # their rewards come from the centres of mass before the step, which mj_setState does not restore
    assert prove("mujoco", maker(env_id, MUJOCO), max_steps=12) == Proof("mujoco", exact=True)


@pytest.mark.parametrize("env", [MaskedByInfo, MaskedByMethod, ReusesBuffer, lambda: Walk(UNIT_BOX)])
def test_only_legal_actions_are_tried_and_buffers_do_no_harm(env: MakeEnv) -> None:
    assert verdicts(env) == {"deepcopy": True, "mujoco": False, "replay": True}


def test_observations_may_be_dictionaries_and_episodes_one_step_long() -> None:
    class Nested(Walk):
        def _observation(self) -> Any:
            return {"x": (np.float32(self.x), self.np_random.bit_generator.state["bit_generator"]), "t": self.t}

    assert verdicts(lambda: Nested(limit=1)) == {"deepcopy": True, "mujoco": False, "replay": True}


# --- what a proof finds out ------------------------------------------------------------------------------------


def test_a_start_that_the_seed_does_not_repeat_can_be_copied_but_not_replayed() -> None:
    assert verdicts(IgnoresSeed) == {"deepcopy": True, "mujoco": False, "replay": False}


def test_noise_from_outside_of_the_environment_is_found_out() -> None:
    assert verdicts(Noisy) == {"deepcopy": False, "mujoco": False, "replay": False}
    assert prove("deepcopy", Noisy).reason == "restored after 0 steps, step 1 differs in observation and reward"


def test_a_copy_that_is_the_original_itself_is_found_out() -> None:
    class Uncopied(Walk):
        def __deepcopy__(self, memo: Any) -> Any:
            return self

    assert not prove("deepcopy", Uncopied).exact


def test_two_copies_that_share_their_state_are_found_out() -> None:
    class Shared(Walk):
        def __init__(self) -> None:
            super().__init__(limit=20)
            self.offset = np.zeros(1)

        def step(self, action: Any) -> Any:
            self.offset += 0.001
            self.x += float(self.offset[0])
            return super().step(action)

        def reset(self, **kwargs: Any) -> Any:
            self.offset = np.zeros(1)
            return super().reset(**kwargs)

        def __deepcopy__(self, memo: Any) -> Any:
            copied = Shared()
            copied.__dict__.update(self.__dict__)  # the array is the same one
            copied.np_random = copy.deepcopy(self.np_random)
            return copied

    assert not prove("deepcopy", Shared).exact


def test_a_copy_that_forgets_the_time_limit_is_found_out_at_the_end() -> None:
    class Forgetful(gym.wrappers.TimeLimit[Any, Any]):
        def __deepcopy__(self, memo: Any) -> Any:
            copied: Any = Forgetful(copy.deepcopy(self.env, memo), 12)
            copied._elapsed_steps = 0
            return copied

    proof = prove("deepcopy", lambda: Forgetful(gym.make("Pendulum-v1").unwrapped, 12))
    assert proof == Proof("deepcopy", False, "restored after 1 steps, step 12 differs in truncated")


def test_a_reset_that_remembers_the_episode_before_is_found_out() -> None:
    class Remembers(Walk):
        resets = 0

        def reset(self, **kwargs: Any) -> Any:
            self.resets += 1
            return super().reset(**kwargs)

        def _reward(self) -> float:
            return float(self.resets)

    assert verdicts(Remembers) == {"deepcopy": True, "mujoco": False, "replay": False}


def test_what_cannot_be_copied_is_refused_with_pythons_reason() -> None:
    proof = prove("deepcopy", Locked)
    assert not proof.exact
    assert "cannot pickle '_thread.lock' object, when taking a snapshot after 0 steps" in proof.reason
    assert prove("replay", Locked).exact


def test_an_environment_without_mujoco_is_refused() -> None:
    assert "TypeError: Walk has no MuJoCo model and data" in prove("mujoco", Walk).reason


def never() -> Any:
    raise OSError("no display")


@pytest.mark.parametrize(
    ("make_env", "said"),
    [
        (never, "OSError: no display, when making an environment"),
        (lambda: Raises(KeyError("mine"), step=2), "KeyError: 'mine', when taking step 2"),
    ],
)
def test_an_environment_that_raises_is_a_verdict_too(make_env: Callable[[], Any], said: str) -> None:
    assert [prove(method, make_env).reason for method in ("deepcopy", "replay")] == [said, said]


def test_every_environment_is_closed() -> None:
    closed: list[int] = []

    class Closing(Walk):
        def close(self) -> None:
            closed.append(id(self))

    prove("replay", Closing)
    assert len(set(closed)) == 3


# --- using them ------------------------------------------------------------------------------------------------


def test_the_first_way_that_is_proven_is_chosen() -> None:
    assert proven_method(maker("CartPole-v1")) == "deepcopy"
    assert proven_method(Locked) == "replay"


def test_mujoco_is_preferred_to_replay() -> None:
    assert proven_method(maker("Hopper-v5", MUJOCO)) == "mujoco"


def test_where_nothing_is_exact_each_reason_is_given() -> None:
    with pytest.raises(ValueError, match=r"deepcopy \(restored .*mujoco \(TypeError.*replay \(restored .*np_random"):
        proven_method(Noisy)


@pytest.mark.parametrize(
    ("method", "env_id", "needs"),
    [("deepcopy", "Pendulum-v1", None), ("mujoco", "Hopper-v5", MUJOCO), ("replay", "LunarLander-v3", BOX2D)],
)
def test_a_snapshot_is_returned_to_as_often_as_wanted(method: str, env_id: str, needs: tuple[str, str] | None) -> None:
    make_env = maker(env_id, needs, max_episode_steps=9)
    env, spare = make_env(), make_env()
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(9)]
    env.reset(seed=5)
    course(env, actions[:4])
    snapshot = METHODS[method](env, 5, actions[:4])
    expected = course(env, actions[4:])
    assert len(expected) == 5
    assert [step[3] for step in expected] == [False] * 4 + [True]  # the time limit goes on counting
    spare.reset(seed=6)
    for spare_env in (spare, spare, env):  # the original will do as well
        assert course(snapshot(spare_env), actions[4:]) == expected


def test_what_wrappers_count_comes_back_with_mujoco() -> None:
    make_env = maker("Hopper-v5", MUJOCO, max_episode_steps=6)
    env, spare = (gym.wrappers.RecordEpisodeStatistics(make_env()) for _ in range(2))
    env.reset(seed=0)
    spare.reset(seed=1)
    action = np.zeros(3, np.float32)
    rewards = [float(env.step(action)[1]) for _ in range(4)]
    restored = by_mujoco(env, 0, [])(spare)
    for _ in range(2):
        _, reward, _, truncated, info = restored.step(action)
        rewards.append(float(reward))
    assert truncated
    assert info["episode"]["l"] == 6
    assert info["episode"]["r"] == pytest.approx(sum(rewards))


def test_actions_that_change_later_are_replayed_as_they_were() -> None:
    env, spare = Walk(UNIT_BOX), Walk(UNIT_BOX)
    env.reset(seed=0)
    action = np.full(2, 0.25, np.float32)
    env.step(action)
    snapshot = by_replay(env, 0, [action])
    action[:] = 0.0
    restored: Any = snapshot(spare)
    assert restored.x == env.x
