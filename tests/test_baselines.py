from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from grpo_gym.advantages import SCALES, scale
from grpo_gym.baselines import BASELINES, Comparison, group_mean, leave_one_out, live_peers, shrunk_peers
from grpo_gym.types import Rollout
from tests.toys import rollout_of

every_baseline = pytest.mark.parametrize("name", ["outcome", "leave_one_out", "live_peers"])
every_scale = pytest.mark.parametrize("how", SCALES)

whole = st.integers(-50, 50).map(float)
group_of_returns = st.integers(2, 6).flatmap(
    lambda size: st.lists(st.lists(whole, min_size=size, max_size=size), min_size=1, max_size=4)
)
episode = st.lists(whole, min_size=1, max_size=5)
two_groups_of_three = st.lists(episode, min_size=6, max_size=6)


def close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-5, atol=1e-4)


def compared(name: str, rollout: Rollout, gamma: float = 1.0) -> Tensor:
    return BASELINES[name](rollout, Comparison(gamma)).advantages


def scaled(name: str, how: str, rewards: list[list[float]], group_size: int, gamma: float = 1.0) -> Tensor:
    made = rollout_of(rewards, group_size)
    advantages, returns, _ = BASELINES[name](made, Comparison(gamma))
    return scale(advantages, made.mask, group_size, how, returns[0])


def test_the_baselines_have_these_names() -> None:
    assert set(BASELINES) >= {"outcome", "leave_one_out", "live_peers"}


def test_group_mean_by_hand() -> None:
    assert group_mean(torch.tensor([[1.0, 2.0, 6.0], [0.0, 0.0, 3.0]])).tolist() == [[-2, -1, 3], [-1, -1, 2]]


def test_leave_one_out_by_hand() -> None:
    # 1 − (2 + 6)/2;  2 − (1 + 6)/2;  6 − (1 + 2)/2
    assert leave_one_out(torch.tensor([[1.0, 2.0, 6.0]])).tolist() == [[-3, -1.5, 4.5]]


@given(group_of_returns)
def test_leave_one_out_is_the_group_mean_without_its_shrinkage(returns: list[list[float]]) -> None:
    group_size = len(returns[0])
    shrunk = leave_one_out(torch.tensor(returns)) * ((group_size - 1) / group_size)
    assert close(shrunk, group_mean(torch.tensor(returns)))


def test_the_one_scalar_is_the_mean_of_all_other_episodes_whatever_their_seed() -> None:
    # returns 1, 2 | 6, 3: 1 − 11/3, 2 − 10/3, 6 − 6/3, 3 − 9/3, at every step
    advantages = compared("scalar", rollout_of([[1], [1, 1], [6], [3]], 2))
    assert close(advantages[0], torch.tensor([-8 / 3, -4 / 3, 4.0, 0.0]).double())
    assert close(advantages[1], torch.tensor([0.0, -4 / 3, 0.0, 0.0]).double())


@given(group_of_returns)
def test_live_peers_of_one_step_episodes_are_leave_one_out(returns: list[list[float]]) -> None:
    given_ = torch.tensor(returns)
    values = given_.reshape(1, -1)
    advantages = live_peers(values, torch.ones_like(values, dtype=torch.bool), given_.shape[1])
    assert close(advantages, leave_one_out(given_).reshape(1, -1))


@given(group_of_returns, whole)
def test_adding_a_constant_to_a_group_changes_no_advantage(returns: list[list[float]], constant: float) -> None:
    given_ = torch.tensor(returns)
    moved = given_.clone()
    moved[0] += constant
    for compare in (group_mean, leave_one_out):
        assert close(compare(moved), compare(given_))
    live = torch.ones(1, given_.numel(), dtype=torch.bool)
    group_size = given_.shape[1]
    assert close(live_peers(moved.view(1, -1), live, group_size), live_peers(given_.view(1, -1), live, group_size))


@given(group_of_returns)
def test_the_advantages_of_a_group_add_up_to_zero(returns: list[list[float]]) -> None:
    given_ = torch.tensor(returns)
    for compare in (group_mean, leave_one_out):
        assert close(compare(given_).sum(dim=1), torch.zeros(len(returns)))


