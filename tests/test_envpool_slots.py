"""EnvPool's environments, which take a seed only when their pool is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

envpool: Any = pytest.importorskip("envpool", reason="needs the extra 'envpool'")

from grpo_gym import GRPO, EvalCallback, evaluate_policy  # noqa: E402
from grpo_gym.envpool_slots import EnvPoolSlots  # noqa: E402
from grpo_gym.rollout import collect  # noqa: E402
from grpo_gym.types import Rollout  # noqa: E402
from grpo_gym.vec import find_spec, make_slots  # noqa: E402
from tests.agents import digest, small  # noqa: E402
from tests.crews import Here  # noqa: E402
from tests.toys import a_plan, policy_for  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*precision lowered")  # Gymnasium's, of EnvPool's bounds

SEGMENTS: dict[str, Any] = {"n_groups": 2, "group_size": 2, "n_steps": 30, "baseline": "soft_groups"}


def rollout_of(env_id: str, n_slots: int = 6, **kwargs: Any) -> Rollout:
    """Two groups of three episodes."""
    slots = make_slots(env_id, n_slots)
    rollout = collect(slots, policy_for(slots).actor(), a_plan(2, 3), **kwargs)
    assert rollout is not None
    return rollout


@pytest.mark.parametrize("env_id", ["envpool:CartPole-v1", "envpool:LunarLander-v3"])
def test_members_start_alike_and_act_differently(env_id: str) -> None:
    rollout = rollout_of(env_id)
    starts = rollout.first_observations.tolist()
    assert starts[0] == starts[1] == starts[2] != starts[3] == starts[4] == starts[5]
    assert len({tuple(x) for x in rollout.final_observations.tolist()}) == 6


@pytest.mark.parametrize(
    "env_id", ["envpool:CartPole-v1", "envpool:LunarLander-v3", "envpool:LunarLanderContinuous-v3"]
)
def test_an_episode_does_not_depend_on_who_was_played_before_it_or_beside_it(env_id: str) -> None:
    # LunarLander's engines draw from the generator of its starts: kept over episodes, members would drift apart
    expected = rollout_of(env_id)
    for n_slots in (1, 4):
        found = rollout_of(env_id, n_slots)
        assert torch.equal(found.observations, expected.observations)
        assert torch.equal(found.actions, expected.actions)
        assert torch.equal(found.rewards, expected.rewards)


def test_an_end_is_told_from_a_time_limit() -> None:
    rollout = rollout_of("envpool:CartPole-v1")
    assert rollout.terminated.all()
    assert not rollout.truncated.any()
    assert rollout.lengths.tolist() == rollout.rewards.sum(dim=0).tolist()  # 1 a step
    rollout = rollout_of("envpool:Pendulum-v1")
    assert rollout.truncated.all()
    assert not rollout.terminated.any()
    assert rollout.lengths.tolist() == [200] * 6
    assert rollout_of("envpool:Pendulum-v1", horizon=7).lengths.tolist() == [7] * 6


def test_nothing_is_stepped_that_does_not_play() -> None:
    rollout = rollout_of("envpool:CartPole-v1")
    assert rollout.idle_steps == 0
    assert rollout.n_steps == int(rollout.lengths.sum())


def test_a_pool_is_dropped_when_its_last_slot_starts_anew() -> None:
    slots = EnvPoolSlots("CartPole-v1", 3)
    everyone = np.arange(3)
    slots.start(everyone, np.array([1, 1, 2]))
    slots.start(everyone[:1], np.array([3]))
    assert len(slots._pools) == 2
    slots.start(everyone[1:], np.array([4, 4]))
    assert len(slots._pools) == 2
    slots.start(everyone, np.array([5, 5, 5]))
    assert len(slots._pools) == 1
    assert slots.step(np.array([2, 0]), np.array([0, 1])).observations.shape == (2, 4)
    slots.close()
    assert slots._pools == {}


@pytest.mark.parametrize("settings", [{"n_groups": 3, "group_size": 2}, SEGMENTS])
def test_training_is_repeatable_with_any_number_of_workers(settings: dict[str, Any]) -> None:
    env = "envpool:CartPole-v1"
    first = small(env, **settings).learn(200)
    assert digest(first) == digest(small(env, **settings).learn(200))
    assert digest(first) == digest(small(env, n_workers=2, collector=Here, **settings).learn(200))


def test_segments_of_lunar_lander_go_on_after_a_checkpoint(tmp_path: Path) -> None:
    agent = small("envpool:LunarLander-v3", **SEGMENTS).learn(400)
    agent.save(tmp_path / "agent")
    loaded = GRPO.load(tmp_path / "agent", env="envpool:LunarLander-v3")
    for one in (agent, loaded):
        one.learn(400, reset_num_timesteps=False)
    assert digest(loaded) == digest(agent)


def test_evaluation_plays_the_environment_of_this_name_that_can_be_seeded() -> None:
    agent = small("envpool:CartPole-v1")
    evaluate = EvalCallback("envpool:CartPole-v1", n_eval_episodes=2, eval_freq=10, verbose=0)
    agent.learn(50, callback=evaluate)
    assert evaluate.last_mean_reward > 0
    assert evaluate_policy(agent, "envpool:CartPole-v1", seeds=[1, 2]) == evaluate_policy(
        agent, "CartPole-v1", seeds=[1, 2]
    )


def test_what_only_envpool_has_is_evaluated_in_a_pool() -> None:
    agent = small("envpool:Catch-v0")
    with pytest.raises(ValueError, match=r"Gymnasium has no 'Catch-v0'.*envpool.make\('Catch-v0'"):
        evaluate_policy(agent, "envpool:Catch-v0")
    pool = envpool.make("Catch-v0", env_type="gymnasium", num_envs=8, seed=1)
    assert evaluate_policy(agent, pool, n_eval_episodes=8, warn=False)[0] in np.arange(-1, 1.01, 0.25)


def test_what_cannot_work_is_refused() -> None:
    for name, message in (("CartPole-v9", "did you mean 'CartPole-v"), ("KuhnPoker-v1", "for 2 players")):
        with pytest.raises(ValueError, match=message):
            make_slots(f"envpool:{name}", 2)
    with pytest.raises(ValueError, match=r"not be made one by one.*perhaps 'CartPole-v1'"):
        find_spec("envpool:CartPole-v1")
