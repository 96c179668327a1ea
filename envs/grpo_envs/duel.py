"""Battleship for two, as a PettingZoo AEC environment; importing this module registers it.

`grpo_envs.duel.env(**options)` makes the game, and so does `pettingzoo.make("aec", "grpo/BattleshipDuel-v0")`
from PettingZoo 1.27 on.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from grpo_envs import rendering
from grpo_envs.battleship import FLEET, Int8Array, checked_fleet, dealer

try:
    import pettingzoo
    from pettingzoo.utils.wrappers import OrderEnforcingWrapper
except ImportError as error:
    raise ImportError(
        "grpo_envs.duel needs pettingzoo, which is not installed: pip install 'grpo_gym[multiagent]'"
    ) from error

AGENTS = ("player_0", "player_1")
RENDER_MODES = ("human", "ansi")
# the planes of an observation; the first is what `BattleshipEnv` shows
MY_SHOTS, THEIR_SHOTS, MY_SHIPS = range(3)


class BattleshipDuel(pettingzoo.AECEnv):  # type: ignore[misc]
    """Sink the other's fleet in fewer shots than the other needs for yours.

    Both players have a hidden board of their own, drawn from the seed of the reset. They fire in turn, player_0
    first. The game ends with the round in which a fleet is sunk: +1 for the player who sank it and −1 for the
    other, or 0 for both if both fleets went down in that round.

    player_1 thus always has the last shot. Were the first to sink a fleet the winner at once, player_0 would win
    every tie: at 5×5, 61 of 100 games between two players who fire at random. A drawn starter is fair only on
    average, and decides those games by luck; a draw is worth what that coin is worth on average, without its
    noise. For players who do not look at the other's shots the two seats are worth exactly the same; one who
    does look knows one shot more as player_1.

    Observation: `{"observation": Box(-1, 1, (3, size, size), int8), "action_mask": Box(0, 1, (size²,), int8)}`,
    from the player's own side. Planes: my shots (0 fog, −1 miss, +1 hit), the other's shots at me (the same),
    my ships (1). The mask is 1 where I may fire, all 0 while it is not my turn and when the game is over.
    Action: `Discrete(size²)`, the cell to fire at, row by row.

    A shot at a cell fired at before is illegal. It ends the game with −1 for who fired it and 0 for the other,
    as PettingZoo's classic games have it. No game is longer than 2·size² shots, and there is no truncation.

    Args:
        board_size: see `BattleshipEnv`.
        fleet: see `BattleshipEnv`.
        placement: see `BattleshipEnv`.
        render_mode: None, "ansi", or "human" to print each position.
        hit_reward: given at once for each hit to who fired; nothing is taken from the other. 0: the result alone.
        play_out: the game goes on until both fleets are sunk; who is done waits. The result is the same, but comes
            at the end. For training: else who is slower never fires its last shots, where it has most to learn.

    Raises:
        ValueError: if the fleet cannot be placed, or an option is not known.
    """

    metadata: ClassVar[dict[str, Any]] = {
        "name": "battleship_duel_v0",
        "render_modes": list(RENDER_MODES),
        "render_fps": 4,
        "is_parallelizable": False,
    }

    def __init__(
        self,
        board_size: int = 5,
        fleet: Sequence[int] = FLEET,
        placement: str = "full",
        render_mode: str | None = None,
        hit_reward: float = 0.0,
        play_out: bool = False,
    ) -> None:
        rendering.check_render_mode(render_mode, RENDER_MODES)
        self.board_size = board_size
        self.fleet = checked_fleet(board_size, fleet, placement)
        self.placement = placement
        self.render_mode = render_mode
        self.hit_reward = hit_reward
        self.play_out = play_out
        self.n_ship_cells = sum(self.fleet)
        self.possible_agents = list(AGENTS)
        self.agents: list[str] = []
        self.observation_spaces = {
            agent: spaces.Dict(
                {
                    "observation": spaces.Box(-1, 1, (3, board_size, board_size), np.int8),
                    "action_mask": spaces.Box(0, 1, (board_size**2,), np.int8),
                }
            )
            for agent in AGENTS
        }
        self.action_spaces = {agent: spaces.Discrete(board_size**2) for agent in AGENTS}
        self._rng = np.random.default_rng()
        self._planes: Int8Array = np.zeros((2, 3, board_size**2), dtype=np.int8)
        self._hits = [0, 0]
        self._result: float | None = None
        self._playing = False
        dealer(board_size, self.fleet, placement)  # an impossible fleet fails here

    def observation_space(self, agent: str) -> spaces.Dict:
        """Return the space of what `agent` sees, the same object each time."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Discrete:
        """Return the cells that `agent` can name, the same object each time."""
        return self.action_spaces[agent]

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
        """Lay out two new boards; with `seed`, the boards of that seed."""
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        deal = dealer(self.board_size, self.fleet, self.placement)
        self._planes.fill(0)
        for planes in self._planes:
            planes[MY_SHIPS] = deal(self._rng)
        self._hits = [0, 0]
        self._result = None
        self._playing = True
        self.agents = list(AGENTS)
        self.agent_selection = AGENTS[0]
        self.rewards = dict.fromkeys(AGENTS, 0.0)
        self._cumulative_rewards = dict.fromkeys(AGENTS, 0.0)
        self.terminations = dict.fromkeys(AGENTS, False)
        self.truncations = dict.fromkeys(AGENTS, False)
        self.infos: dict[str, dict[str, Any]] = {agent: {} for agent in AGENTS}
        self._print_to_human()

    def step(self, action: Any) -> None:
        """Fire at a cell; when the game is over, take None and dismiss the player.

        Raises:
            ResetNeeded: if both players were dismissed, or no game ever began.
            ValueError: if there is no such cell, or a player of a finished game acts.
        """
        if not self._playing:
            if not self.agents:
                raise gym.error.ResetNeeded("no game in progress: it ended or never began; call reset() first")
            self._was_dead_step(action)
            return
        cell = operator.index(action)
        if not 0 <= cell < self.board_size**2:
            raise ValueError(f"action={cell} is not a cell of this board; expected 0 … {self.board_size**2 - 1}")
        me = AGENTS.index(self.agent_selection)
        mine, theirs = self._planes[me], self._planes[1 - me]
        if mine[MY_SHOTS, cell]:
            self._end(*((-1.0, 0.0) if me == 0 else (0.0, -1.0)))
        else:
            hit = theirs[MY_SHIPS, cell]
            mine[MY_SHOTS, cell] = theirs[THEIR_SHOTS, cell] = 1 if hit else -1
            self._hits[me] += int(hit)
            earned = [0.0, 0.0]
            earned[me] = self.hit_reward * int(hit)
            if me == 1 and self._result is None and self.n_ship_cells in self._hits:
                self._result = float(np.sign(self._hits[0] - self._hits[1]))
            if self._result is not None and (not self.play_out or min(self._hits) == self.n_ship_cells):
                self._end(earned[0] + self._result, earned[1] - self._result)
            else:
                self._give(*earned)
        the_other_waits = self._playing and self._result is not None and self._hits[1 - me] == self.n_ship_cells
        if not the_other_waits:
            self.agent_selection = AGENTS[1 - me]
        self._print_to_human()

    def observe(self, agent: str) -> dict[str, Int8Array]:
        """Return what `agent` sees, in arrays that are never written to again."""
        planes = self._planes[AGENTS.index(agent)]
        to_move = self._playing and agent == self.agent_selection
        mask = (planes[MY_SHOTS] == 0).view(np.int8) if to_move else np.zeros(self.board_size**2, dtype=np.int8)
        return {"observation": planes.reshape(3, self.board_size, self.board_size).copy(), "action_mask": mask}

    def render(self) -> str | None:
        """Draw the shots of both players side by side: return the text ("ansi") or print it ("human")."""
        if self.render_mode is None:
            rendering.warn_no_render_mode(RENDER_MODES)
            return None
        views = self._planes[:, MY_SHOTS].reshape(2, self.board_size, self.board_size)
        left, right = (
            [f"{agent} fires", *rendering.board_text(view).split("\n")]
            for agent, view in zip(AGENTS, views, strict=True)
        )
        width = max(map(len, left))
        text = "\n".join(f"{a:{width}}   {b}" for a, b in zip(left, right, strict=True))
        if self.render_mode == "ansi":
            return text
        print(text, end="\n\n")
        return None

    def close(self) -> None:
        """Do nothing: no window is ever opened."""

    def _end(self, reward_0: float, reward_1: float) -> None:
        self._playing = False
        self.terminations = dict.fromkeys(AGENTS, True)
        self._give(reward_0, reward_1)

    def _give(self, reward_0: float, reward_1: float) -> None:
        """Count these rewards; those of who just moved start anew, for it has seen what it had."""
        self._cumulative_rewards[self.agent_selection] = 0.0
        self.rewards = {AGENTS[0]: reward_0, AGENTS[1]: reward_1}
        self._accumulate_rewards()

    def _print_to_human(self) -> None:
        if self.render_mode == "human":
            self.render()


raw_env = BattleshipDuel


def env(**options: Any) -> pettingzoo.AECEnv:
    """Make a duel that says so when it is used in the wrong order, as PettingZoo's own games do.

    The wrapper takes more time than the game: where speed counts, use `raw_env`.

    Args:
        options: see `BattleshipDuel`.
    """
    return OrderEnforcingWrapper(BattleshipDuel(**options))


if hasattr(pettingzoo, "register"):  # from 1.27 on; before, PettingZoo has no ids and no `make`
    pettingzoo.register("aec", "grpo/BattleshipDuel-v0", entry_point="grpo_envs.duel:env")
