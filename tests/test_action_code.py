from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

from grpo_gym.action_code import ActionCode
from tests.identities import HYBRID, SPACES

NOTHING = np.zeros((1, 0))


def to_env(space: gym.Space[Any], choices: list[int], reals: list[float]) -> Any:
    code = ActionCode(space)
    return code.layout.unpack_one(code.to_env(np.array([choices], np.int64), np.array([reals]))[0])


@pytest.mark.parametrize(
    ("space", "sizes", "n_reals"),
    [
        (Discrete(4, start=3), [4], 0),
        (MultiDiscrete(np.array([[2, 3], [3, 2]])), [2, 3, 3, 2], 0),
        (MultiBinary([1, 2]), [2, 2], 0),
        (Box(-1.0, 1.0, (2, 3)), [], 6),
        (HYBRID, [3, 2, 2, 2, 3], 2),  # gear, then the panel's bits and switches
    ],
)
def test_a_space_is_so_many_choices_and_so_many_numbers(space: gym.Space[Any], sizes: list[int], n_reals: int) -> None:
    code = ActionCode(space)
    assert (code.sizes.tolist(), len(code.low), code.mask_size) == (sizes, n_reals, sum(sizes))


def test_choices_are_counted_from_the_start_of_each_part() -> None:
    assert to_env(Discrete(4, start=3), [2], []) == 5
    assert to_env(MultiDiscrete([2, 3], start=[5, -1]), [1, 0], []).tolist() == [6, -1]
    assert to_env(MultiDiscrete(np.array([[2, 3], [3, 2]])), [0, 1, 2, 1], []).tolist() == [[0, 1], [2, 1]]


def test_each_part_of_a_hybrid_action_gets_its_own() -> None:
    action = to_env(HYBRID, [2, 0, 1, 1, 2], [0.5, 9.0])
    assert action["gear"] == 1
    assert action["panel"][0].tolist() == [0, 1]
    assert action["panel"][1].tolist() == [2, 2]
    assert action["pedals"].tolist() == [0.5, 5.0]  # clipped
    assert HYBRID.contains(action)


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_any_legal_action_is_in_the_space(space: gym.Space[Any]) -> None:
    code = ActionCode(space)
    rows = code.any_legal(None, 2)
    assert len(rows) == 2
    assert space.contains(code.layout.unpack_one(rows[1]))


def test_a_legal_action_is_the_first_legal_alternative_of_each_choice() -> None:
    masks = np.array([[0, 1, 0, 0, 1], [1, 1, 0, 1, 1]], np.bool_)
    assert ActionCode(MultiDiscrete([2, 3], start=[5, 0])).any_legal(masks).tolist() == [[6, 2], [5, 1]]


def test_every_choice_needs_a_legal_alternative() -> None:
    masks = np.array([[0, 1, 0, 0, 1], [0, 0, 1, 1, 1], [1, 1, 0, 0, 0]], np.bool_)
    assert ActionCode(MultiDiscrete([2, 3])).possible(masks).tolist() == [True, False, False]
    assert ActionCode(Discrete(5)).possible(masks).tolist() == [True, True, True]


@pytest.mark.parametrize(
    "masks", [[[1, 1, 0, 1, 0]], np.array([[1, 1, 0, 1, 0]]), [[[1, 1, 0, 1, 0]]], [1.0, True, 0, 1, 0]]
)
def test_masks_are_read_from_whatever_holds_them_one_after_the_other(masks: Any) -> None:
    read = ActionCode(MultiDiscrete([2, 3])).read_masks(masks, 1, "here")
    assert read.tolist() == [[True, True, False, True, False]]


@pytest.mark.parametrize(
    "masks", [[[1, 1, 0]], [([1, 1], [1, 0, 1])], [{"a": [1, 1]}], [[1, 1, 1, 1, 1]] * 2, [None]], ids=repr
)
def test_other_masks_are_refused_with_the_sizes_that_are_expected(masks: Any) -> None:
    with pytest.raises(
        ValueError, match=r"here: the action mask is .*expected 5 = 2 \+ 3 entries .* one after the other"
    ):
        ActionCode(MultiDiscrete([2, 3])).read_masks(masks, 1, "here")


def test_numbers_have_no_mask() -> None:
    with pytest.raises(ValueError, match="only discrete actions have one"):
        ActionCode(Tuple([Box(0.0, 1.0, (2,))])).read_masks([[1, 1]], 1, "here")


def test_infinite_bounds_are_refused_naming_the_part() -> None:
    with pytest.raises(ValueError, match=r"\('x/1' in it\) has infinite bounds.*RescaleAction"):
        ActionCode(Dict({"x": Tuple([Discrete(2), Box(0.0, np.inf, (1,))])}))
