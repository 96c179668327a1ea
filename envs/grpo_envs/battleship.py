"""Battleship against a hidden board: the rules as pure functions, and the environment of one game.

Boards are flat, row by row: cell `size * row + column`. "Placement" means where each ship lies; two
placements can cover the same cells, so there are fewer distinct boards than placements.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from grpo_envs import rendering

BoolArray = npt.NDArray[np.bool_]
Int8Array = npt.NDArray[np.int8]
Deal = Callable[[np.random.Generator], BoolArray]

PLACEMENTS = ("full", "top_left")
FLEET = (2, 3, 4)
# beyond this many combinations a table of all boards costs more memory than a game is worth: boards are
# then drawn ship by ship until none collide, which is the same distribution
MAX_ENUMERATED = 1_000_000
_TRIES_AT_ONCE, _BATCHES_OF_TRIES = 64, 1_000


def checked_fleet(board_size: int, fleet: Sequence[int], placement: str) -> tuple[int, ...]:
    """Return the fleet in ascending size, the order in which it is placed.

    Raises:
        ValueError: if board, fleet or placement make no game.
    """
    if placement not in PLACEMENTS:
        raise ValueError(f"placement={placement!r} is not known; choose from {', '.join(PLACEMENTS)}")
    ships = tuple(sorted(operator.index(ship) for ship in fleet))
    if not ships or ships[0] < 1:
        raise ValueError(f"fleet={tuple(fleet)} must hold at least one ship, each of one cell or more")
    if ships[-1] > board_size:
        raise ValueError(
            f"a ship of {ships[-1]} cells does not fit on a {board_size}×{board_size} board; "
            f"raise board_size to {ships[-1]} or shorten the ship"
        )
    if sum(ships) > board_size**2:
        raise ValueError(
            f"fleet={ships} covers {sum(ships)} cells, but a {board_size}×{board_size} board has only "
            f"{board_size**2}; take ships out or raise board_size"
        )
    return ships


def ship_positions(board_size: int, length: int, placement: str) -> BoolArray:
    """List every way in which one ship can lie, across first, then down.

    Args:
        board_size: side of the board, in cells.
        length: of the ship, in cells.
        placement: "full" uses the whole board. "top_left" draws both top-left coordinates from
            0 … board_size − length whichever way the ship lies, as microGRPO does: boards lean to the top left.

    Returns:
        True where the ship lies, `[k, board_size²]`.
    """
    span = board_size - length + 1
    other = board_size if placement == "full" else span
    positions = []
    for down in (False, True) if length > 1 else (False,):
        height, width = (length, 1) if down else (1, length)
        n_rows, n_columns = (span, other) if down else (other, span)
        for row in range(n_rows):
            for column in range(n_columns):
                board = np.zeros((board_size, board_size), dtype=np.bool_)
                board[row : row + height, column : column + width] = True
                positions.append(board.ravel())
    return np.stack(positions)


@lru_cache(maxsize=16)
def _all_positions(board_size: int, ships: tuple[int, ...], placement: str) -> tuple[BoolArray, ...]:
    return tuple(ship_positions(board_size, ship, placement) for ship in ships)


@lru_cache(maxsize=16)
def _table(board_size: int, ships: tuple[int, ...], placement: str) -> BoolArray:
    first, *others = _all_positions(board_size, ships, placement)
    boards = first
    for ship in others:
        # float32, because NumPy multiplies integer matrices without BLAS
        overlap = boards.astype(np.float32) @ ship.astype(np.float32).T
        left, right = np.nonzero(overlap == 0)
        boards = boards[left] | ship[right]
    if len(boards) == 0:
        raise ValueError(
            f"no way to place fleet={ships} on a {board_size}×{board_size} board with "
            f"placement={placement!r}; take ships out or raise board_size"
        )
    boards.flags.writeable = False  # every game of the process shares it
    return boards


def _n_combinations(board_size: int, ships: tuple[int, ...], placement: str) -> int:
    return math.prod(len(positions) for positions in _all_positions(board_size, ships, placement))


def enumerate_boards(board_size: int = 5, fleet: Sequence[int] = FLEET, placement: str = "full") -> BoolArray:
    """List the board of every placement of the fleet, in a fixed order; cached and read-only.

    Returns:
        True on ship cells, `[n_placements, board_size²]`; a board stands once per placement that makes it.

    Raises:
        ValueError: if the fleet cannot be placed, or in too many ways to be listed.
    """
    ships = checked_fleet(board_size, fleet, placement)
    n_combinations = _n_combinations(board_size, ships, placement)
    if n_combinations > MAX_ENUMERATED:
        raise ValueError(
            f"fleet={ships} on a {board_size}×{board_size} board has {n_combinations:,} combinations, more "
            f"than the {MAX_ENUMERATED:,} that are enumerated; take a smaller board or fewer ships"
        )
    return _table(board_size, ships, placement)


@lru_cache(maxsize=16)
def dealer(board_size: int, ships: tuple[int, ...], placement: str) -> Deal:
    """Return the function that draws a board, uniform over placements, from a generator.

    A board on which ships collide is drawn anew as a whole: placing ship after ship around the others would
    favour crowded boards. Listing the boards and drawing `rng.integers(n_placements)` is the same, only faster.

    Args:
        board_size: side of the board, in cells.
        ships: what `checked_fleet` returned.
        placement: see `ship_positions`.

    Raises:
        ValueError: if the fleet cannot be placed.
    """
    if _n_combinations(board_size, ships, placement) <= MAX_ENUMERATED:
        boards = _table(board_size, ships, placement)
        n_boards = len(boards)
        return lambda rng: boards[rng.integers(n_boards)]

    positions = _all_positions(board_size, ships, placement)
    counts = [len(p) for p in positions]

    def deal(rng: np.random.Generator) -> BoolArray:
        for _ in range(_BATCHES_OF_TRIES):
            picks = rng.integers(counts, size=(_TRIES_AT_ONCE, len(counts)))
            tries = sum(p[pick].astype(np.int8) for p, pick in zip(positions, picks.T, strict=True))
            fits = np.max(tries, axis=1) == 1
            if fits.any():
                board: BoolArray = tries[fits.argmax()] == 1
                return board
        raise ValueError(
            f"fleet={ships} collided in {_TRIES_AT_ONCE * _BATCHES_OF_TRIES:,} draws of a "
            f"{board_size}×{board_size} board; take ships out or raise board_size"
        )

    deal(np.random.default_rng(0))  # a hopeless fleet should fail when the game is made, not in training
    return deal


def final_reward(misses: Any, n_water: int) -> Any:
    """Score a finished game: 1 − misses / (n_water + 1), for a number or an array of misses.

    In legal play 1/(n_water + 1) … 1; exactly 0 when the game was lost.
    """
    return 1.0 - misses / (n_water + 1)


class BattleshipEnv(gym.Env[Int8Array, np.int64]):
    """Find and sink every ship of a hidden fleet with as few misses as possible.

    Observation: `Box(-1, 1, (size, size), int8)`: 0 fog, −1 miss, +1 hit.
    Action: `Discrete(size²)`, the cell to fire at, row by row.
    Reward: 0 until the game ends, then `1 − misses / (n_water + 1)`. It ends (`terminated`) when every ship
    cell is hit. `info["action_mask"]` (int8) and `action_masks()` (bool) are 1 where no shot fell yet.

    A shot at a cell fired at before is illegal, so that code without masks can still be trained: it changes
    nothing on the board and counts as a miss. A game with `n_water + 1` misses is lost: it ends with reward
    0, which legal play cannot reach. So no game is longer than size² shots, and there is no truncation.

    Ships may touch but not overlap. Two resets with the same seed give the same board.

    Args:
        board_size: side of the board, in cells.
        fleet: ship lengths in any order.
        placement: "full", or "top_left" for microGRPO's boards, which lean to the top left.
        render_mode: None, "ansi" or "rgb_array".

    Raises:
        ValueError: if the fleet cannot be placed, or an option is not known.
    """

    metadata = rendering.metadata()

    def __init__(
        self,
        board_size: int = 5,
        fleet: Sequence[int] = FLEET,
        placement: str = "full",
        render_mode: str | None = None,
    ) -> None:
        rendering.check_render_mode(render_mode)
        self.board_size = board_size
        self.fleet = checked_fleet(board_size, fleet, placement)
        self.placement = placement
        self.render_mode = render_mode
        self.n_ship_cells = sum(self.fleet)
        self.n_water = board_size**2 - self.n_ship_cells
        self.observation_space = spaces.Box(-1, 1, (board_size, board_size), np.int8)
        self.action_space = spaces.Discrete(board_size**2)
        self._board: BoolArray = np.zeros(board_size**2, dtype=np.bool_)
        self._view: Int8Array = np.zeros(board_size**2, dtype=np.int8)
        self._misses = 0
        self._playing = False
        dealer(board_size, self.fleet, placement)  # an impossible fleet fails here

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Int8Array, dict[str, Any]]:
        """Lay out a new board; with `seed`, the board of that seed."""
        super().reset(seed=seed)
        # looked up, not kept: the game stays picklable, and a deep copy does not copy the table
        self._board = dealer(self.board_size, self.fleet, self.placement)(self.np_random)
        self._view = np.zeros(self.board_size**2, dtype=np.int8)
        self._misses = 0
        self._playing = True
        return self._observation(), self._info()

    def step(self, action: int | np.integer[Any]) -> tuple[Int8Array, float, bool, bool, dict[str, Any]]:
        """Fire at a cell.

        Raises:
            ResetNeeded: if no game is in progress.
            ValueError: if there is no such cell.
        """
        if not self._playing:
            raise gym.error.ResetNeeded("no game in progress: it ended or never began; call reset() first")
        cell = operator.index(action)
        if not 0 <= cell < self.board_size**2:
            raise ValueError(f"action={cell} is not a cell of this board; expected 0 … {self.board_size**2 - 1}")
        fresh, ship = self._view[cell] == 0, bool(self._board[cell])
        self._misses += not (fresh and ship)
        self._view[cell] = 1 if ship else -1
        n_hits = np.count_nonzero(self._view == 1)
        terminated = n_hits == self.n_ship_cells or self._misses > self.n_water
        self._playing = not terminated
        reward = float(final_reward(self._misses, self.n_water)) if terminated else 0.0
        return self._observation(), reward, terminated, False, self._info()

    def action_masks(self) -> BoolArray:
        """Return True for each cell not yet fired at, `[size²]`; all False after a shot at the last one."""
        mask: BoolArray = self._view == 0
        return mask

    def render(self) -> Any:
        """Draw what the player sees: text ("ansi") or `[32·size, 32·size, 3]` uint8 ("rgb_array")."""
        if self.render_mode is None:
            rendering.warn_no_render_mode()
            return None
        view = self._observation()
        return rendering.board_text(view) if self.render_mode == "ansi" else rendering.board_image(view)

    def _observation(self) -> Int8Array:
        return self._view.reshape(self.board_size, self.board_size).copy()

    def _info(self) -> dict[str, Any]:
        return {"action_mask": self.action_masks().astype(np.int8)}
