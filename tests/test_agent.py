from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from grpo_gym import CallbackList, EvalCallback, StopTrainingOnRewardThreshold
from grpo_gym.baselines import BASELINES
from tests.agents import Hooks, all_finite, digest, mean_return, small, watched, weights_digest
from tests.toys import (
    Diary,
    Endless,
    IdentityBox,
    IdentityDiscrete,
    MaskedByInfo,
    MaskedByMethod,
    Raises,
    Rewarding,
    Walk,
)

# --- learning --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("baseline", "start"), [*((name, 2) for name in BASELINES), ("live_peers", -7)])
def test_naming_a_shown_number_is_learned_without_a_mistake(baseline: str, start: int) -> None:
    def make() -> IdentityDiscrete:
        return IdentityDiscrete(n=3, start=start)

    # an action touches its own step's reward alone, unless whole episodes are compared
    gamma = 1.0 if baseline in ("scalar", "outcome", "leave_one_out", "anchor_states") else 0.0
    agent = small(make, n_groups=4, group_size=8, batch_size=64, learning_rate=3e-3, gamma=gamma, baseline=baseline)
    agent.learn(5_000)
    # 4 numbers an episode, 1 for each that is named
    assert mean_return(agent, make) == 4.0


def test_a_shown_point_is_hit_nearly() -> None:
    agent = small(IdentityBox, n_groups=4, group_size=8, batch_size=64, gamma=0.0, policy_kwargs={"net_arch": [32]})
    before = mean_return(agent, IdentityBox)
    agent.learn(5_000)
    # always answering (0, 0) costs 2 coordinates x 4 points x 1/3 = 2.7; the best there is is 0
    assert before < -2.0
    assert mean_return(agent, IdentityBox) > -0.1


def test_training_ends_when_an_evaluation_reaches_the_threshold() -> None:
    stop = StopTrainingOnRewardThreshold(4.0)
    watch = EvalCallback(IdentityDiscrete, stop, n_eval_episodes=20, eval_freq=50, verbose=0)
    agent = small(IdentityDiscrete, n_groups=4, group_size=8, gamma=0.0).learn(50_000, callback=watch)
    assert watch.best_mean_reward == 4.0
    assert agent.num_timesteps < 50_000


# --- counting --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_envs", [None, 1, 4])
def test_every_step_of_every_environment_is_counted(n_envs: int | None) -> None:
    counter: Counter[str] = Counter()
    agent = small(lambda: Walk(counter=counter), n_envs=n_envs).learn(100)
    assert agent.num_timesteps == counter["steps"] >= 100


@pytest.mark.parametrize("mode", [AutoresetMode.DISABLED, AutoresetMode.NEXT_STEP])
def test_idle_slots_of_a_vector_environment_are_counted_too(mode: AutoresetMode) -> None:
    counter: Counter[str] = Counter()
    env: Any = SyncVectorEnv([lambda: Walk(counter=counter)] * 4, autoreset_mode=mode)
    agent = small(env)
    memory = watched(agent)
    agent.learn(100)
    assert agent.n_envs == 4
    assert agent.num_timesteps == counter["steps"] >= 100
    # 6 episodes in 4 slots: at the end of an iteration some slots rest
    assert all(share > 0 for share in memory.of("rollout/idle_fraction"))


def test_the_iteration_under_way_is_finished() -> None:
    # 6 episodes of 4 steps an iteration
    assert small(IdentityDiscrete).learn(1).num_timesteps == 24
    assert small(IdentityDiscrete).learn(24).num_timesteps == 24
    assert small(IdentityDiscrete).learn(25).num_timesteps == 48


@pytest.mark.parametrize("total", [2.5e1, 25, 24.5])
def test_a_number_of_steps_may_be_a_float(total: float) -> None:
    assert small(IdentityDiscrete).learn(total).num_timesteps == 48


@pytest.mark.parametrize("total", [0, -5, "many", float("nan"), float("inf"), None, True])
def test_an_impossible_number_of_steps_is_refused_before_anything_happens(total: Any, tmp_path: Path) -> None:
    agent = small(IdentityDiscrete, tensorboard_log=tmp_path / "runs")
    with pytest.raises(ValueError, match=f"total_timesteps={total!r}"):
        agent.learn(total)
    assert agent.num_timesteps == 0
    assert not (tmp_path / "runs").exists()


def test_learning_again_counts_from_0_unless_it_is_told_to_go_on() -> None:
    agent = small(IdentityDiscrete).learn(48)
    assert agent.learn(24).num_timesteps == 24
    assert agent.learn(24, reset_num_timesteps=False).num_timesteps == 48
    assert len(agent.ep_info_buffer) == 12


