import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from grpo_gym.advantages import (
    SCALES,
    generalized_advantages,
    group_spread,
    groups_with_spread,
    may_be_learned,
    returns_to_go,
    scale,
    silence_narrow_groups,
)
from grpo_gym.types import Compared
from tests.toys import rollout_of

whole_rewards = st.lists(st.integers(-8, 8).map(float), min_size=1, max_size=6)
groups_of_two = st.lists(whole_rewards, min_size=2, max_size=8).filter(lambda episodes: len(episodes) % 2 == 0)

ALL = torch.ones(1, 4, dtype=torch.bool)


def test_returns_to_go_by_hand() -> None:
    made = rollout_of([[1, 2, 4], [8]], group_size=2)
    result = returns_to_go(made.rewards, made.mask, gamma=0.5)
    # 4;  2 + 0.5·4;  1 + 0.5·4
    assert result.tolist() == [[3, 8], [4, 0], [4, 0]]


@pytest.mark.parametrize(("gamma", "expected"), [(1.0, [7, 6, 4]), (0.0, [1, 2, 4])])
def test_gamma_1_adds_everything_and_gamma_0_looks_at_one_step(gamma: float, expected: list[float]) -> None:
    made = rollout_of([[1, 2, 4], [0, 0, 0]], group_size=2)
    assert returns_to_go(made.rewards, made.mask, gamma)[:, 0].tolist() == expected


@given(groups_of_two, st.sampled_from([0.0, 0.5, 1.0]))
def test_a_return_is_the_reward_plus_gamma_times_the_next_return(episodes: list[list[float]], gamma: float) -> None:
    made = rollout_of(episodes, group_size=2)
    result = returns_to_go(made.rewards, made.mask, gamma)
    after = torch.cat([result[1:], torch.zeros(1, len(episodes))])
    assert torch.equal(result, torch.where(made.mask, made.rewards + gamma * after, 0.0))


@pytest.mark.parametrize("rubbish", [1e9, math.nan, math.inf])
def test_what_stands_in_the_padding_changes_no_return(rubbish: float) -> None:
    made = rollout_of([[1, 2, 4], [8], [3, 3], [5]], group_size=2)
    dirty = torch.where(made.mask, made.rewards, rubbish)
    assert torch.equal(returns_to_go(dirty, made.mask, 0.9), returns_to_go(made.rewards, made.mask, 0.9))


def test_generalized_advantages_by_hand() -> None:
    made = rollout_of([[1, 2], [1]], group_size=2)
    values, tail = torch.tensor([[3.0, 1.0], [4.0, 0.0]]), torch.tensor([5.0, 0.0])
    result = generalized_advantages(made.rewards, made.mask, values, tail, gamma=0.5, gae_lambda=0.5)
    # δ = 2 + 0.5·5 − 4 = 0.5 and 1 + 0.5·4 − 3 = 0: 0 + 0.25·0.5;  1 + 0 − 1 = 0
    assert result.tolist() == [[0.125, 0], [0.5, 0]]


@given(groups_of_two, st.sampled_from([0.0, 0.5, 1.0]))
def test_with_lambda_1_they_are_returns_minus_values(episodes: list[list[float]], gamma: float) -> None:
    made = rollout_of(episodes, group_size=2)
    values = torch.where(made.mask, 2 * made.rewards + 1, 0.0)
    result = generalized_advantages(made.rewards, made.mask, values, torch.zeros(len(episodes)), gamma, 1.0)
    expected = torch.where(made.mask, returns_to_go(made.rewards, made.mask, gamma) - values, 0.0)
    assert torch.allclose(result, expected.to(result.dtype), atol=1e-4)


def test_what_stands_in_the_padding_changes_no_generalized_advantage() -> None:
    made = rollout_of([[1, 2, 4], [8], [3, 3], [5]], group_size=2)
    values, tail = torch.ones_like(made.rewards), torch.ones(4)
    clean = generalized_advantages(made.rewards, made.mask, values, tail, 0.9, 0.8)
    rewards, dirty_values = (torch.where(made.mask, x, 1e9) for x in (made.rewards, values))
    assert torch.equal(generalized_advantages(rewards, made.mask, dirty_values, tail, 0.9, 0.8), clean)


