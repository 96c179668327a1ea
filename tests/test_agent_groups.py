import warnings
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from grpo_gym import update
from grpo_gym.baselines import BASELINES
from grpo_gym.policy import MlpPolicy
from grpo_gym.types import Rollout
from tests.agents import FLAT_OUT, digest, small, watched, weights_digest
from tests.toys import IdentityBox, IdentityDiscrete, Rewarding, StepResult, Walk


class SameRewards(Rewarding):
    """Two steps, 1 each, whatever is done."""

    def __init__(self, counter: Counter[str] | None = None):
        super().__init__(1.0)
        self.counter = Counter() if counter is None else counter


class SometimesTied(IdentityDiscrete):
    """Every other seed or so starts an episode in which all actions earn the same."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        result = super().reset(seed=seed)
        self.tied = bool(self.np_random.integers(2))
        return result

    def step(self, action: Any) -> StepResult:
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, 1.0 if self.tied else reward, terminated, truncated, info


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many groups each iteration learned from."""
    seen: list[int] = []
    make_batch = update.make_batch

    def watch(policy: Any, rollout: Rollout, *rest: Any) -> Any:
        seen.append(len(rollout.seeds))
        return make_batch(policy, rollout, *rest)

    monkeypatch.setattr("grpo_gym.agent.make_batch", watch)
    return seen


# --- nothing to learn from -------------------------------------------------------------------------------------


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("scale_rewards", ["group", "batch", "none"])
def test_equal_rewards_change_no_bit_of_the_weights_and_training_ends(baseline: str, scale_rewards: str) -> None:
    agent = small(SameRewards, baseline=baseline, scale_rewards=scale_rewards, ent_coef=0.0, learning_rate=1.0)
    memory, before = watched(agent), digest(agent)
    agent.learn(50)
    assert digest(agent) == before
    # 6 episodes of 2 steps an iteration, 50 steps: 5 iterations
    assert agent.num_timesteps == 60
    assert memory.of("rollout/frac_zero_std_groups") == [1.0] * 5
    assert memory.of("rollout/group_return_std") == [0.0] * 5
    assert memory.of("train/n_updates") == [0] * 5
    assert memory.of("train/loss") == []


@pytest.mark.parametrize("max_resamples", [0, 1, 3])
def test_an_iteration_in_which_everything_ties_is_played_once_more_than_it_may_be_resampled(max_resamples: int) -> None:
    counter: Counter[str] = Counter()
    agent = small(lambda: SameRewards(counter), max_resamples=max_resamples)
    memory, before = watched(agent), digest(agent)
    agent.learn(1)
    # each round is 2 groups of 3 episodes of 2 steps
    assert agent.num_timesteps == counter["steps"] == 12 * (1 + max_resamples)
    assert memory.of("rollout/frac_zero_std_groups") == [1.0]
    assert len(agent.ep_info_buffer) == 6 * (1 + max_resamples)
    assert digest(agent) == before


def test_entropy_alone_teaches_nothing_where_everything_ties() -> None:
    # groups without spread are left out of the batch altogether
    agent = small(SameRewards, ent_coef=0.5)
    before = digest(agent)
    assert digest(agent.learn(50)) == before


# --- resampling ------------------------------------------------------------------------------------------------


def test_tied_groups_are_left_out(batches: list[int]) -> None:
    agent = small(SometimesTied, n_groups=4)
    memory = watched(agent)
    agent.learn(12 * 4 * 10)  # 10 iterations of 12 episodes of 4 steps
    shares = memory.of("rollout/frac_zero_std_groups")
    assert len(shares) == 10
    assert [4 * (1 - share) for share in shares if share < 1] == batches
    assert min(batches) < 4


def test_tied_groups_are_replaced_by_new_ones(batches: list[int]) -> None:
    agent = small(SometimesTied, n_groups=4, max_resamples=50)
    memory = watched(agent)
    agent.learn(500)
    assert set(batches) == {4}
    # what was replaced is counted: in the share of ties, in the steps, in the episodes
    shares, steps = memory.of("rollout/frac_zero_std_groups"), np.diff([0, *memory.steps])
    assert [round(4 / (1 - share)) * 3 * 4 for share in shares] == steps.tolist()
    assert max(shares) > 0


