from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from torch import Tensor

from grpo_gym import soft_groups as module
from grpo_gym.preprocessing import preprocess
from grpo_gym.soft_groups import RIDGES, random_fourier_features, soft_group_values, soft_groups
from grpo_gym.types import Rollout
from grpo_gym.visited import Visited, join
from tests.toys import rollout_of

LENGTHS = [3, 5, 4, 2, 4, 3, 5, 1]


def flat(observations: Tensor) -> Tensor:
    return observations.flatten(1).float()


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def a_rollout(seed: int = 0, lengths: list[int] = LENGTHS, group_size: int = 4) -> Rollout:
    """Episodes of these lengths with random observations of two numbers, and random rewards."""
    rewards = [numbers(length, seed=100 * seed + n).tolist() for n, length in enumerate(lengths)]
    return replace(
        rollout_of(rewards, group_size),
        observations=numbers(sum(lengths), 2, seed=seed + 1),
        final_observations=numbers(len(lengths), 2, seed=seed + 2),
    )


def seeing(observations: list[list[float]], rewards: list[list[float]], group_size: int) -> Rollout:
    """Terminated episodes in which these numbers were seen, one each step."""
    seen = torch.tensor([number for episode in observations for number in episode])[:, None]
    return replace(rollout_of(rewards, group_size), observations=seen)


def in_states(states: list[int], rewards: list[float], group_size: int) -> Rollout:
    """Episodes of one step in Discrete states."""
    made = rollout_of([[reward] for reward in rewards], group_size)
    return replace(made, observations=torch.tensor(states), final_observations=torch.zeros(len(states)).long())


def cut(rollout: Rollout) -> Rollout:
    return replace(rollout, terminated=torch.zeros_like(rollout.terminated))


def earning(rollout: Rollout, episode: int, more: float) -> Rollout:
    """The same rollout, but this episode earned so much more at its last step."""
    rewards = rollout.rewards.clone()
    rewards[rollout.lengths[episode] - 1, episode] += more
    return replace(rollout, rewards=rewards)


def values_of(rollout: Rollout, gamma: float = 0.9) -> Tensor:
    return soft_group_values(rollout, gamma, flat)[0]


# --- the feature map -------------------------------------------------------------------------------------------


def test_the_first_features_are_one_the_standardised_numbers_and_their_squares() -> None:
    features = random_fourier_features(torch.tensor([[1.0], [3.0]]))  # mean 2, deviation 1
    assert features(torch.tensor([[2.0], [5.0], [-1.0]]))[:, :3].tolist() == [[1, 0, 0], [1, 3, 9], [1, -3, 9]]


def test_an_outlier_counts_as_five_deviations() -> None:
    features = random_fourier_features(torch.tensor([[1.0], [3.0]]))
    assert torch.equal(features(torch.tensor([[1e9]])), features(torch.tensor([[7.0]])))


def test_a_number_that_never_changes_says_nothing() -> None:
    features = random_fourier_features(torch.tensor([[1.0, 8.0], [3.0, 8.0]]))
    assert features(torch.tensor([[5.0, 8.0]]))[0, :5].tolist() == [1, 3, 0, 9, 0]


def test_the_same_states_give_the_same_map_to_the_last_bit() -> None:
    x, y = numbers(50, 3), numbers(7, 3, seed=1)
    assert torch.equal(random_fourier_features(x)(y), random_fourier_features(x.clone())(y))


def test_the_units_of_an_observation_make_no_difference() -> None:
    x, y, units = numbers(50, 2), numbers(7, 2, seed=1), torch.tensor([8.0, 0.25])
    found = random_fourier_features(units * x + 16)(units * y + 16)
    assert torch.allclose(found, random_fourier_features(x)(y), atol=1e-4)


def test_inner_products_of_the_waves_are_gaussian_kernels_of_three_widths() -> None:
    # three states, each two 3 deviations apart, which is the median: widths 1.5, 3 and 6
    corners = torch.eye(3)
    waves = random_fourier_features(corners, n_features=60_000)(corners)[:, 7:]
    alike = (np.exp(-2) + np.exp(-1 / 2) + np.exp(-1 / 8)) / 3
    expected = torch.full((3, 3), float(alike)).fill_diagonal_(1.0)
    assert torch.allclose(waves @ waves.T, expected, atol=0.02)


