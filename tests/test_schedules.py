import math

import pytest

from grpo_gym.schedules import LinearSchedule, as_schedule


@pytest.mark.parametrize(("remaining", "value"), [(1.0, 4.0), (0.75, 3.5), (0.5, 3.0), (0.0, 2.0)])
def test_a_linear_schedule_is_a_straight_line_in_the_progress_made(remaining: float, value: float) -> None:
    assert LinearSchedule(4.0, 2.0)(remaining) == value


@pytest.mark.parametrize(("remaining", "value"), [(1.0, 4.0), (0.75, 2.0), (0.5, 0.0), (0.25, 0.0), (0.0, 0.0)])
def test_a_linear_schedule_stays_at_its_end_once_it_is_there(remaining: float, value: float) -> None:
    assert LinearSchedule(4.0, 0.0, end_fraction=0.5)(remaining) == value


@pytest.mark.parametrize("fraction", [0.0, -1.0, 1.5, math.nan])
def test_an_end_fraction_outside_of_0_and_1_is_refused_at_once(fraction: float) -> None:
    with pytest.raises(ValueError, match="end_fraction"):
        LinearSchedule(1.0, 0.0, end_fraction=fraction)


@pytest.mark.parametrize("given", [0.5, "0.5", lambda remaining: 0.5])
def test_a_constant_is_the_same_from_start_to_end(given: object) -> None:
    schedule = as_schedule(given, "clip_range")  # type: ignore[arg-type]
    assert [schedule(1.0), schedule(0.3), schedule(0.0)] == [0.5, 0.5, 0.5]


def test_an_integer_is_a_number() -> None:
    assert as_schedule(1, "clip_range")(0.5) == 1.0


def test_lin_goes_to_zero() -> None:
    schedule = as_schedule("lin_0.5", "learning_rate")
    assert [schedule(1.0), schedule(0.5), schedule(0.0)] == [0.5, 0.25, 0.0]


def test_a_function_is_asked_for_each_progress() -> None:
    assert as_schedule(lambda remaining: 2 * remaining, "learning_rate")(0.25) == 0.5


@pytest.mark.parametrize("given", [-0.1, math.nan, math.inf, "lin_-1", "nan", "lin_inf"])
def test_impossible_numbers_are_refused_at_once_by_name(given: float | str) -> None:
    with pytest.raises(ValueError, match=r"learning_rate must be finite and at least 0.*got"):
        as_schedule(given, "learning_rate")


@pytest.mark.parametrize("given", ["fast", "lin_", "linear_0.1", "cos_0.1", ""])
def test_other_texts_are_refused_and_the_form_is_explained(given: str) -> None:
    with pytest.raises(ValueError, match=r"learning_rate=.*'lin_X'"):
        as_schedule(given, "learning_rate")


@pytest.mark.parametrize("given", [None, True, [0.1], {}])
def test_what_is_no_schedule_at_all_is_a_type_error(given: object) -> None:
    with pytest.raises(TypeError, match=r"learning_rate=.*must be a number"):
        as_schedule(given, "learning_rate")  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_a_function_that_returns_an_impossible_number_is_refused_when_it_does(value: float) -> None:
    schedule = as_schedule(lambda remaining: value, "learning_rate")
    with pytest.raises(ValueError, match="learning_rate must be finite"):
        schedule(0.5)