def scaled(advantages: list[float], how: str, group_size: int = 2) -> list[float]:
    result: list[float] = scale(torch.tensor([advantages]), ALL, group_size, how, torch.tensor(advantages))[0].tolist()
    return result


def test_the_three_scales_by_hand() -> None:
    given = [-1.0, 1.0, -3.0, 3.0]
    assert scaled(given, "none") == given
    assert scaled(given, "group") == [-1, 1, -1, 1]  # σ = 1 and 3
    # σ² = (1 + 1 + 9 + 9) / 4 = 5
    assert scaled(given, "batch") == pytest.approx([-1 / 5**0.5, 1 / 5**0.5, -3 / 5**0.5, 3 / 5**0.5])


def test_the_deviation_is_taken_over_steps_and_not_over_episodes() -> None:
    advantages = torch.tensor([[3.0, -1.0], [0.0, -1.0], [0.0, -1.0]])
    mask = torch.tensor([[True, True], [False, True], [False, True]])
    # mean (3 − 3) / 4 = 0, σ² = (9 + 3) / 4 = 3
    assert scale(advantages, mask, 2, "group")[0].tolist() == pytest.approx([3**0.5, -1 / 3**0.5])


def test_over_episodes_each_counts_once_however_long() -> None:
    advantages = torch.tensor([[3.0, -3.0, 1.0, -1.0], [3.0, 0.0, 0.0, 0.0]])
    mask = torch.tensor([[True] * 4, [True, False, False, False]])
    # σ = 3 and 1 in the groups; σ² = (9 + 9 + 1 + 1) / 4 = 5 in the batch
    assert scale(advantages, mask, 2, "group_episodes").tolist() == [[1, -1, 1, -1], [1, 0, 0, 0]]
    batch = scale(advantages, mask, 2, "batch_episodes")
    assert batch[:, 0].tolist() == pytest.approx([3 / 5**0.5] * 2)
    # returns 8, 2, 6, 4: mean 5, σ² = (9 + 9 + 1 + 1) / 4
    returns = scale(advantages, mask, 2, "batch_returns", torch.tensor([8.0, 2.0, 6.0, 4.0]))
    assert torch.allclose(returns, batch)
    # returns 10, 4, 0, −2: mean 3, σ² = (49 + 1 + 9 + 25) / 4 = 21: what differs between groups counts
    returns = scale(advantages, mask, 2, "batch_returns", torch.tensor([10.0, 4.0, 0.0, -2.0]))
    assert returns[0, 0].item() == pytest.approx(3 / 21**0.5)


def test_groups_that_tie_do_not_count_in_the_deviation_over_episodes_of_the_batch() -> None:
    assert scaled([0.0, 0.0, -3.0, 3.0], "batch_episodes") == [0, 0, -1, 1]
    assert scaled([0.0, 0.0, -3.0, 3.0], "batch") == pytest.approx([0, 0, -(2**0.5), 2**0.5])  # σ² = 18 / 4


def test_narrow_groups_are_silenced() -> None:
    advantages = torch.tensor([[-1.0, 1.0, -3.0, 3.0]])
    compared = Compared(advantages, advantages + 5, torch.full((1, 4), 5.0))
    assert silence_narrow_groups(compared, 2, 2.0).advantages.tolist() == [[0, 0, -3, 3]]  # σ = 1 and 3
    assert silence_narrow_groups(compared, 2, 1.0).advantages.tolist() == advantages.tolist()
    assert silence_narrow_groups(compared, 2, 0.0) is compared


