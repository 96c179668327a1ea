"""Games of several agents: self-play against known players, and cooperation beside stable-baselines3's PPO.

python -m benchmarks.multiagent               # measures what is missing in benchmarks/results/multiagent.jsonl
python -m benchmarks.multiagent --tasks duel --seeds 100

It needs the extra "bench". PPO plays through SuperSuit, as PettingZoo's tutorial has it: one network for all agents, 8
environments beside each other, minibatches of 256; with rollouts of 128 steps, for with PPO's own 2,048 these budgets
were one or two updates. Settings of ours were chosen on seeds from 100 on.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from grpo_envs import duel, duel_players
from grpo_envs.players import FixedOrderPlayer, PosteriorHunter, UniformPlayer

from benchmarks.tictactoe import ExactPlayer, play_all_lines
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
        env: what it is learned in; see `MultiGRPO`.
        steps: environment steps of training.
        settings: arguments of `GRPO`.
        score: what an agent is worth.
        with_ppo: PPO learns it too, and random play is measured.
        options: of the environment in training.
        policy: ours.
    """

    name: str
    env: str
    steps: int
    settings: dict[str, Any]
    score: Callable[[Any], Scores]
    with_ppo: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    policy: str = "MlpPolicy"

    @property
    def make(self) -> Callable[[], Any]:
        """What makes the environment."""
        return functools.partial(find_maker(self.env), **self.options)

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
    """Count games won, drawn and lost, half of them from each seat; and the same of all games that there are."""
    rivals: dict[str, Predictor] = {"random": RandomPlayer(gym.spaces.Discrete(9), seed=0), "exact": ExactPlayer()}
    matches = {name: play_match(TICTACTOE, agent, rival, N_GAMES, FIRST_SEED) for name, rival in rivals.items()}
    return {**matches, "every reply": play_all_lines(agent)}


def score_duel(agent: Any) -> Scores:
    """Count games won, drawn and lost, each pair of boards played from both seats."""
    rivals = {
        "random": duel_players.Solo(UniformPlayer(seed=0)),
        "fixed order": duel_players.Solo(FixedOrderPlayer()),
        "posterior hunter": duel_players.Solo(PosteriorHunter()),
    }
    player = Greedy(agent)
    return {name: duel_players.play_match(player, rival, N_GAMES, FIRST_SEED) for name, rival in rivals.items()}


def mean_return(env: str, n_games: int) -> Callable[[Any], Scores]:
    """Measure what a player earns in a game on average."""

    def score(agent: Any) -> Scores:
        games = play_games(env, agent, n_games, FIRST_SEED)
        means = [float(np.mean(list(game.values()))) for game in games]
        error = float(np.std(means) / n_games**0.5)
        return {"mean return of a player": float(np.mean(means)), "standard error": error}

    return score


TASKS = (
    Task(
        "tictactoe",
        "pettingzoo:benchmarks.openings",
        600_000,
        {
            "learning_rate": "lin_2e-3",
            "n_groups": 16,
            "group_size": 16,
            "batch_size": 256,
            "n_epochs": 5,
            "gamma": 1.0,
            "baseline": "live_peers",
            "ent_coef": 0.1,
            "league_share": 0.5,
            "league_size": 20,
            "league_every": 10,
            "policy_kwargs": {"net_arch": [128, 128]},
        },
        score_tictactoe,
    ),
    Task(
        "duel",
        "pettingzoo:grpo_envs.duel",
        16_000_000,
        {
            "learning_rate": "lin_2e-3",
            "n_groups": 512,
            "group_size": 2,
            "batch_size": 1024,
            "n_epochs": 2,
            "gamma": 0.3,
            "baseline": "soft_groups",
            "gae_lambda": 1.0,
            # the other's shots, and its own ships, tell nothing of where the hidden ones lie; and self-play shows but
            # one way to shoot: a network that sees them is at a loss when another player shoots otherwise
            "policy_kwargs": {"net_arch": [512, 512], "features_extractor_kwargs": {"chosen": [duel.MY_SHOTS]}},
        },
        score_duel,
        # who is slower fires its last shots too, from the positions in which games are lost
        options={"hit_reward": 4.0, "play_out": True},
        policy="BoardPolicy",
    ),
    Task(
        "simple_spread",
        SPREAD,
        50_000,
        {
            "learning_rate": "lin_2e-3",
            "n_groups": 8,
            "group_size": 8,
            "n_epochs": 5,
            "gamma": 0.95,
            "baseline": "batch",
        },
        mean_return(SPREAD, 100),
        with_ppo=True,
    ),
    Task(
        "multiwalker",
        WALKER,
        200_000,
        {"learning_rate": "lin_5e-4", "target_kl": 0.02},
        mean_return(WALKER, 20),
        with_ppo=True,
    ),
)


class Random:
    """Plays all players of a game at random."""

    def __init__(self, make: Callable[[], Any], seed: int):
        (game,) = make_games(make, 1)
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


def ppo_of(make: Callable[[], Any], seed: int, **settings: Any) -> Any:
    """Make stable-baselines3's PPO in 8 games, one network for all agents."""
    stable_baselines3 = need("stable_baselines3", "bench", "PPO")
    supersuit = need("supersuit", "bench", "PPO in games of several agents")
    games = supersuit.pettingzoo_env_to_vec_env_v1(supersuit.black_death_v3(make()))
    vector = supersuit.concat_vec_envs_v1(games, 8, num_cpus=0, base_class="stable_baselines3")
    vector.seed = lambda seed=None: None  # SuperSuit's cannot be seeded; its games draw from the operating system
    return stable_baselines3.PPO("MlpPolicy", vector, n_steps=128, seed=seed, device="cpu", **settings)


