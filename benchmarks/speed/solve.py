"""Time until a task is solved, each run in a process of its own: its start and its imports are counted."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from benchmarks import learners, tasks
from benchmarks.cell import Stopwatch
from benchmarks.evaluation import Evaluator
from benchmarks.learners import Predict
from benchmarks.speed.case import Round, Sizes
from benchmarks.speed.fresh import fresh

UNSOLVED = float("inf")


@dataclass(frozen=True)
class Runner:
    """Who tries to solve a task.

    Attributes:
        algorithm: name of the learner.
        settings: its settings.
        steps: its budget in env steps; schedules run to their end over it.
    """

    algorithm: str
    settings: str
    steps: int


@dataclass(frozen=True)
class Race:
    """A task, when it is solved, and who tries.

    Attributes:
        task: name of the task.
        threshold: mean score at which it is solved.
        n_episodes: deterministic episodes that an evaluation plays, on fixed seeds.
        interval: env steps between two evaluations.
        runners: by the name of the side.
        cited: wall-clock seconds that others have published, by the name of the side.
    """

    task: str
    threshold: float
    n_episodes: int
    interval: int
    runners: Mapping[str, Runner]
    cited: Mapping[str, float] = field(default_factory=dict)


RACES: Mapping[str, Race] = MappingProxyType(
    {
        "CartPole-v1": Race(
            "CartPole-v1",
            threshold=475,
            n_episodes=20,
            interval=2_000,
            runners={"grpo": Runner("grpo", "recipe", 50_000), "sb3 ppo": Runner("ppo", "zoo", 100_000)},
        ),
        "LunarLander-v3": Race(
            "LunarLander-v3",
            threshold=200,
            n_episodes=20,
            interval=10_000,
            runners={"grpo": Runner("grpo", "recipe", 500_000), "sb3 ppo": Runner("ppo", "zoo", 1_000_000)},
        ),
        "Battleship-v0": Race(
            "Battleship-v0",
            threshold=0.50,
            n_episodes=200,
            interval=20_000,
            runners={
                "grpo": Runner("grpo", "recipe", 1_500_000),
                "sb3 maskable ppo": Runner("maskable_ppo", "default", 1_500_000),
            },
            # 12.3 s an iteration, 2,000 iterations to about 0.50
            cited={"microGRPO (cited)": 12.3 * 2_000},
        ),
    }
)


class _Solved(Exception):
    """Ends a training run."""


def until_solved(race: str, side: str, seed: int, steps: int | None) -> dict[str, Any]:
    """Train in this process until the task is solved or the budget is spent.

    Args:
        race: name of the race.
        side: who runs.
        seed: training seed.
        steps: another budget than the runner's own; None for its own.

    Returns:
        `solved`; `steps` taken; `cpu` seconds of this process since its start, without the evaluations; and
        the `evaluation_wall` seconds that the caller has to subtract from its own clock.
    """
    run = RACES[race]
    runner = run.runners[side]
    task = dataclasses.replace(tasks.find(run.task), steps=runner.steps if steps is None else steps)
    evaluating = Stopwatch()
    first_seed = tasks.EVALUATION_SEEDS[0]
    evaluator = Evaluator(task, range(first_seed, first_seed + run.n_episodes))
    evaluating.pause()
    taken, next_evaluation = 0, run.interval

    def evaluate(predict: Predict) -> bool:
        evaluating.resume()
        scores = evaluator.scores(predict)
        evaluating.pause()
        return sum(scores) / len(scores) >= run.threshold

    def on_progress(steps: int, predict: Predict, diagnostics: object = None) -> None:
        nonlocal taken, next_evaluation
        taken = steps
        if steps >= next_evaluation:
            next_evaluation = steps + run.interval
            if evaluate(predict):
                raise _Solved

    try:
        trained = learners.load(runner.algorithm).train(task, seed, runner.settings, on_progress)
        taken, solved = trained.steps, evaluate(trained.predict)
    except _Solved:
        solved = True
    evaluator.close()
    evaluating.resume()
    evaluation_wall, evaluation_cpu = evaluating.pause()
    cpu = time.process_time() - evaluation_cpu
    return {"solved": solved, "steps": taken, "cpu": cpu, "evaluation_wall": evaluation_wall}


def solving(race: str, sizes: Sizes) -> Round:
    """Measure the seconds and env steps of each runner from the start of its process; the round is the seed."""
    run = RACES[race]

    def one(side: str, seed: int) -> dict[str, float]:
        started = time.perf_counter()
        found = fresh("benchmarks.speed.solve:until_solved", race, side, seed, sizes.solve_steps)
        wall = time.perf_counter() - started - found["evaluation_wall"]
        values = {"s": wall, "CPU s": found["cpu"], "env steps": float(found["steps"])}
        return values if found["solved"] else dict.fromkeys(values, UNSOLVED)

    cited = {side: {"s": seconds} for side, seconds in run.cited.items()}
    return lambda seed: {**{side: one(side, seed) for side in run.runners}, **cited}
