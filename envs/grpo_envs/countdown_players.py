"""Reference players of Countdown: legal tokens at random, and a solver that never fails.

A player's `predict` takes one observation or a batch, and plays the same whatever `deterministic` says.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from itertools import combinations
from typing import Any, Protocol

import numpy as np

from grpo_envs.countdown_expression import CLOSE, DIVIDE, MINUS, OPEN, OPERATORS, PLUS, SYMBOLS, TIMES
from grpo_envs.countdown_problems import Problem
from grpo_envs.countdown_rules import SCALE, BoolArray, IntArray
from grpo_envs.countdown_vector import CountdownVectorEnv

# an expression: the position of a number, or (left, operator, right)
Tree = int | tuple[Any, str, Any]
# (position, number) of each
Given = tuple[tuple[int, int], ...]
# so few numbers make few values (108 at most): all of them are kept
_TABLED = 3


class RandomWriter:
    """Write a token drawn uniformly from the legal ones.

    Args:
        seed: of the player's own random stream.
    """

    def __init__(self, seed: int | None = None) -> None:
        self._rng = np.random.default_rng(seed)

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
        action_masks: Any = None,
    ) -> tuple[Any, None]:
        """Return tokens `[n]` (or one token) and None.

        Raises:
            ValueError: if there are no `action_masks` `[n, n_max + 7]` (or `[n_max + 7]`).
        """
        if action_masks is None:
            raise ValueError('RandomWriter needs action_masks; pass info["action_mask"]')
        masks = np.asarray(action_masks)
        return (self._rng.random(masks.shape) * masks).argmax(axis=-1), None


class ExactSolver:
    """Write a solution found by search. The state is how many tokens it wrote.

    Args:
        n_max: of the game it plays.
    """

    def __init__(self, n_max: int = 4) -> None:
        self.n_max = n_max

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
        action_masks: Any = None,
    ) -> tuple[Any, IntArray]:
        """Return tokens `[n]` (or one token) and how many were written `[n]`.

        Raises:
            ValueError: if an observation is not of this player's game, or its problem has no solution.
        """
        n = self.n_max
        views = np.asarray(observation)
        rows = np.atleast_2d(views)
        if rows.ndim != 2 or rows.shape[1] != 11 * n + 9:
            raise ValueError(f"observation has shape {views.shape}, expected [{11 * n + 9}] or [n, {11 * n + 9}]")
        written = np.zeros(len(rows), dtype=np.int64) if state is None else np.array(state)
        if episode_start is not None:
            written[np.atleast_1d(episode_start)] = 0
        shown = np.rint(rows[:, : n + 1] * SCALE).astype(np.int64).tolist()
        tokens = np.empty(len(rows), dtype=np.int64)
        for row, (*numbers, target) in enumerate(shown):
            solution = solve(Problem(tuple(filter(None, numbers)), target))
            if solution is None:
                raise ValueError(f"{numbers} cannot make {target}; the environment deals no such problem")
            # after the end there is nothing to write, but a row of a batch must hold something
            mark = solution[written[row]] if written[row] < len(solution) else None
            if isinstance(mark, int):
                tokens[row] = mark
            else:
                tokens[row] = n + (len(SYMBOLS) if mark is None else SYMBOLS.index(mark))
        return (tokens[0] if views.ndim == 1 else tokens), written + 1


class Writer(Protocol):
    """A player that is told which tokens are legal."""

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
        action_masks: Any = None,
    ) -> tuple[Any, Any]:
        """Return actions and the state to be handed in next time."""
        ...


def countdown_successes(player: Writer, env: CountdownVectorEnv, seed: int = 0) -> BoolArray:
    """Play one game in each slot, slot i on the problem of `seed + i`.

    Returns:
        Which games were solved, `[n]`.
    """
    observations, infos = env.reset(seed=seed)
    masks = infos["action_mask"]
    solved = np.zeros(env.num_envs, dtype=np.bool_)
    start = np.ones(env.num_envs, dtype=np.bool_)
    playing, state = np.arange(env.num_envs), None
    while len(playing):
        # finished games stay in the batch: a player's state has a row for each
        actions, state = player.predict(observations, state, start, action_masks=masks)
        observations[playing], _, terminated, _, infos = env.step(actions[playing], env_id=playing)
        masks[playing], solved[playing] = infos["action_mask"], infos["is_success"]
        playing, start = playing[~terminated], np.zeros(env.num_envs, dtype=np.bool_)
    return solved


@lru_cache(maxsize=1 << 16)
def solve(problem: Problem) -> tuple[int | str, ...] | None:
    """Find an expression of all numbers that equals the target, searching through all there are.

    Returns:
        Positions of numbers, and symbols; None if there is no such expression.
    """
    tree = _reach(tuple(enumerate(problem.numbers)), Fraction(problem.target))
    return None if tree is None else tuple(_marks(tree))


def _reach(given: Given, goal: Fraction) -> Tree | None:
    """Search backwards: one side of the last operator says what the other must come to."""
    if len(given) <= _TABLED:
        return _values(given).get(goal)
    for side, rest in _splits(given):
        for value, tree in _values(side).items():
            if value == goal == 0:
                return tree, TIMES, _sum(rest)
            for operator, first, wanted in _wanted(value, goal):
                other = _reach(rest, wanted)
                if other is not None:
                    return (tree, operator, other) if first else (other, operator, tree)
    return None


def _wanted(value: Fraction, goal: Fraction) -> Iterator[tuple[str, bool, Fraction]]:
    """Yield operator, whether the value stands first, and the other side that makes the goal."""
    yield PLUS, True, goal - value
    yield MINUS, True, value - goal
    yield MINUS, False, goal + value
    if value:
        yield TIMES, True, goal / value
        yield DIVIDE, False, goal * value
        if goal:
            yield DIVIDE, True, value / goal


def _splits(given: Given) -> Iterator[tuple[Given, Given]]:
    """Part the numbers in two, the smaller side first."""
    for size in range(1, len(given) // 2 + 1):
        for side in combinations(given, size):
            yield side, tuple(one for one in given if one not in side)


@lru_cache(maxsize=1 << 12)
def _values(given: Given) -> dict[Fraction, Tree]:
    """Evaluate every expression of all the given numbers; one tree for each value."""
    if len(given) == 1:
        return {Fraction(given[0][1]): given[0][0]}
    values: dict[Fraction, Tree] = {}
    for side, rest in _splits(given):
        for a, left in _values(side).items():
            for b, right in _values(rest).items():
                values |= {a + b: (left, PLUS, right), a - b: (left, MINUS, right), b - a: (right, MINUS, left)}
                values[a * b] = left, TIMES, right
                if b:
                    values[a / b] = left, DIVIDE, right
                if a:
                    values[b / a] = right, DIVIDE, left
    return values


def _sum(given: Given) -> Tree:
    tree: Tree = given[0][0]
    for position, _ in given[1:]:
        tree = (tree, PLUS, position)
    return tree


def _marks(tree: Tree) -> list[int | str]:
    """Write a tree as positions and symbols, with no more parentheses than it needs."""
    if isinstance(tree, int):
        return [tree]
    left, operator, right = tree
    rank = OPERATORS.index(operator) // 2
    marks = []
    for side, alike in ((left, False), (right, operator in (MINUS, DIVIDE))):
        weaker = isinstance(side, tuple) and OPERATORS.index(side[1]) // 2 < rank + alike
        marks.append([OPEN, *_marks(side), CLOSE] if weaker else _marks(side))
    return [*marks[0], operator, *marks[1]]
