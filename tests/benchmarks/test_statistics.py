from __future__ import annotations

import numpy as np
import pytest

from benchmarks import statistics


def test_interquartile_mean_of_eight_leaves_out_two_at_each_end() -> None:
    assert statistics.interquartile_mean([1, 2, 3, 4, 5, 6, 7, 800]) == 4.5


@pytest.mark.parametrize(
    ("scores", "expected"),
    [([7], 7.0), ([1, 2, 9], 4.0), ([0, 3, 4, 5, 99], 4.0), ([0, 0, 1, 2, 3, 4, 5, 6, 90, 99], 3.5)],
    ids=["one", "three keep all", "five lose one each", "ten lose two each"],
)
def test_interquartile_mean_of_the_numbers_of_seeds_we_report(scores: list[float], expected: float) -> None:
    assert statistics.interquartile_mean(scores) == expected


def test_interquartile_mean_along_an_axis() -> None:
    np.testing.assert_array_equal(statistics.interquartile_mean([[1, 2, 3, 50], [4, 0, 9, 5]], axis=1), [2.5, 4.5])


def test_interval_of_equal_scores_is_that_score() -> None:
    assert statistics.stratified_bootstrap_interval([[5, 5, 5]], np.random.default_rng(0)) == (5.0, 5.0)


def test_interval_of_three_seeds_runs_from_close_to_the_lowest_to_close_to_the_highest() -> None:
    # 1 of 27 resamples is 0 0 0 and 1 is 9 9 9, both beyond 2.5 %: the ends of the interval are those
    assert statistics.stratified_bootstrap_interval([[0, 3, 9]], np.random.default_rng(0)) == (0.0, 9.0)


def test_resampling_never_moves_a_seed_to_another_task() -> None:
    # each task's seeds agree, so every resample is 0 0 and 10 10, whatever is drawn
    assert statistics.stratified_bootstrap_interval([[0, 0], [10, 10]], np.random.default_rng(1)) == (5.0, 5.0)


def test_a_task_weighs_the_same_however_many_seeds_it_has() -> None:
    # of all seven together the middle half is 1 1 1
    assert statistics.mean_over_tasks([[0], [1, 1, 1, 1, 1, 1]]) == 0.5
    assert statistics.stratified_bootstrap_interval([[0], [1] * 6], np.random.default_rng(2)) == (0.5, 0.5)


def test_a_task_on_which_all_fail_is_no_outlier() -> None:
    # of all sixteen together the four failures would be left out
    assert statistics.mean_over_tasks([[0] * 4, [1] * 4, [1] * 4, [1] * 4]) == 0.75


def test_a_half_of_the_pairs_with_ties_halved_is_a_probability_of_five_eighths() -> None:
    # 2>1, 2=2, 3>1, 3>2: 3.5 of 4; second task 0>1, 0>2, … : 0 of 4, and 1=1, so 0.5 of 4 with 1 in place of a 0
    assert statistics.probability_of_improvement([[2, 3]], [[1, 2]]) == 0.875
    assert statistics.probability_of_improvement([[2, 3], [0, 1]], [[1, 2], [1, 2]]) == 0.5


def test_probability_of_improvement_over_itself_is_a_half() -> None:
    assert statistics.probability_of_improvement([[4, 1, 8]], [[4, 1, 8]]) == 0.5


def test_every_task_weighs_the_same_in_the_profile() -> None:
    # above 0.5: 1 of 1 and 1 of 4, mean 0.625; above 1: none; a score at the threshold is not above it
    shares = statistics.performance_profile([[1.0], [0.0, 0.5, 0.2, 0.9]], [-1, 0, 0.5, 1])
    np.testing.assert_array_equal(shares, [1.0, 0.875, 0.625, 0.0])


def test_random_play_is_zero_and_solved_is_one() -> None:
    np.testing.assert_array_equal(statistics.normalized([-500, -90, -295], low=-500, high=-90), [0, 1, 0.5])


@pytest.mark.parametrize("scores", [[], [1, float("nan")]])
def test_missing_scores_are_refused(scores: list[float]) -> None:
    with pytest.raises(ValueError, match="at least one score, all finite"):
        statistics.interquartile_mean(scores)


def test_no_task_is_refused() -> None:
    with pytest.raises(ValueError, match="no task to average over"):
        statistics.mean_over_tasks([])


def test_comparing_different_tasks_is_refused() -> None:
    with pytest.raises(ValueError, match="2 tasks against 1"):
        statistics.probability_of_improvement([[1], [2]], [[1]])


def test_an_empty_scale_is_refused() -> None:
    with pytest.raises(ValueError, match="must be above"):
        statistics.normalized([1], low=2, high=2)
