import enum
import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from grpo_gym.encoding import Unsaved, decode_space, decode_value, encode_space, encode_value, refuse_unsaved
from grpo_gym.schedules import LinearSchedule
from tests.names import shown

steady = settings(deadline=None, derandomize=True, database=None, max_examples=150)


def through_json(value: Any, **classes: Any) -> Any:
    return decode_value(json.loads(json.dumps(encode_value(value, **classes), allow_nan=False)), "x", **classes)


def space_through_json(space: gym.Space[Any]) -> gym.Space[Any]:
    return decode_space(json.loads(json.dumps(encode_space(space), allow_nan=False)))


# --- values ---------------------------------------------------------------------------------------------------

plain = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.builds(Path, st.just("a/b"))
)
nested = st.recursive(
    plain,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text(), inner)
        | st.dictionaries(st.integers() | st.tuples(st.integers(), st.text()) | st.just("__tuple__"), inner)
    ),
    max_leaves=20,
)


class Level(enum.IntEnum):
    HIGH = 2


class Kind(str, enum.Enum):
    ALPHA = "alpha"


def types_of(value: Any) -> Any:
    if isinstance(value, dict):
        return [(types_of(key), types_of(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return type(value), [types_of(item) for item in value]
    return type(value)


@steady
@given(nested)
def test_a_value_comes_back_as_it_was_with_its_types(value: Any) -> None:
    assert through_json(value) == value
    assert types_of(through_json(value)) == types_of(value)


def test_nan_the_infinities_and_negative_zero_come_back() -> None:
    back = through_json([math.nan, math.inf, -math.inf, -0.0, 0.1])
    assert math.isnan(back[0])
    assert [str(number) for number in back[1:]] == ["inf", "-inf", "-0.0", "0.1"]


@pytest.mark.parametrize(
    ("given", "back"),
    [
        (np.float64(3e-4), 3e-4),
        (np.float32(0.5), 0.5),
        (np.int64(7), 7),
        (np.uint8(255), 255),
        (np.bool_(True), True),
        (np.str_("tanh"), "tanh"),
        (np.float64("inf"), math.inf),
        (Level.HIGH, 2),
        (Kind.ALPHA, "alpha"),
    ],
)
def test_numbers_and_texts_of_other_types_become_plain_ones(given: Any, back: Any) -> None:
    assert through_json(given) == back
    assert type(through_json(given)) is type(back)


@pytest.mark.parametrize("dtype", ["?", "u1", "<i8", ">i4", "<f2", "<f4", ">f8", "g"])
@pytest.mark.parametrize("shape", [(), (3,), (0,), (2, 0, 3), (2, 3)])
def test_arrays_come_back_to_the_last_bit(dtype: str, shape: tuple[int, ...]) -> None:
    array = (np.arange(math.prod(shape)) / 3 + 1).astype(dtype).reshape(shape)
    back = through_json({"state": array})["state"]
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert np.array_equal(back, array)


def test_equal_numbers_are_written_once() -> None:
    assert encode_value(np.full((2, 3), 7, np.int64)) == {"__array__": {"numbers": 7, "dtype": "<i8", "shape": [2, 3]}}
    assert encode_value(np.array([0.0, -0.0]))["__array__"]["numbers"] == [0.0, -0.0]
    assert encode_value(np.array([1.0, np.inf]))["__array__"]["numbers"] == [1.0, "inf"]


@pytest.mark.parametrize("known", [torch.nn.Tanh, torch.nn.SiLU, torch.optim.Adam, torch.optim.RMSprop])
def test_activations_and_optimizers_are_kept_by_name(known: type) -> None:
    assert encode_value(known) == {"__class__": f"torch.{known.__module__.split('.')[1]}.{known.__name__}"}
    assert through_json({"activation_fn": known}) == {"activation_fn": known}


def test_a_linear_schedule_is_kept() -> None:
    assert through_json(LinearSchedule(1e-3, 1e-5, 0.5)) == LinearSchedule(1e-3, 1e-5, 0.5)


class Swish(torch.nn.Module):
    pass


class Shy:
    def __repr__(self) -> str:
        raise RuntimeError("no")


def test_the_table_can_be_extended_by_the_caller() -> None:
    assert through_json(Swish, classes={"Swish": Swish}) is Swish
    assert encode_value(Swish, classes={"Swish": Swish}) == {"__class__": "Swish"}
    assert decode_value({"__class__": "Swish"}, "activation_fn") == Unsaved("activation_fn", "the class 'Swish'")


@pytest.mark.parametrize(
    "value",
    [lambda x: x, partial(max, 1), Swish, torch.nn.Tanh(), torch.ones(1), torch.nn.Linear, print, {1, 2}, b"x", 1j],
    ids=shown,
)
def test_what_has_no_place_in_json_comes_back_as_a_marker(value: Any) -> None:
    assert encode_value(value) == {"__unsaved__": repr(value)}
    assert through_json(value) == Unsaved("x", repr(value))


def test_a_repr_that_fails_or_is_long_does_not_stop_a_save() -> None:
    assert through_json(Shy()).repr == f"<{__name__}.Shy object>"
    assert len(through_json(frozenset(range(1000))).repr) == 200


@pytest.mark.parametrize(
    "wrap", [lambda x: x, lambda x: [1, x], lambda x: (x,), lambda x: {"a": {"b": x}}, lambda x: {x: 1}]
)
def test_a_marker_is_found_however_deep_and_demanded_by_the_name_of_its_argument(wrap: Callable[[Any], Any]) -> None:
    back = through_json(wrap(print))
    with pytest.raises(ValueError, match=r"learning_rate was, or held, <built-in function print> when saved") as caught:
        refuse_unsaved("learning_rate", back)
    assert "pass learning_rate=... or custom_objects={'learning_rate': ...}" in str(caught.value)


def test_a_value_that_was_kept_is_not_demanded() -> None:
    refuse_unsaved(
        "policy_kwargs", through_json({"net_arch": [64, 64], "activation_fn": torch.nn.Tanh, "x": (1, None)})
    )


@pytest.mark.parametrize(
    "encoded",
    [
        {"__import__": "os"},
        {"__float__": "much"},
        {"__float__": None},
        {"__tuple__": 3},
        {"__dict__": [[[1], 2]]},
        {"__dict__": [[1]]},
        {"__array__": {}},
        {"__array__": {"numbers": 0, "dtype": "O", "shape": [1]}},
        {"__array__": {"numbers": 0, "dtype": "i4,(2,)f8", "shape": [1]}},
        {"__array__": {"numbers": 300, "dtype": "i3", "shape": [1]}},
        {"__array__": {"numbers": [1, 2], "dtype": "<f4", "shape": [3]}},
        {"__array__": {"numbers": 0, "dtype": "<f4", "shape": [10**6, 10**6]}},
        {"__array__": {"numbers": 0, "dtype": "<f4", "shape": [0, 10**30]}},
        {"__path__": 3},
        {"__schedule__": {"start": 1.0}},
        {"__class__": ["torch.nn.Tanh"]},
        object(),
    ],
    ids=shown,
)
def test_json_that_encode_value_never_writes_is_an_error_that_names_the_argument(encoded: Any) -> None:
    with pytest.raises(ValueError, match=r"gamma=.* cannot be decoded"):
        decode_value(encoded, "gamma")


def test_a_few_words_cannot_ask_for_all_the_memory() -> None:
    flags = {"numbers": True, "dtype": "|b1", "shape": [2**13, 2**13 + 1]}
    with pytest.raises(ValueError, match="more than the 67,108,864 elements allowed"):
        decode_value({"__array__": flags})


def test_json_too_deep_to_follow_is_an_error() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ValueError, match="cannot be decoded"):
        decode_value(deep)


# --- spaces ---------------------------------------------------------------------------------------------------


@st.composite
def boxes(draw: st.DrawFn) -> spaces.Box[Any]:
    dtype = np.dtype(draw(st.sampled_from(["f2", "f4", "f8", "i1", "u1", "i8", "?"])))
    shape = draw(arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
    if dtype.kind == "f":
        elements = arrays.from_dtype(dtype, allow_nan=False)
    elif dtype == np.int64:
        elements = st.integers(-(2**62), 2**62)
    else:
        elements = arrays.from_dtype(dtype)
    one, other = (draw(arrays.arrays(dtype, shape, elements=elements)) for _ in range(2))
    # a lower bound may not be +inf, nor an upper one -inf
    one, other = (np.where(np.isinf(array), -np.inf, array).astype(dtype) for array in (one, other))
    low, high = np.asarray(np.minimum(one, other)), np.asarray(np.maximum(one, other))
    high = np.where(np.isinf(high), np.inf, high).astype(dtype)
    return spaces.Box(low, high, shape, dtype.type)


simple = (
    boxes()
    | st.builds(lambda n, start: spaces.Discrete(n, start=start), st.integers(1, 2**60), st.integers(-(2**60), 2**60))
    | st.builds(
        lambda pairs, dtype: spaces.MultiDiscrete(
            [n for n, _ in pairs], dtype=dtype, start=[start for _, start in pairs]
        ),
        st.lists(st.tuples(st.integers(1, 90), st.integers(-30, 30)), min_size=1, max_size=4),
        st.sampled_from([np.int64, np.int8]),
    )
    | st.builds(spaces.MultiBinary, st.integers(1, 9) | st.lists(st.integers(1, 3), min_size=1, max_size=3))
)
any_space = st.recursive(
    simple,
    lambda inner: (
        st.builds(spaces.Dict, st.dictionaries(st.text(), inner, max_size=3))
        | st.builds(spaces.Tuple, st.lists(inner, max_size=3))
    ),
    max_leaves=4,
)


def assert_same_space(first: Any, second: Any) -> None:
    assert type(first) is type(second)
    assert first == second
    assert first.dtype == second.dtype
    assert first.shape == second.shape
    if isinstance(first, spaces.Box):
        for name in ("low", "high", "bounded_below", "bounded_above"):
            assert getattr(first, name).tobytes() == getattr(second, name).tobytes()
            assert getattr(first, name).dtype == getattr(second, name).dtype
    elif isinstance(first, spaces.Dict):
        assert list(first) == list(second)
        for name in first:
            assert_same_space(first[name], second[name])
    elif isinstance(first, spaces.Tuple):
        for one, other in zip(first, second, strict=True):
            assert_same_space(one, other)


@steady
@given(any_space)
def test_a_space_comes_back_to_the_last_bit(space: gym.Space[Any]) -> None:
    assert_same_space(space_through_json(space), space)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-np.inf, np.inf, (3,)),
        spaces.Box(np.array([-4.8, -np.inf], np.float32), np.array([4.8, np.inf], np.float32)),
        spaces.Box(0, 255, (84, 84, 4), np.uint8),
        spaces.Box(-np.inf, np.inf, (2,), np.int32),
        spaces.Box(0.1, 0.3, (2,), np.float64),
        spaces.Box(np.float32(-1), np.float32(1), (), np.float32),
        spaces.Discrete(5, start=-2),
        spaces.Discrete(5, dtype=np.uint8),
        spaces.MultiDiscrete(np.array([[2, 3], [4, 5]]), start=np.array([[0, 1], [-1, 0]])),
        spaces.MultiDiscrete([2, 3], dtype=np.int32),
        spaces.MultiBinary(4),
        spaces.MultiBinary((2, 3)),
        spaces.Dict([("z", spaces.Discrete(2)), ("a", spaces.Dict({"__tuple__": spaces.MultiBinary(1)}))]),
        spaces.Dict(),
        spaces.Tuple((spaces.Discrete(2), spaces.Tuple(()))),
    ],
    ids=str,
)
def test_each_kind_of_space_comes_back(space: gym.Space[Any]) -> None:
    assert_same_space(space_through_json(space), space)


