"""Matches of Battleship for two, and what one is worth: `python -m grpo_envs.duel_players`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from grpo_envs.duel import AGENTS, MY_SHOTS, BattleshipDuel
from grpo_envs.players import FixedOrderPlayer, Player, PosteriorHunter, UniformPlayer

FloatArray = npt.NDArray[np.float64]


class Solo:
    """Let a player of `BattleshipEnv` play the duel: it sees its own shots alone.

    Args:
        player: made with the duel's board_size, fleet and placement.
    """

    def __init__(self, player: Player) -> None:
        self.player = player

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        """Return cells and the player's state, for one observation of `BattleshipDuel` or a batch of them."""
        shots = observation["observation"][..., MY_SHOTS, :, :]
        return self.player.predict(shots, state, episode_start, deterministic)


class MatchResult(NamedTuple):
    """Games that the first of two players won, drew and lost."""

    wins: int
    draws: int
    losses: int


def duel_rewards(player_0: Player, player_1: Player, n_games: int = 1000, seed: int = 0, **options: Any) -> FloatArray:
    """Play n games in step, game i on the boards of `seed + i`; each player chooses for all games at once.

    Args:
        player_0: fires first.
        player_1: fires second.
        n_games: number of games, n.
        seed: of the first game.
        options: see `BattleshipDuel`.

    Returns:
        Final rewards of both players, `[n, 2]`.

    Raises:
        ValueError: if n < 1.
    """
    if n_games < 1:
        raise ValueError(f"n_games={n_games} must be at least 1")
    games = [BattleshipDuel(**options) for _ in range(n_games)]
    for i, game in enumerate(games):
        game.reset(seed=seed + i)
    players = dict(zip(AGENTS, (player_0, player_1), strict=True))
    playing = games
    while playing:
        # all games are in the same round; finished ones leave, so only a player without state can be followed
        agent = playing[0].agent_selection
        seen = [game.observe(agent) for game in playing]
        cells, _ = players[agent].predict({key: np.stack([one[key] for one in seen]) for key in seen[0]})
        for game, cell in zip(playing, cells, strict=True):
            game.step(cell)
        playing = [game for game in playing if not game.terminations[agent]]
    return np.array([[game.rewards[agent] for agent in AGENTS] for game in games])


def play_match(player_a: Player, player_b: Player, n_games: int = 1000, seed: int = 0, **options: Any) -> MatchResult:
    """Count what `player_a` wins, draws and loses against `player_b`.

    Each pair of boards is played twice with the seats swapped, so that both players fire at the same boards,
    and half of the games each begin. An illegal shot loses the game.

    Args:
        player_a: its games are counted.
        player_b: its opponent.
        n_games: number of games, even.
        seed: pair i plays on the boards of `seed + i`.
        options: see `BattleshipDuel`.

    Raises:
        ValueError: if n is odd or < 2.
    """
    if n_games < 2 or n_games % 2:
        raise ValueError(f"n_games={n_games} must be even and at least 2: each pair of boards is played twice")
    first = duel_rewards(player_a, player_b, n_games // 2, seed, **options)
    second = duel_rewards(player_b, player_a, n_games // 2, seed, **options)
    lead = np.concatenate([first[:, 0] - first[:, 1], second[:, 1] - second[:, 0]])
    return MatchResult(*(int(np.count_nonzero(np.sign(lead) == sign)) for sign in (1, 0, -1)))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m grpo_envs.duel_players", description=__doc__)
    parser.add_argument("--games", type=int, default=1000, help="games a match, an even number")
    n_games = parser.parse_args(arguments).games
    fixed, hunter = Solo(FixedOrderPlayer()), Solo(PosteriorHunter())
    matches: list[tuple[str, Player, Player]] = [
        ("uniform vs uniform", Solo(UniformPlayer(seed=0)), Solo(UniformPlayer(seed=1))),
        ("fixed order vs uniform", fixed, Solo(UniformPlayer(seed=0))),
        ("hunter vs fixed order", hunter, fixed),
        ("hunter vs hunter", hunter, hunter),
    ]
    print(f"grpo/BattleshipDuel-v0, {n_games:,} games a match: share won, drawn and lost by the first named")
    for name, player_a, player_b in matches:
        won, drawn, lost = (count / n_games for count in play_match(player_a, player_b, n_games))
        print(f"  {name:24} {won:.3f}  {drawn:.3f}  {lost:.3f}")


if __name__ == "__main__":
    main()