def test_live_peers_by_hand() -> None:
    values = torch.tensor([[4.0, 2.0, 1.0, 5.0], [0.0, 6.0, 2.0, 4.0], [0.0, 7.0, 0.0, 0.0]])
    mask = torch.tensor([[True, True, True, True], [False, True, True, True], [False, True, False, False]])
    assert live_peers(values, mask, 2).tolist() == [
        [2, -2, -4, 4],
        [0, 3, -2, 2],  # the second is alone in its group: 6 − (2 + 4)/2
        [0, 0, 0, 0],  # and then alone altogether: never 7
    ]


def test_three_members_of_which_two_live() -> None:
    values = torch.tensor([[9.0, 1.0, 5.0], [4.0, 0.0, 6.0]])
    mask = torch.tensor([[True, True, True], [True, False, True]])
    assert live_peers(values, mask, 3).tolist() == [[6, -6, 0], [-2, 0, 2]]


def test_a_group_of_everybody_compares_with_the_whole_batch() -> None:
    values = torch.tensor([[1.0, 2.0, 3.0, 6.0]])
    everybody = live_peers(values, torch.ones(1, 4, dtype=torch.bool), 4)
    assert close(everybody, torch.tensor([[1 - 11 / 3, 2 - 10 / 3, 3 - 9 / 3, 6 - 6 / 3]]))


def test_a_survivor_without_any_peer_has_no_advantage_whatever_it_earns() -> None:
    rewards = [[1.0], [1.0], [1.0, 1.0, 100.0], [1.0]]
    assert compared("live_peers", rollout_of(rewards, 2))[1:].tolist() == [[0, 0, 0, 0], [0, 0, 0, 0]]


def test_a_step_that_always_earns_the_same_still_teaches_to_live_longer() -> None:
    advantages = compared("live_peers", rollout_of([[1, 1], [1, 1, 1]], 2))
    assert advantages.tolist() == [[-1, 1], [-1, 1], [0, 0]]


def test_outcome_gives_every_step_of_an_episode_the_same() -> None:
    rewards = [[1, 1], [6], [0], [0]]
    assert compared("outcome", rollout_of(rewards, 2)).tolist() == [[-2, 2, 0, 0], [-2, 0, 0, 0]]
    assert compared("leave_one_out", rollout_of(rewards, 2)).tolist() == [[-4, 4, 0, 0], [-4, 0, 0, 0]]


def test_gamma_discounts_what_is_compared() -> None:
    # returns 1 + 0.5·4 = 3 and 1
    assert compared("outcome", rollout_of([[1, 4], [1]], 2), 0.5)[0].tolist() == [1, -1]


@every_baseline
@every_scale
@pytest.mark.parametrize("n", [1, 3, 6, 7, 9])
@pytest.mark.parametrize("group_size", [2, 3, 7])
def test_a_tied_group_is_exactly_zero(name: str, how: str, n: int, group_size: int) -> None:
    tied = [[-0.1 * n] * n for _ in range(group_size)]
    other = [[float(i)] * (i + 1) for i in range(group_size)]
    advantages = scaled(name, how, tied + other, group_size, gamma=0.99)
    if name == "live_peers":  # steps beyond the tied group's end have no bearing
        advantages = advantages[:n]
    assert advantages[:, :group_size].count_nonzero() == 0
    assert advantages[:, group_size:].count_nonzero() > 0


@every_scale
@pytest.mark.parametrize("name", ["outcome", "leave_one_out"])
@pytest.mark.parametrize(
    "rewards", [[-0.1, -0.1, -0.1, -0.1, -0.1, 1.0], [-0.1, -0.1, -0.1, 0.5, 1.0], [0.1] * 7 + [0.3]]
)
def test_earning_the_same_in_another_order_is_a_tie(name: str, how: str, rewards: list[float]) -> None:
    # float32 sums depend on the order; divided by the group's σ their rounding would become advantages of ±1
    assert scaled(name, how, [rewards, rewards[::-1]], 2).count_nonzero() == 0


def test_earning_the_same_in_another_order_is_a_tie_at_the_first_step() -> None:
    rewards = [-0.1, -0.1, -0.1, -0.1, -0.1, 1.0]
    assert scaled("live_peers", "none", [rewards, rewards[::-1]], 2)[0].tolist() == [0, 0]


@pytest.mark.parametrize(
    "name", [name for name in BASELINES if name not in ("anchor_states", "soft_groups", "process", "time_index")]
)
def test_advantages_returns_and_values_fit_together(name: str) -> None:
    made = rollout_of([[1, 2, 4], [8], [3, 3], [5]], 2)
    advantages, returns, values = BASELINES[name](made, Comparison(0.5))
    assert returns[0].tolist() == [3, 8, 4.5, 5]
    # the first step's return-to-go is the episode's
    assert close(advantages[0], returns[0] - values[0])
    assert values[~made.mask].count_nonzero() == returns[~made.mask].count_nonzero() == 0