def test_what_was_truncated_is_kept_or_dropped_or_dropped_if_bad() -> None:
    truncated = torch.tensor([True, True, False, False])
    advantages = torch.tensor([[-1.0, 1.0, -1.0, 1.0]])
    assert may_be_learned(truncated, advantages, "keep").tolist() == [True, True, True, True]
    assert may_be_learned(truncated, advantages, "drop").tolist() == [False, False, True, True]
    assert may_be_learned(truncated, advantages, "drop_bad").tolist() == [False, True, True, True]
    with pytest.raises(ValueError, match="'mask' is not known; choose from keep, drop, drop_bad"):
        may_be_learned(truncated, advantages, "mask")


def test_scaling_subtracts_nothing() -> None:
    assert scaled([1.0, 3.0, 1.0, 3.0], "group") == [1, 3, 1, 3]  # mean 2, σ 1
    assert scaled([2.0, 6.0, 2.0, 6.0], "batch") == [1, 3, 1, 3]  # mean 4, σ 2


@pytest.mark.parametrize("how", SCALES)
def test_zeros_stay_exactly_zero(how: str) -> None:
    assert scaled([0.0, 0.0, 0.0, 0.0], how) == [0, 0, 0, 0]


@pytest.mark.parametrize("how", SCALES)
@pytest.mark.parametrize("equal", [2.0, -0.1, 1e-12, 1e12])
def test_equal_advantages_without_spread_are_divided_by_one(how: str, equal: float) -> None:
    assert scaled([equal] * 4, how) == torch.full((4,), equal).tolist()


def test_a_tied_group_does_not_disturb_the_scale_of_its_neighbour() -> None:
    assert scaled([0.0, 0.0, -3.0, 3.0], "group") == [0, 0, -1, 1]


@pytest.mark.parametrize("how", SCALES)
def test_what_stands_in_the_padding_changes_no_scaled_advantage(how: str) -> None:
    made = rollout_of([[1, 2, 4], [8], [3, 3], [5]], group_size=2)
    dirty = torch.where(made.mask, made.rewards, 1e9)
    clean, other = (made.flat(scale(x, made.mask, 2, how, made.rewards[0])) for x in (made.rewards, dirty))
    assert torch.equal(clean, other)


@given(groups_of_two, st.sampled_from(["group", "batch"]), st.sampled_from([2.0**-30, 2.0**-3, 2.0**20]))
def test_the_unit_of_the_rewards_does_not_matter_once_scaled(
    episodes: list[list[float]], how: str, unit: float
) -> None:
    made = rollout_of(episodes, group_size=2)

    def centred(x: Tensor) -> Tensor:
        return torch.where(made.mask, x - x.view(len(x), -1, 2).mean(dim=2).repeat_interleave(2, dim=1), 0.0)

    plain = scale(centred(made.rewards), made.mask, 2, how)
    assert torch.allclose(scale(centred(made.rewards * unit), made.mask, 2, how), plain, atol=1e-5)


def test_an_unknown_scale_is_refused_and_the_known_are_named() -> None:
    with pytest.raises(ValueError, match=r"'groups' is not known; choose from group, batch, none"):
        scale(torch.zeros(1, 4), ALL, 2, "groups")


def test_the_spread_of_a_group_by_hand() -> None:
    # mean 2, deviations −1 and 1, without Bessel's correction
    assert group_spread(torch.tensor([1.0, 3.0, 5.0, 5.0]), 2).tolist() == [1, 0]


@pytest.mark.parametrize("group_size", [2, 3, 5, 7, 8])
def test_a_tied_group_has_no_spread_at_all(group_size: int) -> None:
    equal = torch.tensor([-0.1 * n for n in range(1, 12)]).repeat_interleave(group_size)
    assert group_spread(equal, group_size).tolist() == [0] * 11


def test_a_group_teaches_if_any_advantage_in_it_is_not_zero() -> None:
    advantages = torch.tensor([[0.0, 0.0, 0.0, 0.0, 1.0, -1.0], [0.0, 0.0, 0.0, 1e-9, 0.0, 0.0]])
    assert groups_with_spread(advantages, torch.tensor([0, 0, 1, 1, 2, 2])).tolist() == [False, True, True]
