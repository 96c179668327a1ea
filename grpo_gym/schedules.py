"""Values that change with the progress of training, resolved to plain floats once an iteration."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from grpo_gym.types import Schedule


@dataclass(frozen=True)
class LinearSchedule:
    """Go from `start` to `end` in a straight line, reached when `end_fraction` of training is done.

      value = start + (end − start) · min(1, (1 − progress_remaining) / end_fraction)

    Args:
        start: value at the beginning of `learn`.
        end: value from `end_fraction` on.
        end_fraction: share of the training after which the value stays at `end`, in (0, 1].

    Raises:
        ValueError: if `end_fraction` is outside of it.
    """

    start: float
    end: float = 0.0
    end_fraction: float = 1.0

    def __post_init__(self) -> None:
        """Check the fraction, which is divided by."""
        if not 0 < self.end_fraction <= 1:
            raise ValueError(f"end_fraction={self.end_fraction} must be above 0 and at most 1")

    def __call__(self, progress_remaining: float) -> float:
        """Return the value at `progress_remaining`, which falls from 1 to 0."""
        return self.start + (self.end - self.start) * min(1.0, (1.0 - progress_remaining) / self.end_fraction)


def as_schedule(value: float | str | Schedule, name: str) -> Callable[[float], float]:
    """Turn a number, a text such as `"lin_0.001"`, or a function into a schedule.

    Args:
        value: a constant; `"lin_X"`, a straight line from X to 0; or a function of the progress remaining.
        name: the argument's name, for the error message.

    Raises:
        ValueError: if a number is not finite or negative, or a text is neither a number nor `lin_X`.
        TypeError: if `value` is none of the three.
    """
    if isinstance(value, str):
        text = value.removeprefix("lin_")
        try:
            number = float(text)
        except ValueError:
            raise ValueError(
                f"{name}={value!r} is not a schedule: give a number, 'lin_X' for a straight line from X to 0, "
                "or a function of the progress remaining (1 at the start, 0 at the end)"
            ) from None
        _check(number, value, name)
        return LinearSchedule(number) if text != value else LinearSchedule(number, number)
    if callable(value):
        return lambda progress: _check(float(value(progress)), value, name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name}={value!r} must be a number, a text like 'lin_0.001', or a function")
    _check(float(value), value, name)
    return LinearSchedule(float(value), float(value))


def _check(number: float, given: object, name: str) -> float:
    if not math.isfinite(number) or number < 0:
        raise ValueError(f"{name} must be finite and at least 0, got {number} from {given!r}")
    return number
