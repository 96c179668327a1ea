"""Laws of Countdown: tokens, rewards, masks, problems."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from grpo_envs import CountdownEnv, CountdownVectorEnv
from grpo_envs.countdown_problems import Problem
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

ID = "grpo/Countdown-v0"


def begun(given_numbers: tuple[int, ...], target: int, **options: Any) -> CountdownEnv:
    """A game of a problem of the test's choice."""
    env = CountdownEnv(**options)
    env.reset(seed=0)
    env._begin(Problem(given_numbers, target))
    return env


def token(env: CountdownEnv, mark: str) -> int:
    """Action of a symbol, of a number (its first position that is unused, if any), or of the end, `=`."""
    n = env.rules.n_max
    if mark in "+−×÷()=":
        return n + "+−×÷()=".index(mark)
    places = [i for i, number in enumerate(env.problem.numbers) if number == int(mark)]
    return next((i for i in places if env._unused[i]), places[0])


def write(env: CountdownEnv, text: str) -> Any:
    """Write `( 7 − 2 ) × 3 =`, blanks between all tokens, and return what the last step did."""
    for mark in text.split():
        result = env.step(token(env, mark))
    return result


def legal(env: CountdownEnv) -> set[str]:
    """What can be written next."""
    marks = [*map(str, env.problem.numbers), *"+−×÷()="]
    places = [*range(len(env.problem.numbers)), *range(env.rules.n_max, env.rules.n_actions)]
    mask = env.action_masks()
    assert not mask[len(env.problem.numbers) : env.rules.n_max].any()
    return {mark for mark, place in zip(marks, places, strict=True) if mask[place]}


def test_the_game_is_registered_for_single_and_vector_use() -> None:
    env = gym.make("grpo_envs:grpo/Countdown-v0", numbers=[3, 5], n_max=6)
    assert env.action_space == gym.spaces.Discrete(13)
    assert env.observation_space == gym.spaces.Box(-10, 10, (75,), np.float32)
    vector = gym.make_vec(ID, 3, vectorization_mode="vector_entry_point", split="test")
    assert isinstance(vector, CountdownVectorEnv)
    assert vector.rules.split == "test"
    assert vector.metadata["autoreset_mode"] is AutoresetMode.DISABLED
    assert vector.observation_space.shape == (3, 53)


@pytest.mark.parametrize("invalid", ["mask", "punish"])
def test_gymnasium_finds_nothing_to_warn_of(invalid: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gym.make(ID, invalid=invalid, render_mode="ansi").unwrapped)


@pytest.mark.parametrize(
    ("numbers", "target", "text", "correct"),
    [
        ((7, 3, 2), 15, "( 7 − 2 ) × 3 =", True),
        ((7, 3, 2), 1, "7 − 2 × 3 =", True),
        ((7, 3, 2), 15, "7 − 2 × 3 =", False),
        ((8, 8, 3, 3), 24, "8 ÷ ( 3 − 8 ÷ 3 ) =", True),
        # −15 is not 15
        ((7, 3, 2), 15, "3 × ( 2 − 7 ) =", False),
        # nearly is not right: 99 + 1/98
        ((99, 98, 1), 99, "99 + 1 ÷ 98 =", False),
        ((3, 2, 2), 3, "3 ÷ ( 2 − 2 ) =", False),
    ],
)
def test_an_expression_is_right_if_it_equals_the_target(
    numbers: tuple[int, ...], target: int, text: str, correct: bool
) -> None:
    _, reward, terminated, truncated, info = write(begun(numbers, target), text)
    assert (terminated, truncated) == (True, False)
    assert (info["correct"], info["format"], info["is_success"]) == (float(correct), 1.0, correct)
    assert reward == pytest.approx(1.1 if correct else 0.1)


def test_nothing_is_paid_before_the_end() -> None:
    env = begun((7, 3, 2), 12)
    for mark in ["7", "+", "3", "+", "2"]:
        _, reward, terminated, _, info = env.step(token(env, mark))
        assert (reward, terminated) == (0.0, False)
        assert (info["correct"], info["format"], info["is_success"]) == (0.0, 0.0, False)
    assert env.step(token(env, "="))[1] == pytest.approx(1.1)