@pytest.mark.parametrize(
    ("space", "seen", "laid_out"),
    [
        (Discrete(3, start=5), [[5], [7]], [[1, 0, 0], [0, 0, 1]]),
        (MultiDiscrete([2, 3]), [[0, 2], [1, 0]], [[1, 0, 0, 0, 1], [0, 1, 1, 0, 0]]),
        (Box(0, 255, (1, 2), np.uint8), [[[0, 255]], [[7, 8]]], [[0, 255], [7, 8]]),
    ],
    ids=["discrete", "multi-discrete", "image"],
)
def test_what_counts_is_laid_out_as_ones_among_zeros_and_an_image_number_by_number(
    space: Discrete | MultiDiscrete | Box, seen: list[list[int]], laid_out: list[list[int]]
) -> None:
    observations = torch.tensor(seen, dtype=torch.uint8 if isinstance(space, Box) else torch.int64)
    if isinstance(space, Discrete):
        observations = observations[:, 0]
    found = preprocess(observations, space)
    assert found.tolist() == laid_out
    assert random_fourier_features(found)(found).isfinite().all()


def test_a_discrete_state_has_the_mean_of_those_in_the_same_state_for_its_value() -> None:
    # in state 0 peers earn 1, in state 2 they earn 5
    rollout = in_states([0, 2] * 20, [1.0, 5.0] * 20, 4)
    values, _ = soft_group_values(rollout, 1.0, partial(preprocess, space=Discrete(3)))
    assert torch.allclose(values, torch.tensor([[1.0, 5.0] * 20]).double(), atol=0.01)


