"""Steps per second of the native Battleship vector environment under random legal play, one thread.

OMP_NUM_THREADS=1 python benchmarks/battleship_throughput.py --games 1024 --seconds 5

Counted: every step, the choice of actions, and the resets of finished games by `reset_mask`. Legal actions
come from one random order of the cells a game, which is uniform over legal cells like a draw a shot, and cheap.
"""

from __future__ import annotations

import argparse
import time

import gymnasium as gym
import numpy as np


def measure(n_games: int, seconds: float, placement: str, seeded: bool) -> float:
    """Play for `seconds` and return steps per second.

    Args:
        n_games: slots played side by side.
        seconds: wall-clock time.
        placement: "full" or "top_left".
        seeded: give each reset game a seed of its own, as training does; otherwise streams go on.
    """
    env = gym.make_vec(
        "grpo_envs:grpo/Battleship-v0", n_games, vectorization_mode="vector_entry_point", placement=placement
    )
    rng = np.random.default_rng(0)
    n_cells = 25
    orders = rng.random((n_games, n_cells)).argsort(axis=1)
    shots = np.zeros(n_games, dtype=np.int64)
    rows = np.arange(n_games)
    next_seed = n_games
    env.reset(seed=0)
    n_steps = 0
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds:
        _, _, terminated, _, _ = env.step(orders[rows, shots])
        shots += 1
        n_steps += n_games
        if terminated.any():
            n_over = int(np.count_nonzero(terminated))
            orders[terminated] = rng.random((n_over, n_cells)).argsort(axis=1)
            shots[terminated] = 0
            seed = None
            if seeded:
                seed = np.where(terminated, next_seed + np.cumsum(terminated), 0).tolist()
                next_seed += n_over
            env.reset(seed=seed, options={"reset_mask": terminated})
    return n_steps / (time.perf_counter() - begin)


def main() -> None:
    """Print one line a setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--games", type=int, default=1024, help="slots played side by side")
    parser.add_argument("--seconds", type=float, default=3.0, help="time for each line")
    arguments = parser.parse_args()
    for placement in ("full", "top_left"):
        for seeded in (False, True):
            speed = measure(arguments.games, arguments.seconds, placement, seeded)
            resets = "a new seed each game" if seeded else "streams go on"
            print(f"{arguments.games} games, placement={placement}, {resets}: {speed:,.0f} steps/s")


if __name__ == "__main__":
    main()
