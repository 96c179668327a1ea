"""The first thing to run: train three agents, show what they reached beside what is known.

python -m benchmarks.quickstart            # about a minute of one free core
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from grpo_envs.bandit_players import UCB1, DiscountedThompsonSampling, UniformArms
from grpo_envs.bandits_vector import DynamicBanditVectorEnv
from grpo_envs.battleship import enumerate_boards
from grpo_envs.battleship_players import fixed_order_score, hunter_score, marginal_order, uniform_score
from grpo_envs.battleship_vector import BattleshipVectorEnv
from grpo_envs.players import Player, bandit_regret

from grpo_gym import GRPO, BaseCallback, evaluate_policy
from grpo_gym.extras import need
from grpo_gym.recipes import RECIPES

N_POINTS = 12
"""Points of a learning curve."""


@dataclass(frozen=True)
class Task:
    """One training run of the quickstart, and what its score is to be compared with; None: the recipe's steps."""

    env_id: str
    measure: str
    score: Callable[[GRPO], float]
    references: dict[str, float]
    env_kwargs: dict[str, str] = field(default_factory=dict)
    total_timesteps: int | None = None


class Curve(BaseCallback):
    """Score the agent between iterations; the clock stands still meanwhile."""

    def __init__(self, score: Callable[[GRPO], float], total_timesteps: int):
        super().__init__()
        self.score, self.distance = score, total_timesteps / N_POINTS
        self.points: list[tuple[int, float]] = []
        self.seconds_scoring = 0.0

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if self.num_timesteps >= len(self.points) * self.distance:
            self.add()

    def add(self) -> None:
        """Add a point for the agent as it is now."""
        started = time.perf_counter()
        self.points.append((self.model.num_timesteps, self.score(self.model)))
        self.seconds_scoring += time.perf_counter() - started


def cartpole_score(agent: GRPO) -> float:
    """Mean return of greedy play over 20 episodes from seeds that training never sees."""
    rewards, _ = evaluate_policy(agent, "CartPole-v1", return_episode_rewards=True, seeds=range(20), warn=False)
    return float(np.mean(rewards))


def battleship_score(agent: GRPO) -> float:
    """Mean reward of greedy play on 2,000 boards that training never sees."""
    env = BattleshipVectorEnv(2_000, placement="top_left")
    rewards, _ = evaluate_policy(agent, env, return_episode_rewards=True, seeds=range(2_000), warn=False)
    return float(np.mean(rewards))


def bandit_score(agent: GRPO) -> float:
    """Mean regret of a game, drawing actions as in training, over 256 games."""
    return float(bandit_regret(agent, DynamicBanditVectorEnv(256)).sum(axis=1).mean())


def steps_to_best_arm(agent: GRPO, n_games: int = 256) -> dict[int, int]:
    """Count the steps from each structured regime's start until its best arm is, and stays, the likeliest.

    Returns:
        `{first step of the regime: steps}`; the regime's whole length if that never happens.
    """
    policy: Any = agent.policy
    env = DynamicBanditVectorEnv(n_games)
    observations, _ = env.reset(seed=list(range(n_games)))
    likeliest, best = [], []
    for _ in range(env.horizon):
        with torch.no_grad():
            distribution = policy.get_distribution(torch.as_tensor(observations))
        mean_probability = distribution.log_probs.exp().mean(dim=0)
        likeliest.append(int(mean_probability.argmax()))
        observations, _, _, _, info = env.step(agent.predict(observations)[0])
        best.append(int(info["best_arm"][0]))
    starts = [t for t in range(len(best)) if best[t] >= 0 and (t == 0 or best[t] != best[t - 1])]
    delays = {}
    for start in starts:
        regime = [t for t in range(start, len(best)) if best[start : t + 1] == [best[start]] * (t + 1 - start)]
        wrong = [t for t in regime if likeliest[t] != best[start]]
        delays[start] = max(wrong) + 1 - start if wrong else 0
    return delays