def test_large_images_cost_no_more_features_than_128_numbers() -> None:
    images = torch.randint(256, (32, 40, 40, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = preprocess(images, Box(0, 255, (40, 40, 3), np.uint8))
    features = random_fourier_features(found)(found)
    assert features.shape == (32, 1 + 2 * 128 + 255)
    assert features[:, 1:129].std().item() == pytest.approx(1.0, abs=0.2)
    rollout = replace(a_rollout(lengths=[8] * 4), observations=images, final_observations=images[:4])
    assert values_of(rollout).isfinite().all()


# --- who is compared with whom ---------------------------------------------------------------------------------


@pytest.mark.parametrize("group_size", [2, 4, 8])
@pytest.mark.parametrize("ended", [True, False])
@pytest.mark.parametrize("guess", [False, True])
def test_no_step_sees_its_own_return(
    monkeypatch: pytest.MonkeyPatch, group_size: int, ended: bool, guess: bool
) -> None:
    monkeypatch.setattr(module, "RIDGES", (1e-2,))  # the choice of a ridge is everybody's
    monkeypatch.setattr(module, "RIDGES_WITH_GUESS", (1e-2,))
    monkeypatch.setattr(module, "N_FITS", 1)  # and so is what comes after a cut, seen by the fits of others
    earlier = [of_others(cut(a_rollout(seed=1, group_size=group_size)))] if guess else []
    before = a_rollout(group_size=group_size)
    before = before if ended else cut(before)
    after = earning(before, episode=1, more=100.0)
    values, others = (soft_group_values(rollout, 0.9, flat, earlier)[0] for rollout in (before, after))
    change = (others - values).abs()
    n_folds = min(4, group_size)
    for n, member in enumerate(before.members.tolist()):
        if member % n_folds == 1:
            assert change[:, n].max() < 1e-6
        else:
            assert change[: before.lengths[n], n].max() > 0.1


def test_adding_to_all_returns_adds_to_all_values() -> None:
    rollout = a_rollout(lengths=[1] * 8)
    richer = replace(rollout, rewards=rollout.rewards + 1000)
    assert torch.allclose(values_of(richer), values_of(rollout) + 1000, atol=1e-3)


def test_permuting_the_trajectories_permutes_their_values() -> None:
    # each two states are equally far apart, so that it does not matter which are drawn for the median
    states, rewards = [0, 1, 2, 1, 2, 0, 2, 2, 1, 0, 0, 1], numbers(12).tolist()

    def values(order: list[int]) -> Tensor:
        made = in_states([states[n] for n in order], [rewards[n] for n in order], 4)
        made = replace(made, groups=made.groups[order], members=made.members[order])
        return soft_group_values(made, 0.9, partial(preprocess, space=Discrete(3)))[0][0]

    order = [7, 2, 11, 0, 5, 9, 1, 3, 10, 4, 8, 6]
    assert torch.allclose(values(order), values(list(range(12)))[order], atol=1e-5)


# --- what is found ---------------------------------------------------------------------------------------------


def test_a_value_that_is_linear_in_the_observation_is_recovered() -> None:
    seen = torch.linspace(-1, 1, 32).tolist()
    rollout = seeing([[x] for x in seen], [[3 * x + 10] for x in seen], 4)
    values = values_of(rollout)[0]
    assert torch.allclose(values, 3 * torch.linspace(-1, 1, 32).double() + 10, atol=0.02)


def test_a_value_that_no_state_tells_is_the_mean_of_the_other_folds() -> None:
    # both groups' members 0 are fold 0, members 1 fold 1: (3 + 7) / 2 and (1 + 5) / 2
    rollout = seeing([[0.0]] * 4, [[1.0], [3.0], [5.0], [7.0]], 2)
    assert values_of(rollout)[0].tolist() == pytest.approx([5, 3, 5, 3])


def test_numbers_that_tell_the_same_twice_can_be_fitted() -> None:
    # of a flag the square is the flag: in float32 their sums round off by more than the smallest ridge
    rollout = a_rollout(lengths=[500] * 8)
    flags = (numbers(4000, 4) > 2).float()
    seen = torch.cat([flags, numbers(4000, 4) ** 3], dim=1)
    assert values_of(replace(rollout, observations=seen, final_observations=seen[:8])).isfinite().all()


@pytest.mark.parametrize("how", ["cut", "truncated"])
def test_what_comes_after_a_piece_of_constant_rewards_is_drawn_toward_what_that_earns_for_ever(how: str) -> None:
    # r/(1 − γ) = 2. With v after the cut, the returns fall short of 2 by (2 − v)·(1/2, 1/4, 1/8, 1/16), on average
    # by (2 − v)·15/64; from v = 0 on, the sixth fit adds less than a thousandth and leaves 2·(15/64)⁶
    rollout = cut(seeing([[0.0] * 4] * 4, [[1.0] * 4] * 4, 2))
    if how == "truncated":
        rollout = replace(rollout, truncated=torch.ones(4, dtype=torch.bool))
    values, tail = soft_group_values(rollout, 0.5, flat)
    assert tail.tolist() == pytest.approx([2 - 2 * (15 / 64) ** 6] * 4)
    assert values[rollout.mask].tolist() == pytest.approx([2 - 2 * (15 / 64) ** 6] * 16)


def test_pieces_far_shorter_than_gamma_looks_ahead_come_almost_there_too() -> None:
    # r/(1 − γ) = 10, and each fit leaves 0.774 of what is missing: five would come to 7.2
    rollout = cut(seeing([[0.0] * 4] * 4, [[1.0] * 4] * 4, 2))
    assert soft_group_values(rollout, 0.9, flat)[1].min() > 9.5


@pytest.mark.parametrize("seed", range(5))
def test_what_comes_after_a_cut_is_worth_no_more_than_the_best_reward_for_ever(seed: int) -> None:
    # few and far-off states: without the bound fits of fits run away, to 10¹¹ and more
    rollout = cut(a_rollout(seed, lengths=[2] * 8))
    rewards = numbers(2, 8, seed=seed).abs().clamp(max=1)
    tail = soft_group_values(replace(rollout, rewards=rewards, final_observations=5 * numbers(8, 2)), 0.9, flat)[1]
    assert tail.min() >= 0
    assert tail.max() <= 10 + 1e-9


def test_after_an_end_comes_nothing() -> None:
    rollout = a_rollout()
    some = torch.tensor([True, False] * 4)
    _, tail = soft_group_values(replace(rollout, terminated=some), 0.9, flat)
    assert (tail == 0).tolist() == some.tolist()
    assert soft_group_values(rollout, 0.9, flat)[1].tolist() == [0] * 8


# --- earlier iterations ----------------------------------------------------------------------------------------


def of_others(rollout: Rollout) -> Visited:
    """This rollout as an earlier iteration, of episodes with seeds of their own."""
    return Visited.of(replace(rollout, seeds=rollout.seeds + 50), flat)


def test_states_that_only_earlier_episodes_saw_have_the_value_that_they_found_there() -> None:
    # 3x + 10 at 32 places, and now all but one, whose value is asked for, are at 0
    places = torch.linspace(-1, 1, 32).tolist()
    earlier = seeing([[x] for x in places], [[3 * x + 10] for x in places], 4)
    latest = seeing([[0.0]] * 3 + [[0.5]], [[10.0]] * 4, 4)
    values, _ = soft_group_values(latest, 0.9, flat, [of_others(earlier)])
    assert values[0].tolist() == pytest.approx([10, 10, 10, 11.5], abs=0.1)


def test_what_is_seen_now_corrects_what_was_seen_before() -> None:
    # the same places are worth 5 more, and slope the other way: of that nothing old is left
    places = torch.linspace(-1, 1, 32).tolist()
    earlier = seeing([[x] for x in places], [[3 * x + 10] for x in places], 4)
    latest = seeing([[x] for x in places], [[15 - 3 * x] for x in places], 4)
    values, _ = soft_group_values(latest, 0.9, flat, [of_others(earlier)])
    assert torch.allclose(values[0], 15 - 3 * torch.linspace(-1, 1, 32).double(), atol=0.1)


def test_it_is_no_matter_by_how_much_a_guess_is_wrong_if_it_is_everywhere() -> None:
    # policies that were worse by the same in all states: the mean of what the guess leaves is added to it
    latest, earlier = a_rollout(lengths=[1] * 32), a_rollout(seed=1, lengths=[1] * 32)
    worse = replace(earlier, rewards=earlier.rewards - 100)
    (values, _), (found, _) = (
        soft_group_values(latest, 0.9, flat, [of_others(rollout)]) for rollout in (earlier, worse)
    )
    assert torch.allclose(found, values, atol=2.0)


def test_what_was_earned_later_is_part_of_an_earlier_return() -> None:
    # in the first piece all saw 0 and earned nothing, in the second they saw 1 and earned 8: 0 is worth γ·8
    first, second = (cut(seeing([[x]] * 4, [[r]] * 4, 4)) for x, r in ((0.0, 0.0), (1.0, 8.0)))
    second = replace(second, terminated=torch.ones(4, dtype=torch.bool))
    guess = module._fit(join([of_others(first), of_others(second)]), 0.5, 4, (-16.0, 16.0), RIDGES).everywhere
    assert guess(torch.tensor([[0.0], [1.0]])).tolist() == pytest.approx([4, 8], abs=0.1)


def test_the_best_reward_of_earlier_iterations_bounds_what_comes_after_a_cut_now() -> None:
    # a goal worth 8 was reached from 1; now all are on their way there and earn nothing
    arrived = seeing([[0.0, 1.0]] * 4, [[0.0, 8.0]] * 4, 4)
    latest = replace(cut(seeing([[0.0]] * 4, [[0.0]] * 4, 4)), final_observations=torch.ones(4, 1))
    _, tail = soft_group_values(latest, 0.5, flat, [of_others(arrived)])
    assert tail.tolist() == pytest.approx([8.0] * 4, abs=0.2)


@pytest.mark.parametrize("reached", [True, False])
def test_where_all_are_alike_now_the_ends_of_others_still_teach(reached: bool) -> None:
    # nobody came to an end in these steps, but it is known of earlier ones where it lies
    latest = cut(seeing([[0.0, 1.0], [0.0, -1.0]] * 2, [[-1.0, -1.0]] * 4, 4))
    latest = replace(latest, final_observations=torch.tensor([[2.0], [-2.0]] * 2))
    earlier = seeing([[1.0, 2.0], [2.0, 3.0]] * 2, [[-1.0, -1.0]] * 4, 4)
    earlier = earlier if reached else cut(earlier)
    advantages = soft_groups(latest, 0.9, 0.95, flat, [of_others(earlier)]).advantages
    assert bool(advantages.any()) == reached


# --- advantages ------------------------------------------------------------------------------------------------


def test_whole_returns_are_compared_where_lambda_is_one() -> None:
    rollout = cut(a_rollout())
    advantages, returns, values = soft_groups(rollout, 0.9, 1.0, flat)
    assert torch.allclose(advantages, returns - values, atol=1e-9)
    assert torch.equal(values, values_of(rollout))


def test_single_steps_are_compared_where_lambda_is_zero() -> None:
    rollout = cut(a_rollout(lengths=[2] * 4))
    values, tail = soft_group_values(rollout, 0.5, flat)
    advantages = soft_groups(rollout, 0.5, 0.0, flat).advantages
    assert torch.allclose(advantages[0], rollout.rewards[0] + 0.5 * values[1] - values[0])
    assert torch.allclose(advantages[1], rollout.rewards[1] + 0.5 * tail - values[1])


def test_returns_and_values_are_the_same_for_every_lambda() -> None:
    rollout = cut(a_rollout())
    (_, *short), (_, *whole) = (soft_groups(rollout, 0.9, gae_lambda, flat) for gae_lambda in (0.3, 1.0))
    for one, other in zip(short, whole, strict=True):
        assert torch.equal(one, other)


def test_returns_go_on_after_a_cut_and_not_after_an_end() -> None:
    rollout = a_rollout()
    some = torch.tensor([True, False] * 4)
    _, tail = soft_group_values(replace(rollout, terminated=some), 0.5, flat)
    returns = soft_groups(replace(rollout, terminated=some), 0.5, 0.9, flat).returns
    last = returns[rollout.lengths - 1, torch.arange(8)]
    assert torch.allclose(last, rollout.rewards[rollout.lengths - 1, torch.arange(8)] + 0.5 * tail)


@pytest.mark.parametrize("ended", [True, False])
def test_where_all_lengths_and_rewards_are_equal_nothing_is_learned(ended: bool) -> None:
    rollout = a_rollout(lengths=[3] * 8)
    alike = replace(rollout, rewards=torch.full((3, 8), 0.1))
    compared = soft_groups(alike if ended else cut(alike), 0.9, 0.95, flat)
    assert compared.advantages.count_nonzero() == 0
    assert torch.equal(compared.returns, compared.values)


@pytest.mark.parametrize("rewards", [[[0.1] * 3] * 7 + [[0.1, 0.1, 0.2]], [[0.1] * 3] * 7 + [[0.1] * 2]])
def test_one_other_reward_or_length_is_enough_to_learn_from(rewards: list[list[float]]) -> None:
    rollout = rollout_of(rewards, 4)
    seen = replace(rollout, observations=numbers(rollout.n_steps, 2))
    assert soft_groups(seen, 0.9, 0.95, flat).advantages.count_nonzero() == rollout.n_steps


def test_the_padding_is_zero_and_leaks_nowhere() -> None:
    rollout = cut(a_rollout())
    dirty = replace(rollout, rewards=torch.where(rollout.mask, rollout.rewards, 1e9))
    clean_result, dirty_result = (soft_groups(r, 0.9, 0.95, flat) for r in (rollout, dirty))
    for clean_array, dirty_array in zip(clean_result, dirty_result, strict=True):
        assert torch.equal(clean_array, dirty_array)
        assert clean_array[~rollout.mask].count_nonzero() == 0


def test_the_rollout_is_left_as_it_was() -> None:
    rollout = cut(a_rollout())
    rollout = replace(rollout, rewards=rollout.rewards.double())
    before = rollout.rewards.clone()
    soft_groups(rollout, 0.9, 0.95, flat)
    assert torch.equal(rollout.rewards, before)
