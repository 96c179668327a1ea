"""The quickstart's three tasks over several seeds, cut at exactly their budget: the table behind the README.

python -m benchmarks.slice            # writes benchmarks/results/slice.jsonl and prints the table
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch

import grpo_gym
from benchmarks.quickstart import Task, steps_to_best_arm, tasks
from grpo_gym import GRPO, BaseCallback
from grpo_gym.recipes import RECIPES

RESULTS = Path(__file__).parent / "results" / "slice.jsonl"

CHECKPOINTS = {"grpo/Battleship-v0": 30.0}
"""Tasks that are also scored after so many seconds of processor time."""


class Budget(BaseCallback):
    """End training at the budget: what was not learned from by then is not learned from at all."""

    def __init__(self, steps: int, task: Task, seconds: float | None):
        super().__init__()
        self.steps, self.task, self.seconds = steps, task, seconds
        self.started, self.scoring = time.process_time(), 0.0
        self.early: dict[str, float] | None = None

    @property
    def used(self) -> float:
        """Processor seconds of training so far."""
        return time.process_time() - self.started - self.scoring

    def _on_rollout_start(self) -> None:
        if self.seconds is not None and self.early is None and self.used >= self.seconds - 1.0:
            before = time.process_time()
            self.early = {"seconds": self.used, "steps": self.num_timesteps, "score": self.task.score(self.model)}
            self.scoring += time.process_time() - before

    def _on_step(self) -> bool:
        return self.num_timesteps < self.steps


def measure(task: Task, seed: int) -> dict[str, Any]:
    """Train once and return the record."""
    recipe = RECIPES[task.env_id]
    spec = gym.spec(task.env_id)
    spec.kwargs.update(task.env_kwargs)
    agent = GRPO("MlpPolicy", spec, seed=seed, **recipe.arguments)
    steps = task.total_timesteps or recipe.total_timesteps
    budget = Budget(steps, task, CHECKPOINTS.get(task.env_id))
    agent.learn(steps, callback=budget)
    record: dict[str, Any] = {
        "env": task.env_id,
        "env_kwargs": task.env_kwargs,
        "seed": seed,
        "steps": agent.num_timesteps,
        "cpu_seconds": round(budget.used, 2),
        "measure": task.measure,
        "score": task.score(agent),
        "torch_threads": torch.get_num_threads(),
        "versions": {
            "grpo_gym": grpo_gym.__version__,
            "torch": torch.__version__,
            "gymnasium": gym.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "command": "python -m benchmarks.slice",
    }
    if budget.early is not None:
        record["after_seconds"] = budget.early
    if task.env_id == "grpo/DynamicBandit-v0":
        record["steps_to_best_arm"] = steps_to_best_arm(agent)
    return record


def show(records: Sequence[dict[str, Any]]) -> None:
    """Print the records of each environment in a line or two."""
    for env in dict.fromkeys(record["env"] for record in records):
        rows = [record for record in records if record["env"] == env]
        scores = " ".join(f"{row['score']:.3f}" for row in rows)
        seconds = max(row["cpu_seconds"] for row in rows)
        print(f"{env}: {rows[0]['measure']}, {len(rows)} seeds: {scores}; at most {seconds:.1f} s of one core")
        if "after_seconds" in rows[0]:
            early = " ".join(f"{row['after_seconds']['score']:.3f}" for row in rows if "after_seconds" in row)
            print(f"    after {CHECKPOINTS[env]:.0f} s: {early}")
        if "steps_to_best_arm" in rows[0]:
            print("    steps to the best arm:", *(row["steps_to_best_arm"] for row in rows))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing in the results, then print all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.touch()
    records = [json.loads(line) for line in options.output.read_text().splitlines()]
    done = {(record["env"], record["seed"]) for record in records}
    for task in tasks():
        for seed in options.seeds:
            if (task.env_id, seed) not in done:
                records.append(measure(task, seed))
                with options.output.open("a") as file:
                    file.write(json.dumps(records[-1]) + "\n")
                print(f"{task.env_id} seed {seed}: {records[-1]['score']:.3f}", flush=True)
    show(records)


if __name__ == "__main__":
    main()