def tasks() -> list[Task]:
    """Return the three tasks; the reference players' scores are computed, those of other systems quoted."""
    boards = enumerate_boards(placement="top_left")
    arms = DynamicBanditVectorEnv(256)
    players: dict[str, Player] = {
        "discounted Thompson sampling": DiscountedThompsonSampling(5, discount=0.9, seed=0),
        "UCB1": UCB1(5),
        "uniform": UniformArms(5, seed=0),
    }
    return [
        Task(
            "CartPole-v1",
            "mean return, 20 episodes",
            cartpole_score,
            {"limit, and SB3 PPO (zoo) after 100k steps": 500.0, "solved": 475.0},
        ),
        Task(
            "grpo/Battleship-v0",
            "mean reward, 2,000 boards",
            battleship_score,
            {
                "greedy exact posterior": hunter_score(boards),
                "microGRPO after 2,000 iterations (its README)": 0.50,
                "best fixed order": fixed_order_score(boards, marginal_order(boards)),
                "random": uniform_score(),
            },
            {"placement": "top_left"},
            total_timesteps=1_000_000,
        ),
        Task(
            "grpo/DynamicBandit-v0",
            "regret a game (less is better)",
            bandit_score,
            {name: float(bandit_regret(player, arms).sum(axis=1).mean()) for name, player in players.items()},
        ),
    ]


def run(task: Task, folder: Path, seed: int, share: float) -> tuple[GRPO, Curve, float]:
    """Train by the recipe and return the agent, its curve, and the seconds of training."""
    recipe = RECIPES[task.env_id]
    spec = gym.spec(task.env_id)
    spec.kwargs.update(task.env_kwargs)
    agent = GRPO("MlpPolicy", spec, seed=seed, tensorboard_log=folder / "tensorboard", **recipe.arguments)
    steps = int((task.total_timesteps or recipe.total_timesteps) * share)
    curve = Curve(task.score, steps)
    started = time.perf_counter()
    print(f"{task.env_id}: {steps:,} steps")
    agent.learn(steps, callback=curve, tb_log_name=task.env_id.replace("/", "-"), progress_bar=True)
    seconds = time.perf_counter() - started - curve.seconds_scoring
    curve.add()
    agent.save(folder / task.env_id.replace("/", "-"))
    return agent, curve, seconds


def table(rows: Sequence[tuple[Task, Curve, float]]) -> str:
    """Lay out score, steps and seconds, and the reference lines beside each score."""
    lines = [f"{'environment':<22} {'score':>8} {'steps':>10} {'seconds':>8}   measure, and what to compare with"]
    for task, curve, seconds in rows:
        steps, score = curve.points[-1]
        lines.append(f"{task.env_id:<22} {score:>8.3f} {steps:>10,} {seconds:>8.1f}   {task.measure}")
        lines += [f"{'':<22} {value:>8.3f} {'':>10} {'':>8}   {name}" for name, value in task.references.items()]
    return "\n".join(lines)


def draw(rows: Sequence[tuple[Task, Curve, float]], path: Path) -> None:
    """Draw the learning curves with the reference lines into a PNG."""
    matplotlib = need("matplotlib", "plot", "drawing learning curves")
    matplotlib.use("Agg")
    plt = need("matplotlib.pyplot", "plot", "drawing learning curves")
    figure, axes = plt.subplots(1, len(rows), figsize=(5.2 * len(rows), 4), layout="constrained")
    for axis, (task, curve, _) in zip(axes, rows, strict=True):
        steps, scores = zip(*curve.points, strict=True)
        axis.plot(steps, scores, marker="o", markersize=3, color="tab:blue", label="GRPO", zorder=3)
        for (name, value), style in zip(task.references.items(), ("--", ":", "-.", (0, (1, 4))), strict=False):
            axis.axhline(value, linestyle=style, linewidth=1.2, color="0.35", label=f"{name}: {value:.3g}")
        axis.set(title=task.env_id, xlabel="environment steps", ylabel=task.measure, xlim=(0, None), ylim=(0, None))
        axis.ticklabel_format(axis="x", style="sci", scilimits=(0, 5))
        axis.legend(fontsize=7, loc="lower right" if "less" not in task.measure else "upper right")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, print the table, draw the curves, and say where everything is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/quickstart"), help="folder for what is written")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=1.0, help="share of each recipe's steps to train for")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # these networks are too small to share
    options.output.mkdir(parents=True, exist_ok=True)
    rows = []
    for task in tasks():
        agent, curve, seconds = run(task, options.output, options.seed, options.share)
        rows.append((task, curve, seconds))
    print("\n" + table(rows))
    for start, steps in steps_to_best_arm(agent).items():
        print(f"{'':<22} {steps:>8} steps after the switch at step {start} the best arm is, and stays, the likeliest")
    picture = options.output / "curves.png"
    draw(rows, picture)
    print(f"\nlearning curves:  {picture}")
    print(f"all the details:  .venv/bin/tensorboard --logdir {options.output / 'tensorboard'}")
    print(f"watch CartPole:   .venv/bin/grpo-gym play {options.output / 'CartPole-v1.zip'} CartPole-v1")


if __name__ == "__main__":
    main()
