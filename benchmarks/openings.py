"""Tic-tac-toe that begins after a few moves drawn at random: in self-play alone most positions hardly ever come up.

The seed of a game decides its opening, so that all games of a group begin in the same position.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pettingzoo.classic.tictactoe import tictactoe

LONGEST = 6
"""Moves of an opening, at most."""


class Openings(tictactoe.raw_env):  # type: ignore[misc]
    """PettingZoo's tic-tac-toe, for training."""

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
        """Play an opening of 0 to `LONGEST` moves, after which nobody has won."""
        rng = np.random.default_rng(seed)
        n_moves = int(rng.integers(LONGEST + 1))
        while True:
            super().reset(seed=seed, options=options)
            for move in rng.permutation(9)[:n_moves]:
                if not any(self.terminations.values()):
                    self.step(int(move))
            if not any(self.terminations.values()):
                return


env = Openings
