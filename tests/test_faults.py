import os
import signal
import threading
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import wrappers
from gymnasium.vector import AutoresetMode

from grpo_gym import GRPO, CheckpointCallback
from grpo_gym.faults import PATIENCE, Circumstances, TieWatch, explain, is_explained
from tests.agents import all_finite, digest, small, weights_digest
from tests.crews import Here
from tests.toys import BadNumber, IdentityDiscrete, Raises, Rewarding, StepResult, Walk


def notes_of(error: BaseException) -> str:
    """All notes of an exception, where Python has them or not."""
    found = list(getattr(error, "__notes__", ()))
    while isinstance(error.__cause__, Circumstances):
        error = error.__cause__
        found.append(str(error))
    return "\n".join(found)


class WithoutNotes(Exception):
    """As all exceptions of Python 3.10."""

    @property
    def add_note(self) -> Any:
        raise AttributeError


@pytest.mark.parametrize("kind", [ValueError, WithoutNotes])
def test_an_explained_exception_tells_all_its_notes(kind: type[Exception]) -> None:
    error = kind("no more fuel")
    assert not is_explained(error)
    explain(error, "in step 3")
    explain(error, "of slot 1")
    assert is_explained(error)
    assert sorted(notes_of(error).splitlines()) == ["in step 3", "of slot 1"]
    assert str(error) == "no more fuel"


@pytest.mark.parametrize("chained", [False, True])
def test_without_notes_what_came_before_is_still_told(chained: bool) -> None:
    error = WithoutNotes("no more fuel")
    try:
        try:
            raise KeyError("tank")
        except KeyError as first:
            raise error from (first if chained else None)
    except WithoutNotes:
        explain(error, "in step 3")
    assert isinstance(error.__cause__, Circumstances)
    assert isinstance(error.__cause__.__cause__, KeyError if chained else type(None))


# --- exceptions of an environment ------------------------------------------------------------------------------


class RaisesAtStart(Walk):
    def reset(self, **kwargs: Any) -> Any:
        raise OSError("no display")


def sync(make: Any, n_envs: int = 6) -> Any:
    return gym.vector.SyncVectorEnv([make] * n_envs, autoreset_mode=AutoresetMode.DISABLED)


class Moody(Walk):
    """Raises in its third step, but starts as often as it is asked to."""

    def step(self, action: Any) -> StepResult:
        if self.t == 2:
            raise ZeroDivisionError
        return super().step(action)


@pytest.mark.parametrize("make", [Moody, lambda: sync(Moody)], ids=["single", "vector"])
def test_an_exception_of_step_tells_environment_slot_seed_step_and_action(make: Any) -> None:
    agent = small(make if make is Moody else make())
    before = weights_digest(agent)
    with pytest.raises(ZeroDivisionError) as caught:
        agent.learn(100)
    told = notes_of(caught.value)
    collector: Any = agent.sampler.collector
    seeds = collector._jobs.seeds
    assert any(str(seed) in told for seed in seeds)
    for word in ("slot", "seed", "3", "action"):
        assert word in told
    assert ("Moody" if make is Moody else "SyncVectorEnv") in told
    assert weights_digest(agent) == before


def test_what_is_told_is_enough_to_see_it_again() -> None:
    """A seed and a step lead back to where it happened."""
    with pytest.raises(ZeroDivisionError) as caught:
        small(Moody, group_size=2).learn(100)
    words = notes_of(caught.value).replace(",", "").split()
    seed, step = int(words[words.index("seed") + 1]), int(words[words.index("step") + 1])
    env = Moody()
    env.reset(seed=seed)
    for _ in range(step - 1):
        env.step(np.int64(1))
    with pytest.raises(ZeroDivisionError):
        env.step(np.int64(1))


def test_an_exception_of_reset_tells_slot_and_seed() -> None:
    with pytest.raises(OSError, match="no display") as caught:
        small(RaisesAtStart).learn(100)
    for word in ("RaisesAtStart", "reset(seed=", "slot 0"):
        assert word in notes_of(caught.value)


