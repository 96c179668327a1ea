"""A policy for square boards whose cells are the actions: what it learns in one pose, it knows in all eight."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, ClassVar

import gymnasium as gym
import torch
from torch import Tensor, nn

from grpo_gym.acting import Actor, BlockActor, MlpActor, in_blocks, only_linear
from grpo_gym.policy import CnnPolicy
from grpo_gym.types import Array, FloatArray


def poses(squares: Tensor) -> Tensor:
    """Turn by quarters, and mirror and turn: `[..., k, k]` → `[8, ..., k, k]`, the first as it was."""
    both = squares, squares.flip(-1)
    return torch.stack([torch.rot90(square, turns, (-2, -1)) for square in both for turns in range(4)])


def relative_poses() -> Tensor:
    """Tell r for each g and p such that pose g of pose r is pose p: `[8, 8]`."""
    seen = poses(torch.arange(4).view(2, 2))  # all different
    number = {tuple(pose.flatten().tolist()): g for g, pose in enumerate(seen)}
    relative = torch.zeros(8, 8, dtype=torch.long)
    for r, pose in enumerate(seen):
        for g, both in enumerate(poses(pose)):
            relative[g, number[tuple(both.flatten().tolist())]] = r
    return relative


class PoseLayer(nn.Module):
    """A layer between a board and units that look at it in its 8 poses, with the same weights.

    Args:
        n_units: with a place for each pose, one behind the other.
        index: which of a unit's weights each number on the other side meets in each pose, `[8, k]`.
    """

    index: Tensor

    def __init__(self, n_units: int, index: Tensor):
        super().__init__()
        self.register_buffer("index", index, persistent=False)
        self.weight = nn.Parameter(torch.empty(n_units, index.shape[1]))

    def laid_out(self) -> Tensor:
        """Return the weights of each unit in each pose, `[8·n_units, k]`."""
        return self.weight[:, self.index].flatten(0, 1)


class PoseLinear(PoseLayer):
    """A linear layer each of whose units looks at the board in its 8 poses, with the same weights.

    Where the board is turned or mirrored, the 8 outputs of a unit change places and nothing else. See Cohen & Welling
    2016, "Group equivariant convolutional networks" (arXiv 1602.07576), of which this is the layer without windows.
    """

    def __init__(self, n_units: int, index: Tensor):
        super().__init__(n_units, index)
        self.bias = nn.Parameter(torch.zeros(n_units))
        nn.init.kaiming_normal_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """`[M, k]` → `[M, 8·n_units]`."""
        return nn.functional.linear(x, self.laid_out(), self.bias.repeat_interleave(8))

    def unfold(self) -> nn.Linear:
        """Return the same layer as it is now, with weights for each output."""
        return _linear(self.laid_out(), self.bias.repeat_interleave(8))


class CellLinear(PoseLayer):
    """From what units say in the 8 poses to a number for each cell: `PoseLinear` turned round, without a bias."""

    def __init__(self, n_units: int, index: Tensor):
        super().__init__(n_units, index)
        # a new policy finds all cells about alike
        nn.init.normal_(self.weight, std=0.01 / (8 * n_units) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """`[M, 8·n_units]` → `[M, cells]`."""
        return x @ self.laid_out()

    def unfold(self) -> nn.Linear:
        """Return the same layer as it is now, with weights for each input."""
        weight = self.laid_out().T
        return _linear(weight, weight.new_zeros(len(weight)))


class Planes(nn.Module):
    """The planes of a board, number by number, and their squares: −1 and 1 need not be opposites.

    Args:
        space: a Box of three axes, channels first.
        chosen: numbers of the planes that are looked at; None for all.
    """

    def __init__(self, space: gym.spaces.Box, chosen: Iterable[int] | None = None):
        super().__init__()
        self.chosen = list(range(space.shape[0]) if chosen is None else chosen)
        self.features_dim = 2 * len(self.chosen) * space.shape[1] * space.shape[2]

    def forward(self, boards: Tensor) -> Tensor:
        """`[M, C, H, W]` → `[M, features_dim]`."""
        flat = boards[:, self.chosen].flatten(1)
        return torch.cat([flat, flat.square()], dim=1)


class BoardPolicy(CnnPolicy):
    """A perceptron for games to which a board that is turned or mirrored is the same.

    Each unit has 8 poses that share its weights (`PoseLinear`), so that what is learned of one position is known of
    the 8 that are like it: π(turned action | turned board) = π(action | board), exactly. Boards are numbers on three
    axes, of which the smallest is that of the planes; they are not normalised.

    Args:
        observation_space: a Box of three axes, two of them equal.
        action_space: Discrete, an action for each cell, row by row.
        net_arch: hidden layers' widths, poses counted: multiples of 8; None for `NET_ARCH`.
        activation_fn: class of the activation between layers.
        kwargs: further arguments of `CnnPolicy`. A features extractor of your own makes planes of cells, one behind
            the other; `{"chosen": [0]}` in `features_extractor_kwargs` has `Planes` look at the first plane alone.

    Raises:
        ValueError: for another board, other actions, or widths and planes that do not fit.
    """

    NET_ARCH: ClassVar[tuple[int, ...]] = (256, 256)
    EXTRACTOR: ClassVar[type[nn.Module] | None] = Planes

    def __init__(
        self,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        net_arch: Iterable[int] | None = None,
        activation_fn: type[nn.Module] = nn.ReLU,
        **kwargs: Any,
    ):
        for name in ("normalize_images", "ortho_init"):
            if name in kwargs:
                raise ValueError(f"{name}={kwargs[name]} has no meaning for BoardPolicy; leave it out")
        super().__init__(observation_space, action_space, net_arch=[], normalize_images=False, **kwargs)
        board: Any = self.preprocessor.spaces()[""]
        _, side, width = board.shape
        cells = poses(torch.arange(side * side).view(side, side)).flatten(1) if side == width else None
        if cells is None or not isinstance(action_space, gym.spaces.Discrete) or action_space.n != side * width:
            raise ValueError(
                f"BoardPolicy is for square boards with an action for each cell, got {side}×{width} cells and "
                f"{action_space}; use 'MlpPolicy', or 'CnnPolicy' with policy_kwargs={{'normalize_images': False}}"
            )
        widths = list(self.NET_ARCH if net_arch is None else net_arch)
        if not widths or any(width < 1 or width % 8 for width in widths):
            raise ValueError(f"net_arch={widths}, expected multiples of 8: each unit of BoardPolicy has 8 poses")
        n_features = self.head.linear.in_features
        if n_features % (side * side):
            raise ValueError(
                f"{type(self.features_extractor).__name__}.features_dim is {n_features}, expected planes of "
                f"{side * side} cells, one behind the other"
            )
        index = _side_by_side(cells, n_features // (side * side))
        layers: list[nn.Module] = []
        for width in widths:
            layers += [PoseLinear(width // 8, index), activation_fn()]
            index = _side_by_side(relative_poses(), width // 8)
        self.body = nn.Sequential(*layers)
        self.head.linear = CellLinear(widths[-1] // 8, cells)  # type: ignore[assignment]

    def flatten(self, observations: Tensor) -> Tensor:
        """Describe boards by the planes that are looked at: what the others show makes no two positions different."""
        return self._extract(self.preprocess(observations))

    def actor(self) -> Actor:
        """Return what acts as this policy does now; weights are laid out for all poses once, not at each step."""
        if type(self) is not BoardPolicy:
            return super().actor()
        unfolded = copy.deepcopy(self)
        unfolded.body = nn.Sequential(*(x.unfold() if isinstance(x, PoseLinear) else x for x in self.body))
        unfolded.head.linear = self.head.linear.unfold()  # type: ignore[operator]
        if type(self.features_extractor) is Planes and only_linear(unfolded):
            return BoardActor(unfolded)
        return BlockActor(unfolded) if self.device.type == "cpu" else unfolded


class BoardActor(MlpActor):
    """Acts as a `BoardPolicy` does, whose layers were unfolded."""

    def __init__(self, policy: BoardPolicy):
        super().__init__(policy)
        self._planes: Any = policy.features_extractor

    def _features(self, observations: Array) -> FloatArray:
        boards: Any = self._preprocessor.structured(torch.from_numpy(observations), None)
        return in_blocks(self._planes(boards[""]).numpy())


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], len(weight), device="meta")  # draws no weights, which are replaced at once
    linear.weight, linear.bias = nn.Parameter(weight.detach()), nn.Parameter(bias.detach())
    return linear


def _side_by_side(index: Tensor, n: int) -> Tensor:
    """Repeat an index for each of n planes or units, `[8, k]` → `[8, n·k]`."""
    k = index.shape[1]
    return (index[:, None] + k * torch.arange(n)[:, None]).flatten(1)