def test_bounds_that_no_python_float_can_hold_come_back() -> None:
    third = np.longdouble(1) / 3
    back = space_through_json(spaces.Box(-third, third, (2,), np.longdouble))
    assert isinstance(back, spaces.Box)
    assert back.dtype == np.longdouble
    assert back.low.tolist() == [-third, -third]
    assert back.high.tolist() == [third, third]


def test_an_unbounded_box_of_integers_stays_unbounded() -> None:
    box = space_through_json(spaces.Box(-np.inf, 10, (2,), np.int32))
    assert isinstance(box, spaces.Box)
    assert [box.is_bounded("below"), box.is_bounded("above")] == [False, True]


def test_an_image_takes_no_more_room_than_its_corner() -> None:
    assert encode_space(spaces.Box(0, 255, (84, 84, 4), np.uint8)) == {
        "space": "Box",
        "dtype": "|u1",
        "shape": [84, 84, 4],
        "low": 0,
        "high": 255,
        "bounded_below": True,
        "bounded_above": True,
    }


@pytest.mark.parametrize(
    "space",
    [
        spaces.Text(5),
        spaces.Sequence(spaces.Discrete(2)),
        spaces.Graph(spaces.Box(0, 1), None),
        spaces.Tuple([spaces.Text(5)]),
    ],
    ids=str,
)
def test_another_space_is_refused_by_name(space: gym.Space[Any]) -> None:
    with pytest.raises(ValueError, match=r"(Text|Sequence|Graph)\(.*cannot be saved; expected Box"):
        encode_space(space)


