"""Laws of exact arithmetic, token by token."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from grpo_envs.countdown_expression import OPERATORS, START, Token, Value, advance, evaluate, to_text
from hypothesis import given
from hypothesis import strategies as st


def tokens_of(text: str) -> list[Token]:
    """Read `(1 + 2) ÷ 3`: blanks between numbers and operators."""
    marks = text.replace("(", "( ").replace(")", " )").split()
    return [int(mark) if mark.isdigit() else mark for mark in marks]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        ("1 + 2", 3),
        ("(1 + 2) ÷ 3", 1),
        ("1 + 2 ÷ 3", Fraction(5, 3)),
        ("7 − 2 × 3", 1),
        ("2 × 3 − 7", -1),
        ("9 − 4 − 3", 2),
        ("9 − (4 − 3)", 8),
        ("8 ÷ 4 ÷ 2", 1),
        ("8 ÷ (4 ÷ 2)", 4),
        ("8 ÷ 4 × 2", 4),
        ("8 ÷ (3 − 8 ÷ 3)", 24),
        ("((1)) × (2 + (3 − 4))", 1),
        ("1 ÷ 3 + 1 ÷ 3 + 1 ÷ 3", 1),
        ("99 × 99 × 99 × 99 × 99 × 99", 941480149401),
    ],
)
def test_values_that_are_known(text: str, value: Value) -> None:
    assert evaluate(tokens_of(text)) == value


@pytest.mark.parametrize("text", ["1 ÷ (2 − 2)", "1 + 5 ÷ (3 − 3) × 0", "1 ÷ (1 ÷ 0)", "0 ÷ 0", "(4 ÷ 0) − (4 ÷ 0)"])
def test_division_by_zero_has_no_value_whatever_follows(text: str) -> None:
    assert evaluate(tokens_of(text)) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not complete; expected a number at its end"),
        ("1 +", "expected a number at its end"),
        ("(1 + 2", r"expected \) at its end"),
        ("1 2", r"2 cannot stand here; expected one of \+ − × ÷$"),
        ("(1 2", r"2 cannot stand here; expected one of \+ − × ÷ \)"),
        ("1 + + 2", r"'\+' cannot stand here; expected a number or \("),
        ("− 1", "expected a number or"),
        ("1 )", r"'\)' cannot stand here"),
        ("1 (", r"'\(' cannot stand here"),
        ("()", "expected a number or"),
        ("1 % 2", "'%' cannot stand here"),
        ("x", "'x' cannot stand here"),
    ],
)
def test_what_is_no_expression_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(tokens_of(text))


def apply(operator: str, a: Value, b: Value) -> Value:
    """One operation on fractions; None where there is no value."""
    if a is None or b is None or (operator == "÷" and b == 0):
        return None
    return {"+": a + b, "−": a - b, "×": a * b}[operator] if operator != "÷" else a / b


numbers = st.integers(0, 12)
trees: st.SearchStrategy[Any] = st.recursive(
    numbers, lambda sides: st.tuples(sides, st.sampled_from(OPERATORS), sides), max_leaves=8
)


def value_of(tree: Any) -> Value:
    """Evaluate a tree from its leaves."""
    if isinstance(tree, int):
        return Fraction(tree)
    left, operator, right = tree
    return apply(operator, value_of(left), value_of(right))


def fully_parenthesised(tree: Any) -> list[Token]:
    """Write a tree with parentheses around each operation."""
    if isinstance(tree, int):
        return [tree]
    left, operator, right = tree
    return ["(", *fully_parenthesised(left), operator, *fully_parenthesised(right), ")"]


@given(trees)
def test_a_tree_is_worth_what_its_leaves_make(tree: Any) -> None:
    assert evaluate(fully_parenthesised(tree)) == value_of(tree)


@given(numbers, st.lists(st.tuples(st.sampled_from(OPERATORS), numbers), max_size=8))
def test_times_and_divide_bind_first_and_then_all_goes_left_to_right(first: int, rest: list[tuple[str, int]]) -> None:
    flat: list[Token] = [first]
    terms: list[tuple[str, Value]] = [("+", Fraction(first))]
    for operator, number in rest:
        flat += [operator, number]
        if operator in "×÷":
            sign, term = terms[-1]
            terms[-1] = sign, apply(operator, term, Fraction(number))
        else:
            terms.append((operator, Fraction(number)))
    total: Value = Fraction(0)
    for sign, term in terms:
        total = apply(sign, total, term)
    assert evaluate(flat) == total


def test_the_levels_show_what_is_finished_and_what_waits() -> None:
    levels = START
    for token in tokens_of("7 − 2 × (5 + 1"):
        levels = advance(levels, token)
    whole, inner = levels
    assert [whole.total, whole.term, whole.divides, whole.awaits_operand] == [7, -2, False, True]
    assert [inner.total, inner.term, inner.value, inner.awaits_operand] == [5, 1, 6, False]
    assert advance(levels, ")")[0].value == -5


def test_text_is_written_as_people_do() -> None:
    assert to_text(tokens_of("(25 − (4 + 1)) × 2")) == "(25 − (4 + 1)) × 2"
    assert to_text([]) == ""