def test_the_parts_of_the_reward_are_weighed_and_told_apart() -> None:
    _, reward, _, _, info = write(begun((7, 3, 2), 12, correct_weight=2.0, format_weight=0.5), "7 + 3 + 2 =")
    assert (reward, info["correct"], info["format"]) == (2.5, 1.0, 1.0)
    _, reward, _, _, info = write(begun((7, 3, 2), 11, correct_weight=2.0, format_weight=0.5), "7 + 3 + 2 =")
    assert (reward, info["correct"], info["format"]) == (0.5, 0.0, 1.0)


@pytest.mark.parametrize("invalid", ["mask", "punish"])
@pytest.mark.parametrize(
    "text",
    [
        "7 + 7",  # used twice
        "7 + 3 =",  # not all used
        "7 3",
        "+",
        "7 )",
        "( 7 )",
        "( ( 7 + 3 ) )",
        "( ( (",
        "7 + ( 3 + 2 =",
        "=",
    ],
)
def test_an_illegal_token_ends_the_game_with_nothing(text: str, invalid: str) -> None:
    env = begun((7, 3, 2), 12, invalid=invalid)
    *before, last = text.split()
    if before:
        assert write(env, " ".join(before))[2] is False
    written = env._written.copy()
    _, reward, terminated, _, info = write(env, last)
    assert (reward, terminated) == (0.0, True)
    assert (info["correct"], info["format"], info["is_success"]) == (0.0, 0.0, False)
    assert env._written == written
    assert info["action_mask"].tolist() == [int(invalid == "punish")] * 11


def test_a_position_without_a_number_is_illegal() -> None:
    env = begun((7, 3, 2), 12)
    assert env.step(3)[1:3] == (0.0, True)


def test_the_mask_goes_along_with_the_expression() -> None:
    env = begun((7, 3, 2), 15)
    assert legal(env) == {"7", "3", "2", "("}
    write(env, "(")
    assert legal(env) == {"7", "3", "2", "("}
    write(env, "(")
    # two parentheses need two operators: all three numbers
    assert legal(env) == {"7", "3", "2"}
    write(env, "7")
    assert legal(env) == set("+−×÷")
    write(env, "−")
    assert legal(env) == {"3", "2"}
    write(env, "2")
    # a second operator here would leave nothing for the outer parenthesis
    assert legal(env) == {")"}
    write(env, ")")
    assert legal(env) == set("+−×÷")
    write(env, "×")
    assert legal(env) == {"3"}
    write(env, "3")
    assert legal(env) == {")"}
    write(env, ")")
    assert legal(env) == {"="}
    *_, info = write(env, "=")
    assert info["is_success"]
    assert legal(env) == set()


def inside(n: int) -> Iterator[str]:
    """Every way to write n numbers x with operators o between at least two operands."""
    for first in range(1, n):
        for left in operands(first):
            for rest in [*operands(n - first), *inside(n - first)]:
                yield f"{left}o{rest}"


def operands(n: int) -> Iterator[str]:
    """A number alone, or a parenthesis of n."""
    yield from ["x"] if n == 1 else (f"({level})" for level in inside(n))


def written_by_mask(env: CountdownEnv, text: str = "") -> Iterator[str]:
    """Follow every legal token; one number and one operator stand for all, which are legal together."""
    mask, n = env.action_masks(), env.rules.n_max
    assert mask.any()
    if mask[:n].any():
        assert mask[:n].tolist() == env._unused.tolist()
    assert len(set(mask[n : n + 4].tolist())) == 1
    for action, mark in [(int(mask[:n].argmax()), "x"), (n, "o"), (n + 4, "("), (n + 5, ")")]:
        if mask[action]:
            branch = copy.deepcopy(env)
            branch.step(action)
            yield from written_by_mask(branch, text + mark)
    if mask[n + 6]:
        yield text


@pytest.mark.parametrize(("numbers", "count"), [((7, 3, 2), 6), ((7, 3, 2, 2), 22), ((9, 8, 3, 2, 1), 90)])
def test_the_mask_allows_every_expression_and_never_leads_to_a_dead_end(numbers: tuple[int, ...], count: int) -> None:
    env = begun(numbers, 10, numbers=len(numbers))
    n = len(numbers)
    expected = [*inside(n), *operands(n)]
    # the number of ways to bracket n letters, with or without a pair around all: 2·3, 2·11, 2·45
    assert len(set(expected)) == count
    assert sorted(written_by_mask(env)) == sorted(expected)
    # besides the end
    assert max(map(len, expected)) + 1 == env.rules.max_tokens == 4 * n - 2


