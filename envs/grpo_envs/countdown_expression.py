"""Arithmetic written token by token, and its exact value: no `eval`, no floats.

An unfinished expression is a tuple of levels: the whole expression first, then each open parenthesis. A
level holds a sum and the product that will join it, so that × and ÷ bind before + and − without looking back.
A token is a number or one of `+ − × ÷ ( )`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction

Token = int | Fraction | str
Value = Fraction | None  # None: something was divided by zero

PLUS, MINUS, TIMES, DIVIDE, OPEN, CLOSE = SYMBOLS = ("+", "−", "×", "÷", "(", ")")
OPERATORS = SYMBOLS[:4]


@dataclass(frozen=True)
class Level:
    """What stands at one level so far: `total + term`, or `total + term ∘ …` while an operand is awaited.

    Attributes:
        total: sum of the terms that are finished.
        term: the product in progress with its sign; ±1 at its beginning.
        divides: the operand awaited divides the term; otherwise it multiplies it.
        awaits_operand: a number or a parenthesis comes next; otherwise an operator, `)` or the end.
        has_operator: an operator stands at this level.
    """

    total: Value = Fraction(0)
    term: Value = Fraction(1)
    divides: bool = False
    awaits_operand: bool = True
    has_operator: bool = False

    @property
    def value(self) -> Value:
        """Sum of all terms."""
        return None if self.total is None or self.term is None else self.total + self.term

    def after_operand(self, operand: Value) -> Level:
        """Multiply the term by a number or the value of a parenthesis, or divide it."""
        term: Value = None
        if self.term is not None and operand is not None and not (self.divides and operand == 0):
            term = self.term / operand if self.divides else self.term * operand
        return replace(self, term=term, divides=False, awaits_operand=False)

    def after_operator(self, operator: str) -> Level:
        """Go on with the term (× ÷) or begin a new one (+ −)."""
        if operator in (TIMES, DIVIDE):
            return replace(self, divides=operator == DIVIDE, awaits_operand=True, has_operator=True)
        return Level(self.value, Fraction(-1 if operator == MINUS else 1), has_operator=True)


Levels = tuple[Level, ...]
START: Levels = (Level(),)


def advance(levels: Levels, token: Token) -> Levels:
    """Write one more token.

    Args:
        levels: of the expression so far; `START` for none.
        token: a number, or one of `+ − × ÷ ( )`.

    Raises:
        ValueError: if the token cannot stand there.
    """
    *outer, level = levels
    if level.awaits_operand:
        if token == OPEN:
            return (*levels, Level())
        if not isinstance(token, str):
            return (*outer, level.after_operand(Fraction(token)))
    elif token in OPERATORS:
        return (*outer, level.after_operator(str(token)))
    elif token == CLOSE and outer:
        return (*outer[:-1], outer[-1].after_operand(level.value))
    expected = "a number or (" if level.awaits_operand else f"one of {' '.join(OPERATORS)}{' )' if outer else ''}"
    raise ValueError(f"{token!r} cannot stand here; expected {expected}")


def evaluate(tokens: Iterable[Token]) -> Value:
    """Return the exact value of a complete expression.

      evaluate(["(", 1, "+", 2, ")", "÷", 3]) = 1

    Returns:
        The value; None if something was divided by zero.

    Raises:
        ValueError: if the tokens make no expression.
    """
    levels = START
    for token in tokens:
        levels = advance(levels, token)
    if len(levels) > 1 or levels[0].awaits_operand:
        missing = "a number" if levels[-1].awaits_operand else CLOSE
        raise ValueError(f"the expression is not complete; expected {missing} at its end")
    return levels[0].value


def to_text(tokens: Iterable[Token]) -> str:
    """Write tokens as people do: `(25 − 4) × 2`."""
    return " ".join(map(str, tokens)).replace(f"{OPEN} ", OPEN).replace(f" {CLOSE}", CLOSE)
