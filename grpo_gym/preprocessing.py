"""From rows of an observation space's values to float tensors."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from grpo_gym.layout import SUPPORTED, Layout

SKETCH = 8
"""Side of what `Preprocessor.sketch` makes of an image."""

CHUNK = 1024
"""Images that are sketched at a time, so that few of them are floats at once."""

Rows = Tensor | list[Tensor]
"""Observations: rows `[M, ...]` as a `Layout` has them, or one tensor `[M, ...]` for each of its leaves."""


def flat_size(space: gym.Space[Any], one_hot: bool = False) -> int:
    """Count the numbers that `preprocess` makes of one observation.

    Args:
        space: the observation space; no Dict or Tuple.
        one_hot: see `preprocess`.

    Raises:
        ValueError: if the space is not supported, or `one_hot` does not fit it.
    """
    if isinstance(space, gym.spaces.Box):
        n_entries = math.prod(space.shape)
        return n_entries * _n_levels(space) if one_hot else n_entries
    if isinstance(space, gym.spaces.Discrete):
        return int(space.n)
    if isinstance(space, gym.spaces.MultiDiscrete):
        return int(space.nvec.sum())
    if isinstance(space, gym.spaces.MultiBinary):
        return math.prod(space.shape)
    raise ValueError(f"the observation space {space} is not supported; expected {SUPPORTED}")


def preprocess(observations: Tensor, space: gym.Space[Any], one_hot: bool = False) -> Tensor:
    """Flatten observations to floats; what counts things is one-hot, what measures them is left as it is.

    Args:
        observations: `[M, ...]` as the environment gave them.
        space: the observation space of a single environment; no Dict or Tuple.
        one_hot: code each entry of an integer Box with finite bounds by its level, so that −1, 0 and 1 are
            three things and not three amounts.

    Returns:
        `[M, flat_size(space, one_hot)]`, float32.
    """
    if isinstance(space, gym.spaces.Discrete):
        return functional.one_hot(observations.long() - int(space.start), int(space.n)).float()
    if isinstance(space, gym.spaces.MultiDiscrete):
        start = torch.as_tensor(space.start, device=observations.device).long()
        shifted = (observations.long() - start).reshape(observations.shape[0], -1)
        sizes = space.nvec.reshape(-1)
        columns = [functional.one_hot(shifted[:, i], int(n)) for i, n in enumerate(sizes)]
        return torch.cat(columns, dim=1).float()
    flat = observations.reshape(observations.shape[0], -1)
    if isinstance(space, gym.spaces.Box) and one_hot:
        levels = torch.arange(_n_levels(space), device=flat.device, dtype=flat.dtype) + int(space.low.min())
        return (flat[:, :, None] == levels).flatten(1).float()
    return flat.float()


def is_image(space: gym.Space[Any], normalized: bool = False) -> bool:
    """Tell whether a space is of images: three axes, bytes, bounds 0 and 255.

    Args:
        space: no Dict or Tuple.
        normalized: images may be of any type of number, and have any bounds.
    """
    if not isinstance(space, gym.spaces.Box) or len(space.shape) != 3:
        return False
    return normalized or (space.dtype == np.uint8 and bool((space.low == 0).all() and (space.high == 255).all()))


def channels_first(space: gym.Space[Any]) -> bool:
    """Tell whether images are `[C, H, W]`: the smallest axis is the first. Otherwise they are `[H, W, C]`."""
    return int(np.argmin(space.shape or ())) == 0


class Preprocessor:
    """Makes float tensors of rows of observations, as a `Layout` has them, or of a list of their parts.

    Args:
        space: of a single environment, any that `Layout` takes.
        one_hot: see `preprocess`; in a Dict or Tuple it is about the integer Boxes that are no images.
        normalize_images: images are bytes and are divided by 255. Else every Box of three axes is an image, and is
            left as it is.

    Attributes:
        size: numbers in a flat observation.
        vector_size: those of them that are not of images.
        images: which of the leaves are images.

    Raises:
        ValueError: if the space is not supported, or `one_hot` does not fit it.
    """

    def __init__(self, space: gym.Space[Any], one_hot: bool = False, normalize_images: bool = True):
        self.layout = Layout(space)
        self.normalize_images = normalize_images
        leaves = [leaf.space for leaf in self.layout.leaves]
        self._one_hot = [one_hot and self._is_coded(leaf) for leaf in leaves]
        self.images = [
            is_image(leaf, normalized=not normalize_images) and not coded
            for leaf, coded in zip(leaves, self._one_hot, strict=True)
        ]
        self._sizes = [flat_size(leaf, coded) for leaf, coded in zip(leaves, self._one_hot, strict=True)]
        self.size = sum(self._sizes)
        self.vector_size = sum(size for size, image in zip(self._sizes, self.images, strict=True) if not image)

    def _is_coded(self, leaf: gym.Space[Any]) -> bool:
        integers = isinstance(leaf, gym.spaces.Box) and np.issubdtype(leaf.dtype, np.integer)
        return self.layout.is_plain or (integers and not is_image(leaf))

    def flat(self, rows: Rows) -> Tensor:
        """Lay everything side by side, image's numbers too: `[M, ...]` → `[M, size]`."""
        return _joined([self._flat(i, part) for i, part in enumerate(self._parts(rows))])

    @cached_property
    def only_flattens(self) -> bool:
        """Whether `flat` is but a change of shape and type: of a Box that is no image and not coded."""
        return isinstance(self.layout.space, gym.spaces.Box) and not self._one_hot[0] and not self.images[0]

    def _flat(self, i: int, part: Tensor) -> Tensor:
        if self.images[i]:
            return self._scaled(part).flatten(1)
        return preprocess(part, self.layout.leaves[i].space, self._one_hot[i])

    def sketch(self, rows: Tensor) -> Tensor:
        """Lay everything side by side, images as means over at most 8×8 fields of each channel: `[M, ...]` → `[M, d]`.

        A fixed map for what compares states by their likeness; nobody learns it, and nobody learns from it.
        """
        if not any(self.images):
            return self.flat(rows)
        return torch.cat([self._sketched(chunk) for chunk in torch.split(rows, CHUNK)])

    def _sketched(self, rows: Tensor) -> Tensor:
        sketches = []
        for i, part in enumerate(self._parts(rows)):
            if self.images[i]:
                image = self._image(i, part)
                sides = min(SKETCH, image.shape[2]), min(SKETCH, image.shape[3])
                sketches.append(functional.adaptive_avg_pool2d(image, sides).flatten(1))
            else:
                sketches.append(self._flat(i, part))
        return _joined(sketches)

    def vector(self, rows: Rows) -> Tensor:
        """Lay all that is no image side by side: `[M, ...]` → `[M, vector_size]`."""
        return _joined([self._flat(i, part) for i, part in enumerate(self._parts(rows)) if not self.images[i]])

    def structured(self, rows: Rows, vector: Tensor | None = None) -> dict[str, Tensor]:
        """Return a tensor for each leaf, by its name: images `[M, C, H, W]`, a Box in its shape, others `[M, d]`.

        Args:
            rows: `[M, ...]`.
            vector: to take in place of `vector(rows)`.
        """
        if vector is None and self.vector_size:
            vector = self.vector(rows)
        parts, first = {}, 0
        for i, (leaf, part) in enumerate(zip(self.layout.leaves, self._parts(rows), strict=True)):
            if self.images[i]:
                parts[leaf.name] = self._image(i, part)
                continue
            assert vector is not None
            own = vector[:, first : first + self._sizes[i]]
            first += self._sizes[i]
            parts[leaf.name] = own.reshape(part.shape) if isinstance(leaf.space, gym.spaces.Box) else own
        return parts

    def spaces(self) -> dict[str, gym.Space[Any]]:
        """Return the space of each leaf, by its name; images with their channels first, as `structured` has them."""
        return {
            leaf.name: _transposed(leaf.space) if image and not channels_first(leaf.space) else leaf.space
            for leaf, image in zip(self.layout.leaves, self.images, strict=True)
        }

    def _image(self, i: int, part: Tensor) -> Tensor:
        return self._scaled(part if channels_first(self.layout.leaves[i].space) else part.permute(0, 3, 1, 2))

    def _scaled(self, image: Tensor) -> Tensor:
        return image.float() / 255 if self.normalize_images else image.float()

    def _parts(self, rows: Rows) -> list[Tensor]:
        """See `Layout.parts`."""
        if isinstance(rows, list):
            return rows
        if self.layout.is_plain:
            return [rows]
        parts = []
        for leaf in self.layout.leaves:
            part = rows[:, leaf.start : leaf.stop].view(torch_type(leaf.dtype))
            parts.append(part.reshape(rows.shape[0], *leaf.shape))
        return parts


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def torch_type(dtype: Any) -> torch.dtype:
    """Return torch's name for a NumPy type of number."""
    return torch.from_numpy(np.empty(0, dtype)).dtype


def _transposed(space: gym.Space[Any]) -> gym.Space[Any]:
    assert isinstance(space, gym.spaces.Box)
    low, high = (np.transpose(bound, (2, 0, 1)) for bound in (space.low, space.high))
    return gym.spaces.Box(low, high, dtype=space.dtype.type)


def _n_levels(space: gym.spaces.Box) -> int:
    if not np.issubdtype(space.dtype, np.integer):
        raise ValueError(f"one_hot_observations=True expects an integer Box, got {space}")
    levels = int(space.high.max()) - int(space.low.min()) + 1
    if levels > 256:
        raise ValueError(f"one_hot_observations=True expects at most 256 levels an entry, got {levels} in {space}")
    return levels