# --- settings that are heard -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"learning_rate": FLAT_OUT / 2},
        {"n_groups": 3},
        {"group_size": 4},
        {"batch_size": 5},
        {"n_epochs": 2},
        {"gamma": 0.5},
        *({"baseline": name} for name in BASELINES if name != small(Walk).baseline),
        {"scale_rewards": "none", "max_grad_norm": 100.0},
        {"aggregation": "trajectory"},
        {"clip_range": 0.001},
        {"clip_range_high": 0.001},
        {"ent_coef": 0.1},
        {"max_grad_norm": 1e-6},
        {"max_episode_steps": 3},
        {"normalize_observations": True},
        {"target_kl": 1e-9},
        {"scale_rewards": "batch_returns"},
        {"scale_rewards": "batch_episodes", "baseline": "outcome"},
        {"aggregation": "group"},
        {"aggregation": "constant", "max_grad_norm": 100.0},
        {"objective": "sequence"},
        {"objective": "clipped_weights"},
        {"ratio_cap": 1.21},
        {"min_group_std": 1.0},
        {"truncated_episodes": "drop"},
        {"truncated_episodes": "drop_bad"},
        {"kl_coef": 0.1},
        {"kl_coef": 0.1, "kl_in": "reward"},
        {"variant": "dr_grpo"},
        {"reward_functions": [("length", len, 1.0)]},
        {"adapter_rank": 2},
        {"policy_kwargs": {"net_arch": [8], "optimizer_kwargs": {"eps": 0.1}}},
        {"policy_kwargs": {"net_arch": [8], "activation_fn": torch.nn.ReLU}},
    ],
    ids=str,
)
def test_every_setting_changes_what_is_learned(settings: dict[str, Any]) -> None:
    plain, changed = small(Walk).learn(100), small(Walk, **settings).learn(100)
    assert weights_digest(plain) != weights_digest(changed)


def test_a_straight_line_ends_where_training_does() -> None:
    agent = small(IdentityDiscrete, learning_rate="lin_0.01", clip_range=lambda left: 0.1 + 0.1 * left)
    memory = watched(agent)
    agent.learn(96)  # 4 iterations of 24 steps, resolved at the start of each
    assert memory.of("train/learning_rate") == pytest.approx([0.01, 0.0075, 0.005, 0.0025])
    assert memory.of("train/clip_range") == pytest.approx([0.2, 0.175, 0.15, 0.125])


def test_normalisation_is_frozen_during_an_iteration_and_learned_between_them() -> None:
    agent = small(IdentityBox, normalize_observations=True)
    assert isinstance(agent.policy, MlpPolicy)
    assert agent.policy.normalizer is not None
    counts = []
    agent.learn(60, callback=lambda names, _: counts.append(float(names["self"].policy.normalizer.count)))
    # 4 vector steps of 6 slots an iteration
    assert counts == [0.0] * 4 + [24.0] * 4 + [48.0] * 4


def test_a_tight_kl_limit_stops_an_update_early() -> None:
    free, tight = (small(IdentityDiscrete, target_kl=limit, n_epochs=10) for limit in (None, 1e-6))
    free.learn(24)
    tight.learn(24)
    # 24 rows in minibatches of 8, 10 times; the first minibatch is always stepped on
    assert free._n_updates == 30
    assert 1 <= tight._n_updates < 30


# --- long episodes ---------------------------------------------------------------------------------------------


class LongWalk(IdentityDiscrete):
    """Goes on for as long as it is let."""

    ends = False

    def step(self, action: Any) -> StepResult:
        observation, reward, _, _, info = super().step(action)
        return observation, reward, self.ends, False, info


def learn_long(limit: int, env: Any = LongWalk, **arguments: Any) -> None:
    settings = {"baseline": "soft_groups", "max_episode_steps": limit, "group_size": 2, "n_epochs": 1, **arguments}
    small(env, **settings).learn(1)


def test_where_all_episodes_are_long_it_is_told_how_to_learn_more_often() -> None:
    # 2 groups of 2 episodes; 4 · 501 and 4 · 128 steps
    with pytest.warns(UserWarning, match=r"limit of 501 .* once in 2,004 steps. With n_steps=128 .* every 512. Or set"):
        learn_long(501)


@pytest.mark.parametrize(
    ("limit", "arguments"),
    [(500, {}), (501, {"n_steps": 128}), (501, {"baseline": "live_peers"})],
    ids=["not so long", "segments", "a baseline that needs whole ones"],
)
def test_it_is_not_told_where_it_would_not_help(limit: int, arguments: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learn_long(limit, **arguments)


def test_it_is_not_told_where_an_episode_ended_by_itself() -> None:
    class EndsSometimes(LongWalk):
        def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
            self.ends = bool(seed and seed % 2)
            return super().reset(seed=seed)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learn_long(501, EndsSometimes, n_groups=8)
