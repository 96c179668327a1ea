"""Countdown, masked and punished: accuracy on held-out problems, greedy, sampled and best of k.

python -m benchmarks.countdown            # adds what is missing to results/countdown.jsonl, writes results/countdown.md
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from grpo_envs.countdown_players import RandomWriter, Writer, countdown_successes
from grpo_envs.countdown_vector import CountdownVectorEnv

from grpo_gym import GRPO, BaseCallback
from grpo_gym.recipes import RECIPES

ENV = "grpo/Countdown-v0"
RESULTS = Path(__file__).parent / "results" / "countdown.jsonl"
TABLE = RESULTS.with_suffix(".md")
N_PROBLEMS = 1_000
K = 16
FIRST_SEED = 1_000_000
"""Of the scored problems; which problems are held out does not depend on it."""


class Player:
    """The agent as a writer of expressions."""

    def __init__(self, agent: GRPO, greedy: bool):
        self.agent, self.greedy = agent, greedy

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
        action_masks: Any = None,
    ) -> tuple[Any, None]:
        """Return tokens `[n]` and None."""
        ended = ~np.asarray(action_masks, np.bool_).any(axis=1, keepdims=True)  # what it writes there is not read
        return self.agent.predict(observation, deterministic=self.greedy, action_masks=action_masks | ended)[0], None


def solved(player: Writer, n_numbers: int, n_tries: int = 1, invalid: str = "mask") -> np.ndarray[Any, Any]:
    """Let a player try each held-out problem a number of times.

    Returns:
        `[n_tries, N_PROBLEMS]`.
    """
    env = CountdownVectorEnv(N_PROBLEMS, numbers=n_numbers, n_max=4, split="test", invalid=invalid)
    return np.stack([countdown_successes(player, env, FIRST_SEED) for _ in range(n_tries)])


def accuracies(agent: GRPO, invalid: str) -> dict[str, dict[str, float]]:
    """Score an agent on problems of 3 and of 4 numbers, and on both alike."""
    scores: dict[str, dict[str, float]] = {}
    for n_numbers in (3, 4):
        tries = solved(Player(agent, greedy=False), n_numbers, K, invalid)
        scores[str(n_numbers)] = {
            "greedy": float(solved(Player(agent, greedy=True), n_numbers, 1, invalid).mean()),
            "sampled": float(tries.mean()),
            f"best of {K}": float(tries.any(axis=0).mean()),
        }
    scores["both"] = {name: (scores["3"][name] + scores["4"][name]) / 2 for name in scores["3"]}
    return scores


class Clock(BaseCallback):
    """End training at the budget."""

    def __init__(self, steps: int):
        super().__init__()
        self.steps = steps

    def _on_step(self) -> bool:
        return self.num_timesteps < self.steps


def train(seed: int, steps: int, invalid: str = "mask", **arguments: Any) -> tuple[GRPO, float]:
    """Train by the recipe, and return the agent and the processor seconds."""
    spec = copy.deepcopy(gym.spec(ENV))
    spec.kwargs.update(invalid=invalid)
    agent = GRPO("MlpPolicy", spec, seed=seed, device="cpu", **{**RECIPES[ENV].arguments, **arguments})
    started = time.process_time()
    agent.learn(steps, callback=Clock(steps))
    return agent, time.process_time() - started


def measure(seed: int, steps: int, invalid: str) -> dict[str, Any]:
    """Train once and return the record."""
    agent, seconds = train(seed, steps, invalid)
    return {
        "seed": seed,
        "invalid": invalid,
        "steps": agent.num_timesteps,
        "cpu_seconds": round(seconds, 1),
        "held_out": accuracies(agent, invalid),
        "problems": N_PROBLEMS,
        "versions": {"torch": torch.__version__, "numpy": np.__version__},
    }


def table(records: Sequence[dict[str, Any]]) -> str:
    """Lay the mean over seeds out, the smallest and the largest in brackets."""
    columns = ("greedy", "sampled", f"best of {K}")
    lines = [
        "# Countdown: held-out problems",
        "",
        f"`python -m benchmarks.countdown`: share of {N_PROBLEMS:,} held-out problems solved for each count of",
        "numbers; mean over training seeds [smallest, largest]. Raw results: `countdown.jsonl`. Where illegal tokens",
        "are punished, not masked, legal writing must be found by chance at first (7 of 200,000 uniformly random",
        "expressions are legal): a seed that does not find it solves nothing.",
        "",
        f"| illegal tokens | numbers | {' | '.join(columns)} | steps | processor seconds | seeds |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for invalid in dict.fromkeys(record["invalid"] for record in records):
        rows = [record for record in records if record["invalid"] == invalid]
        for numbers in ("3", "4", "both"):
            cells = []
            for name in columns:
                values = [row["held_out"][numbers][name] for row in rows]
                cells.append(f"{np.mean(values):.3f} [{min(values):.3f}, {max(values):.3f}]")
            seconds = max(row["cpu_seconds"] for row in rows)
            steps = max(row["steps"] for row in rows)
            lines.append(
                f"| {invalid} | {numbers} | {' | '.join(cells)} | {steps:,} | at most {seconds:.0f} | {len(rows)} |"
            )
    for n_numbers in (3, 4):
        tries = solved(RandomWriter(seed=0), n_numbers, K)
        shares = f"{tries.mean():.3f} | {tries.any(axis=0).mean():.3f}"
        lines.append(f"| random legal tokens | {n_numbers} | – | {shares} | – | – | – |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing in the results, then write and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=RECIPES[ENV].total_timesteps)
    parser.add_argument("--invalid", nargs="+", default=["mask", "punish"])
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    options.output.touch()
    records = [json.loads(line) for line in options.output.read_text().splitlines()]
    done = {(record["invalid"], record["seed"]) for record in records}
    for invalid in options.invalid:
        for seed in options.seeds:
            if (invalid, seed) not in done:
                records.append(measure(seed, options.steps, invalid))
                with options.output.open("a") as file:
                    file.write(json.dumps(records[-1]) + "\n")
                print(invalid, seed, records[-1]["held_out"]["both"], records[-1]["cpu_seconds"], flush=True)
    text = table(records)
    options.output.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
