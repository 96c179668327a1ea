"""Tic-tac-toe played exactly: the opponent against whom a draw is the best result."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

LINES = ((0, 1, 2), (3, 4, 5), (6, 7, 8), (0, 3, 6), (1, 4, 7), (2, 5, 8), (0, 4, 8), (2, 4, 6))

Board = tuple[int, ...]
"""Nine cells: 1 for the player to move, −1 for the other, 0 where nobody is."""


@functools.cache
def value(board: Board) -> int:
    """Return what the game is worth to the player to move: 1, 0 or −1."""
    if any(all(board[cell] == -1 for cell in line) for line in LINES):
        return -1
    moves = [cell for cell in range(9) if not board[cell]]
    return max((-value(after(board, cell)) for cell in moves), default=0)


def after(board: Board, cell: int) -> Board:
    """Return the board after a move, as the other sees it."""
    return tuple(-x for x in (*board[:cell], 1, *board[cell + 1 :]))


class ExactPlayer:
    """Never gives anything away; among equally good moves it draws one.

    Args:
        seed: of what is drawn.
    """

    def __init__(self, seed: int = 0):
        self._rng = np.random.default_rng(seed)

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        """Return the cells to take, for a batch of PettingZoo's observations."""
        planes = observation["observation"].astype(int)
        cells = []
        for board in (planes[..., 0] - planes[..., 1]).reshape(-1, 9).tolist():
            values = {cell: -value(after(tuple(board), cell)) for cell in range(9) if not board[cell]}
            cells.append(self._rng.choice([cell for cell, x in values.items() if x == max(values.values())]))
        return np.array(cells), state
