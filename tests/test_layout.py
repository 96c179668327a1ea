from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Text, Tuple
from hypothesis import given
from hypothesis import strategies as st

from grpo_gym.layout import Layout
from grpo_gym.preprocessing import Preprocessor

LEAVES: list[gym.Space[Any]] = [
    Box(-1.0, 1.0, (2, 3), np.float32),
    Box(-np.inf, np.inf, (), np.float64),
    Box(0, 255, (3, 2, 1), np.uint8),
    Box(-5, 5, (3,), np.int16),
    Box(0, 1, (5,), np.bool_),
    Discrete(7, start=-3),
    MultiDiscrete([2, 9], start=[4, -1]),
    MultiDiscrete(np.array([[2, 3], [4, 5]])),
    MultiBinary(3),
    MultiBinary([2, 2]),
]
leaves = st.sampled_from(LEAVES)
spaces = st.recursive(
    leaves,
    lambda parts: st.one_of(
        st.lists(parts, min_size=1, max_size=3).map(Tuple),
        st.dictionaries(st.sampled_from("abxy"), parts, min_size=1, max_size=3).map(Dict),
    ),
    max_leaves=6,
)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    one, other = np.asarray(one), np.asarray(other)
    return bool(one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes())


def samples(space: gym.Space[Any], n: int) -> list[Any]:
    space.seed(0)
    return [space.sample() for _ in range(n)]


@given(spaces)
def test_a_row_holds_a_value_to_the_last_bit(space: gym.Space[Any]) -> None:
    layout = Layout(space)
    for value in samples(space, 3):
        row = layout.pack_one(value)
        assert (row.shape, row.dtype) == (layout.shape, layout.dtype)
        back = layout.unpack_one(row)
        assert same(back, value)
        assert layout.is_plain or space.contains(back)


@given(spaces, st.integers(1, 4))
def test_a_batch_is_its_values_row_by_row(space: gym.Space[Any], n: int) -> None:
    layout = Layout(space)
    rows = np.stack([layout.pack_one(value) for value in samples(space, n)])
    batch = layout.unpack(rows)
    assert layout.pack(batch).tobytes() == rows.tobytes()
    assert layout.join(layout.parts(rows)).tobytes() == rows.tobytes()


@given(spaces)
def test_what_is_split_can_be_nested_again(space: gym.Space[Any]) -> None:
    layout, (value,) = Layout(space), samples(space, 1)
    assert same(layout.nest(layout.split(value)), value)


@given(spaces, st.integers(1, 4), st.integers(0, 3))
def test_torch_reads_what_numpy_wrote_from_any_row_on(space: gym.Space[Any], n: int, first: int) -> None:
    layout = Layout(space)
    rows = np.stack([layout.pack_one(value) for value in samples(space, n + first)])
    read = Preprocessor(space)._parts(torch.from_numpy(rows)[first:])
    assert all(same(mine.numpy(), part) for mine, part in zip(read, layout.parts(rows[first:]), strict=True))


def test_parts_lie_one_after_the_other_at_multiples_of_eight() -> None:
    layout = Layout(Dict({"a": MultiBinary(3), "b": Tuple([Discrete(2), Box(0, 255, (9,), np.uint8)])}))
    assert [(leaf.name, leaf.start, leaf.stop) for leaf in layout.leaves] == [
        ("a", 0, 3),
        ("b/0", 8, 16),
        ("b/1", 16, 25),
    ]
    assert layout.shape == (32,)
    row = layout.pack_one({"a": np.array([1, 0, 1]), "b": (1, np.arange(9))})
    assert row.tolist() == [1, 0, 1, 0, 0, 0, 0, 0, 1, *[0] * 7, *range(9), *[0] * 7]


def test_what_comes_out_shares_no_memory_with_the_row() -> None:
    layout = Layout(Dict({"x": Box(-1.0, 1.0, (2,))}))
    row = layout.pack_one({"x": np.array([0.5, 1.0])})
    layout.unpack_one(row)["x"][:] = 0
    assert layout.unpack_one(row)["x"].tolist() == [0.5, 1.0]


def test_numbers_are_cast_to_the_type_of_the_space_and_dicts_may_have_any_order() -> None:
    layout = Layout(Dict({"a": Discrete(5), "b": Box(-9.0, 9.0, (2,), np.float32)}))
    assert same(
        layout.unpack_one(layout.pack_one({"b": [1, 2], "a": 3, "ignored": None})),
        {"a": np.int64(3), "b": np.array([1, 2], np.float32)},
    )


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"x": np.zeros(2)}, r"without 'inner'"),
        ({"x": np.zeros(2), "inner": (1,)}, r"without 'inner/1'"),
        ({"x": np.zeros(2), "inner": 3}, r"without 'inner/0'"),
        (np.zeros(2), r"without 'inner'"),
        ({"x": np.zeros(3), "inner": (1, 1)}, r"with 'x' of shape \(3,\), but observation_space says \(2,\)"),
        ({"x": np.zeros(2), "inner": (1, [1])}, r"with 'inner/1' of shape \(1,\), but observation_space says \(\)"),
    ],
)
def test_what_does_not_fit_is_refused_naming_the_part(value: Any, said: str) -> None:
    layout = Layout(Dict({"x": Box(0.0, 1.0, (2,)), "inner": Tuple([Discrete(2), Discrete(2)])}))
    with pytest.raises(ValueError, match=said):
        layout.pack_one(value)


@pytest.mark.parametrize("what", ["observation", "action"])
def test_an_unsupported_part_is_refused_by_its_keys(what: str) -> None:
    space = Dict({"a": Discrete(2), "b": Tuple([Dict({"mission": Text(4)})])})
    with pytest.raises(ValueError, match=rf"the {what} space Dict.*its part 'b/0/mission' is a Text"):
        Layout(space, what)


@pytest.mark.parametrize("space", [Dict({}), Tuple([]), Dict({"a": Tuple([])})])
def test_a_space_of_nothing_is_refused(space: gym.Space[Any]) -> None:
    with pytest.raises(ValueError, match="nothing in it"):
        Layout(space)