@every_baseline
@every_scale
def test_a_small_difference_is_no_tie(name: str, how: str) -> None:
    first_step = scaled(name, how, [[100.0], [100.001]], 2)[0]
    assert first_step[0] < 0 < first_step[1]


@pytest.mark.parametrize("name", BASELINES)
@every_scale
def test_what_stands_in_the_padding_leaks_nowhere(name: str, how: str) -> None:
    made = rollout_of([[1, 2, 4], [8], [3, 3], [5]], 2)
    dirty = replace(made, rewards=torch.where(made.mask, made.rewards, 1e9))
    results = [BASELINES[name](r, Comparison(0.9)) for r in (made, dirty)]
    clean_result, dirty_result = (scale(r.advantages, made.mask, made.group_size, how, r.returns[0]) for r in results)
    assert torch.equal(clean_result, dirty_result)
    assert clean_result[~made.mask].count_nonzero() == 0


@pytest.mark.parametrize("name", ["scalar", "outcome", "leave_one_out", "live_peers", "batch", "shrunk"])
@settings(max_examples=25)
@given(two_groups_of_three, st.permutations(range(3)))
def test_permuting_the_members_permutes_the_advantages(name: str, rewards: list[list[float]], order: list[int]) -> None:
    index = [*order, 3, 4, 5]
    permuted = compared(name, rollout_of([rewards[i] for i in index], 3))
    assert close(permuted, compared(name, rollout_of(rewards, 3))[:, index])


@pytest.mark.parametrize("name", ["outcome", "leave_one_out"])
@settings(max_examples=25)
@given(two_groups_of_three, two_groups_of_three)
def test_other_groups_do_not_matter(name: str, rewards: list[list[float]], others: list[list[float]]) -> None:
    alone = compared(name, rollout_of(rewards, 3))
    beside = compared(name, rollout_of(rewards + others, 3))
    assert torch.equal(beside[: len(alone), :6], alone)


@pytest.mark.parametrize("name", ["scalar", "outcome", "leave_one_out", "live_peers", "batch", "shrunk"])
def test_a_time_limit_counts_as_a_real_end(name: str) -> None:
    made = rollout_of([[1, 2, 4], [8], [3, 3], [5]], 2)
    cut = replace(made, terminated=~made.mask[0], truncated=made.mask[0])
    assert torch.equal(compared(name, cut, 0.9), compared(name, made, 0.9))


def test_shrunk_peers_by_hand() -> None:
    values, mask = torch.tensor([[0.0, 2.0, 10.0, 12.0]]), torch.ones(1, 4, dtype=torch.bool)
    # σ²_within = 4/2, σ²_between = 5² − 2/2 = 24, k = 1: w = 1 / (1 + 2/24) = 12/13
    group, batch = torch.tensor([[-2.0, 2.0, -2.0, 2.0]]), torch.tensor([[-8.0, -16 / 3, 16 / 3, 8.0]])
    assert close(shrunk_peers(values, mask, 2), 12 / 13 * group + 1 / 13 * batch)


def test_where_starts_do_not_matter_shrunk_peers_are_the_batch() -> None:
    values, mask = torch.tensor([[0.0, 10.0, 10.0, 0.0]]), torch.ones(1, 4, dtype=torch.bool)
    assert close(shrunk_peers(values, mask, 2), live_peers(values, mask, 4))


def test_where_starts_are_all_that_matters_shrunk_peers_are_the_group() -> None:
    values, mask = torch.tensor([[3.0, 3.0, 10.0, 10.0]]), torch.ones(1, 4, dtype=torch.bool)
    assert shrunk_peers(values, mask, 2).tolist() == [[0, 0, 0, 0]]


def test_a_group_of_one_is_refused_and_the_reason_given() -> None:
    for compare in (group_mean, leave_one_out):
        with pytest.raises(ValueError, match=r"group_size=1.*at least 2.*nothing to be compared with"):
            compare(torch.zeros(3, 1))
    with pytest.raises(ValueError, match=r"group_size=1.*at least 2.*nothing to be compared with"):
        live_peers(torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool), 1)
