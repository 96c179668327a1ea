"""n games of Countdown in arrays: `step` has no Python loop over games.

A value is a pair of int64, `[..., 2]`: numerator and denominator, not reduced; 0/0 is what a division by zero
makes, and stays 0/0 whatever follows. Nothing can overflow: for an expression of the numbers x each pair keeps
|numerator| + |denominator| ≤ Π(1 + x), because the parts of a sum, a product and a quotient are products of one
part of either side. With 6 numbers up to 100 and a target up to 1000 that is 1.1·10¹⁵, below 2⁵³: quotients
are rounded to the same float as those of `Fraction`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space

from grpo_envs import slots
from grpo_envs.countdown_expression import CLOSE, DIVIDE, MINUS, OPEN, SYMBOLS, TIMES
from grpo_envs.countdown_problems import Problem
from grpo_envs.countdown_rules import BoolArray, FloatArray, IntArray, ObservationArray, View, checked_rules

_MINUS, _TIMES, _DIVIDE, _OPEN, _CLOSE = (SYMBOLS.index(symbol) for symbol in (MINUS, TIMES, DIVIDE, OPEN, CLOSE))


def add(a: IntArray, b: IntArray) -> IntArray:
    """Add fractions `[..., 2]`."""
    return np.stack([a[..., 0] * b[..., 1] + b[..., 0] * a[..., 1], a[..., 1] * b[..., 1]], axis=-1)


def divide(a: IntArray, b: IntArray) -> IntArray:
    """Divide fractions `[..., 2]`; by zero makes 0/0."""
    below = a[..., 1] * b[..., 0]
    return np.stack([a[..., 0] * b[..., 1] * (below != 0), below], axis=-1)


def to_float(a: IntArray) -> FloatArray:
    """Round fractions `[..., 2]` to floats `[...]`; 0/0 becomes 0."""
    return a[..., 0] / np.where(a[..., 1] == 0, 1, a[..., 1])


class CountdownVectorEnv(VectorEnv[ObservationArray, IntArray, npt.NDArray[Any]]):
    """`num_envs` games of `CountdownEnv`, equal to it step for step when seeds and actions are equal.

    Nothing is reset by itself (`AutoresetMode.DISABLED`): reset finished slots with a `reset_mask`, or step
    the others alone with `env_id`. Infos are dictionaries of arrays; `info["action_mask"]` is
    `[k, n_max + 7]` int8. No returned array is ever written to again.

    Args:
        num_envs: number of games, n.
        numbers: see `CountdownEnv`, for this and all other options.
        n_max: room for so many numbers.
        max_number: the largest that is drawn.
        targets: (smallest, largest).
        split: "train" or "test".
        invalid: "mask" or "punish".
        correct_weight: of `correct` in the reward.
        format_weight: of `format` in the reward.

    Raises:
        ValueError: if n < 1, an option is out of range, or no problem fits them all.
    """

    metadata = slots.metadata()

    def __init__(
        self,
        num_envs: int = 1,
        numbers: int | Sequence[int] = (3, 4),
        n_max: int | None = None,
        max_number: int = 99,
        targets: Sequence[int] = (10, 100),
        split: str = "train",
        invalid: str = "mask",
        correct_weight: float = 1.0,
        format_weight: float = 0.1,
    ) -> None:
        self._slots = slots.Slots(num_envs)
        self.num_envs = num_envs
        self.rules = checked_rules(numbers, n_max, max_number, targets, split, invalid, correct_weight, format_weight)
        self.single_observation_space = self.rules.observation_space
        self.single_action_space = spaces.Discrete(self.rules.n_actions)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.problems: list[Problem] = [Problem((), 0)] * num_envs
        by_level = (num_envs, self.rules.n_max)
        self._numbers = np.zeros(by_level, dtype=np.int64)
        self._unused = np.zeros(by_level, dtype=np.bool_)
        self._targets = np.zeros(num_envs, dtype=np.int64)
        self._previous = np.zeros(num_envs, dtype=np.int64)
        # the levels of the expression, outermost first: see `countdown_expression.Level`
        self._depth = np.zeros(num_envs, dtype=np.int64)
        self._totals = np.zeros((*by_level, 2), dtype=np.int64)
        self._terms = np.zeros((*by_level, 2), dtype=np.int64)
        self._divides = np.zeros(by_level, dtype=np.bool_)
        self._has_operator = np.zeros(by_level, dtype=np.bool_)
        self._awaits_operand = np.zeros(num_envs, dtype=np.bool_)  # of the innermost level
        self._n_bare = np.zeros(num_envs, dtype=np.int64)
        self._correct = np.zeros(num_envs, dtype=np.bool_)
        self._well_formed = np.zeros(num_envs, dtype=np.bool_)
        self._legal = np.zeros((num_envs, self.rules.n_actions), dtype=np.bool_)
        self._observations = np.zeros(self.observation_space.shape or (), dtype=np.float32)

    def reset(
        self, *, seed: slots.Seeds = None, options: dict[str, Any] | None = None
    ) -> tuple[ObservationArray, dict[str, Any]]:
        """Draw new problems for all slots, or for those of `options["reset_mask"]`; see `Slots.deal`.

        Returns:
            Observations `[n, 11·n_max + 9]` and infos of all n slots, reset or not.
        """
        chosen, problems = self._slots.deal(seed, options, self.rules.deal)
        for slot, problem in zip(chosen.tolist(), problems, strict=True):
            self.problems[slot] = problem
        self._numbers[chosen] = [self.rules.padded(problem) for problem in problems]
        self._unused[chosen] = self._numbers[chosen] > 0
        self._targets[chosen] = [problem.target for problem in problems]
        self._previous[chosen] = -1
        self._depth[chosen] = self._n_bare[chosen] = 0
        self._open_level(chosen)
        self._has_operator[chosen, 0] = True
        self._awaits_operand[chosen] = True
        self._correct[chosen] = self._well_formed[chosen] = False
        self._look(chosen)
        return self._observations.copy(), self._infos(np.arange(self.num_envs))

    def step(
        self, actions: Any, env_id: Any = None
    ) -> tuple[ObservationArray, FloatArray, BoolArray, BoolArray, dict[str, Any]]:
        """Write a token in all n games, or only in the k games of `env_id`; see `Slots.chosen`.

        Returns:
            Observations `[k, 11·n_max + 9]`, rewards, terminated, truncated `[k]` and infos, in the order of
            `env_id`.
        """
        chosen, tokens = self._slots.chosen(actions, env_id, self.rules.n_actions)
        legal = self._legal[chosen, tokens]
        ends = legal & (tokens == self.rules.end)
        self._slots.playing[chosen] = legal & ~ends
        self._write(chosen[legal], tokens[legal])
        ended = chosen[ends]
        self._well_formed[ended] = True
        values = add(self._totals[ended, 0], self._terms[ended, 0])
        self._correct[ended] = (values[:, 1] != 0) & (values[:, 0] == values[:, 1] * self._targets[ended])
        self._look(chosen)
        rewards = np.asarray(self.rules.reward(self._correct[chosen], self._well_formed[chosen]), dtype=np.float64)
        terminated = ~self._slots.playing[chosen]
        truncated = np.zeros(len(chosen), dtype=np.bool_)
        return self._observations[chosen], rewards, terminated, truncated, self._infos(chosen)

    def action_masks(self) -> BoolArray:
        """Return True for each legal token, `[n, n_max + 7]`; for every token if `invalid="punish"`."""
        return self._legal.copy() if self.rules.masks else np.ones_like(self._legal)

    def _write(self, games: IntArray, tokens: IntArray) -> None:
        """Write legal tokens `[m]`, one in each of the games `[m]`."""
        self._previous[games] = tokens
        symbols = tokens - self.rules.n_max

        is_number = symbols < 0
        at, which = games[is_number], tokens[is_number]
        self._unused[at, which] = False
        numbers = self._numbers[at, which]
        self._put_operand(at, np.stack([numbers, np.ones_like(numbers)], axis=-1))

        is_operator = ~is_number & (symbols <= _DIVIDE)
        at, which = games[is_operator], symbols[is_operator]
        level = self._depth[at]
        self._n_bare[at] -= ~self._has_operator[at, level]
        self._has_operator[at, level] = True
        self._divides[at, level] = which == _DIVIDE
        self._awaits_operand[at] = True

        begins_term = which < _TIMES
        at, level = at[begins_term], level[begins_term]
        self._totals[at, level] = add(self._totals[at, level], self._terms[at, level])
        self._terms[at, level, 0] = np.where(which[begins_term] == _MINUS, -1, 1)
        self._terms[at, level, 1] = 1

        at = games[symbols == _OPEN]
        self._depth[at] += 1
        self._n_bare[at] += 1
        self._open_level(at)

        at = games[symbols == _CLOSE]
        level = self._depth[at]
        self._depth[at] -= 1
        self._put_operand(at, add(self._totals[at, level], self._terms[at, level]))

    def _open_level(self, games: IntArray) -> None:
        level = self._depth[games]
        self._totals[games, level] = 0, 1
        self._terms[games, level] = 1, 1
        self._divides[games, level] = self._has_operator[games, level] = False

    def _put_operand(self, games: IntArray, operands: IntArray) -> None:
        level = self._depth[games]
        terms = self._terms[games, level]
        divides = self._divides[games, level][:, None]
        self._terms[games, level] = np.where(divides, divide(terms, operands), terms * operands)
        self._divides[games, level] = False
        self._awaits_operand[games] = False

    def _look(self, games: IntArray) -> None:
        """Find the legal tokens and the observations of the games anew."""
        depth, unused = self._depth[games], self._unused[games]
        level = depth[:, None] - np.arange(self.rules.n_max)
        is_open = level >= 0
        inner_first = games[:, None], np.maximum(level, 0)
        has_operator = self._has_operator[inner_first] & is_open
        legal = self.rules.legal(self._awaits_operand[games], has_operator[:, 0], depth, self._n_bare[games], unused)
        self._legal[games] = legal & self._slots.playing[games][:, None]
        view = View(
            numbers=self._numbers[games],
            target=self._targets[games],
            totals=to_float(self._totals[inner_first]) * is_open,
            terms=to_float(self._terms[inner_first]) * is_open,
            unused=unused,
            previous=self._previous[games],
            divides=self._divides[inner_first] & is_open,
            has_operator=has_operator,
            is_open=is_open,
        )
        self._observations[games] = self.rules.observe(view)

    def _infos(self, games: IntArray) -> dict[str, Any]:
        masks = self._legal[games] if self.rules.masks else np.ones_like(self._legal[games])
        return {
            "action_mask": masks.astype(np.int8),
            "correct": self._correct[games].astype(np.float64),
            "format": self._well_formed[games].astype(np.float64),
            "is_success": self._correct[games],
        }
