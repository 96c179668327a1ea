"""From an observation space's values to flat float tensors."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

SUPPORTED = "Box, Discrete, MultiDiscrete, MultiBinary"


def flat_size(space: gym.Space[Any], one_hot: bool = False) -> int:
    """Count the numbers that `preprocess` makes of one observation.

    Args:
        space: the observation space.
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
    if isinstance(space, gym.spaces.Dict):
        hint = ", ".join(f"{key!r}: {value}" for key, value in space.items())
        raise ValueError(
            f"the observation space {space} ({hint}) is not supported; expected {SUPPORTED}. "
            "Wrap the environment in gymnasium.wrappers.FlattenObservation"
        )
    raise ValueError(
        f"the observation space {space} is not supported; expected {SUPPORTED}. "
        "gymnasium.wrappers.TransformObservation can turn it into a Box"
    )


def preprocess(observations: Tensor, space: gym.Space[Any], one_hot: bool = False) -> Tensor:
    """Flatten observations to floats; what counts things is one-hot, what measures them is left as it is.

    Args:
        observations: `[M, ...]` as the environment gave them.
        space: the observation space of a single environment.
        one_hot: code each entry of an integer Box with finite bounds by its level, so that −1, 0 and 1 are
            three things and not three amounts.

    Returns:
        `[M, flat_size(space, one_hot)]`, float32.
    """
    if isinstance(space, gym.spaces.Discrete):
        return functional.one_hot(observations.long() - int(space.start), int(space.n)).float()
    if isinstance(space, gym.spaces.MultiDiscrete):
        start = torch.as_tensor(space.start, device=observations.device)
        shifted = (observations.long() - start).reshape(len(observations), -1)
        sizes = space.nvec.reshape(-1)
        columns = [functional.one_hot(shifted[:, i], int(n)) for i, n in enumerate(sizes)]
        return torch.cat(columns, dim=1).float()
    flat = observations.reshape(len(observations), -1)
    if isinstance(space, gym.spaces.Box) and one_hot:
        levels = torch.arange(_n_levels(space), device=flat.device, dtype=flat.dtype) + int(space.low.min())
        return (flat[:, :, None] == levels).flatten(1).float()
    return flat.float()


def _n_levels(space: gym.spaces.Box) -> int:
    if not np.issubdtype(space.dtype, np.integer):
        raise ValueError(f"one_hot_observations=True expects an integer Box, got {space}")
    levels = int(space.high.max()) - int(space.low.min()) + 1
    if levels > 256:
        raise ValueError(f"one_hot_observations=True expects at most 256 levels an entry, got {levels} in {space}")
    return levels
