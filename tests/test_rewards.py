from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from grpo_gym import GRPO, Episode, RewardModel, environment_reward
from grpo_gym.rewards import RewardPart, check_reward_functions, compose, episodes_of
from tests.agents import digest, mean_return, small, watched
from tests.toys import UNIT_BOX, IdentityDiscrete, Walk, play, policy_for, rollout_of


def length(episode: Episode) -> float:
    return float(len(episode))


def twice(episode: Episode) -> Any:
    return 2 * episode.rewards


class Judge:
    """Gives the k-th episode that it is shown 10·k, and notes how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def compute_rewards(self, episodes: Sequence[Episode]) -> Any:
        self.asked += 1
        return 10.0 * torch.arange(len(episodes))


def test_outcome_process_and_model_add_up_by_their_weights() -> None:
    rollout = rollout_of([[1, 2], [3]], 2)
    parts: list[RewardPart] = [("length", length, 0.5), ("twice", twice, 1.0), ("judge", Judge(), 0.1)]
    composed, sums = compose(rollout, parts)
    # 2·1; 2·2 + 0.5·2 + 0 at the end | 2·3 + 0.5·1 + 0.1·10
    assert composed.rewards.tolist() == [[2, 7.5], [5, 0]]
    assert sums == {"length": [2, 1], "twice": [6, 6], "judge": [0, 10]}
    assert rollout.rewards.tolist() == [[1, 3], [2, 0]]


def test_an_episode_is_shown_as_it_was_played() -> None:
    rollout = play(lambda: Walk(UNIT_BOX), 3)
    policy = policy_for(Walk(UNIT_BOX))  # type: ignore[arg-type]
    episodes = list(episodes_of(rollout, policy.to_env))
    assert [len(episode) for episode in episodes] == rollout.lengths.tolist()
    assert np.array_equal(np.concatenate([e.rewards for e in episodes]), rollout.flat(rollout.rewards).numpy())
    first, last = episodes[0], episodes[-1]
    assert np.array_equal(first.observations[0], rollout.first_observations[0].numpy())
    assert np.array_equal(last.final_observation, rollout.final_observations[-1].numpy())
    assert [e.seed for e in episodes] == np.repeat(rollout.seeds, 3).tolist()
    assert [e.terminated for e in episodes] == rollout.terminated.tolist()
    assert [e.truncated for e in episodes] == rollout.truncated.tolist()
    assert all(abs(e.actions).max() <= 1 for e in episodes)  # as the environment got them
    assert rollout.actions.abs().max() > 1


def test_a_model_is_known_by_its_method() -> None:
    assert isinstance(Judge(), RewardModel)
    assert not isinstance(length, RewardModel)


# --- in training -----------------------------------------------------------------------------------------------


def test_the_environments_own_rewards_as_the_only_part_change_no_bit() -> None:
    plain = small(Walk).learn(100)
    composed = small(Walk, reward_functions=[("own", environment_reward, 1.0)]).learn(100)
    assert digest(plain) == digest(composed)


def stays_at_zero(episode: Episode) -> Any:
    return (episode.actions == 0).astype(float)


@pytest.mark.parametrize("process", [True, False])
def test_what_is_composed_is_what_is_learned(process: bool) -> None:
    def judge(episode: Episode) -> Any:
        return stays_at_zero(episode) if process else stays_at_zero(episode).mean()

    agent = small(IdentityDiscrete, reward_functions=[("zero", judge, 1.0)], group_size=8, gamma=1.0)
    agent.learn(3_000)
    observations = np.arange(3).repeat(4)
    assert agent.predict(observations, deterministic=True)[0].tolist() == [0] * 12
    assert mean_return(agent, IdentityDiscrete) < 2  # of 4 for naming what is shown


def test_each_part_is_logged_unweighted_beside_the_environments_return() -> None:
    agent = small(IdentityDiscrete, reward_functions=[("steps", length, 0.25), ("own", environment_reward, 3.0)])
    memory = watched(agent)
    agent.learn(1)
    assert memory.of("reward/steps") == [4.0]
    assert memory.of("reward/own") == pytest.approx(memory.of("rollout/ep_rew_mean"))


def test_a_model_is_asked_once_for_all_episodes_of_a_round() -> None:
    judge = Judge()
    agent = small(Walk, reward_functions=[("judge", judge, 1.0)]).learn(60)
    assert judge.asked == agent._iterations


def test_functions_are_demanded_anew_when_an_agent_is_loaded(tmp_path: Path) -> None:
    parts = [("zero", stays_at_zero, 1.0)]
    agent = small(IdentityDiscrete, reward_functions=parts).learn(48)
    agent.save(tmp_path / "agent")
    with pytest.raises(ValueError, match=r"reward_functions was, or held, .*stays_at_zero"):
        GRPO.load(tmp_path / "agent")
    loaded = GRPO.load(tmp_path / "agent", IdentityDiscrete, reward_functions=parts)
    for one in (agent, loaded):
        one.learn(48, reset_num_timesteps=False)
    assert digest(agent) == digest(loaded)


# --- errors ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], r"reward_functions=\[\]: expected a list such as"),
        (length, "expected a list such as"),
        ([("zero", length)], r"has \('zero', <function length.*expected a list such as"),
        ([("zero", 3.0, 1.0)], r"'zero' is 3.0: no function, no compute_rewards\(...\)"),
        ([("zero", length, "1")], "the weight of 'zero' is '1', expected a finite number"),
        ([("zero", length, float("nan"))], "the weight of 'zero' is nan, expected a finite number"),
        ([("a", length, 1.0), ("a", twice, 1.0)], r"names \['a', 'a'\]: each must be a name of its own"),
    ],
)
def test_what_is_no_list_of_parts_is_refused(given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_reward_functions(given)
    with pytest.raises(ValueError, match=message):
        small(Walk, reward_functions=given)


@pytest.mark.parametrize("judged", [float("inf"), "1", None, [1.0, 2.0, 3.0], [[1.0, 2.0]]])
def test_a_part_that_is_neither_a_number_nor_one_a_step_is_named(judged: Any) -> None:
    rollout = replace(rollout_of([[1, 2], [3, 4]], 2), seeds=np.array([77]))
    with pytest.raises(ValueError, match=r"reward part 'odd' gave .* for an episode of 2 steps \(seed 77\), expected"):
        compose(rollout, [("odd", lambda episode: judged, 1.0)])


def test_a_model_must_judge_every_episode() -> None:
    class Lazy:
        def compute_rewards(self, episodes: Sequence[Episode]) -> Any:
            return [1.0]

    with pytest.raises(ValueError, match="reward part 'lazy' judged 1 of 2 episodes"):
        compose(rollout_of([[1], [2]], 2), [("lazy", Lazy(), 1.0)])


def test_pieces_of_episodes_cannot_be_judged() -> None:
    with pytest.raises(ValueError, match=r"cuts episodes before they end, and reward_functions=.* needs whole"):
        small(Walk, n_steps=8, baseline="soft_groups", reward_functions=[("length", length, 1.0)])