@pytest.mark.filterwarnings("ignore:Diary")
def test_episodes_are_averaged_over_the_last_ones_only() -> None:
    # episode k of the diary earns 1000 k in its only step
    numbers = iter(range(1000))
    agent = small(lambda: Diary(numbers, longest=1), n_envs=1, stats_window_size=3)
    memory = watched(agent)
    agent.learn(12)
    assert memory.of("rollout/ep_rew_mean") == [4000.0, 10_000.0]
    assert memory.of("rollout/ep_len_mean") == [1.0, 1.0]


# --- stopping --------------------------------------------------------------------------------------------------


def test_a_list_of_ones_own_is_called_though_it_holds_nothing() -> None:
    class Counts(CallbackList):
        def _on_step(self) -> bool:
            return self.n_calls < 2 and super()._on_step()

    counts = Counts([])
    small(IdentityDiscrete).learn(10_000, counts)
    assert counts.n_calls == 2


@pytest.mark.parametrize("callback", [Hooks(stop_at=10), lambda names, _: names["self"].num_timesteps < 60])
def test_a_callback_that_says_false_ends_training_within_that_step_and_nothing_is_learned_from_it(
    callback: Any,
) -> None:
    agent = small(IdentityDiscrete).learn(1e15, callback=callback)
    # 6 slots play 4 steps an iteration: the 10th vector step is the 2nd of the 3rd iteration
    assert agent.num_timesteps == 60
    assert digest(agent) == digest(small(IdentityDiscrete).learn(48))


def test_hooks_come_in_order() -> None:
    hooks = Hooks(stop_at=6)
    small(IdentityDiscrete).learn(10_000, callback=[hooks])
    assert hooks.seen == ["training_start", "rollout_start", "rollout_end", "rollout_start", "training_end"]
    assert hooks.steps == [6] * 6


class OwnError(Exception):
    pass


@pytest.mark.parametrize("error", [OwnError("mine"), ValueError("mine"), KeyboardInterrupt("mine")])
@pytest.mark.parametrize("step", [1, 3])
def test_an_exception_in_the_environment_comes_through_and_changes_no_weight(error: BaseException, step: int) -> None:
    agent, hooks = small(lambda: Raises(error, step)), Hooks()
    before = digest(agent)
    with pytest.raises(type(error), match="mine"):
        agent.learn(100, callback=hooks)
    assert digest(agent) == before
    assert hooks.seen == ["training_start", "rollout_start", "training_end"]


def test_the_environment_is_usable_after_an_exception() -> None:
    trouble = Raises(OwnError("once"), step=3)
    agent = small(lambda: trouble, n_envs=1)
    with pytest.raises(OwnError):
        agent.learn(30)
    trouble.bad_step = -1
    assert agent.learn(30).num_timesteps >= 30


@pytest.mark.parametrize("hook", ["_on_training_start", "_on_rollout_start", "_on_step", "_on_rollout_end"])
def test_training_end_is_announced_after_an_exception_in_any_hook(hook: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hooks = Hooks()

    def fail() -> bool:
        raise OwnError(hook)

    monkeypatch.setattr(hooks, hook, fail)
    agent = small(IdentityDiscrete)
    before = digest(agent)
    with pytest.raises(OwnError, match=hook):
        agent.learn(100, callback=hooks)
    assert hooks.seen[-1] == "training_end"
    assert digest(agent) == before


# --- odd sizes and numbers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 7, None, 10_000])
def test_any_size_of_minibatch_keeps_the_weights_finite(batch_size: int | None) -> None:
    agent = small(IdentityDiscrete, batch_size=batch_size)
    before = weights_digest(agent)
    assert all_finite(agent.learn(48))
    assert weights_digest(agent) != before


@pytest.mark.parametrize("scale_rewards", ["group", "batch", "none"])
@pytest.mark.parametrize("size", [1e-12, 1e12])
def test_rewards_of_any_size_keep_the_weights_finite(size: float, scale_rewards: str) -> None:
    def make() -> gym.Env[Any, Any]:
        return gym.wrappers.TransformReward(IdentityDiscrete(), lambda reward: float(reward) * size)

    agent = small(make, scale_rewards=scale_rewards)
    before = weights_digest(agent)
    assert all_finite(agent.learn(48))
    assert weights_digest(agent) != before


def test_endless_episodes_are_cut_and_one_step_episodes_are_counted() -> None:
    assert small(Endless, max_episode_steps=5).learn(1).num_timesteps == 6 * 5
    assert small(lambda: IdentityDiscrete(length=1)).learn(1).num_timesteps == 6


def test_numpy_numbers_are_rewards() -> None:
    assert small(lambda: Rewarding(np.float32(1.0))).learn(1).num_timesteps == 12


@pytest.mark.parametrize("make", [MaskedByInfo, MaskedByMethod])
def test_masked_actions_are_never_taken_in_training(make: Callable[[], MaskedByInfo]) -> None:
    # the environment asserts that each action is legal
    assert small(make).learn(300).num_timesteps >= 300
