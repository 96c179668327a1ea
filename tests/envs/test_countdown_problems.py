"""Laws of Countdown's problems: options are kept, and the splits share nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from grpo_envs import CountdownEnv, CountdownVectorEnv
from grpo_envs.countdown_problems import Problem, draw, is_held_out
from hypothesis import given
from hypothesis import strategies as st


@given(seed=st.integers(0, 2**40), split=st.sampled_from(["train", "test"]), high=st.integers(3, 6))
def test_a_problem_keeps_what_was_asked_for(seed: int, split: str, high: int) -> None:
    options: dict[str, Any] = {"numbers": (3, high), "max_number": 20, "targets": (5, 60), "split": split}
    env = CountdownEnv(**options)
    env.reset(seed=seed)
    numbers, target = env.problem
    assert 3 <= len(numbers) <= high
    assert list(numbers) == sorted(numbers, reverse=True)
    assert 1 <= min(numbers) <= max(numbers) <= 20
    assert 5 <= target <= 60
    assert is_held_out(env.problem) == (split == "test")
    env.reset(seed=seed)
    assert env.problem == (numbers, target)


def test_a_problem_belongs_to_one_split_whatever_the_order_of_its_numbers() -> None:
    assert is_held_out(Problem((3, 2, 7), 15)) == is_held_out(Problem((7, 3, 2), 15))
    train, test = (CountdownVectorEnv(1000, numbers=3, max_number=9, split=split) for split in ("train", "test"))
    train.reset(seed=0)
    test.reset(seed=0)
    assert len(set(test.problems)) > 100
    assert not set(train.problems) & set(test.problems)


def test_one_problem_in_ten_is_held_out() -> None:
    problems = [Problem((a, b, 1), t) for a in range(1, 31) for b in range(1, a + 1) for t in range(10, 60)]
    # standard error of the share of 23,250 problems is 0.002
    assert np.mean([is_held_out(problem) for problem in problems]) == pytest.approx(0.1, abs=0.01)


def test_every_count_of_numbers_is_drawn_equally_often() -> None:
    env = CountdownVectorEnv(2000, numbers=(3, 4))
    env.reset(seed=0)
    # standard error 0.011
    assert np.mean([len(problem.numbers) == 3 for problem in env.problems]) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"numbers": 2}, "in 3 … 6"),
        ({"numbers": (4, 3)}, "in 3 … 6"),
        ({"numbers": 7}, "in 3 … 6"),
        ({"numbers": (3, 4, 5)}, r"must be \(lowest, highest\)"),
        ({"numbers": (3, 4), "n_max": 3}, "expected 4 … 6"),
        ({"n_max": 7}, "expected 4 … 6"),
        ({"max_number": 101}, "in 1 … 100"),
        ({"max_number": 0}, "in 1 … 100"),
        ({"targets": (0, 10)}, "in 1 … 1000"),
        ({"targets": (10, 9)}, "in 1 … 1000"),
        ({"targets": (10, 1001)}, "in 1 … 1000"),
        ({"split": "validation"}, "choose from train, test"),
        ({"invalid": "ignore"}, "choose from mask, punish"),
        # 4·4·4·4 is far below
        ({"max_number": 4, "targets": (900, 1000)}, "raise max_number or widen targets"),
    ],
)
def test_an_impossible_game_is_refused_when_it_is_made(
    options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("grpo_envs.countdown_problems._MAX_TRIES", 1_000)
    with pytest.raises(ValueError, match=message):
        CountdownEnv(**options)
    with pytest.raises(ValueError, match=message):
        CountdownVectorEnv(2, **options)


def test_an_expression_that_divides_by_zero_makes_no_problem() -> None:
    class Draws:
        def random(self, size: int) -> Any:
            # numbers 1 1 1 1 1; 1 − 1 = 0; 1 ÷ 0; 1 ÷ (1 ÷ 0), which is not 0; 1 + that
            return np.array([0.0] * 5 + [0.0, 0.0, 0.25, 0.0, 0.7, 0.75, 0.0, 0.5, 0.75] + [0.0] * (size - 14))

    assert draw(Draws(), 5, 9, (1, 100)) is None  # type: ignore[arg-type]
