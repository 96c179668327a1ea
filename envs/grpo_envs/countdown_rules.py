"""What Countdown's single and vector environments share: checked options, legal tokens, observations."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from grpo_envs.countdown_expression import SYMBOLS
from grpo_envs.countdown_problems import MAX_NUMBER, MAX_TARGET, SPLITS, Problem, deal

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
ObservationArray = npt.NDArray[np.float32]

INVALID = ("mask", "punish")
FEWEST, MOST = 3, 6
# fixed, not taken from the options: a policy reads 7 as 0.07 in every variant of the game
SCALE, LIMIT = 100.0, 10.0


class View(NamedTuple):
    """What k players see of their expressions, not yet scaled. Levels stand innermost first, n_max of them.

    Attributes:
        numbers: `[k, n_max]`, 0 where there is none.
        target: `[k]`.
        totals: of each `Level`, `[k, n_max]`; 0 where undefined, or where the level is not open.
        terms: of each `Level`, likewise.
        unused: which numbers are still to be used, `[k, n_max]`.
        previous: the token before, `[k]`; −1 at the beginning.
        divides: of each `Level`, `[k, n_max]`.
        has_operator: of each `Level`, `[k, n_max]`; True for the whole expression from its beginning.
        is_open: levels that there are, `[k, n_max]`.
    """

    numbers: npt.ArrayLike
    target: npt.ArrayLike
    totals: npt.ArrayLike
    terms: npt.ArrayLike
    unused: npt.ArrayLike
    previous: npt.ArrayLike
    divides: npt.ArrayLike
    has_operator: npt.ArrayLike
    is_open: npt.ArrayLike


class Rules(NamedTuple):
    """The options of `CountdownEnv`, as `checked_rules` returns them.

    Actions: a number at each of `n_max` positions, the six symbols, the end.
    """

    counts: tuple[int, int]
    n_max: int
    max_number: int
    targets: tuple[int, int]
    split: str
    masks: bool
    correct_weight: float
    format_weight: float

    @property
    def n_actions(self) -> int:
        """Size of the action space."""
        return self.n_max + len(SYMBOLS) + 1

    @property
    def end(self) -> int:
        """The token that ends the expression, the last of all."""
        return self.n_max + len(SYMBOLS)

    @property
    def max_tokens(self) -> int:
        """Length of the longest legal expression, its end included: see `legal`."""
        return 4 * self.n_max - 2

    @property
    def observation_space(self) -> spaces.Box[np.float32]:
        """Return the box of `[11·n_max + 9]`; see `CountdownEnv`."""
        return spaces.Box(-LIMIT, LIMIT, (11 * self.n_max + 9,), np.float32)

    def deal(self, rng: np.random.Generator) -> Problem:
        """Draw a problem."""
        return deal(rng, self.counts, self.max_number, self.targets, self.split)

    def padded(self, problem: Problem) -> tuple[int, ...]:
        """Return the problem's numbers and zeros after them, `n_max` in all."""
        return problem.numbers + (0,) * (self.n_max - len(problem.numbers))

    def legal(self, awaits_operand: Any, has_operator: Any, depth: Any, n_bare: Any, unused: BoolArray) -> BoolArray:
        """Tell which tokens can stand next, in one expression or in k.

        An expression uses each number once, and each parenthesis holds an operator of its own: no `(7)`, no
        `((1 + 2))`. A parenthesis that holds none yet, called bare, thus needs an unused number besides the
        operand that may be awaited. As long as there are so many the expression can be completed, and a token
        that leaves fewer is not legal. So there are at most as many parentheses as operators: n numbers make no
        more than n + (n − 1) + 2·(n − 1) tokens and the end.

        Args:
            awaits_operand: a number or ( comes next; else an operator, ) or the end; bool, `[...]`.
            has_operator: of the innermost parenthesis; True where none is open, bool, `[...]`.
            depth: number of open parentheses, `[...]`.
            n_bare: number of bare parentheses, `[...]`.
            unused: which numbers are still to be used, `[..., n_max]`.

        Returns:
            `[..., n_actions]`.
        """
        n, n_unused = self.n_max, np.count_nonzero(unused, axis=-1)
        awaits_operator = np.logical_not(awaits_operand)
        legal = np.zeros((*unused.shape[:-1], self.n_actions), dtype=np.bool_)
        legal[..., :n] = unused & np.asarray(awaits_operand)[..., None]
        # in a bare parenthesis an operator takes the number that was kept for it, elsewhere one more
        legal[..., n : n + 4] = np.asarray(awaits_operator & (n_unused >= n_bare + has_operator))[..., None]
        legal[..., n + 4] = awaits_operand & (n_unused >= n_bare + 2)
        legal[..., n + 5] = awaits_operator & has_operator & np.greater(depth, 0)
        legal[..., n + 6] = awaits_operator & np.equal(depth, 0) & (n_unused == 0)
        return legal

    def observe(self, view: View) -> ObservationArray:
        """Lay out and scale what k players see, `[k, 11·n_max + 9]`."""
        target, previous = np.asarray(view.target)[:, None], np.asarray(view.previous)[:, None]
        measures = np.concatenate([view.numbers, target, view.totals, view.terms], axis=1)
        logarithms = np.sign(measures) * np.log1p(np.abs(measures)) / np.log1p(SCALE)
        flags = [view.unused, previous == np.arange(self.n_actions), view.divides, view.has_operator, view.is_open]
        scaled = np.clip(measures / SCALE, -LIMIT, LIMIT)
        return np.concatenate([scaled, logarithms, *flags], axis=1, dtype=np.float32)

    def reward(self, correct: Any, well_formed: Any) -> Any:
        """Weigh the two parts, numbers or arrays."""
        return self.correct_weight * correct + self.format_weight * well_formed


def checked_rules(
    numbers: int | Sequence[int],
    n_max: int | None,
    max_number: int,
    targets: Sequence[int],
    split: str,
    invalid: str,
    correct_weight: float,
    format_weight: float,
) -> Rules:
    """Check the options of `CountdownEnv`.

    Raises:
        ValueError: if an option is out of range, or no problem fits them all.
    """
    low, high = _bounds("numbers", (numbers, numbers) if isinstance(numbers, int) else numbers, FEWEST, MOST)
    size = high if n_max is None else n_max
    if not high <= size <= MOST:
        raise ValueError(f"n_max={n_max} leaves no room for numbers={numbers}; expected {high} … {MOST}")
    if not 1 <= max_number <= MAX_NUMBER:
        raise ValueError(f"max_number={max_number} must lie in 1 … {MAX_NUMBER}")
    reachable = _bounds("targets", targets, 1, MAX_TARGET)
    for name, value, known in (("split", split, SPLITS), ("invalid", invalid, INVALID)):
        if value not in known:
            raise ValueError(f"{name}={value!r} is not known; choose from {', '.join(known)}")
    for count in range(low, high + 1):  # a hopeless game should fail when it is made, not in training
        deal(np.random.default_rng(0), (count, count), max_number, reachable, split)
    return Rules((low, high), size, max_number, reachable, split, invalid == "mask", correct_weight, format_weight)


def _bounds(name: str, given: Sequence[int], low: int, high: int) -> tuple[int, int]:
    bounds = tuple(map(operator.index, given))
    if len(bounds) != 2 or not low <= bounds[0] <= bounds[1] <= high:
        raise ValueError(f"{name}={given} must be (lowest, highest), in {low} … {high}")
    return bounds[0], bounds[1]
