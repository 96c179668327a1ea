from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from grpo_gym.advantages import returns_to_go
from grpo_gym.anchors import anchor_states
from grpo_gym.baselines import BASELINES, Comparison
from grpo_gym.types import Compared, Rollout
from tests.toys import rollout_of

states = st.lists(st.integers(0, 3), min_size=1, max_size=6)
four_walks = st.lists(states, min_size=4, max_size=4)


def walk(states: list[list[int]], rewards: list[list[float]], group_size: int) -> Rollout:
    """Episodes through numbered states."""
    seen = torch.tensor([state for episode in states for state in episode])
    return replace(rollout_of(rewards, group_size), observations=seen)


def returns_of(rollout: Rollout) -> Tensor:
    return returns_to_go(rollout.rewards, rollout.mask, 1.0)


def compared(name: str, rollout: Rollout, gamma: float = 1.0) -> Compared:
    return BASELINES[name](rollout, Comparison(gamma, flatten=lambda x: x.reshape(len(x), -1).float()))


# --- anchor states ---------------------------------------------------------------------------------------------


def test_steps_that_saw_the_same_are_compared_with_their_mean() -> None:
    # state 7 is seen with 5, 4 and 1 to go: mean 10/3; all else once
    rollout = walk([[7, 8], [9, 7], [7, 8], [1, 2]], [[1, 4], [3, 4], [1, 0], [5, 6]], 4)
    expected = [[5 - 10 / 3, 0, 1 - 10 / 3, 0], [4 - 2, 4 - 10 / 3, 0 - 2, 0]]
    assert torch.allclose(anchor_states(returns_of(rollout), rollout), torch.tensor(expected).double())


def test_other_groups_are_no_anchors() -> None:
    rollout = walk([[7], [7], [7], [7]], [[1], [3], [10], [30]], 2)
    assert anchor_states(returns_of(rollout), rollout).tolist() == [[-1, 1, -10, 10]]


def test_a_state_that_no_other_step_of_the_group_saw_adds_nothing() -> None:
    rollout = walk([[1, 2], [3, 4]], [[5, 6], [7, 8]], 2)
    assert anchor_states(returns_of(rollout), rollout).count_nonzero() == 0


def test_a_trajectory_that_comes_back_is_its_own_anchor() -> None:
    rollout = walk([[1, 1, 2], [3]], [[2, 4, 0], [9]], 2)
    assert anchor_states(returns_of(rollout), rollout).tolist() == [[1, 0], [-1, 0], [0, 0]]


def test_states_are_the_same_only_if_all_their_numbers_are() -> None:
    seen = torch.tensor([[0.5, 1.0], [0.5, 1.0], [0.5, 1.5], [1.5, 1.0]])
    rollout = replace(rollout_of([[1], [3], [5], [7]], 4), observations=seen)
    assert anchor_states(returns_of(rollout), rollout).tolist() == [[-1, 1, 0, 0]]


def test_the_episode_and_its_anchors_are_added() -> None:
    rollout = walk([[7, 8], [9, 7]], [[1, 4], [3, 0]], 2)
    # the episodes return 5 and 3: ±1; state 7 has 5 and 0 to go: ±2.5
    advantages, returns, values = compared("anchor_states", rollout)
    assert advantages.tolist() == [[1 + 2.5, -1], [1, -1 - 2.5]]
    assert returns.tolist() == [[5, 3], [4, 0]]
    # what a return-to-go is compared with: the anchors' mean where there are any, or the group's
    assert values.tolist() == [[2.5, 4], [4, 2.5]]


# --- bins ------------------------------------------------------------------------------------------------------


def test_the_first_visits_of_the_others_to_a_bin_are_what_a_step_is_compared_with() -> None:
    # two kinds of states on two sides of all planes, all times in one bin
    rollout = walk([[0, 0, 1], [0, 1], [1]], [[1, 2, 3], [10, 20], [100]], 3)
    # first visits to 0: 6 and 30; to 1: 3, 20 and 100
    expected = [[6 - 30, 30 - 6, 100 - 23 / 2], [5 - 30, 20 - 103 / 2, 0], [3 - 60, 0, 0]]
    assert torch.allclose(compared("bins", rollout).advantages, torch.tensor(expected).double())