@pytest.mark.parametrize(
    "encoded",
    [
        None,
        [],
        {},
        {"space": "Text"},
        {"space": "os.system"},
        {"space": ["Box"]},
        {"space": "Box"},
        {"space": "Discrete", "n": 0, "start": 0, "dtype": "<i8"},
        {"space": "Discrete", "n": "2", "start": 0, "dtype": "<i8"},
        {"space": "Discrete", "n": 2, "start": 0, "dtype": "<f4"},
        {"space": "MultiDiscrete", "n": [0], "start": [0], "dtype": "<i8"},
        {"space": "MultiBinary", "n": -1},
        {"space": "Tuple", "spaces": [3]},
        {"space": "Dict", "spaces": [["a"]]},
        encode_space(spaces.Box(0, 1, (2,))) | {"low": 2},
        encode_space(spaces.Box(0, 1, (2,))) | {"low": [0]},
        encode_space(spaces.Box(0, 1, (2,))) | {"low": "nan"},
        encode_space(spaces.Box(0, 1, (2,))) | {"dtype": "O"},
        encode_space(spaces.Box(0, 1, (2,))) | {"shape": [100_000, 100_000]},
    ],
    ids=str,
)
def test_json_that_encode_space_never_writes_is_an_error(encoded: Any) -> None:
    with pytest.raises(ValueError, match="is not the description of a space"):
        decode_space(encoded)


def test_keys_of_later_versions_are_ignored() -> None:
    encoded = encode_space(spaces.Discrete(3)) | {"since_0.9": True}
    assert decode_space(encoded) == spaces.Discrete(3)
