"""Reference players of Battleship, and their exact scores over all placements.

A player's `predict` takes one observation `[size, size]` or a batch `[n, size, size]`. Players read legal
cells from the observation, keep no state, and play the same whatever `deterministic` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from grpo_envs.battleship import FLEET, BoolArray, checked_fleet, enumerate_boards, final_reward

IntArray = npt.NDArray[np.int64]

# rows at a time against all boards: keeps the float32 matrices of the hunter near 10 MB
_CHUNK = 256


class UniformPlayer:
    """Fire at a cell drawn uniformly from those not yet fired at.

    Args:
        seed: of the player's own random stream.
    """

    def __init__(self, seed: int | None = None) -> None:
        self._rng = np.random.default_rng(seed)

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, None]:
        """Return cells `[n]` (or one cell) and None."""
        cells, single = _flat_batch(observation)
        chosen = (self._rng.random(cells.shape) * (cells == 0)).argmax(axis=1)
        return (chosen[0] if single else chosen), None


class FixedOrderPlayer:
    """Fire in one fixed order, the cells likeliest to hold a ship first; never looks at the outcome of a shot.

    Cells that tie are taken row by row. On the 5×5 board of placement "full" the order of ties moves the exact
    score between 0.189 and 0.192; on "top_left" it does not matter.

    Args:
        board_size: of the game it plays.
        fleet: of the game it plays.
        placement: of the game it plays.
    """

    def __init__(self, board_size: int = 5, fleet: Sequence[int] = FLEET, placement: str = "full") -> None:
        self.order = marginal_order(enumerate_boards(board_size, fleet, placement))

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, None]:
        """Return cells `[n]` (or one cell) and None."""
        cells, single = _flat_batch(observation)
        chosen = self.order[(cells[:, self.order] == 0).argmax(axis=1)]
        return (chosen[0] if single else chosen), None


class PosteriorHunter:
    """Fire at the cell most likely to hold a ship, given every placement that fits what was seen.

    Exact posterior, greedy choice; equal cells: the first, row by row. Greedy is not proven optimal.

    Args:
        board_size: of the game it plays.
        fleet: of the game it plays.
        placement: of the game it plays.

    Raises:
        ValueError: if the game has too many placements to be enumerated.
    """

    def __init__(self, board_size: int = 5, fleet: Sequence[int] = FLEET, placement: str = "full") -> None:
        placements = enumerate_boards(board_size, fleet, placement)
        boards, counts = np.unique(placements, axis=0, return_counts=True)
        self._signs = np.where(boards, 1, -1).astype(np.float32).T
        # float32 counts placements exactly up to 2²⁴
        self._weighted = (boards * counts[:, None]).astype(np.float32)

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, None]:
        """Return cells `[n]` (or one cell) and None.

        Raises:
            ValueError: if an observation fits no placement of this player's game.
        """
        cells, single = _flat_batch(observation)
        # early in a batch of games nearly all see the same
        views, index = np.unique(cells, axis=0, return_inverse=True)
        chosen = np.concatenate([self._hunt(views[i : i + _CHUNK]) for i in range(0, len(views), _CHUNK)])
        chosen = chosen[index.reshape(-1)]
        return (chosen[0] if single else chosen), None

    def _hunt(self, views: npt.NDArray[np.int8]) -> IntArray:
        fired = np.count_nonzero(views, axis=1)
        # a hit on a ship and a miss on water each count 1: all shots agree where the sum is the number fired
        fits = views.astype(np.float32) @ self._signs == fired[:, None]
        hopeless = ~fits.any(axis=1)
        if hopeless.any():
            raise ValueError(
                f"observation {views[hopeless.argmax()].tolist()} fits no placement of this player's game; make "
                "the player with the environment's board_size, fleet and placement"
            )
        likely = fits.astype(np.float32) @ self._weighted
        likely[views != 0] = -1.0
        cells: IntArray = likely.argmax(axis=1)
        return cells


def marginal_order(boards: BoolArray) -> IntArray:
    """Sort the cells by how many of the boards `[n, cells]` have a ship there, most first, ties row by row."""
    return np.argsort(-boards.sum(axis=0), kind="stable")


def uniform_score(board_size: int = 5, fleet: Sequence[int] = FLEET) -> float:
    """Exact mean reward of `UniformPlayer` on any board.

    In a random order of W water and S ship cells, each water cell comes before the last ship cell with
    probability S/(S+1): S·W/(S+1) misses on average.
    """
    n_ship = sum(checked_fleet(board_size, fleet, "full"))
    n_water = board_size**2 - n_ship
    return float(final_reward(n_ship * n_water / (n_ship + 1), n_water))


def fixed_order_score(boards: BoolArray, order: npt.ArrayLike) -> float:
    """Exact mean reward of firing in `order` at each of the boards `[n, cells]`."""
    n_ship = int(boards[0].sum())
    n_water = boards.shape[1] - n_ship
    in_order = boards[:, np.asarray(order)]
    shots = boards.shape[1] - in_order[:, ::-1].argmax(axis=1)
    return float(np.mean(final_reward(shots - n_ship, n_water)))


def hunter_score(boards: BoolArray) -> float:
    """Exact mean reward of `PosteriorHunter` over the boards `[n, cells]` that it reckons with.

    All games begin with the same view, and part only where a shot hits some boards and misses others: the
    games form a tree, whose leaves are boards.
    """
    n_ship = int(boards[0].sum())
    n_water = boards.shape[1] - n_ship
    total = 0.0
    branches = [(np.arange(len(boards)), np.zeros(boards.shape[1], dtype=np.bool_), 0)]
    while branches:
        fitting, fired, misses = branches.pop()
        counts = boards[fitting].sum(axis=0)
        if counts.max() == len(fitting) and np.count_nonzero(counts) == n_ship:
            # one board is left: what remains is hit without a miss
            total += len(fitting) * float(final_reward(misses, n_water))
            continue
        cell = int(np.where(fired, -1, counts).argmax())
        hit = boards[fitting, cell]
        fired = fired.copy()
        fired[cell] = True
        for part, missed in ((fitting[hit], 0), (fitting[~hit], 1)):
            if len(part):
                branches.append((part, fired, misses + missed))
    return total / len(boards)


def _flat_batch(observation: Any) -> tuple[npt.NDArray[np.int8], bool]:
    """`[size, size]` or `[n, size, size]` → `[n, size²]`, and whether it was one."""
    view = np.asarray(observation)
    if view.ndim not in (2, 3) or view.shape[-1] != view.shape[-2]:
        raise ValueError(f"observation has shape {view.shape}; expected [size, size] or [n, size, size]")
    return view.reshape(-1, view.shape[-1] ** 2).astype(np.int8), view.ndim == 2