def test_a_step_is_compared_with_those_of_its_sixteen_steps_alone() -> None:
    rewards = [[1.0] * 18, [2.0] * 18]
    advantages = compared("bins", walk([[0] * 18] * 2, rewards, 2)).advantages
    # from step 16 on two steps are left: 4 at the other's first visit
    assert advantages[16:].tolist() == [[2 - 4, 4 - 2], [1 - 4, 2 - 2]]


def test_a_bin_that_no_other_trajectory_visits_teaches_nothing() -> None:
    advantages = compared("bins", walk([[0, 1], [0], [0], [0]], [[1, 9], [2], [3], [4]], 2)).advantages
    assert advantages[1].tolist() == [0, 0, 0, 0]
    assert advantages[0].tolist() == [10 - 3, 2 - 17 / 3, 3 - 16 / 3, 4 - 15 / 3]


def test_groups_do_not_matter_to_bins() -> None:
    rewards = [[1.0], [3.0], [10.0], [30.0]]
    two, one = (compared("bins", walk([[0]] * 4, rewards, size)).advantages for size in (2, 4))
    assert torch.equal(two, one)


def test_the_same_observations_lie_in_the_same_bins_to_the_last_bit() -> None:
    seen = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
    rewards = [[float(n + t) for t in range(15)] for n in range(4)]
    rollout = replace(rollout_of(rewards, 2), observations=seen)
    assert torch.equal(compared("bins", rollout).advantages, compared("bins", rollout).advantages)
    # in other units too
    scaled = replace(rollout, observations=seen * torch.tensor([1.0, 8.0, 0.5, 64.0, 2.0]))
    assert torch.equal(compared("bins", scaled).advantages, compared("bins", rollout).advantages)


# --- both ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["anchor_states", "bins"])
@settings(max_examples=25)
@given(four_walks)
def test_where_every_return_to_go_ties_nothing_is_learned(name: str, states: list[list[int]]) -> None:
    only_at_the_end = [[0.0] * (len(episode) - 1) + [0.1] for episode in states]
    assert compared(name, walk(states, only_at_the_end, 2)).advantages.count_nonzero() == 0


@pytest.mark.parametrize("name", ["anchor_states", "bins"])
def test_rounding_is_no_difference(name: str) -> None:
    # 0.3·0.1 cannot be written exactly, nor can the sum of seven; the eighth episode is longer
    rollout = walk([[0, 1]] * 7 + [[0, 1, 1]], [[0, 0.1]] * 7 + [[0, 0.1, 0]], 8)
    assert compared(name, rollout, gamma=0.3).advantages[0].count_nonzero() == 0


def test_equal_rewards_in_episodes_of_equal_length_teach_nothing_though_bins_are_entered_at_different_times() -> None:
    assert compared("bins", walk([[0, 1], [1, 0]], [[1, 1], [1, 1]], 2)).advantages.count_nonzero() == 0


@pytest.mark.parametrize("name", ["anchor_states", "bins"])
@settings(max_examples=25)
@given(four_walks, st.permutations(range(4)))
def test_permuting_the_members_permutes_the_advantages(name: str, states: list[list[int]], order: list[int]) -> None:
    rewards = [[float(state * state + n) for state in episode] for n, episode in enumerate(states)]
    moved = walk([states[n] for n in order], [rewards[n] for n in order], 4)
    found, expected = compared(name, moved).advantages, compared(name, walk(states, rewards, 4)).advantages[:, order]
    assert torch.allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize("name", ["anchor_states", "bins"])
def test_advantages_are_what_is_left_of_the_returns(name: str) -> None:
    rollout = walk([[0, 1, 0], [0, 1], [1], [0]], [[1, 2, 3], [10, 20], [100], [7]], 2)
    advantages, returns, values = compared(name, rollout)
    if name == "bins":
        assert torch.equal(advantages, returns - values)
    for array in (advantages, returns, values):
        assert array[~rollout.mask].count_nonzero() == 0