def test_a_vector_environment_that_raises_at_its_start_tells_the_seeds() -> None:
    class Once(Walk):
        starts = 0

        def reset(self, **kwargs: Any) -> Any:
            Once.starts += 1
            if Once.starts > 12:  # two for each were to see whether it takes seeds
                raise OSError("no display")
            return super().reset(**kwargs)

    with pytest.raises(OSError, match="no display") as caught:
        small(sync(Once)).learn(100)
    for word in ("SyncVectorEnv", "reset of slots", "seed="):
        assert word in notes_of(caught.value)


def test_workers_pass_it_on() -> None:
    agent = small(partial(Raises, ValueError("no more fuel"), 2), n_workers=2, collector=Here)
    with pytest.raises(ValueError, match="no more fuel") as caught:
        agent.learn(100)
    where = notes_of(caught.value) or str(caught.value.__cause__)
    for word in ("Raises", "step 2", "seed", "slot", "action"):
        assert word in where


# --- numbers that are none -------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda make: make, sync], ids=["single", "vector"])
@pytest.mark.parametrize("what", ["observation", "reward"])
def test_a_number_that_is_none_tells_slot_and_action_too(what: str, make: Any) -> None:
    agent = small(make(lambda: BadNumber(what, np.nan, 2)))
    with pytest.raises(ValueError, match=rf"{what} is not finite .* step 2 .* seed \d+; slot \d after action [012];"):
        agent.learn(100)


def test_a_bad_first_observation_came_after_no_action() -> None:
    with pytest.raises(ValueError, match=r"step 0 of the episode with seed \d+; slot 0; expected"):
        small(lambda: BadNumber("observation", np.inf, 0)).learn(100)


@pytest.mark.parametrize("part", ["loss", "gradient"])
def test_a_loss_or_gradient_that_is_not_finite_leaves_the_weights_and_names_the_last_checkpoint(
    part: str, tmp_path: Path
) -> None:
    agent = small(IdentityDiscrete)
    agent.learn(24, CheckpointCallback(4, tmp_path))
    before = weights_digest(agent)
    if part == "loss":
        agent.ent_coef = float("nan")
    else:
        policy: Any = agent.policy
        weight = policy.head.linear.weight
        weight.register_hook(lambda gradient: gradient * np.nan)
    with pytest.raises(FloatingPointError, match=r"gradient is not finite.*lower learning_rate") as caught:
        agent.learn(24, reset_num_timesteps=False)
    assert weights_digest(agent) == before
    assert f"the last checkpoint of this agent is {tmp_path / 'rl_model_24_steps.zip'}" in notes_of(caught.value)


def test_without_a_checkpoint_none_is_named() -> None:
    agent = small(IdentityDiscrete, ent_coef=0.1)
    agent.ent_coef = float("nan")
    with pytest.raises(FloatingPointError) as caught:
        agent.learn(24)
    assert not is_explained(caught.value)


# --- nothing to learn from -------------------------------------------------------------------------------------


def warned(agent: Any, **kwargs: Any) -> list[Any]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        agent.learn(**kwargs)
    return caught


@pytest.mark.parametrize("n_iterations", [1, PATIENCE, PATIENCE + 3])
def test_where_all_rewards_are_equal_one_warning_names_the_doctor(n_iterations: int) -> None:
    (warning,) = warned(small(lambda: Rewarding(1.0), ent_coef=0.1), total_timesteps=12 * n_iterations)
    told = str(warning.message)
    assert told.startswith(f"Rewarding: in none of the iterations so far ({min(n_iterations, PATIENCE)}) ")
    assert "`grpo-gym doctor Rewarding`" in told


def test_one_iteration_with_a_difference_is_enough_for_silence() -> None:
    class Finds(Rewarding):
        """Earns 1, and one episode some day 2."""

        rewards: Iterator[float] = iter([1.0] * 30 + [2.0] + [1.0] * 500)

        def _reward(self) -> float:
            return next(self.rewards)

    assert warned(small(lambda: Finds(0.0)), total_timesteps=200) == []


