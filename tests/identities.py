"""Environments that show a value of any space and want it named, and others that show images or dicts."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

from grpo_gym.types import Array, BoolArray

Info = dict[str, Any]
StepResult = tuple[Any, Any, bool, bool, Info]

HYBRID = Dict(
    {
        "gear": Discrete(3, start=-1),
        "pedals": Box(np.array([0.0, -3.0]), np.array([1.0, 5.0]), dtype=np.float64),
        "panel": Tuple([MultiBinary(2), MultiDiscrete([2, 3], start=[1, 0])]),
    }
)
SPACES: dict[str, gym.Space[Any]] = {
    "discrete": Discrete(4, start=-1),
    "box": Box(-1.0, 1.0, (2,), np.float32),
    "multidiscrete": MultiDiscrete([2, 3, 4], start=[0, 5, -1]),
    "matrix": MultiDiscrete(np.array([[2, 3], [3, 2]])),
    "multibinary": MultiBinary(4),
    "dict": HYBRID,
    "tuple": Tuple([Discrete(3), MultiDiscrete([3, 2])]),
    "boxes": Dict({"x": Box(0.0, 1.0, (1,)), "y": Box(-2.0, 2.0, (1, 1))}),
}
"""Action spaces of every kind, which are observation spaces too."""


def alikeness(one: Any, other: Any, space: gym.Space[Any]) -> float:
    """1 for equal values, for each number of a Box less by its distance in ranges, averaged over the parts."""
    if isinstance(space, Dict):
        return float(np.mean([alikeness(one[key], other[key], part) for key, part in space.spaces.items()]))
    if isinstance(space, Tuple):
        parts = zip(one, other, space.spaces, strict=True)
        return float(np.mean([alikeness(*part) for part in parts]))
    if isinstance(space, Box):
        return float(1 - (np.abs(one - other) / (space.high - space.low)).mean())
    return float(np.equal(one, other).mean())


class Identity(gym.Env[Any, Any]):
    """Shows a value of a space; the more alike the action, the more it earns, at most 1 a step."""

    def __init__(self, space: gym.Space[Any], length: int = 5):
        self.observation_space = self.action_space = copy.deepcopy(space)  # it draws from it
        self.length = length

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Any, Info]:
        super().reset(seed=seed)
        self.t = 0
        self.observation_space.seed(int(self.np_random.integers(2**31)))
        return self._draw(), self._info()

    def step(self, action: Any) -> StepResult:
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        reward = alikeness(action, self.shown, self.action_space)
        self.t += 1
        return self._draw(), reward, False, self.t >= self.length, self._info()

    def _draw(self) -> Any:
        self.shown = self.observation_space.sample()
        return self.shown

    def _info(self) -> Info:
        return {}


class MaskedIdentity(Identity):
    """Only the alternative shown, and the one before it, are legal for each of three choices."""

    def __init__(self) -> None:
        super().__init__(MultiDiscrete([2, 3, 4]))

    def legal(self) -> list[BoolArray]:
        sizes = self.action_space.nvec  # type: ignore[attr-defined]
        return [np.isin(np.arange(n), [x, (x - 1) % n]) for n, x in zip(sizes, self.shown, strict=True)]

    def step(self, action: Any) -> StepResult:
        assert all(legal[choice] for legal, choice in zip(self.legal(), action, strict=True))
        return super().step(action)

    def _info(self) -> Info:
        return {"action_mask": np.concatenate(self.legal()).astype(np.int8)}


def picture(position: int, side: int, channels_first: bool) -> Array:
    """A bright field in one of four quarters, with three channels of different brightness."""
    image = np.zeros((3, side, side), np.uint8)
    half, (row, column) = side // 2, divmod(position, 2)
    image[:, row * half : (row + 1) * half, column * half : (column + 1) * half] = [[[250]], [[120]], [[60]]]
    return image if channels_first else np.ascontiguousarray(np.moveaxis(image, 0, -1))


class Pictures(gym.Env[Any, Any]):
    """Shows in which quarter of an image it is bright; naming it earns 1."""

    action_space = Discrete(4)

    def __init__(self, side: int = 8, channels_first: bool = False, length: int = 5):
        shape = (3, side, side) if channels_first else (side, side, 3)
        self.observation_space: gym.Space[Any] = Box(0, 255, shape, np.uint8)
        self.side, self.channels_first, self.length = side, channels_first, length

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Any, Info]:
        super().reset(seed=seed)
        self.t = 0
        return self._draw(), {}

    def step(self, action: Any) -> StepResult:
        reward = float(action == self.wanted())
        self.t += 1
        return self._draw(), reward, False, self.t >= self.length, {}

    def _draw(self) -> Any:
        self.position = int(self.np_random.integers(4))
        return picture(self.position, self.side, self.channels_first)

    def wanted(self) -> int:
        return self.position


class PicturesAndWords(Pictures):
    """A Dict of an image, an offset, and numbers of no use; the quarter plus the offset is wanted."""

    def __init__(self, side: int = 8, channels_first: bool = False):
        super().__init__(side, channels_first)
        self.observation_space = Dict(
            {
                "image": self.observation_space,
                "told": Dict({"offset": Discrete(2, start=1), "noise": Box(-np.inf, np.inf, (2,), np.float64)}),
            }
        )

    def _draw(self) -> Any:
        self.offset = np.int64(self.np_random.integers(1, 3))
        image = super()._draw()
        return {"image": image, "told": {"offset": self.offset, "noise": self.np_random.normal(100, 50, 2)}}

    def wanted(self) -> int:
        return (self.position + int(self.offset)) % 4
