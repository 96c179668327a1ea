"""Countdown's problems: numbers and a target that can be reached, drawn from one of two disjoint splits."""

from __future__ import annotations

import zlib
from typing import NamedTuple

import numpy as np

SPLITS = ("train", "test")
MAX_NUMBER, MAX_TARGET = 100, 1000
# one problem in this many is held out for split="test"
HELD_OUT_SHARE = 10
_MAX_TRIES = 100_000


class Problem(NamedTuple):
    """What is given, and what is asked for.

    Attributes:
        numbers: 1 … 100, descending.
        target: 1 … 1000.
    """

    numbers: tuple[int, ...]
    target: int


def is_held_out(problem: Problem) -> bool:
    """Tell whether a problem belongs to split "test".

    Only the numbers and the target decide (CRC-32 of both, one in ten), not the seed or any option: a problem
    of one split can never be dealt in the other.
    """
    return zlib.crc32(f"{sorted(problem.numbers)} {problem.target}".encode()) % HELD_OUT_SHARE == 0


def draw(rng: np.random.Generator, n_numbers: int, max_number: int, targets: tuple[int, int]) -> Problem | None:
    """Draw numbers and evaluate a random expression of all of them.

    The numbers are uniform in 1 … max_number. Two values drawn at random are joined by a random operator until
    two are left; the last operator is drawn among those that lead to an integer target in range.

    Args:
        rng: the only source of randomness.
        n_numbers: how many, 2 or more.
        max_number: the largest, at most 100.
        targets: smallest and largest target.

    Returns:
        A solvable problem, or None if the expression divides by zero or leads to no target in range.
    """
    draws = iter(rng.random(4 * n_numbers).tolist())
    numbers = [1 + int(next(draws) * max_number) for _ in range(n_numbers)]
    # plain integers, because a `Fraction` costs more than the rest of a game's beginning
    ratios = [(number, 1) for number in numbers]
    while True:
        a, b = ratios.pop(int(next(draws) * len(ratios)))
        c, d = ratios.pop(int(next(draws) * len(ratios)))
        joined = [(a * d + c * b, b * d), (a * d - c * b, b * d), (a * c, b * d), (a * d, b * c)]
        if not ratios:
            break
        ratio = joined[int(next(draws) * 4)]
        if ratio[1] == 0:
            return None
        ratios.append(ratio)
    low, high = targets
    reached = [p // q for p, q in joined if q and p % q == 0 and low <= p // q <= high]
    if not reached:
        return None
    return Problem(tuple(sorted(numbers, reverse=True)), reached[int(next(draws) * len(reached))])


def deal(
    rng: np.random.Generator, n_numbers: tuple[int, int], max_number: int, targets: tuple[int, int], split: str
) -> Problem:
    """Draw how many numbers, then a problem of the split.

    Args:
        rng: the only source of randomness.
        n_numbers: fewest and most numbers, each count equally likely.
        max_number: see `draw`.
        targets: see `draw`.
        split: "train" or "test".

    Raises:
        ValueError: if a hundred thousand draws hold no such problem.
    """
    count = int(rng.integers(n_numbers[0], n_numbers[1] + 1))
    for _ in range(_MAX_TRIES):
        problem = draw(rng, count, max_number, targets)
        if problem is not None and is_held_out(problem) == (split == "test"):
            return problem
    raise ValueError(
        f"no problem of {count} numbers up to {max_number} with a target in {targets[0]} … {targets[1]} and "
        f"split={split!r} in {_MAX_TRIES:,} draws; raise max_number or widen targets"
    )
