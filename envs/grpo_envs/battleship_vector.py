"""n games of Battleship in arrays: `step` has no Python loop over games."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space

from grpo_envs import slots
from grpo_envs.battleship import FLEET, BoolArray, Int8Array, checked_fleet, dealer, final_reward

FloatArray = npt.NDArray[np.float64]


class BattleshipVectorEnv(VectorEnv[Int8Array, slots.IntArray, npt.NDArray[Any]]):
    """`num_envs` games of `BattleshipEnv`, equal to it step for step when seeds and actions are equal.

    Nothing is reset by itself (`AutoresetMode.DISABLED`): reset finished slots with a `reset_mask`, or step
    the others alone with `env_id`. Infos are dictionaries of arrays; `info["action_mask"]` is `[k, size²]`
    int8. No returned array is ever written to again.

    Args:
        num_envs: number of games, n.
        board_size: see `BattleshipEnv`.
        fleet: see `BattleshipEnv`.
        placement: see `BattleshipEnv`.

    Raises:
        ValueError: if n < 1 or the fleet cannot be placed.
    """

    metadata = slots.metadata()

    def __init__(
        self, num_envs: int = 1, board_size: int = 5, fleet: Sequence[int] = FLEET, placement: str = "full"
    ) -> None:
        self._slots = slots.Slots(num_envs)
        self.num_envs = num_envs
        self.board_size = board_size
        self.fleet = checked_fleet(board_size, fleet, placement)
        self.placement = placement
        self.n_ship_cells = sum(self.fleet)
        self.n_water = board_size**2 - self.n_ship_cells
        self.single_observation_space = spaces.Box(-1, 1, (board_size, board_size), np.int8)
        self.single_action_space = spaces.Discrete(board_size**2)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._boards = np.zeros((num_envs, board_size**2), dtype=np.bool_)
        self._views = np.zeros((num_envs, board_size**2), dtype=np.int8)
        self._hits = np.zeros(num_envs, dtype=np.int64)
        self._misses = np.zeros(num_envs, dtype=np.int64)
        dealer(board_size, self.fleet, placement)  # an impossible fleet fails here

    def reset(
        self, *, seed: slots.Seeds = None, options: dict[str, Any] | None = None
    ) -> tuple[Int8Array, dict[str, Any]]:
        """Lay out new boards for all slots, or for those of `options["reset_mask"]`; see `Slots.deal`.

        Returns:
            Observations `[n, size, size]` and infos of all n slots, reset or not.
        """
        deal = dealer(self.board_size, self.fleet, self.placement)
        chosen, boards = self._slots.deal(seed, options, deal)
        self._boards[chosen] = boards
        self._views[chosen] = 0
        self._hits[chosen] = 0
        self._misses[chosen] = 0
        return self._observed(self._views.copy())

    def step(
        self, actions: Any, env_id: Any = None
    ) -> tuple[Int8Array, FloatArray, BoolArray, BoolArray, dict[str, Any]]:
        """Fire in all n games, or only in the k games of `env_id`; see `Slots.chosen`.

        Returns:
            Observations `[k, size, size]`, rewards, terminated, truncated `[k]` and infos, in the order of
            `env_id`.
        """
        chosen, cells = self._slots.chosen(actions, env_id, self.board_size**2)
        ship = self._boards[chosen, cells]
        hit = ship & (self._views[chosen, cells] == 0)
        self._views[chosen, cells] = np.where(ship, np.int8(1), np.int8(-1))
        hits = self._hits[chosen] + hit
        misses = self._misses[chosen] + ~hit
        self._hits[chosen] = hits
        self._misses[chosen] = misses
        terminated = (hits == self.n_ship_cells) | (misses > self.n_water)
        self._slots.playing[chosen] = ~terminated
        rewards = np.where(terminated, final_reward(misses, self.n_water), 0.0)
        observations, infos = self._observed(self._views[chosen])
        return observations, rewards, terminated, np.zeros(len(chosen), dtype=np.bool_), infos

    def action_masks(self) -> BoolArray:
        """Return True for each cell not yet fired at, `[n, size²]`."""
        masks: BoolArray = self._views == 0
        return masks

    def _observed(self, views: Int8Array) -> tuple[Int8Array, dict[str, Any]]:
        masks = (views == 0).astype(np.int8)
        return views.reshape(-1, self.board_size, self.board_size), {"action_mask": masks}
