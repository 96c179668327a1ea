"""What a case of the speed benchmark is, and the clocks it is measured with."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import SupportsInt

Values = Mapping[str, Mapping[str, float]]
"""What one round found: value by side and unit, `{"grpo": {"env steps/s": 50_000.0}}`; infinite if never reached."""

Round = Callable[[int], Values]
"""Measures every side once; called with the number of the round, 0, 1, …, which is also the seed."""


@dataclass(frozen=True)
class Sizes:
    """How much is measured in a round.

    Attributes:
        seconds: least wall-clock time of a speed.
        train_steps: env steps after which a policy counts as trained.
        learn_steps: env steps of a whole `learn`.
        solve_steps: budget of a run that shall solve its task; None for the budget of its settings.
        memory_steps: env steps over which memory is watched.
    """

    seconds: float = 2.0
    train_steps: int = 50_000
    learn_steps: int = 20_000
    solve_steps: int | None = None
    memory_steps: int = 2_000_000


QUICK = Sizes(seconds=0.02, train_steps=200, learn_steps=300, solve_steps=600, memory_steps=4_000)
"""Enough to see that a case works; the values mean nothing."""


@dataclass(frozen=True)
class Case:
    """One line of the table of cases.

    Attributes:
        about: what is measured and how, for who reads the table.
        prepare: makes everything ready, first-use costs included, and returns the function of one round.
        compared: which side is divided by which; by None to report the side alone.
        repeats: rounds.
    """

    about: str
    prepare: Callable[[Sizes], Round]
    compared: Sequence[tuple[str, str | None]]
    repeats: int


@dataclass(frozen=True)
class Spent:
    """What some work took.

    Attributes:
        count: units of work done.
        wall: seconds by the wall clock.
        cpu: processor seconds of this process; to be trusted more where the machine is shared.
    """

    count: int
    wall: float
    cpu: float

    def per_second(self, what: str) -> dict[str, float]:
        """Return the speed: `{"env steps/s": …, "env steps/CPU s": …}`."""
        return {f"{what}/s": self.count / self.wall, f"{what}/CPU s": self.count / self.cpu}

    def each(self, what: str) -> dict[str, float]:
        """Return the cost in microseconds: `{"µs/minibatch": …, "CPU µs/minibatch": …}`."""
        return {f"µs/{what}": 1e6 * self.wall / self.count, f"CPU µs/{what}": 1e6 * self.cpu / self.count}


def spend(work: Callable[[], SupportsInt], seconds: float = 0.0) -> Spent:
    """Do the work again and again for at least so long, and at least once.

    Args:
        work: returns the units of work done, at least 1, or what `int` makes them of: it is asked when the clock has
            stopped.
        seconds: by the wall clock.
    """
    done, wall, cpu = [], time.perf_counter(), time.process_time()
    while True:
        done.append(work())
        elapsed = time.perf_counter() - wall
        if elapsed >= seconds:
            spent = time.process_time() - cpu
            return Spent(sum(map(int, done)), elapsed, spent)


def speed(work: Callable[[], SupportsInt], seconds: float = 0.0) -> dict[str, float]:
    """Return the speed of work that returns the env steps it took; see `spend`."""
    return spend(work, seconds).per_second("env steps")
