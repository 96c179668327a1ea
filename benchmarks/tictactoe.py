"""Tic-tac-toe played exactly: the opponent against whom a draw is the best result."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from grpo_gym.types import Predictor

LINES = ((0, 1, 2), (3, 4, 5), (6, 7, 8), (0, 3, 6), (1, 4, 7), (2, 5, 8), (0, 4, 8), (2, 4, 6))

Board = tuple[int, ...]
"""Nine cells: 1 for the player to move, −1 for the other, 0 where nobody is."""


@functools.cache
def value(board: Board) -> int:
    """Return what the game is worth to the player to move: 1, 0 or −1."""
    if _result(board):
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


class Lines(NamedTuple):
    """All games that an opponent can play against one who never varies, counted by how they end for that one."""

    won: int
    drawn: int
    lost: int


def play_all_lines(player: Predictor) -> Lines:
    """Play a player's most probable moves against every reply, from both seats.

    Where none is lost, nobody can win against it.
    """
    count = {1: 0, 0: 0, -1: 0}
    start: Board = (0,) * 9
    boards = [start, *(after(start, cell) for cell in range(9))]  # it moves first, or second
    while boards:
        cells = _moves(player, boards)
        given = [after(board, cell) for board, cell in zip(boards, cells, strict=True)]
        boards = []
        for board in given:
            if _ended(board):
                count[-_result(board)] += 1
                continue
            replies = [after(board, cell) for cell in range(9) if not board[cell]]
            for reply in replies:
                if _ended(reply):
                    count[_result(reply)] += 1
                else:
                    boards.append(reply)
    return Lines(count[1], count[0], count[-1])


def _ended(board: Board) -> bool:
    return all(board) or _result(board) < 0


def _result(board: Board) -> int:
    """Return −1 if the one to move has been beaten, else 0."""
    return -1 if any(all(board[cell] == -1 for cell in line) for line in LINES) else 0


def _moves(player: Predictor, boards: list[Board]) -> list[int]:
    cells = np.array(boards, np.int8).reshape(-1, 3, 3)
    observation = {
        "observation": np.stack([cells == 1, cells == -1], axis=-1).astype(np.int8),
        "action_mask": (cells.reshape(-1, 9) == 0).astype(np.int8),
    }
    moves, _ = player.predict(observation, deterministic=True)
    return [int(move) for move in moves]
