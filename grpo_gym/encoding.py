"""Python values and spaces as JSON, and back, without running anything that the JSON says.

A value that JSON has no word for becomes a dict with one tag: `__float__` (nan, inf), `__tuple__`, `__dict__`
(keys that are no plain text), `__array__`, `__path__`, `__schedule__`, `__class__` (a name in a table: what a
file says is looked up, never imported) and `__unsaved__` (all the rest, by its repr).
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces

from grpo_gym.schedules import LinearSchedule
from grpo_gym.types import Array

MAX_ELEMENTS = 2**26
"""Elements of the largest array that is decoded: a few words of JSON may ask for more than the memory has."""

_ACTIVATIONS = (
    "CELU ELU GELU Hardsigmoid Hardswish Hardtanh Identity LeakyReLU LogSigmoid Mish PReLU ReLU ReLU6 SELU SiLU "
    "Sigmoid Softplus Softsign Tanh"
)
_OPTIMIZERS = "Adagrad Adam AdamW Adamax NAdam RAdam RMSprop SGD"
_SCHEDULE = ("start", "end", "end_fraction")
_BOX_ARRAYS = ("low", "high", "bounded_below", "bounded_above")
_MALFORMED = (
    AssertionError,
    AttributeError,
    KeyError,
    MemoryError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
)

CLASSES: dict[str, type] = {f"torch.nn.{name}": getattr(torch.nn, name) for name in _ACTIVATIONS.split()} | {
    f"torch.optim.{name}": getattr(torch.optim, name) for name in _OPTIMIZERS.split()
}
"""The classes a file may name. Every other class has to be given again when the file is read."""


@dataclass(frozen=True)
class Unsaved:
    """What stands for a value that could not be written: a function, an object, a class outside of the table.

    Args:
        name: the argument it was, or was a part of.
        repr: what it looked like when saved.
    """

    name: str
    repr: str


def refuse_unsaved(name: str, value: Any) -> None:
    """Demand an argument anew that, in whole or in part, could not be saved.

    Args:
        name: the argument.
        value: what `decode_value` returned for it.

    Raises:
        ValueError: if there is an `Unsaved` in it; says what it was and how to give it.
    """
    if lost := find_unsaved(value):
        raise ValueError(
            f"{name} was, or held, {lost.repr} when saved, which a file cannot keep: "
            f"pass {name}=... or custom_objects={{{name!r}: ...}}"
        )


def find_unsaved(value: Any) -> Unsaved | None:
    """Return the first `Unsaved` in a decoded value, None if it came back whole."""
    if isinstance(value, Unsaved):
        return value
    items = [*value.keys(), *value.values()] if isinstance(value, dict) else value
    found = map(find_unsaved, items) if isinstance(items, list | tuple) else ()
    return next(filter(None, found), None)


def encode_value(value: Any, classes: Mapping[str, type] | None = None) -> Any:
    """Return `value` as JSON.

    Args:
        value: None, a number, text, a path, a list, tuple or dict of such, an array of numbers, a
            `LinearSchedule`, or a class of the table. NumPy's scalars become Python's. Anything else is kept as
            its repr only, and comes back as `Unsaved`.
        classes: further names and classes for the table.
    """
    if value is None or isinstance(value, bool | int | float | str | np.bool_ | np.integer | np.floating):
        return _plain(value)
    if isinstance(value, list):
        return [encode_value(item, classes) for item in value]
    if isinstance(value, tuple):
        return {"__tuple__": [encode_value(item, classes) for item in value]}
    if isinstance(value, dict):
        pairs = [[encode_value(key, classes), encode_value(item, classes)] for key, item in value.items()]
        names = all(isinstance(key, str) and not key.startswith("__") for key, _ in pairs)
        return dict(pairs) if names else {"__dict__": pairs}
    return _tagged(value, {**CLASSES, **(classes or {})})


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | np.bool_):
        return None if value is None else bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, str):
        return str.__str__(value)  # str(value) of an enum's member would be its name
    return float(value) if math.isfinite(value) else {"__float__": str(float(value))}


def _tagged(value: Any, classes: Mapping[str, type]) -> dict[str, Any]:
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return {"__array__": {"numbers": _numbers(value), "dtype": value.dtype.str, "shape": list(value.shape)}}
    if isinstance(value, os.PathLike):
        return {"__path__": os.fsdecode(value)}
    if type(value) is LinearSchedule:
        return {"__schedule__": {key: encode_value(getattr(value, key)) for key in _SCHEDULE}}
    for name, known in classes.items():
        if value is known:
            return {"__class__": name}
    return {"__unsaved__": _short_repr(value)}


def decode_value(value: Any, name: str = "a value", classes: Mapping[str, type] | None = None) -> Any:
    """Return what `encode_value` made JSON of.

    Args:
        value: the JSON.
        name: the argument it belongs to, for the messages.
        classes: further names and classes for the table.

    Raises:
        ValueError: if it is nothing that `encode_value` writes.
    """
    try:
        return _decode(value, name, {**CLASSES, **(classes or {})})
    except _MALFORMED as error:
        raise ValueError(
            f"{name}={_short_repr(value)} cannot be decoded ({error}): the file is corrupt, or was written by a "
            f"newer version; pass {name}=... or custom_objects={{{name!r}: ...}}"
        ) from error


def _decode(value: Any, name: str, classes: Mapping[str, type]) -> Any:
    def inner(item: Any) -> Any:
        return _decode(item, name, classes)

    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list):
        return [inner(item) for item in value]
    tag = next(iter(value), "")
    if not tag.startswith("__"):
        return {key: inner(item) for key, item in value.items()}
    readers: dict[str, Callable[[Any], Any]] = {
        "__float__": float,
        "__tuple__": lambda items: tuple(inner(item) for item in items),
        "__dict__": lambda pairs: {inner(key): inner(item) for key, item in pairs},
        "__array__": lambda it: _array(it["numbers"], _dtype(it["dtype"]), it["shape"]),
        "__path__": Path,
        "__schedule__": lambda it: LinearSchedule(*(float(inner(it[key])) for key in _SCHEDULE)),
        "__class__": lambda known: classes[known] if known in classes else Unsaved(name, f"the class {known!r}"),
        "__unsaved__": lambda text: Unsaved(name, str(text)),
    }
    return readers[tag](value[tag])


def encode_space(space: gym.Space[Any]) -> dict[str, Any]:
    """Return a space as JSON, its bounds to the last bit.

    Raises:
        ValueError: if it is not a Box, Discrete, MultiDiscrete, MultiBinary, Dict or Tuple.
    """
    encoded: dict[str, Any]
    if isinstance(space, spaces.Box):
        encoded = {name: _numbers(getattr(space, name)) for name in _BOX_ARRAYS}
        encoded |= {"space": "Box", "dtype": space.dtype.str, "shape": list(space.shape)}
    elif isinstance(space, spaces.Discrete):
        encoded = {"space": "Discrete", "dtype": space.dtype.str, "n": int(space.n), "start": int(space.start)}
    elif isinstance(space, spaces.MultiDiscrete):
        encoded = {"space": "MultiDiscrete", "dtype": np.dtype(space.dtype).str}
        encoded |= {"n": space.nvec.tolist(), "start": space.start.tolist()}
    elif isinstance(space, spaces.MultiBinary):
        encoded = {"space": "MultiBinary", "n": space.n if isinstance(space.n, int) else list(space.n)}
    elif isinstance(space, spaces.Dict):
        pairs = [[encode_value(key), encode_space(item)] for key, item in space.spaces.items()]
        encoded = {"space": "Dict", "spaces": pairs}
    elif isinstance(space, spaces.Tuple):
        encoded = {"space": "Tuple", "spaces": [encode_space(item) for item in space.spaces]}
    else:
        raise ValueError(
            f"a space {space} cannot be saved; expected Box, Discrete, MultiDiscrete, MultiBinary, Dict or Tuple: "
            "wrap the environment so that it has one of them"
        )
    return encoded


def decode_space(encoded: Any) -> gym.Space[Any]:
    """Return the space that `encode_space` made JSON of.

    Raises:
        ValueError: if it is nothing that `encode_space` writes.
    """
    try:
        return _space(encoded)
    except _MALFORMED as error:
        raise ValueError(
            f"{_short_repr(encoded)} is not the description of a space ({type(error).__name__}: {error}): "
            "the file is corrupt, or was written by a newer version"
        ) from error


def _space(encoded: dict[str, Any]) -> gym.Space[Any]:
    readers: dict[str, Callable[[dict[str, Any]], gym.Space[Any]]] = {
        "Box": _box,
        "Discrete": _discrete,
        "MultiDiscrete": lambda it: spaces.MultiDiscrete(it["n"], _dtype(it["dtype"]), start=it["start"]),
        "MultiBinary": lambda it: spaces.MultiBinary(it["n"]),
        "Dict": lambda it: spaces.Dict([(decode_value(key), _space(item)) for key, item in it["spaces"]]),
        "Tuple": lambda it: spaces.Tuple([_space(item) for item in it["spaces"]]),
    }
    return readers[encoded["space"]](encoded)


def _box(encoded: dict[str, Any]) -> spaces.Box[Any]:
    shape, dtype = encoded["shape"], _dtype(encoded["dtype"])
    low, high = (_array(encoded[name], dtype, shape) for name in ("low", "high"))
    box = spaces.Box(low, high, tuple(shape), dtype)
    # integers have no inf: without these two, an unbounded one would come back bounded by its dtype
    box.bounded_below = _array(encoded["bounded_below"], np.dtype(bool), shape)
    box.bounded_above = _array(encoded["bounded_above"], np.dtype(bool), shape)
    return box


def _discrete(encoded: dict[str, Any]) -> spaces.Discrete[Any]:
    dtype = _dtype(encoded["dtype"])
    if dtype == np.int64:  # older versions of gymnasium know no other, and no argument dtype
        return spaces.Discrete(encoded["n"], start=encoded["start"])
    return spaces.Discrete(encoded["n"], start=encoded["start"], dtype=dtype.type)


def _numbers(array: Array) -> Any:
    """Return the numbers of an array as one JSON number if they are all the same, else as a flat list."""
    flat = array.ravel()
    # bytes, not values, are compared: 0.0 == -0.0
    if flat.size and flat.tobytes() == flat[:1].tobytes() * flat.size:
        return _number(flat[0])
    return [_number(number) for number in flat]


def _number(number: Any) -> bool | int | float | str:
    plain = number.item()
    exact = isinstance(plain, bool | int) or (type(plain) is float and math.isfinite(plain))
    return plain if exact else str(number)  # nan, inf, and a long double that no Python float can hold


def _array(numbers: Any, dtype: np.dtype[Any], shape: list[int]) -> Array:
    if math.prod(shape) > MAX_ELEMENTS:
        raise ValueError(f"an array of shape {shape} has more than the {MAX_ELEMENTS:,} elements allowed")
    if isinstance(numbers, list):
        return np.array([dtype.type(number) for number in numbers], dtype).reshape(shape)
    return np.full(shape, dtype.type(numbers), dtype)


def _dtype(name: str) -> np.dtype[Any]:
    # np.dtype understands a language of its own, records and objects included: only plain numbers may pass
    if not re.fullmatch(r"[<>=|]?[biuf]\d{1,2}", name):
        raise ValueError(f"dtype {name!r} is not one of plain numbers")
    return np.dtype(name)


def _short_repr(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:  # a repr that fails must not cost a training run its checkpoint
        text = f"<{type(value).__module__}.{type(value).__qualname__} object>"
    return text if len(text) <= 200 else f"{text[:197]}..."
