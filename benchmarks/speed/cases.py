"""The table of cases, and how one of them is measured."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import torch

from benchmarks.cell import versions
from benchmarks.speed import growth, parallel, solve, throughput
from benchmarks.speed.case import QUICK, Case, Sizes, Values
from benchmarks.speed.fresh import ONE_THREAD
from benchmarks.speed.results import Record, machine, to_line
from grpo_gym.recipes import recipe

_RANDOM = (("grpo", "random stepping"),)
_RANDOM_AND_SCORE = (*_RANDOM, ("grpo afterwards", None))
_PPO = (("grpo", "sb3 ppo"),)
_BARE = (("grpo", "bare products"),)
_STEPS = " Steps in which SyncVectorEnv only resets are not counted."
_SHORT = " These episodes last some 22 steps and differ in length, so that half of the slots soon rest."
_LONG = " These episodes last up to 500 steps; those of random actions end, and are reset, after some 22."
_WITH_START = "Time from the start of a process to the first evaluation at the threshold, evaluations not counted"


def _collect(env_id: str, trained: bool = False, note: str = "", n_slots: int = 64, n_episodes: int = 256) -> Case:
    actor = "a trained (the recipe, 50,000 steps)" if trained else "an untrained"
    return Case(
        f"One collection of {n_episodes:,} {env_id} episodes in {n_slots} slots by {actor} [64, 64] policy, "
        f"against a SyncVectorEnv of {n_slots} under random actions drawn beforehand.{_STEPS}{note}",
        partial(throughput.collecting, env_id, trained, n_slots, n_episodes),
        _RANDOM,
        repeats=7,
    )


def _update(about: str, n_inputs: int, n_actions: int, net_arch: tuple[int, int], batch_size: int) -> Case:
    return Case(
        f"`update` on a fixed batch of {about}, against the forward and backward matrix products and tanh alone, "
        "without autograd, loss or optimiser.",
        partial(throughput.updating, n_inputs, n_actions, net_arch, batch_size),
        _BARE,
        repeats=9,
    )


def _learn(peer: str, settings: str, arguments: dict[str, Any]) -> Case:
    return Case(
        f"Constructing and `learn` for 20,000 CartPole steps, with the minibatches and passes of PPO's {peer}: "
        "policy [64, 64] tanh on both sides, a value network of that size on PPO's alone.",
        partial(throughput.learning_beside_ppo, settings, arguments),
        _PPO,
        repeats=5,
    )


def _together(who: str, collector: str) -> Case:
    return Case(
        f"One collection of 32 whole HalfCheetah-v5 episodes by two {who}, against the same by one process: by the "
        "wall clock, which needs two idle cores.",
        partial(parallel.collecting_together, "HalfCheetah-v5", collector),
        [("2 workers", "this process")],
        repeats=9,
    )


def _scaling(about: str, settings: Mapping[str, growth.Setting], reference: str) -> Case:
    return Case(
        f"Cost of a step of {about}: collected alone, and in `learn` with one epoch and minibatches of 256; and the "
        "peak of the process's memory. Each setting in a process of its own.",
        partial(growth.scaling, settings),
        [(name, reference) for name in settings if name != reference],
        repeats=3,
    )


CASES: Mapping[str, Case] = MappingProxyType(
    {
        "collect-CartPole-v1": _collect("CartPole-v1", note=_SHORT),
        "collect-CartPole-v1-trained": _collect("CartPole-v1", trained=True, note=_LONG),
        "collect-Acrobot-v1": _collect("Acrobot-v1"),
        "collect-LunarLander-v3": _collect("LunarLander-v3"),
        "collect-HalfCheetah-v5": _collect("HalfCheetah-v5"),
        "collect-256-CartPole-v1": _collect("CartPole-v1", note=_SHORT, n_slots=256, n_episodes=1024),
        "collect-256-CartPole-v1-trained": _collect(
            "CartPole-v1", trained=True, note=_LONG, n_slots=256, n_episodes=1024
        ),
        "collect-256-Acrobot-v1": _collect("Acrobot-v1", n_slots=256),
        "collect-256-LunarLander-v3": _collect("LunarLander-v3", n_slots=256, n_episodes=1024),
        "collect-256-HalfCheetah-v5": _collect("HalfCheetah-v5", n_slots=256),
        "update-CartPole-recipe": _update("CartPole's shape: [64, 64], minibatches of 128", 4, 2, (64, 64), 128),
        "update-CartPole": _update("CartPole's shape: [64, 64], minibatches of 256", 4, 2, (64, 64), 256),
        "update-Battleship": _update("Battleship's shape: [256, 256], minibatches of 2048", 75, 25, (256, 256), 2048),
        "learn-zoo": _learn(
            "zoo settings (8 × 32 steps, batch 256, 20 epochs)",
            "zoo",
            {"n_groups": 4, "group_size": 4, "batch_size": 256, "n_epochs": 20, "learning_rate": "lin_0.001"},
        ),
        "learn-defaults": _learn(
            "defaults (1 × 2048 steps, batch 64, 10 epochs)",
            "default",
            {"batch_size": 64, "n_epochs": 10, "learning_rate": 3e-4},
        ),
        "learn-recipe": Case(
            "Constructing and `learn` for 50,000 CartPole steps with the recipe, against a SyncVectorEnv of 16 (the "
            "recipe's slots) under random actions: how much of the time is not the environment's."
            f"{_STEPS} The round is the seed; `score` is what the agent then comes to in 20 episodes.",
            partial(throughput.learning_beside_random, recipe("CartPole-v1"), 1),
            _RANDOM_AND_SCORE,
            repeats=15,
        ),
        "learn-fast": Case(
            "The same for 100,000 steps with settings made for the clock (`FAST` in `throughput.py`): 128 slots, the "
            "batch's mean at that step for a baseline, 4 passes in minibatches of 512.",
            partial(throughput.learning_beside_random, throughput.FAST, 2),
            _RANDOM_AND_SCORE,
            repeats=15,
        ),
        "learn-envpool": Case(
            "Constructing and `learn` for 50,000 CartPole steps with the recipe, in EnvPool against our own slots; and "
            "the mean return of the last 100 training episodes, whose actions are drawn, and the agent's score in 20 "
            "episodes afterwards. The round is the seed.",
            partial(throughput.learning_in_envpool, recipe("CartPole-v1"), 1),
            [("envpool", "slots")],
            repeats=5,
        ),
        "learn-envpool-64": Case(
            "The same with groups of 16, that is 64 slots: the more of a pool's environments a call steps, the less "
            "the call costs each.",
            partial(throughput.learning_in_envpool, {**recipe("CartPole-v1"), "group_size": 16}, 1),
            [("envpool", "slots")],
            repeats=5,
        ),
        "learn-envpool-fast": Case(
            "The same with the settings and the 100,000 steps of `learn-fast`: 128 slots, and little that takes time "
            "besides.",
            partial(throughput.learning_in_envpool, throughput.FAST, 2),
            [("envpool", "slots")],
            repeats=5,
        ),
        "workers-HalfCheetah-v5": _together("worker processes", "processes"),
        "ray-HalfCheetah-v5": _together("Ray actors", "ray"),
        "solve-CartPole-v1": Case(
            f"{_WITH_START}: 475 over 20 episodes. The recipe against the zoo's PPO; the round is the seed.",
            partial(solve.solving, "CartPole-v1"),
            _PPO,
            repeats=5,
        ),
        "solve-LunarLander-v3": Case(
            f"{_WITH_START}: 200 over 20 episodes. The recipe against the zoo's PPO; the round is the seed.",
            partial(solve.solving, "LunarLander-v3"),
            _PPO,
            repeats=5,
        ),
        "solve-Battleship-v0": Case(
            f"{_WITH_START}: 0.50 over 200 games, ships leaning to the top left as in microGRPO. The recipe against "
            "MaskablePPO's defaults on one game (the zoo has no settings for it), and against what microGRPO's "
            "author published: 12.3 s an iteration, 2,000 iterations; cited, not measured here.",
            partial(solve.solving, "Battleship-v0"),
            [("grpo", "sb3 maskable ppo"), ("grpo", "microGRPO (cited)")],
            repeats=5,
        ),
        "scaling-slots": _scaling(
            "an untrained CartPole agent with more and more slots, 4 episodes a slot", growth.SLOTS, "n_envs=64"
        ),
        "scaling-network": _scaling(
            "an untrained CartPole agent with wider and wider networks, 256 episodes in 64 slots",
            growth.NETWORKS,
            "net_arch=[64, 64]",
        ),
        "scaling-length": _scaling(
            "an untrained Pendulum-v1 agent under longer and longer time limits (this environment never ends by "
            "itself), 16 episodes in 16 slots",
            growth.LENGTHS,
            "max_episode_steps=100",
        ),
        "memory": Case(
            "Memory of the process (RSS) along 2,000,000 steps of `learn` on CartPole with the default arguments.",
            growth.watching,
            [("end", "half way"), ("growth in the last half", None)],
            repeats=1,
        ),
    }
)
"""Every case by its name, in the order of the table."""


def find(names: Sequence[str]) -> list[str]:
    """Return the names of the cases that are called so, or whose name begins so.

    Raises:
        ValueError: if there is none for one of them; the message lists those there are.
    """
    unknown = [name for name in names if not any(case.startswith(name) for case in CASES)]
    if unknown:
        raise ValueError(f"there is no case {unknown[0]!r}: choose from {', '.join(CASES)}")
    exact = [name for name in names if name in CASES]
    begun = tuple(name for name in names if name not in CASES)
    return [case for case in CASES if case in exact or case.startswith(begun)]


def measure(name: str, repeats: int | None, quick: bool) -> Record:
    """Measure one case in this process, telling of each round on the standard error.

    Args:
        name: of the case.
        repeats: rounds; None for the case's own number.
        quick: in sizes that only show that it works.
    """
    case = CASES[name]
    load = os.getloadavg()[0]
    one_round = case.prepare(QUICK if quick else Sizes())
    n_rounds = repeats or case.repeats
    rounds: list[Values] = []
    for number in range(n_rounds):
        rounds.append(one_round(number))
        print(f"{name} [{number + 1}/{n_rounds}] {_told(rounds[-1])}", file=sys.stderr, flush=True)
    command = f"python -m benchmarks.speed --only {name}"
    if repeats is not None:
        command += f" --repeats {repeats}"
    if quick:
        command += " --quick"
    threads = {variable: int(os.environ[variable]) for variable in ONE_THREAD if variable in os.environ}
    return Record(
        case=name,
        about=case.about,
        compared=list(case.compared),
        rounds=rounds,
        command=command,
        threads={"torch threads": torch.get_num_threads(), **threads},
        versions=versions(),
        machine=machine(),
        load=load,
    )


def measured_line(name: str, repeats: int | None, quick: bool) -> str:
    """Measure one case and return its record as a line, which can leave the process."""
    return to_line(measure(name, repeats, quick))


def _told(values: Values) -> str:
    """Write the first value of each side."""
    parts = []
    for side, found in values.items():
        unit, value = next(iter(found.items()))
        parts.append(f"{side} {value:,.4g} {unit}")
    return "; ".join(parts)
