"""Actions of any space as numbers: indices of choices, and real numbers."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from grpo_gym.layout import Layout
from grpo_gym.types import Array, BoolArray, IntArray


class ActionCode:
    """Reads an action space as k choices and d real numbers.

    A Discrete part is one choice, a MultiDiscrete one for each entry, a MultiBinary one among 0 and 1 for each bit,
    and a Box is so many real numbers. Choices are counted from 0, whatever the space counts from. A mask is one
    after the other the masks of all choices, `Σ sizes` entries: for MultiDiscrete and MultiBinary as sb3-contrib's
    MaskablePPO has it.

    Args:
        space: of a single environment.

    Attributes:
        layout: how the environment's actions lie in rows.
        sizes: alternatives of each choice, `[k]`.
        starts: what the environment counts each choice from, `[k]`.
        low: bounds of the real numbers, `[d]`.
        high: the same.

    Raises:
        ValueError: if the space is not supported, or a Box has infinite bounds.
    """

    def __init__(self, space: gym.Space[Any]):
        self.layout = Layout(space, "action")
        empty: IntArray = np.zeros(0, np.int64)
        sizes, starts, lows, highs = [empty], [empty], [np.zeros(0)], [np.zeros(0)]
        for leaf in self.layout.leaves:
            part = leaf.space
            if isinstance(part, spaces.Box):
                if not (np.isfinite(part.low).all() and np.isfinite(part.high).all()):
                    name = f" ({leaf.name!r} in it)" if leaf.name else ""
                    raise ValueError(
                        f"the action space {space}{name} has infinite bounds, expected finite ones: "
                        "wrap the environment in gymnasium.wrappers.RescaleAction, or give the Box low and high"
                    )
                lows.append(part.low.ravel())
                highs.append(part.high.ravel())
                continue
            if isinstance(part, spaces.Discrete):
                size, start = np.array([part.n]), np.array([part.start])
            elif isinstance(part, spaces.MultiDiscrete):
                size, start = part.nvec.ravel(), part.start.ravel()
            else:
                size = np.full(leaf.shape, 2).ravel()
                start = np.zeros_like(size)
            sizes.append(size.astype(np.int64))
            starts.append(start.astype(np.int64))
        self.sizes, self.starts = np.concatenate(sizes), np.concatenate(starts)
        self.low, self.high = np.concatenate(lows), np.concatenate(highs)

    @property
    def mask_size(self) -> int:
        """Entries of an action mask; 0 if nothing can be masked."""
        return int(self.sizes.sum())

    def to_env(self, choices: IntArray, reals: Array) -> Array:
        """Make the environment's actions: shifted, clipped, in the shape and type of the space.

        Args:
            choices: indices from 0, `[M, k]`.
            reals: `[M, d]`.

        Returns:
            Rows as `layout` has them.
        """
        parts = self.deal(choices + self.starts, np.clip(reals, self.low, self.high))
        typed = [part.astype(leaf.dtype) for part, leaf in zip(parts, self.layout.leaves, strict=True)]
        return self.layout.join(typed)

    def deal(self, choices: Any, reals: Any) -> list[Any]:
        """Give each leaf its numbers, in its shape: `[M, k]` and `[M, d]`, arrays or tensors → `[M, ...]` each."""
        parts = []
        for leaf in self.layout.leaves:
            n = math.prod(leaf.shape)
            if isinstance(leaf.space, spaces.Box):
                taken, reals = reals[:, :n], reals[:, n:]
            else:
                taken, choices = choices[:, :n], choices[:, n:]
            parts.append(taken.reshape(taken.shape[0], *leaf.shape))
        return parts

    def by_choice(self, masks: BoolArray) -> list[BoolArray]:
        """Part masks `[M, Σ sizes]` into one `[M, n]` for each choice."""
        return np.split(masks, np.cumsum(self.sizes)[:-1], axis=1)

    def any_legal(self, masks: BoolArray | None, n_rows: int = 1) -> Array:
        """Return a legal action of the environment for each of so many rows, or for each mask `[M, Σ sizes]`."""
        if masks is None:
            choices: IntArray = np.zeros((n_rows, len(self.sizes)), np.int64)
        else:
            choices = np.stack([mask.argmax(axis=1) for mask in self.by_choice(masks)], axis=1)
        return self.to_env(choices, np.tile(self.low, (len(choices), 1)))

    def possible(self, masks: BoolArray) -> BoolArray:
        """Tell where every choice has a legal alternative: `[M, Σ sizes]` → `[M]`."""
        if len(self.sizes) < 2:
            return np.asarray(masks.any(axis=1))
        each = np.logical_or.reduceat(masks, np.cumsum(self.sizes) - self.sizes, axis=1)
        return np.asarray(each.all(axis=1))

    def read_masks(self, masks: Any, n_rows: int, whose: str) -> BoolArray:
        """Read the masks of M = `n_rows` observations as `[M, Σ sizes]`.

        Args:
            masks: numbers or truth values, any shape of that many entries for each observation.
            n_rows: M.
            whose: the beginning of the message.

        Raises:
            ValueError: if they have other numbers of entries, or nothing can be masked.
        """
        space, size = self.layout.space, self.mask_size
        if not size:
            raise ValueError(f"{whose}: an action mask was given for {space}; only discrete actions have one")
        try:
            read: BoolArray = np.array(masks, np.bool_).reshape(n_rows, size)
        except ValueError as error:
            sizes = " + ".join(map(str, self.sizes))
            raise ValueError(
                f"{whose}: the action mask is {masks!r}, expected {size} = {sizes} entries an observation: an array of "
                f"those of all choices of {space}, one after the other"
            ) from error
        return read
