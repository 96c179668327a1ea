"""Games of several agents: self-play against known players, and cooperation beside stable-baselines3's PPO.

python -m benchmarks.multiagent               # measures what is missing in benchmarks/results/multiagent.jsonl
python -m benchmarks.multiagent --tasks duel --seeds 100

It needs the extra "multiagent", and for PPO stable-baselines3. PPO plays through SuperSuit, as PettingZoo's tutorial
has it: one network for all agents, 8 environments beside each other, minibatches of 256; with rollouts of 128 steps,
for with PPO's own 2,048 these budgets were one or two updates. Settings of ours were chosen on seeds from 100 on.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pettingzoo
import torch
from grpo_envs import duel_players
from grpo_envs.players import FixedOrderPlayer, PosteriorHunter, UniformPlayer

import grpo_gym
from benchmarks.tictactoe import ExactPlayer
from grpo_gym import GRPO
from grpo_gym.extras import need
from grpo_gym.marl_evaluation import RandomPlayer, play_games, play_match
from grpo_gym.marl_games import find_maker, make_games
from grpo_gym.types import Predictor

RESULTS = Path(__file__).parent / "results" / "multiagent.jsonl"
FIRST_SEED = 10_000_019
N_GAMES = 1000
TICTACTOE = "pettingzoo:pettingzoo.classic.tictactoe_v3"
SPREAD = "pettingzoo:mpe2.simple_spread_v3"
WALKER = "pettingzoo:pettingzoo.sisl.multiwalker_v9"

Scores = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """A game, how it is learned, and what is measured.

    Attributes:
        name: for the results and `--tasks`.
        env: see `MultiGRPO`.
        steps: environment steps of training.
        settings: arguments of `GRPO`.
        score: what an agent is worth.
        with_ppo: PPO learns it too, and random play is measured.
    """

    name: str
    env: str
    steps: int
    settings: dict[str, Any]
    score: Callable[[Any], Scores]
    with_ppo: bool = False

    @property
    def algorithms(self) -> tuple[str, ...]:
        """What is measured."""
        return ("grpo", "ppo", "random") if self.with_ppo else ("grpo",)


class Greedy:
    """An agent whose most probable actions are played, whatever it is asked for."""

    def __init__(self, agent: Any):
        self.agent = agent

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        """Return the agent's most probable actions."""
        actions: tuple[Any, Any] = self.agent.predict(observation, deterministic=True)
        return actions


def score_tictactoe(agent: Any) -> Scores:
    """Count games won, drawn and lost, half of them from each seat."""
    rivals: dict[str, Predictor] = {"random": RandomPlayer(gym.spaces.Discrete(9), seed=0), "exact": ExactPlayer()}
    return {name: play_match(TICTACTOE, agent, rival, N_GAMES, FIRST_SEED) for name, rival in rivals.items()}


def score_duel(agent: Any) -> Scores:
    """Count games won, drawn and lost, each pair of boards played from both seats."""
    rivals = {
        "random": duel_players.Solo(UniformPlayer(seed=0)),
        "fixed order": duel_players.Solo(FixedOrderPlayer()),
        "posterior hunter": duel_players.Solo(PosteriorHunter()),
    }
    player = Greedy(agent)
    return {name: duel_players.play_match(player, rival, N_GAMES, FIRST_SEED) for name, rival in rivals.items()}


def mean_return(env: str) -> Callable[[Any], Scores]:
    """Measure what a player earns in a game on average, over 100 games."""

    def score(agent: Any) -> Scores:
        games = play_games(env, agent, 100, FIRST_SEED)
        means = [float(np.mean(list(game.values()))) for game in games]
        return {"mean return of a player": float(np.mean(means)), "standard error": float(np.std(means) / 10)}

    return score


_SELF_PLAY: dict[str, Any] = {
    "n_groups": 8,
    "group_size": 16,
    "league_share": 0.5,
    "league_size": 20,
    "league_every": 10,
    "policy_kwargs": {"net_arch": [128, 128]},
}

TASKS = (
    Task(
        "tictactoe",
        TICTACTOE,
        600_000,
        {
            **_SELF_PLAY,
            "baseline": "batch",
            "gamma": 1.0,
            "learning_rate": "lin_2e-3",
            "batch_size": 128,
            "ent_coef": 0.1,
        },
        score_tictactoe,
    ),
    Task("duel", "pettingzoo:grpo_envs.duel", 600_000, {**_SELF_PLAY}, score_duel),
    Task("simple_spread", SPREAD, 50_000, {}, mean_return(SPREAD), with_ppo=True),
    Task("multiwalker", WALKER, 50_000, {}, mean_return(WALKER), with_ppo=True),
)


class Random:
    """Plays all players of a game at random."""

    def __init__(self, env: str, seed: int):
        (game,) = make_games(env, 1)
        self._players = {
            agent: RandomPlayer(game.env.action_space(agent), seed + n)
            for n, agent in enumerate(game.env.possible_agents)
        }

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
        agent: str = "",
    ) -> tuple[Any, Any]:
        """Draw actions for one of the players."""
        return self._players[agent].predict(observation)


