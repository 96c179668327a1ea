"""Values of any space as rows of one array; of Dict and Tuple spaces as rows of bytes.

So everything between the environment and the network, rollouts, queues, workers, checkpoints, sees one array whatever
the space is, and an image takes a byte a pixel until the network wants it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from grpo_gym.types import Array

SUPPORTED = "Box, Discrete, MultiDiscrete, MultiBinary, or a Dict or Tuple of these"

ALIGNMENT = 8
"""Every part begins at a multiple of so many bytes: what NumPy and torch ask of an array of any kind of number."""


@dataclass(frozen=True)
class Leaf:
    """A part of a space that has no parts itself.

    Attributes:
        name: the keys that lead to it, as "outer/inner" or "arms/0"; "" if it is the whole space.
        space: Box, Discrete, MultiDiscrete or MultiBinary.
        start: where its bytes begin in a row.
        stop: where they end.
    """

    name: str
    space: gym.Space[Any]
    start: int
    stop: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one value."""
        return self.space.shape or ()

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of its numbers."""
        return np.dtype(self.space.dtype)


class Layout:
    """How values of a space lie in rows, `[M, *shape]` of `dtype`.

    Of a Dict or Tuple, nested as deep as you like, a row is bytes: one part after the other, in the order of the
    space. A value of any other space is its own row.

    Args:
        space: of single values, not of batches.
        what: "observation" or "action", for the message.

    Attributes:
        leaves: the parts; one if the space is no Dict or Tuple.

    Raises:
        ValueError: if the space, or a part of it, is not supported; the message names both.
    """

    def __init__(self, space: gym.Space[Any], what: str = "observation"):
        self.space = space
        self.is_plain = not isinstance(space, spaces.Dict | spaces.Tuple)
        self.leaves: list[Leaf] = []
        end = 0
        for name, leaf in _leaves(space, ""):
            if not isinstance(leaf, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
                part = f"; its part {name!r} is a {type(leaf).__name__}" if name else ""
                raise ValueError(
                    f"the {what} space {space} is not supported; expected {SUPPORTED}{part}. Wrap the environment in "
                    f"gymnasium.wrappers.Transform{what.capitalize()}, or, if it can be flattened, in "
                    "gymnasium.wrappers.FlattenObservation"
                )
            size = math.prod(leaf.shape or ()) * np.dtype(leaf.dtype).itemsize
            self.leaves.append(Leaf(name, leaf, end, end + size))
            end += -(-size // ALIGNMENT) * ALIGNMENT
        if not self.leaves:
            raise ValueError(
                f"the {what} space {space} has nothing in it; expected {SUPPORTED}. "
                f"gymnasium.wrappers.Transform{what.capitalize()} can put something there"
            )
        self.shape: tuple[int, ...] = (space.shape or ()) if self.is_plain else (end,)
        self.dtype: Any = space.dtype if self.is_plain else np.dtype(np.uint8)

    def parts(self, rows: Array) -> list[Array]:
        """Take rows `[M, *shape]` apart: one array `[M, ...]` for each leaf, without copying."""
        if self.is_plain:
            return [rows]
        views = [rows[:, leaf.start : leaf.stop].view(leaf.dtype) for leaf in self.leaves]
        return [view.reshape(len(rows), *leaf.shape) for view, leaf in zip(views, self.leaves, strict=True)]

    def join(self, parts: Sequence[Array]) -> Array:
        """Undo `parts`; the arrays are cast to the types of the space."""
        if self.is_plain:
            return parts[0]
        rows = np.zeros((len(parts[0]), *self.shape), np.uint8)
        for leaf, part in zip(self.leaves, parts, strict=True):
            values = np.ascontiguousarray(part, leaf.dtype).reshape(len(rows), -1)
            rows[:, leaf.start : leaf.stop] = values.view(np.uint8)
        return rows

    def split(self, value: Any) -> list[Any]:
        """Take one value, or a batch, apart: what is in it for each leaf.

        Raises:
            ValueError: if a key is missing, or it is no dict, or no tuple of that length, where one is expected.
        """
        return [_reached(value, path) for path in _paths(self.space)]

    def nest(self, parts: Iterable[Any]) -> Any:
        """Undo `split`: put what there is for each leaf into the structure of the space."""
        return _built(self.space, iter(parts).__next__)

    def pack(self, batch: Any) -> Array:
        """Make rows of a batch as Gymnasium's vector environments have it: dicts and tuples of arrays `[M, ...]`."""
        return np.asarray(batch) if self.is_plain else self.join([np.asarray(part) for part in self.split(batch)])

    def pack_one(self, value: Any) -> Array:
        """Make one row, `[*shape]`, of one value.

        Raises:
            ValueError: if a part is missing, or has another shape than its space.
        """
        parts = []
        for leaf, part in zip(self.leaves, self.split(value), strict=True):
            array = np.asarray(part)
            if array.shape != leaf.shape:
                of = f"with {leaf.name!r} " if leaf.name else ""
                raise ValueError(
                    f"an observation {of}of shape {array.shape}, but observation_space says {leaf.shape}: {self.space}"
                )
            parts.append(array[None])
        row: Array = self.join(parts)[0]
        return row

    def unpack(self, rows: Array) -> Any:
        """Make the batch of rows again: dicts and tuples of arrays `[M, ...]`."""
        return rows if self.is_plain else self.nest(self.parts(rows))

    def unpack_one(self, row: Array) -> Any:
        """Make the value of one row again, in memory of its own."""
        if self.is_plain:
            return row
        values = [
            part[0] if isinstance(leaf.space, spaces.Discrete) else np.array(part[0])
            for leaf, part in zip(self.leaves, self.parts(row[None]), strict=True)
        ]
        return self.nest(values)


def _leaves(space: gym.Space[Any], name: str) -> Iterator[tuple[str, gym.Space[Any]]]:
    for path in _paths(space):
        leaf = space
        for key in path:
            leaf = leaf[key]  # type: ignore[index]
        yield "/".join(map(str, path)), leaf


def _paths(space: gym.Space[Any]) -> Iterator[tuple[Any, ...]]:
    """Yield the keys that lead to each leaf."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        keys = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        for key, part in keys:
            yield from ((key, *path) for path in _paths(part))
    else:
        yield ()


def _reached(value: Any, path: tuple[Any, ...]) -> Any:
    for depth, key in enumerate(path):
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError) as error:
            raise ValueError(f"a value without {'/'.join(map(str, path[: depth + 1]))!r}: {value!r}") from error
    return value


def _built(space: gym.Space[Any], take: Callable[[], Any]) -> Any:
    """Put what `take` gives for each leaf into the structure of the space."""
    if isinstance(space, spaces.Dict):
        return {key: _built(part, take) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_built(part, take) for part in space.spaces)
    return take()
