"""Play the reference players, and print what a score is worth: `python -m grpo_envs.players`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from grpo_envs.bandit_players import (
    UCB1,
    ArmStatistics,
    DiscountedThompsonSampling,
    ThompsonSampling,
    UniformArms,
    lai_robbins,
)
from grpo_envs.bandits_vector import ArmsVectorEnv, BanditVectorEnv, DynamicBanditVectorEnv
from grpo_envs.battleship import PLACEMENTS, enumerate_boards
from grpo_envs.battleship_players import (
    FixedOrderPlayer,
    PosteriorHunter,
    UniformPlayer,
    fixed_order_score,
    hunter_score,
    marginal_order,
    uniform_score,
)
from grpo_envs.battleship_vector import BattleshipVectorEnv

__all__ = [
    "UCB1",
    "ArmStatistics",
    "DiscountedThompsonSampling",
    "FixedOrderPlayer",
    "Player",
    "PosteriorHunter",
    "ThompsonSampling",
    "UniformArms",
    "UniformPlayer",
    "bandit_regret",
    "battleship_rewards",
    "fixed_order_score",
    "hunter_score",
    "lai_robbins",
    "marginal_order",
    "uniform_score",
]

FloatArray = npt.NDArray[np.float64]


class Player(Protocol):
    """Whatever chooses actions for a batch of observations, as stable-baselines3's models do."""

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        """Return actions and the state to be handed in next time."""
        ...


def battleship_rewards(player: Player, env: BattleshipVectorEnv, seed: int = 0) -> FloatArray:
    """Play one game in each slot, slot i on the board of `seed + i`.

    Returns:
        Final rewards `[n]`.
    """
    observations, _ = env.reset(seed=seed)
    total = np.zeros(env.num_envs)
    slots = np.arange(env.num_envs)
    while len(slots):
        # finished games leave the batch, so only a player without state can be followed here
        actions, _ = player.predict(observations)
        observations, rewards, terminated, _, _ = env.step(actions, env_id=slots)
        total[slots] += rewards
        observations, slots = observations[~terminated], slots[~terminated]
    return total


def bandit_regret(player: Player, env: ArmsVectorEnv, seed: int = 0) -> FloatArray:
    """Play one game in each slot, slot i with the arms and noise of `seed + i`.

    Returns:
        Regret of each step, in mean-reward units, `[n, T]`; sum over T for the regret of a game.
    """
    observations, _ = env.reset(seed=seed)
    regret = np.zeros((env.num_envs, env.horizon))
    start = np.ones(env.num_envs, dtype=np.bool_)
    state = None
    for step in range(env.horizon):
        actions, state = player.predict(observations, state, start)
        observations, _, _, _, infos = env.step(actions)
        regret[:, step] = infos["regret"]
        start = np.zeros(env.num_envs, dtype=np.bool_)
    return regret


def _with_error(values: FloatArray) -> str:
    """Mean ± standard error."""
    return f"{values.mean():.3f} ± {values.std(ddof=1) / np.sqrt(len(values)):.3f}"


def _print_battleship(n_games: int) -> None:
    for placement in PLACEMENTS:
        boards = enumerate_boards(placement=placement)
        n_boards = len(np.unique(boards, axis=0))
        print(f"grpo/Battleship-v0, placement={placement}: {len(boards):,} placements, {n_boards:,} boards")
        env = BattleshipVectorEnv(n_games, placement=placement)
        players: list[tuple[str, Player, float]] = [
            ("uniform over legal cells", UniformPlayer(seed=0), uniform_score()),
            (
                "fixed order by marginals",
                FixedOrderPlayer(placement=placement),
                fixed_order_score(boards, marginal_order(boards)),
            ),
            ("greedy exact posterior", PosteriorHunter(placement=placement), hunter_score(boards)),
        ]
        for name, player, exact in players:
            print(f"  {name:26} exact {exact:.4f}   played {_with_error(battleship_rewards(player, env))}")


def _print_stationary(n_games: int, horizon: int) -> None:
    for noise, unit in (("bernoulli", 1.0), ("gaussian", 2.0)):
        env = BanditVectorEnv(n_games, horizon=horizon, noise=noise)
        print(f"grpo/Bandit-v0, 10 arms, {horizon} steps, {noise} noise: regret of a game")
        players: list[tuple[str, Player]] = [
            ("uniform", UniformArms(10, seed=0)),
            ("UCB1", UCB1(10, reward_range=unit)),
            ("Thompson sampling", ThompsonSampling(10, noise, seed=0)),
        ]
        for name, player in players:
            print(f"  {name:26} {_with_error(bandit_regret(player, env).sum(axis=1))}")


def _print_dynamic(n_games: int) -> None:
    players: list[tuple[str, Callable[[], Player]]] = [
        ("uniform", lambda: UniformArms(5, seed=0)),
        ("UCB1", lambda: UCB1(5)),
        ("Thompson sampling", lambda: ThompsonSampling(5, seed=0)),
        ("discounted TS, 0.9", lambda: DiscountedThompsonSampling(5, discount=0.9, seed=0)),
    ]
    env = DynamicBanditVectorEnv(n_games, noise="bernoulli")
    print("grpo/DynamicBandit-v0, bernoulli noise: regret in steps 20–39 (arm 3) and 60–79 (arm 0)")
    for name, make in players:
        regret = bandit_regret(make(), env)
        first, second = regret[:, 20:40].sum(axis=1), regret[:, 60:80].sum(axis=1)
        print(f"  {name:26} {_with_error(first)}   {_with_error(second)}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m grpo_envs.players", description=__doc__)
    parser.add_argument("--games", type=int, default=1000, help="games a player; ± is the standard error")
    parser.add_argument("--horizon", type=int, default=1000, help="steps of a game of the stationary bandit")
    options = parser.parse_args(arguments)
    _print_battleship(options.games)
    _print_stationary(options.games, options.horizon)
    _print_dynamic(options.games)


if __name__ == "__main__":
    main()