def ppo_of(env: str, seed: int, **settings: Any) -> Any:
    """Make stable-baselines3's PPO in 8 games, one network for all agents."""
    stable_baselines3 = need("stable_baselines3", "bench", "PPO")
    supersuit = need("supersuit", "multiagent", "PPO in games of several agents")
    games = supersuit.pettingzoo_env_to_vec_env_v1(supersuit.black_death_v3(find_maker(env)()))
    vector = supersuit.concat_vec_envs_v1(games, 8, num_cpus=0, base_class="stable_baselines3")
    vector.seed = lambda seed=None: None  # SuperSuit's cannot be seeded; its games draw from the operating system
    return stable_baselines3.PPO("MlpPolicy", vector, n_steps=128, seed=seed, device="cpu", **settings)


def train(task: Task, algorithm: str, seed: int) -> dict[str, Any]:
    """Train once and return the record."""
    started = time.process_time()
    record: dict[str, Any] = {"task": task.name, "algorithm": algorithm, "seed": seed}
    agent: Any
    if algorithm == "grpo":
        agent = GRPO("MlpPolicy", task.env, seed=seed, **task.settings)
        record["before"] = task.score(agent) if task.with_ppo else None
        started = time.process_time()
        agent.learn(task.steps)
        record |= {"steps": agent.num_timesteps, "agent_steps": agent.num_agent_steps, "settings": task.settings}
    elif algorithm == "ppo":
        agent = ppo_of(task.env, seed, batch_size=256)
        n_agents = agent.n_envs // 8
        agent.learn(task.steps * n_agents)
        record |= {"steps": agent.num_timesteps // n_agents, "agent_steps": agent.num_timesteps}
    else:
        agent = Random(task.env, seed)
    return record | {
        "cpu_seconds": round(time.process_time() - started, 1),
        "scores": task.score(agent),
        "versions": {
            "grpo_gym": grpo_gym.__version__,
            "pettingzoo": pettingzoo.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "command": f"python -m benchmarks.multiagent --tasks {task.name} --seeds {seed}",
    }


def throughput(n_steps: int = 8_000, n_runs: int = 3) -> dict[str, Any]:
    """Measure environment steps a processor second in simple_spread, acting and learning, by turns.

    The same network, 64 and 64 tanh units; ours with its defaults but for the 8 × 8 games of an iteration, PPO with
    its own minibatches of 64, and with the tutorial's of 256.
    """

    def timed(agent: Any, steps: int) -> float:
        started = time.process_time()
        agent.learn(steps)
        return n_steps / (time.process_time() - started)

    speeds: dict[str, list[float]] = {"grpo": [], "ppo": [], "ppo, batch_size=256": []}
    for seed in range(n_runs):
        ours = GRPO("MlpPolicy", SPREAD, seed=seed, n_groups=8, group_size=8)
        speeds["grpo"].append(timed(ours, n_steps))
        speeds["ppo"].append(timed(ppo_of(SPREAD, seed), n_steps * 3))
        speeds["ppo, batch_size=256"].append(timed(ppo_of(SPREAD, seed, batch_size=256), n_steps * 3))
    return {
        name: {"runs": [round(x) for x in runs], "median": statistics.median(runs)} for name, runs in speeds.items()
    }


def show(records: Sequence[dict[str, Any]]) -> None:
    """Print each task's records below each other."""
    for task in dict.fromkeys(record["task"] for record in records):
        print(f"\n{task}")
        for record in (record for record in records if record["task"] == task):
            scores = "; ".join(f"{name}: {score}" for name, score in record["scores"].items())
            seconds = f"{record['steps']:,} steps, {record['cpu_seconds']} s; " if "steps" in record else ""
            print(f"  {record['algorithm']} seed {record['seed']}: {seconds}{scores}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing in the results, then print all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*(task.name for task in TASKS), "throughput"]
    parser.add_argument("--tasks", nargs="+", default=names, choices=names)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.touch()
    records = [json.loads(line) for line in options.output.read_text().splitlines()]
    done = {(record["task"], record["algorithm"], record["seed"]) for record in records}
    todo = [(task, name, seed) for task in TASKS for name in task.algorithms for seed in options.seeds]
    for task, algorithm, seed in todo:
        if task.name in options.tasks and (task.name, algorithm, seed) not in done:
            records.append(train(task, algorithm, seed))
            _append(options.output, records[-1])
    if "throughput" in options.tasks and ("throughput", "all", 0) not in done:
        command = "python -m benchmarks.multiagent --tasks throughput"
        records.append(
            {"task": "throughput", "algorithm": "all", "seed": 0, "scores": throughput(), "command": command}
        )
        _append(options.output, records[-1])
    show(records)


def _append(path: Path, record: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")
    print(f"{record['task']} {record['algorithm']} {record['seed']}: {record['scores']}", flush=True)


if __name__ == "__main__":
    main()
