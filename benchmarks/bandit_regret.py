"""The dynamic bandit without noise and with it: regret, and steps to the best arm, beside players who know the odds.

python -m benchmarks.bandit_regret        # adds what is missing to results/bandit_regret.jsonl, writes bandit_regret.md
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from grpo_envs.bandit_players import UCB1, DiscountedThompsonSampling, ThompsonSampling, UniformArms
from grpo_envs.bandits_vector import DynamicBanditVectorEnv
from grpo_envs.players import Player
from gymnasium.wrappers import FrameStackObservation
from numpy.typing import NDArray

from grpo_gym import GRPO, BaseCallback, recipe

ENV = "grpo/DynamicBandit-v0"
RESULTS = Path(__file__).parent / "results" / "bandit_regret.jsonl"
STEPS = 200_000
N_GAMES = 1_000
REGIMES = {20: "arm 3 from step 20", 60: "arm 0 from step 60"}
"""Regimes in which some arm is best, by their first step; each lasts 20."""

NOISES: dict[str, str | None] = {"none": None, "gaussian": "gaussian", "bernoulli": "bernoulli"}
WINDOWS = {"none": 1, "gaussian": 1, "bernoulli": 10}
"""Pulls that the agent sees: a single pull of 0 or 1 tells too little of an arm."""

STD: dict[str, dict[str, Any]] = {"gaussian": {"noise_std": 0.1, "seed": 0}, "bernoulli": {"seed": 0}}
"""Thompson sampling is told the noise; of exact rewards it makes coin flips with that mean."""

PLAYERS: dict[str, Callable[[str], Player]] = {
    "Thompson sampling, discount 0.9": lambda kind: DiscountedThompsonSampling(5, kind, discount=0.9, **STD[kind]),
    "Thompson sampling": lambda kind: ThompsonSampling(5, kind, **STD[kind]),
    "UCB1": lambda kind: UCB1(5, reward_range=0.2 if kind == "gaussian" else 1.0),
    "uniform": lambda kind: UniformArms(5, seed=0),
}


class Windowed:
    """An agent that sees the last pulls; the state is what it saw before."""

    def __init__(self, agent: GRPO, window: int):
        self.agent, self.window = agent, window

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        """Return drawn arms `[n]`, and the last pulls `[n, window, K + 1]`."""
        if self.window == 1:
            return self.agent.predict(observation, deterministic=deterministic)
        # the first observation is all zeros, as is what came before it
        past = np.zeros((len(observation), self.window, observation.shape[1]), np.float32) if state is None else state
        seen = np.concatenate([past[:, 1:], observation[:, None]], axis=1)
        return self.agent.predict(seen, deterministic=deterministic)[0], seen


class Budget(BaseCallback):
    """End training at the budget."""

    def _on_step(self) -> bool:
        return self.num_timesteps < STEPS


def train(noise: str | None, window: int, seed: int, steps: int = STEPS) -> GRPO:
    """Train by the recipe."""

    def make() -> gym.Env[Any, Any]:
        return FrameStackObservation(gym.make(ENV, noise=noise, disable_env_checker=True), window, padding_type="zero")

    spec = gym.spec(ENV)
    spec.kwargs.update(noise=noise)
    env = spec if window == 1 else make
    return GRPO("MlpPolicy", env, seed=seed, device="cpu", **recipe(ENV)).learn(steps, callback=Budget())


def play(player: Player, noise: str | None, n_games: int = N_GAMES) -> dict[str, Any]:
    """Play games from seeds that training never sees.

    Returns:
        "regret" a game, "regret by regime" in those that have a best arm, and "delays": steps from the start of such
        a regime until its best arm is, and stays, the one that is pulled most often; 20 if that never happens.
    """
    env = DynamicBanditVectorEnv(n_games, noise=noise)
    observations, _ = env.reset(seed=list(range(n_games)))
    regret, pulls = np.zeros((env.horizon, n_games)), np.zeros((env.horizon, env.n_arms))
    best = np.zeros(env.horizon, np.int64)
    start, state = np.ones(n_games, np.bool_), None
    for t in range(env.horizon):
        arms, state = player.predict(observations, state, start)
        observations, _, _, _, info = env.step(arms)
        regret[t], best[t] = info["regret"], info["best_arm"][0]
        pulls[t] = np.bincount(arms, minlength=env.n_arms)
        start = np.zeros(n_games, np.bool_)
    wrong = pulls.argmax(axis=1) != best
    return {
        "regret": float(regret.sum(axis=0).mean()),
        "regret by regime": {str(t): float(regret[t : t + 20].sum(axis=0).mean()) for t in REGIMES},
        "delays": {str(t): delay(wrong[t : t + 20]) for t in REGIMES},
    }


def delay(wrong: NDArray[np.bool_]) -> int:
    """Count the steps up to the last that is wrong."""
    return int(np.flatnonzero(wrong).max(initial=-1)) + 1


def measure(name: str, seed: int) -> dict[str, Any]:
    """Train once and return the record."""
    noise, window = NOISES[name], WINDOWS[name]
    started = time.process_time()
    agent = train(noise, window, seed)
    seconds = time.process_time() - started
    scores = play(Windowed(agent, window), noise)
    steps = agent.num_timesteps
    return {"noise": name, "seed": seed, "steps": steps, "cpu_seconds": round(seconds, 1), **scores}


def table(records: Sequence[dict[str, Any]]) -> str:
    """Lay the seeds' means out beside the reference players; of delays the worst seed's."""
    lines = [
        "# Dynamic bandit: regret and adaptation",
        "",
        f"`python -m benchmarks.bandit_regret`: mean over {N_GAMES:,} games; of GRPO over training seeds [smallest,",
        f"largest], after {STEPS:,} steps by the recipe, drawing arms as in training. With Bernoulli noise it sees its",
        "last 10 pulls, else the last one. Delay: steps from a switch until the best arm is, and stays, the one that",
        "is pulled most often, of 20 (worst seed). GRPO was trained on this schedule, and so knows which arms",
        "ever pay, though not when; the others know nothing but the kind of noise.",
        "Raw results: `bandit_regret.jsonl`.",
        "",
        f"| noise | player | regret a game | {' | '.join(f'delay, {regime}' for regime in REGIMES.values())} |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name in dict.fromkeys(record["noise"] for record in records):
        rows = [record for record in records if record["noise"] == name]
        regrets = [row["regret"] for row in rows]
        cell = f"{np.mean(regrets):.2f} [{min(regrets):.2f}, {max(regrets):.2f}]"
        delays = [str(max(row["delays"][str(t)] for row in rows)) for t in REGIMES]
        lines.append(f"| {name} | GRPO, {len(rows)} seeds | {cell} | {' | '.join(delays)} |")
        for player, make in PLAYERS.items():
            scores = play(make("gaussian" if name == "gaussian" else "bernoulli"), NOISES[name])
            delays = [str(scores["delays"][str(t)]) for t in REGIMES]
            lines.append(f"| {name} | {player} | {scores['regret']:.2f} | {' | '.join(delays)} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing in the results, then write and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--noise", nargs="+", default=list(NOISES), choices=list(NOISES))
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    options.output.touch()
    records = [json.loads(line) for line in options.output.read_text().splitlines()]
    done = {(record["noise"], record["seed"]) for record in records}
    for noise in options.noise:
        for seed in options.seeds:
            if (noise, seed) not in done:
                records.append(measure(noise, seed))
                with options.output.open("a") as file:
                    file.write(json.dumps(records[-1]) + "\n")
                print(json.dumps(records[-1]), flush=True)
    text = table(records)
    options.output.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
