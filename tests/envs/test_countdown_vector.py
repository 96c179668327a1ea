"""Laws of Countdown in arrays: row i is the single environment, and nothing overflows."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from grpo_envs import CountdownEnv, CountdownVectorEnv
from grpo_envs.countdown_problems import Problem
from grpo_envs.countdown_vector import add, divide, to_float
from hypothesis import given, settings
from hypothesis import strategies as st

GAMES: list[dict[str, Any]] = [
    {},
    {"numbers": 6, "max_number": 100, "targets": (1, 1000)},
    {"numbers": (3, 5), "n_max": 6, "max_number": 3, "targets": (1, 9), "split": "test"},
    {"numbers": 3, "invalid": "punish", "correct_weight": 2.0, "format_weight": 0.5},
]


def assert_row(batch: Any, row: int, single: Any) -> None:
    """Compare row `row` of what the vector environment returned with what the single one did, exactly."""
    *arrays, infos = batch
    *values, info = single
    for array, value in zip(arrays, values, strict=True):
        assert np.array_equal(array[row], value)
        assert array[row].dtype == np.asarray(value).dtype
    assert infos.keys() == info.keys()
    for key, value in info.items():
        assert np.array_equal(infos[key][row], value)
        assert infos[key].dtype == np.asarray(value).dtype


@pytest.mark.parametrize("options", GAMES)
@settings(max_examples=12)
@given(
    seeds=st.lists(st.integers(0, 2**40), min_size=8, max_size=8),
    play=st.integers(0, 2**32),
    slips=st.sampled_from([0.0, 0.05]),
)
def test_each_slot_is_the_single_environment_step_for_step(
    options: dict[str, Any], seeds: list[int], play: int, slips: float
) -> None:
    many, ones = CountdownVectorEnv(8, **options), [CountdownEnv(**options) for _ in range(8)]
    rng = np.random.default_rng(play)
    batch: Any = many.reset(seed=seeds)
    for slot, one in enumerate(ones):
        assert_row(batch, slot, one.reset(seed=seeds[slot]))
    for _ in range(30):
        chosen = rng.permutation(8)[: rng.integers(1, 9)]
        over = ~many._slots.playing[chosen]
        if over.any():
            mask = np.isin(np.arange(8), chosen[over])
            batch = many.reset(options={"reset_mask": mask})
            for slot in np.flatnonzero(mask).tolist():
                assert_row(batch, slot, ones[slot].reset())
        actions = (rng.random(many._legal.shape) * many._legal)[chosen].argmax(axis=1)
        slip = rng.random(len(chosen)) < slips
        actions[slip] = rng.integers(0, many.rules.n_actions, len(chosen))[slip]
        batch = many.step(actions, env_id=chosen)
        for row, slot in enumerate(chosen.tolist()):
            assert_row(batch, row, ones[slot].step(actions[row]))


def test_an_integer_seed_gives_slot_i_the_seed_plus_i() -> None:
    one, other = CountdownVectorEnv(3), CountdownVectorEnv(3)
    assert np.array_equal(one.reset(seed=5)[0], other.reset(seed=[5, 6, 7])[0])
    assert one.problems == other.problems
    assert len(set(one.problems)) == 3


def test_a_masked_reset_touches_only_its_slots() -> None:
    env = CountdownVectorEnv(3)
    env.reset(seed=0)
    stepped, *_, before = env.step([0, 1, 2])
    mask = np.array([False, True, False])
    observations, infos = env.reset(seed=[None, 4, None], options={"reset_mask": mask})
    assert np.array_equal(observations[~mask], stepped[~mask])
    assert np.array_equal(observations[1], CountdownEnv().reset(seed=4)[0])
    for key, values in before.items():
        assert np.array_equal(infos[key][~mask], values[~mask])


def test_stepping_chosen_slots_returns_their_rows_in_the_order_given() -> None:
    together, apart = CountdownVectorEnv(4), CountdownVectorEnv(4)
    together.reset(seed=0)
    apart.reset(seed=0)
    full, part = together.step([0, 1, 0, 1]), apart.step([1, 1], env_id=[3, 1])
    assert np.array_equal(part[0], full[0][[3, 1]])
    assert np.array_equal(part[4]["action_mask"], full[4]["action_mask"][[3, 1]])
    empty = apart.step(np.zeros(0, dtype=np.int64), env_id=[])
    assert empty[0].shape == (0, 53)


def test_where_punished_nothing_is_masked() -> None:
    env = CountdownEnv(invalid="punish")
    _, info = env.reset(seed=0)
    assert info["action_mask"].tolist() == [1] * 11
    assert CountdownVectorEnv(2, invalid="punish").reset(seed=0)[1]["action_mask"].tolist() == [[1] * 11] * 2


def test_an_ended_slot_cannot_be_stepped() -> None:
    env = CountdownVectorEnv(2)
    env.reset(seed=0)
    *_, terminated, _, infos = env.step([10, 0])  # the end at the beginning is illegal
    assert terminated.tolist() == [True, False]
    assert infos["action_mask"].sum(axis=1).tolist() == [0, 4]
    with pytest.raises(gym.error.ResetNeeded, match=r"slots \[0\] have no game in progress"):
        env.step([0, 7])


def test_what_was_returned_is_never_changed_later() -> None:
    env = CountdownVectorEnv(2)
    first = env.reset(seed=0)
    stepped = env.step([0, 1])
    kept = [first[0].copy(), first[1]["action_mask"].copy(), stepped[0].copy(), stepped[4]["action_mask"].copy()]
    masks, copied = env.action_masks(), env.action_masks().copy()
    env.step([7, 7])
    env.reset(seed=1)
    returned = [first[0], first[1]["action_mask"], stepped[0], stepped[4]["action_mask"]]
    assert all(np.array_equal(a, b) for a, b in zip(returned, kept, strict=True))
    assert np.array_equal(masks, copied)


def test_gymnasiums_own_vector_environment_agrees() -> None:
    ours = gym.make_vec("grpo/Countdown-v0", 3, vectorization_mode="vector_entry_point")
    disabled = gym.vector.AutoresetMode.DISABLED
    theirs = gym.make_vec("grpo/Countdown-v0", 3, "sync", vector_kwargs={"autoreset_mode": disabled})
    assert np.array_equal(ours.reset(seed=3)[0], theirs.reset(seed=3)[0])
    for action in (0, 4, 1):
        left, right = ours.step(np.full(3, action)), theirs.step(np.full(3, action))
        assert all(np.array_equal(a, b) for a, b in zip(left[:4], right[:4], strict=True))
        assert np.array_equal(left[4]["action_mask"], right[4]["action_mask"])


fractions = st.tuples(st.integers(-100, 100), st.integers(-100, 100).filter(bool))


@given(fractions, fractions)
def test_pairs_of_integers_are_fractions(a: tuple[int, int], b: tuple[int, int]) -> None:
    left, right = np.array(a), np.array(b)
    assert Fraction(*add(left, right).tolist()) == Fraction(*a) + Fraction(*b)
    if b[0]:
        assert Fraction(*divide(left, right).tolist()) == Fraction(*a) / Fraction(*b)
        assert to_float(divide(left, right)) == float(Fraction(*a) / Fraction(*b))
    else:
        assert divide(left, right).tolist() == [0, 0]


def test_nothing_and_everything_after_a_division_by_zero_is_undefined() -> None:
    undefined, two = np.array([0, 0]), np.array([2, 1])
    results = [
        add(undefined, two),
        add(two, undefined),
        undefined * two,
        divide(undefined, two),
        divide(two, undefined),
    ]
    assert [result.tolist() for result in results] == [[0, 0]] * 5
    assert to_float(undefined) == 0


def test_the_largest_numbers_do_not_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grpo_envs.countdown_rules.deal", lambda *_: Problem((100,) * 6, 1000))
    env = CountdownVectorEnv(1, numbers=6, max_number=100, targets=(1000, 1000))
    plus, times, divided, opened, closed, end = 6, 8, 9, 10, 11, 12
    # 100·100·100·100·100·100 = 10¹² is not 1000
    env.reset(seed=0)
    for token in [0, times, 1, times, 2, times, 3, times, 4, times, 5, end]:
        *_, info = env.step([token])
    assert not info["is_success"][0]
    # 100 ÷ (100 ÷ 100 + 100 ÷ 100 ÷ 100) = 10000/101
    env.reset(seed=0)
    for token in [0, divided, opened, 1, divided, 2, plus, 3, divided, 4, divided, 5, closed, end]:
        *_, info = env.step([token])
    assert info["format"].tolist() == [1.0]
    assert to_float(env._terms[:, 0]).tolist() == [10000 / 101]
