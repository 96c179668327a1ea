import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpo_gym.groups import Plan, plan, unequal_starts

sizes = st.tuples(st.integers(0, 1000), st.integers(1, 40), st.integers(2, 9))


def test_every_member_of_a_group_has_its_groups_seed() -> None:
    made = Plan(np.array([7, 9]), 3, np.arange(6))
    assert made.episode_seeds.tolist() == [7, 7, 7, 9, 9, 9]
    assert made.n_episodes == 6


@given(sizes)
def test_groups_have_different_seeds_of_at_least_two_to_the_24(size: tuple[int, int, int]) -> None:
    seed, n_groups, group_size = size
    seeds = plan(np.random.default_rng(seed), n_groups, group_size).seeds
    assert len(set(seeds.tolist())) == n_groups
    assert seeds.min() >= 16_777_216
    assert seeds.max() < 2_147_483_648


@given(sizes)
def test_all_episodes_have_noise_of_their_own(size: tuple[int, int, int]) -> None:
    seed, n_groups, group_size = size
    noise_seeds = plan(np.random.default_rng(seed), n_groups, group_size).noise_seeds
    assert len(set(noise_seeds.tolist())) == n_groups * group_size
    assert noise_seeds.min() >= 0


@pytest.mark.parametrize("seed", [0, 1])
def test_a_plan_is_a_function_of_its_generator_alone(seed: int) -> None:
    before = str(np.random.get_state(legacy=False))  # noqa: NPY002 the global generator must not be touched
    first, second = (plan(np.random.default_rng(seed), 4, 8) for _ in range(2))
    assert first.seeds.tolist() == second.seeds.tolist()
    assert first.noise_seeds.tolist() == second.noise_seeds.tolist()
    assert str(np.random.get_state(legacy=False)) == before  # noqa: NPY002


def test_successive_plans_differ() -> None:
    rng = np.random.default_rng(0)
    first, second = plan(rng, 4, 8), plan(rng, 4, 8)
    assert not set(first.seeds.tolist()) & set(second.seeds.tolist())
    assert not set(first.noise_seeds.tolist()) & set(second.noise_seeds.tolist())


def test_a_group_is_unequal_if_any_member_starts_differently() -> None:
    starts = np.array([[1, 2], [1, 2], [3, 4], [3, 5], [0, 0], [0, 0]])
    assert unequal_starts(starts, np.arange(6) // 2).tolist() == [False, True, False]
    assert unequal_starts(starts, np.arange(6) // 3).tolist() == [True, True]


def test_starts_that_are_single_numbers_are_compared_too() -> None:
    assert unequal_starts(np.array([4, 4, 4, 5]), np.arange(4) // 2).tolist() == [False, True]
