"""Vine restarts against plain groups at equal environment steps, continuations included.

python -m benchmarks.vine                 # adds what is missing to results/vine.jsonl, writes results/vine.md
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpo_envs  # noqa: F401 registers the environments
import gymnasium as gym
import numpy as np
import torch

from grpo_gym import GRPO, BaseCallback, evaluate_policy

RESULTS = Path(__file__).parent / "results" / "vine.jsonl"


COMMON: dict[str, Any] = {"learning_rate": 1e-3, "n_epochs": 4, "normalize_observations": False}
"""Arguments that all matches have in common, where they do not say otherwise."""


@dataclass(frozen=True)
class Match:
    """One environment, with the arguments that all rivals share.

    Attributes:
        steps: budget in environment steps.
        arguments: of `GRPO`.
        env_kwargs: in training.
        scored: in evaluation, where they differ.
        n_episodes: greedy ones from common seeds that are scored.
    """

    steps: int
    arguments: dict[str, Any]
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    scored: dict[str, Any] = field(default_factory=dict)
    n_episodes: int = 1_000


MATCHES = {
    "CartPole-v1": Match(
        30_000, {"n_groups": 4, "group_size": 8, "batch_size": 128, "n_epochs": 10, "gamma": 0.98}, n_episodes=20
    ),
    "grpo/Battleship-v0": Match(
        150_000,
        {
            "learning_rate": "lin_0.002",
            "n_groups": 16,
            "group_size": 16,
            "batch_size": 1024,
            "gamma": 1.0,
            "policy_kwargs": {"net_arch": [128, 128], "one_hot_observations": True},
        },
        {"placement": "top_left"},
    ),
    "grpo/Countdown-v0": Match(
        150_000,
        {
            "n_groups": 16,
            "group_size": 16,
            "batch_size": 512,
            "gamma": 1.0,
            "ent_coef": 0.02,
            "policy_kwargs": {"net_arch": [128, 128], "activation_fn": torch.nn.ReLU},
        },
        scored={"split": "test", "format_weight": 0.0},
    ),
}

RIVALS: dict[str, dict[str, Any]] = {
    "leave_one_out": {"baseline": "leave_one_out"},
    "live_peers": {"baseline": "live_peers"},
    "vine, a state a group": {"baseline": "vine", "vine_states": 1},
    "vine, 4 states a group": {"baseline": "vine", "vine_states": 4},
}
"""Arguments by name; `vine_states` is multiplied by the number of groups."""


class Budget(BaseCallback):
    """End training at the budget: what was not learned from by then is not learned from at all."""

    def __init__(self, steps: int):
        super().__init__()
        self.steps = steps

    def _on_step(self) -> bool:
        return self.num_timesteps < self.steps


def measure(env_id: str, rival: str, seed: int) -> dict[str, Any]:
    """Train once and return the record."""
    match = MATCHES[env_id]
    arguments = {**match.arguments, **RIVALS[rival]}
    if "vine_states" in arguments:
        arguments["vine_states"] *= arguments["n_groups"]
    spec = gym.spec(env_id)
    spec.kwargs.update(match.env_kwargs)
    agent = GRPO("MlpPolicy", spec, seed=seed, device="cpu", **{**COMMON, **arguments})
    started = time.process_time()
    agent.learn(match.steps, callback=Budget(match.steps))
    seconds = time.process_time() - started
    kwargs = {**match.env_kwargs, **match.scored}
    env: Any = env_id
    if gym.spec(env_id).namespace == "grpo":
        env = gym.make_vec(env_id, match.n_episodes, vectorization_mode="vector_entry_point", **kwargs)
    rewards, _ = evaluate_policy(agent, env, return_episode_rewards=True, seeds=range(match.n_episodes), warn=False)
    score = float(np.mean(rewards))
    return {
        "env": env_id,
        "rival": rival,
        "seed": seed,
        "steps": agent.num_timesteps,
        "score": score,
        "cpu_seconds": round(seconds, 1),
    }


def table(records: Sequence[dict[str, Any]]) -> str:
    """Lay the scores of the seeds out, each environment's rivals below one another."""
    lines = [
        "# Vine restarts at equal steps",
        "",
        "`python -m benchmarks.vine`: mean greedy reward of each training seed; every step counts, those of",
        "continuations and those to come to a state included. Four continuations a state. Raw results: `vine.jsonl`.",
        "",
        "| environment | steps | baseline | mean | seeds | processor seconds |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for env_id, match in MATCHES.items():
        for rival in RIVALS:
            rows = [row for row in records if row["env"] == env_id and row["rival"] == rival]
            if rows:
                scores = " ".join(f"{row['score']:.3f}" for row in rows)
                mean = float(np.mean([row["score"] for row in rows]))
                seconds = float(np.mean([row["cpu_seconds"] for row in rows]))
                lines.append(f"| {env_id} | {match.steps:,} | {rival} | {mean:.3f} | {scores} | {seconds:.1f} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing in the results, then write and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[100, 101, 102])
    parser.add_argument("--envs", nargs="+", default=list(MATCHES), choices=list(MATCHES))
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    options.output.touch()
    records = [json.loads(line) for line in options.output.read_text().splitlines()]
    done = {(record["env"], record["rival"], record["seed"]) for record in records}
    for env_id in options.envs:
        for rival in RIVALS:
            for seed in options.seeds:
                if (env_id, rival, seed) not in done:
                    records.append(measure(env_id, rival, seed))
                    with options.output.open("a") as file:
                        file.write(json.dumps(records[-1]) + "\n")
                    print(json.dumps(records[-1]), flush=True)
    text = table(records)
    options.output.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
