"""Laws of Countdown's reference players."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from grpo_envs import CountdownEnv, CountdownVectorEnv
from grpo_envs.countdown_expression import evaluate, to_text
from grpo_envs.countdown_players import ExactSolver, RandomWriter, countdown_successes, solve
from grpo_envs.countdown_problems import Problem


@pytest.mark.parametrize(
    ("numbers", "n_games", "options"),
    [
        (3, 200, {}),
        (4, 200, {"split": "test"}),
        ((3, 5), 40, {"max_number": 9}),
        (6, 5, {"max_number": 100, "targets": (100, 1000)}),
    ],
)
def test_the_solver_solves_every_problem(numbers: Any, n_games: int, options: dict[str, Any]) -> None:
    env = CountdownVectorEnv(n_games, numbers=numbers, n_max=6, **options)
    assert countdown_successes(ExactSolver(n_max=6), env).all()


@pytest.mark.parametrize(
    ("numbers", "target"),
    [
        ((8, 8, 3, 3), 24),  # 8 ÷ (3 − 8 ÷ 3): fractions on the way
        ((5, 5, 5, 1), 24),  # (5 − 1 ÷ 5) × 5
        ((3, 2, 1), 7),
        ((97, 13, 13, 11, 1), 98),  # what is in the way is multiplied by 13 − 13
    ],
)
def test_a_solution_uses_each_number_once_and_equals_the_target(numbers: tuple[int, ...], target: int) -> None:
    solution = solve(Problem(numbers, target))
    assert solution is not None
    assert sorted(mark for mark in solution if isinstance(mark, int)) == list(range(len(numbers)))
    assert evaluate(numbers[mark] if isinstance(mark, int) else mark for mark in solution) == target


def test_a_solution_has_no_parentheses_that_it_does_not_need() -> None:
    solutions = [solve(Problem(*problem)) for problem in [((9, 5, 4), 18), ((9, 4, 3), 39), ((9, 4, 3), 15)]]
    assert [solution is not None and "(" in solution for solution in solutions] == [False, False, True]
    assert to_text(solutions[2] or ()) == "2 × (0 − 1)"


def test_a_problem_without_a_solution_has_none() -> None:
    # 7 − 7, 7 + 7, 7 × 7 and 7 ÷ 7, joined with 7: never 3
    assert solve(Problem((7, 7, 7), 3)) is None


def test_the_solver_plays_one_game_or_many_and_begins_anew_where_told() -> None:
    player, env = ExactSolver(), CountdownEnv(numbers=4)
    for seed in range(5):
        observation, info = env.reset(seed=seed)
        state, start, terminated = None, True, False
        while not terminated:
            action, state = player.predict(observation, state, np.array([start]))
            assert np.shape(action) == ()
            observation, _, terminated, _, info = env.step(action)
            start = False
        assert info["is_success"]
    first, _ = CountdownVectorEnv(2).reset(seed=0)
    actions, state = player.predict(first)
    _, state = player.predict(first, state)
    again, state = player.predict(first, state, [True, False])
    assert again[0] == actions[0]
    assert state.tolist() == [1, 3]


def test_a_solver_of_another_game_says_so() -> None:
    observation, _ = CountdownEnv(n_max=5).reset(seed=0)
    with pytest.raises(ValueError, match=r"shape \(64,\), expected \[53\] or \[n, 53\]"):
        ExactSolver().predict(observation)
    with pytest.raises(ValueError, match=r"\[0, 0, 0, 0\] cannot make 0"):
        ExactSolver().predict(np.zeros(53))


def test_random_play_is_legal_and_solves_one_problem_of_three_numbers_in_twenty() -> None:
    env = CountdownVectorEnv(2000, numbers=3, format_weight=0.0)
    solved = countdown_successes(RandomWriter(seed=0), env)
    assert env._well_formed.all()
    # 0.048 in 20,000 games; standard error of 2,000 is 0.005
    assert solved.mean() == pytest.approx(0.048, abs=0.02)


def test_the_random_player_writes_every_legal_token_equally_often() -> None:
    masks = np.tile([0, 1, 0, 1, 1], (6000, 1))
    tokens, state = RandomWriter(seed=0).predict(np.zeros((6000, 1)), action_masks=masks)
    assert state is None
    # standard error of a third of 6000 is 37
    assert np.bincount(tokens, minlength=5).tolist() == pytest.approx([0, 2000, 0, 2000, 2000], abs=150)
    with pytest.raises(ValueError, match="needs action_masks"):
        RandomWriter().predict(np.zeros(53))