def train(task: Task, algorithm: str, seed: int) -> dict[str, Any]:
    """Train once and return the record."""
    started = time.process_time()
    record: dict[str, Any] = {"task": task.name, "algorithm": algorithm, "seed": seed}
    agent: Any
    if algorithm == "grpo":
        agent = GRPO(task.policy, task.make, seed=seed, **task.settings)
        record["before"] = task.score(agent) if task.with_ppo else None
        started = time.process_time()
        agent.learn(task.steps)
        record |= {"steps": agent.num_timesteps, "agent_steps": agent.num_agent_steps}
        record |= {"policy": task.policy, "settings": task.settings, "options": task.options}
    elif algorithm == "ppo":
        agent = ppo_of(task.make, seed, batch_size=256)
        n_agents = agent.n_envs // 8
        agent.learn(task.steps * n_agents)
        record |= {"steps": agent.num_timesteps // n_agents, "agent_steps": agent.num_timesteps}
    else:
        agent = Random(task.make, seed)
    return record | {
        "cpu_seconds": round(time.process_time() - started, 1),
        "scores": task.score(agent),
        "versions": versions(),
        "command": f"python -m benchmarks.multiagent --tasks {task.name} --seeds {seed}",
    }


def versions() -> dict[str, str]:
    """Return the versions that matter, of what is installed."""
    found = {"python": platform.python_version()}
    for name in ("grpo_gym", "stable-baselines3", "pettingzoo", "mpe2", "supersuit", "torch", "numpy"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def throughput(n_steps: int = 4_800, n_runs: int = 3) -> dict[str, Any]:
    """Measure environment steps a processor second in simple_spread, acting and learning, by turns.

    The same network, 64 and 64 tanh units; ours with the settings that it learns the game with, PPO with its own
    minibatches of 64, and with the tutorial's of 256.
    """
    (task,) = (task for task in TASKS if task.name == "simple_spread")
    makers: dict[str, Callable[[int], Any]] = {
        "grpo": lambda seed: GRPO(task.policy, task.make, seed=seed, **task.settings),
        "ppo": lambda seed: ppo_of(task.make, seed),
        "ppo, batch_size=256": lambda seed: ppo_of(task.make, seed, batch_size=256),
    }
    speeds: dict[str, list[float]] = {name: [] for name in makers}
    for seed in range(n_runs):
        for name, make in makers.items():
            agent = make(seed)
            n_players = 1 if name == "grpo" else agent.n_envs // 8
            started = time.process_time()
            agent.learn(n_steps * n_players)
            speeds[name].append(agent.num_timesteps / n_players / (time.process_time() - started))
    return {
        name: {"runs": [round(x) for x in runs], "median": statistics.median(runs)} for name, runs in speeds.items()
    }


def to_line(record: dict[str, Any]) -> str:
    """Write a record as one line of JSON, classes among the settings by their names."""
    return json.dumps(record, default=lambda chosen: chosen.__name__)


def report(records: Sequence[dict[str, Any]]) -> str:
    """Write the tables of benchmarks/results/multiagent.md, from the records alone."""
    rows = [_row(record) for record in records if record["task"] != "throughput"]
    lines = [
        "# Games of several agents",
        "",
        "`python -m benchmarks.multiagent`. A score of a game of two is wins–draws–losses in 1,000 games, half of them",
        "from each seat, and against every reply in all games that there are; of the others the mean return of a",
        "player ± its standard error, before training → after. All play their most probable actions. Steps are the",
        "environment's. `multiagent.jsonl` has the settings, versions and command of each row.",
        "",
        "| game | learner | seed | steps | CPU seconds | score |",
        "| --- | --- | --- | --- | --- | --- |",
        *rows,
    ]
    for record in records:
        if record["task"] == "throughput":
            ours = record["scores"]["grpo"]["median"]
            lines += [
                "",
                f"`{record['command']}`: environment steps a processor second, acting and",
                "learning in simple_spread, by turns on one core. The same network, 64 and 64 tanh units; ours sees a",
                "step 5 times, PPO 10 times, in its own minibatches of 64 or the tutorial's of 256.",
                "",
                "| learner | runs | median | ours is faster by |",
                "| --- | --- | --- | --- |",
            ]
            for name, speeds in record["scores"].items():
                runs = ", ".join(f"{run:,}" for run in speeds["runs"])
                lines.append(f"| {name} | {runs} | {speeds['median']:,.0f} | {ours / speeds['median']:.1f} |")
    return "\n".join(lines) + "\n"


def _row(record: dict[str, Any]) -> str:
    scores = record["scores"]
    if "mean return of a player" in scores:
        before = f"{record['before']['mean return of a player']:.1f} → " if record.get("before") else ""
        score = f"{before}{scores['mean return of a player']:.1f} ± {scores['standard error']:.1f}"
    else:
        score = "; ".join(f"{rival}: {'–'.join(map(str, counts))}" for rival, counts in scores.items())
    steps, seconds = (f"{record[key]:,.0f}" if key in record else "" for key in ("steps", "cpu_seconds"))
    return f"| {record['task']} | {record['algorithm']} | {record['seed']} | {steps} | {seconds} | {score} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing in the results, then write the tables beside them."""
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
        record = {"task": "throughput", "algorithm": "all", "seed": 0, "scores": throughput()}
        records.append({**record, "versions": versions(), "command": command})
        _append(options.output, records[-1])
    text = report(records)
    options.output.with_suffix(".md").write_text(text)
    print(text)


def _append(path: Path, record: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.write(to_line(record) + "\n")
    print(f"{record['task']} {record['algorithm']} {record['seed']}: {record['scores']}", flush=True)


if __name__ == "__main__":
    main()
