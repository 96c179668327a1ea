"""Games between players of any kind: what each earns, and who wins."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from grpo_gym import arguments
from grpo_gym.marl_games import Ask, Game, make_games
from grpo_gym.types import Array, Predictor


class RandomPlayer:
    """Draws legal actions, all alike.

    Args:
        action_space: of the player.
        seed: of what is drawn.
    """

    def __init__(self, action_space: gym.Space[Any], seed: int = 0):
        self._space, self._rng = action_space, np.random.default_rng(seed)

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
        action_masks: Any = None,
    ) -> tuple[Any, Any]:
        """Draw an action for each of a batch of observations; the one argument that matters is `action_masks`."""
        first = next(iter(observation.values())) if isinstance(observation, dict) else observation
        n = len(first)
        if isinstance(self._space, gym.spaces.Box):
            return self._rng.uniform(self._space.low, self._space.high, (n, *self._space.shape)).astype(
                self._space.dtype
            ), state
        assert isinstance(self._space, gym.spaces.Discrete)
        legal = np.ones((n, int(self._space.n)), np.bool_) if action_masks is None else action_masks
        actions = np.where(legal, self._rng.random(legal.shape), -1.0).argmax(axis=1)
        return actions + int(self._space.start), state


class MatchResult(NamedTuple):
    """Games that the first of two sides won, drew and lost."""

    wins: int
    draws: int
    losses: int


def play_games(
    env: Any,
    players: Mapping[str, Predictor] | Predictor,
    n_games: int = 100,
    first_seed: int = 0,
    deterministic: bool = True,
    max_steps: int = 10_000,
    n_envs: int = 64,
) -> list[dict[str, float]]:
    """Play whole games, game i from the seed `first_seed + i`; each player chooses for all games at once.

    Args:
        env: see `MultiGRPO`.
        players: who plays for each agent; or one who plays for all. `predict` gets a batch of the environment's own
            observations, and `action_masks` and `agent` if it takes them.
        n_games: number of games.
        first_seed: training never uses seeds below 2²⁴.
        deterministic: passed on to the players.
        max_steps: environment steps after which a game is left.
        n_envs: games in play at once.

    Returns:
        What each agent earned in each game, not discounted.
    """
    arguments.whole("n_games", n_games, 1)
    games = make_games(env, min(n_envs, n_games))
    results: list[dict[str, float]] = []
    for first in range(0, n_games, len(games)):
        seeds = range(first_seed + first, first_seed + min(first + len(games), n_games))
        results += _play(games[: len(seeds)], seeds, players, deterministic, max_steps)
    for game in games:
        game.env.close()
    return results


def play_match(
    env: Any,
    ours: Predictor,
    theirs: Predictor,
    n_games: int = 1000,
    first_seed: int = 0,
    deterministic: bool = True,
) -> MatchResult:
    """Count what one side wins, draws and loses against the other in a game for two.

    Each seed is played twice, with the seats swapped.

    Args:
        env: see `MultiGRPO`.
        ours: its games are counted.
        theirs: its opponent.
        n_games: number of games, even.
        first_seed: see `play_games`.
        deterministic: see `play_games`.

    Raises:
        ValueError: if the game is not one for two, or n is odd.
    """
    (probe,) = make_games(env, 1)
    seats = list(probe.env.possible_agents)
    probe.env.close()
    if len(seats) != 2 or n_games % 2 or n_games < 2:
        raise ValueError(f"a match needs a game for two, got {seats}, and an even number of games, got {n_games}")
    leads = []
    for mine, other in (seats, seats[::-1]):
        played = play_games(env, {mine: ours, other: theirs}, n_games // 2, first_seed, deterministic)
        leads += [game[mine] - game[other] for game in played]
    return MatchResult(*(int(np.count_nonzero(np.sign(leads) == sign)) for sign in (1, 0, -1)))


def _play(
    games: list[Game], seeds: range, players: Mapping[str, Predictor] | Predictor, deterministic: bool, max_steps: int
) -> list[dict[str, float]]:
    totals: list[dict[str, float]] = [{} for _ in games]
    for game, seed, total in zip(games, seeds, totals, strict=True):
        game.start(seed)
        _add(game, total)
    for _ in range(max_steps):
        batches: dict[str, list[tuple[int, int, Ask]]] = {}
        chosen: dict[int, list[Any]] = {}
        for g, game in enumerate(games):
            if game.asks:
                chosen[g] = [None] * len(game.asks)
                for i, ask in enumerate(game.asks):
                    batches.setdefault(ask.agent, []).append((g, i, ask))
        if not chosen:
            return totals
        for agent, batch in batches.items():
            player = players[agent] if isinstance(players, Mapping) else players
            actions = _predicted(player, agent, [ask for _, _, ask in batch], deterministic)
            for (g, i, _), action in zip(batch, actions, strict=True):
                chosen[g][i] = action.item() if np.ndim(action) == 0 else action
        for g, sent in chosen.items():
            games[g].act(sent)
            _add(games[g], totals[g])
    return totals


def _predicted(player: Predictor, agent: str, asks: list[Ask], deterministic: bool) -> Array:
    """Ask a player for the actions of one agent in several games."""
    first = asks[0].observation
    observation: Any
    if isinstance(first, dict):
        observation = {key: np.stack([ask.observation[key] for ask in asks]) for key in first}
    else:
        observation = np.stack([ask.observation for ask in asks])
    takes = inspect.signature(player.predict).parameters
    more: dict[str, Any] = {"agent": agent} if "agent" in takes else {}
    if "action_masks" in takes and asks[0].mask is not None:
        more["action_masks"] = np.stack([ask.mask for ask in asks if ask.mask is not None])
    actions, _ = player.predict(observation, deterministic=deterministic, **more)
    return np.asarray(actions)


def _add(game: Game, total: dict[str, float]) -> None:
    for ask in game.asks:
        total.setdefault(ask.agent, 0.0)
    for agent, reward in game.rewards:
        total[agent] = total.get(agent, 0.0) + reward