def test_the_observation_shows_numbers_target_and_what_was_written() -> None:
    env = begun((50, 4, 2), 100, n_max=4)
    row = write(env, "50 − 4 ÷")[0]
    logarithm = np.log1p(100)
    assert row.shape == (53,)
    measures, logarithms, flags = row[:13], row[13:26], row[26:]
    assert measures == pytest.approx([0.5, 0.04, 0.02, 0, 1.0, 0.5, 0, 0, 0, -0.04, 0, 0, 0])
    assert logarithms[:5] == pytest.approx([np.log(51) / logarithm, np.log(5) / logarithm, np.log(3) / logarithm, 0, 1])
    assert logarithms[9] == pytest.approx(-np.log(5) / logarithm)
    unused, previous, divides, has_operator, is_open = np.split(flags, [4, 15, 19, 23])
    assert unused.tolist() == [0, 0, 1, 0]
    assert np.flatnonzero(previous).tolist() == [7]
    assert divides.tolist() == has_operator.tolist() == is_open.tolist() == [1, 0, 0, 0]


def test_the_innermost_level_stands_first() -> None:
    env = begun((50, 4, 2), 100, numbers=3)
    row = write(env, "50 × ( 4 + 2")[0]
    numbers, target, totals, terms = np.split(row[:10], [3, 4, 7])
    assert numbers == pytest.approx([0.5, 0.04, 0.02])
    assert target == pytest.approx([1.0])
    assert totals == pytest.approx([0.04, 0, 0])
    assert terms == pytest.approx([0.02, 0.5, 0])
    assert row[-9:].tolist() == [0, 0, 0, 1, 1, 0, 1, 1, 0]


def test_what_is_huge_is_cut_and_what_is_undefined_reads_zero() -> None:
    env = begun((99, 99, 99), 10, numbers=3)
    row = write(env, "99 × 99 × 99")[0]
    assert row[7] == 10.0
    assert row[17] == pytest.approx(np.log(99**3 + 1) / np.log(101))
    row = write(begun((3, 2, 2), 10, numbers=3), "3 ÷ ( 2 − 2 )")[0]
    assert row[[4, 7]].tolist() == [0, 0]


def test_the_same_number_looks_the_same_in_every_variant() -> None:
    one, other = begun((7, 3, 2), 15, n_max=6), begun((7, 3, 2), 15, max_number=9, targets=(1, 20), n_max=6)
    assert np.array_equal(one._observation(), other._observation())


def test_an_unknown_render_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="choose from None, ansi"):
        CountdownEnv(render_mode="rgb_array")


def test_stepping_without_a_game_or_with_no_token_says_so() -> None:
    env = CountdownEnv()
    with pytest.raises(gym.error.ResetNeeded, match="call reset"):
        env.step(0)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="action=11 is not a token; expected 0 … 10"):
        env.step(11)
    with pytest.raises(ValueError, match="action=-1"):
        env.step(-1)
    env.step(10)
    with pytest.raises(gym.error.ResetNeeded, match="call reset"):
        env.step(0)


def test_a_copy_plays_on_alone() -> None:
    env = begun((7, 3, 2), 15)
    write(env, "( 7 − 2 )")
    for twin in (copy.deepcopy(env), pickle.loads(pickle.dumps(env))):
        assert write(twin, "× 3 =")[4]["is_success"]
    assert legal(env) == set("+−×÷")


def test_text_shows_problem_expression_and_at_the_end_its_value() -> None:
    env = begun((7, 3, 2), 15, render_mode="ansi")
    assert env.render() == "7 3 2 → 15    "
    write(env, "( 7 − 2 ) ÷")
    assert env.render() == "7 3 2 → 15    (7 − 2) ÷"
    write(env, "3 =")
    assert env.render() == "7 3 2 → 15    (7 − 2) ÷ 3 = 5/3"
    env = begun((3, 2, 2), 15, render_mode="ansi")
    write(env, "3 ÷ ( 2 − 2 ) =")
    assert env.render() == "3 2 2 → 15    3 ÷ (2 − 2) = undefined"


def test_rendering_without_a_mode_warns() -> None:
    env = CountdownEnv()
    env.reset(seed=0)
    with pytest.warns(UserWarning, match="draws nothing"):
        assert env.render() is None