def test_a_run_that_was_stopped_in_its_first_iteration_is_not_warned_of() -> None:
    assert warned(small(lambda: Rewarding(1.0)), total_timesteps=24, callback=lambda *_: False) == []


@pytest.mark.parametrize("n_iterations", [3, PATIENCE])
def test_the_warning_points_at_the_call_of_learn(n_iterations: int) -> None:
    (warning,) = warned(small(lambda: Rewarding(1.0)), total_timesteps=12 * n_iterations)
    assert warning.filename == __file__


def test_nothing_was_seen_nothing_is_said() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TieWatch("Walk").conclude()


# --- what ends well, and wrappers that watch -------------------------------------------------------------------


class Succeeds(Walk):
    """Every episode whose start lies to the right ends well, and those alone say so."""

    def step(self, action: Any) -> StepResult:
        *answer, ended, cut, info = super().step(action)
        return (*answer, ended, cut, {"is_success": self.x > 0} if ended or cut else info)


@pytest.mark.parametrize("mode", [AutoresetMode.DISABLED, AutoresetMode.NEXT_STEP])
def test_a_vector_environment_tells_of_success_as_single_ones_do(mode: AutoresetMode) -> None:
    single, vector = small(Succeeds), small(gym.vector.SyncVectorEnv([Succeeds] * 6, autoreset_mode=mode))
    for agent in (single, vector):
        agent.learn(60)
    assert sum(single.ep_success_buffer) > 0
    # the same episodes, though in a foreign vector environment more than their own steps are counted
    n = min(len(single.ep_success_buffer), len(vector.ep_success_buffer))
    assert n >= 6
    assert list(vector.ep_success_buffer)[:n] == list(single.ep_success_buffer)[:n]


def test_a_recorder_below_a_reward_wrapper_tells_the_true_returns() -> None:
    def make() -> gym.Env[Any, Any]:
        return wrappers.TransformReward(wrappers.RecordEpisodeStatistics(Walk()), lambda reward: 100 * float(reward))

    agent, bare = small(make), small(Walk)
    for one in (agent, bare):
        one.learn(24)
    returns = [[episode["r"] for episode in one.ep_info_buffer] for one in (agent, bare)]
    assert returns[0][:6] == pytest.approx(returns[1][:6])
    assert all({"r", "l", "t"} <= set(episode) for episode in agent.ep_info_buffer)


# --- stopping, and threads -------------------------------------------------------------------------------------


def survives(agent: GRPO, folder: Path) -> None:
    """All that an agent does works, and its weights are finite."""
    agent.predict(np.zeros((2, *(agent.observation_space.shape or ())), agent.observation_space.dtype))
    agent.save(folder / "agent")
    assert weights_digest(GRPO.load(folder / "agent")) == weights_digest(agent)
    agent.learn(24, reset_num_timesteps=False)
    assert all_finite(agent)


def test_ctrl_c_stops_at_once_and_the_agent_and_the_handlers_are_as_before(tmp_path: Path) -> None:
    def interrupt(locals_: Any, globals_: Any) -> bool:
        os.kill(os.getpid(), signal.SIGINT)
        return True

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
    agent = small(Walk, tensorboard_log=tmp_path).learn(24)
    before, handler = weights_digest(agent), signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        agent.learn(1000, interrupt, reset_num_timesteps=False)
    assert agent.num_timesteps < 100
    assert weights_digest(agent) == before
    assert signal.getsignal(signal.SIGINT) is handler
    survives(agent, tmp_path)


def test_agents_that_learn_side_by_side_in_threads_learn_what_each_would_alone(tmp_path: Path) -> None:
    makes = (IdentityDiscrete, Walk)
    agents = [small(make, tensorboard_log=tmp_path) for make in makes]
    threads = [threading.Thread(target=agent.learn, args=(100,)) for agent in agents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [digest(agent) for agent in agents] == [digest(small(make).learn(100)) for make in makes]
    for agent in agents:
        survives(agent, tmp_path)
