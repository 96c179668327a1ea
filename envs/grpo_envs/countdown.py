"""Countdown: write, token by token, an expression that uses each number once and equals the target."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from grpo_envs import rendering
from grpo_envs.countdown_expression import START, SYMBOLS, Levels, Token, advance, to_text
from grpo_envs.countdown_problems import Problem
from grpo_envs.countdown_rules import BoolArray, ObservationArray, View, checked_rules

RENDER_MODES = ("ansi",)


class CountdownEnv(gym.Env[ObservationArray, np.int64]):
    """Reach a target with 3 to 6 numbers, each used exactly once, and + − × ÷ ( ).

    Action: `Discrete(n_max + 7)`: the number at position 0 … n_max − 1, then `+ − × ÷ ( )`, then the end. The
    numbers lie in descending order. × and ÷ bind before + and −; values are exact fractions; an expression that
    divides by zero is wrong.

    Observation: `Box` float32 `[11·n_max + 9]`. It holds the running values, because evaluating an expression is
    not what is to be learned here. A *level* is an open parenthesis, or the whole expression; the innermost one
    stands first. A level is `total + term`, or `total + term ∘ operand` where ∘ waits for its operand: after
    `7 − 2 ×` total is 7, term −2; total 0 and term 1 at the beginning.

      entries     what
      n_max       numbers, 0 where there is none
      1           target
      n_max       total of each level
      n_max       term of each level
      3·n_max+1   the same once more on a logarithmic scale
      n_max       1 where a number is still to be used
      n_max + 7   the token before, one-hot; zeros at the beginning
      n_max       1 where ÷ joins the term of the level with its next operand, 0 for ×
      n_max       1 where the level holds an operator; always 1 for the whole expression
      n_max       1 where there is such a level

    Numbers are divided by 100 and cut at ±10; on the logarithmic scale x is `sign(x)·log(1 + |x|)/log(101)`.
    What is undefined after a division by zero reads 0.

    Legal tokens: those with which an expression of all numbers can still be completed, without parentheses that
    hold no operator of their own (`(7)`, `((1 + 2))`); there is always one. `Rules.legal` has the exact
    conditions. An episode ends (`terminated`) with the end token, after 4·n − 2 tokens at most for n numbers, or
    with an illegal token, which is not written down.

    Reward: 0 until then; `correct_weight·correct + format_weight·format` at the end. `format` is 1 if the
    expression was ended legally, `correct` is 1 if besides it equals the target. Both stand in `info` as they
    are, with `is_success`, which is `correct` as a bool; all 0 before the end. `info["action_mask"]` (int8) and
    `action_masks()` (bool) are 1 where a token is legal; all 0 after the end.

    The task, its two rewards and their weights are those that GRPO-Zero trains language models on.

    Args:
        numbers: how many are given, 3 … 6; or (fewest, most), each count equally likely.
        n_max: room for so many in the spaces, `numbers` at least: a policy can then play both games.
        max_number: numbers are drawn uniformly from 1 to this, at most 100.
        targets: (smallest, largest), within 1 … 1000; see `countdown_problems.draw`.
        split: "train" or "test", two sets that share no problem; see `countdown_problems.is_held_out`.
        invalid: "mask" marks illegal tokens in the action mask; "punish" does not (the mask is all 1): writing
            legally is then a part of the task, paid for by `format_weight`.
        correct_weight: of `correct`.
        format_weight: of `format`.
        render_mode: None or "ansi".

    Raises:
        ValueError: if an option is out of range, or no problem fits them all.
    """

    metadata = rendering.metadata() | {"render_modes": list(RENDER_MODES)}

    def __init__(
        self,
        numbers: int | Sequence[int] = (3, 4),
        n_max: int | None = None,
        max_number: int = 99,
        targets: Sequence[int] = (10, 100),
        split: str = "train",
        invalid: str = "mask",
        correct_weight: float = 1.0,
        format_weight: float = 0.1,
        render_mode: str | None = None,
    ) -> None:
        if render_mode is not None and render_mode not in RENDER_MODES:
            raise ValueError(f"render_mode={render_mode!r} is not known; choose from None, {', '.join(RENDER_MODES)}")
        self.render_mode = render_mode
        self.rules = checked_rules(numbers, n_max, max_number, targets, split, invalid, correct_weight, format_weight)
        self.observation_space = self.rules.observation_space
        self.action_space = gym.spaces.Discrete(self.rules.n_actions)
        self._begin(Problem((), 0))
        self._playing = False

    def _begin(self, problem: Problem) -> None:
        self.problem = problem
        self._numbers = self.rules.padded(problem)
        self._unused = np.array(self._numbers) > 0
        self._written: list[int] = []
        self._levels: Levels = START
        self._correct = self._well_formed = False
        self._playing = True

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[ObservationArray, dict[str, Any]]:
        """Draw a problem; with `seed`, the problem of that seed."""
        super().reset(seed=seed)
        self._begin(self.rules.deal(self.np_random))
        return self._observation(), self._info()

    def step(self, action: int | np.integer[Any]) -> tuple[ObservationArray, float, bool, bool, dict[str, Any]]:
        """Write a token.

        Raises:
            ResetNeeded: if no episode is in progress.
            ValueError: if there is no such token.
        """
        if not self._playing:
            raise gym.error.ResetNeeded("no episode in progress: it ended or never began; call reset() first")
        token = operator.index(action)
        if not 0 <= token < self.rules.n_actions:
            raise ValueError(f"action={token} is not a token; expected 0 … {self.rules.end}")
        legal = bool(self._legal()[token])
        if legal:
            self._written.append(token)
        if legal and token != self.rules.end:
            self._levels = advance(self._levels, self._meaning(token))
            if token < self.rules.n_max:
                self._unused[token] = False
        else:
            self._playing = False
            self._well_formed = legal
            self._correct = legal and self._levels[0].value == self.problem.target
        reward = float(self.rules.reward(self._correct, self._well_formed))
        return self._observation(), reward, not self._playing, False, self._info()

    def action_masks(self) -> BoolArray:
        """Return True for each legal token, `[n_max + 7]`; for every token if `invalid="punish"`."""
        return self._legal() if self.rules.masks else np.ones(self.rules.n_actions, dtype=np.bool_)

    def render(self) -> Any:
        """Write the problem and the expression so far: `7 3 2 → 15    (7 − 2) ×`."""
        if self.render_mode is None:
            gym.logger.warn('render() draws nothing without render_mode="ansi" at construction')
            return None
        written = to_text(self._meaning(token) for token in self._written if token != self.rules.end)
        value = self._levels[0].value
        result = f" = {'undefined' if value is None else value}" if self._well_formed else ""
        return f"{' '.join(map(str, self.problem.numbers))} → {self.problem.target}    {written}{result}"

    def _meaning(self, token: int) -> Token:
        n = self.rules.n_max
        return self._numbers[token] if token < n else SYMBOLS[token - n]

    def _legal(self) -> BoolArray:
        if not self._playing:
            return np.zeros(self.rules.n_actions, dtype=np.bool_)
        *outer, level = self._levels
        n_bare = sum(not one.has_operator for one in self._levels[1:])
        has_operator = level.has_operator or not outer
        return self.rules.legal(level.awaits_operand, has_operator, len(outer), n_bare, self._unused)

    def _observation(self) -> ObservationArray:
        levels = [*reversed(self._levels)]
        rest = [0] * (self.rules.n_max - len(levels))
        view = View(
            numbers=[self._numbers],
            target=[self.problem.target],
            totals=[[*(float(level.total or 0) for level in levels), *rest]],
            terms=[[*(float(level.term or 0) for level in levels), *rest]],
            unused=[self._unused],
            previous=self._written[-1:] or [-1],
            divides=[[*(level.divides for level in levels), *rest]],
            has_operator=[[*(level.has_operator for level in levels[:-1]), True, *rest]],
            is_open=[[*(True for _ in levels), *rest]],
        )
        row: ObservationArray = self.rules.observe(view)[0]
        return row

    def _info(self) -> dict[str, Any]:
        return {
            "action_mask": self.action_masks().astype(np.int8),
            "correct": float(self._correct),
            "format": float(self._well_formed),
            "is_success": self._correct,
        }
