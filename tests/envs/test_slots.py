"""Laws of every native vector environment: row i is the single environment, resets and steps can be partial."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from grpo_envs import (
    BanditEnv,
    BanditVectorEnv,
    BattleshipEnv,
    BattleshipVectorEnv,
    DynamicBanditEnv,
    DynamicBanditVectorEnv,
)
from hypothesis import given, settings
from hypothesis import strategies as st

GAMES: dict[str, tuple[Callable[..., Any], Callable[..., Any], dict[str, Any]]] = {
    "battleship": (BattleshipEnv, BattleshipVectorEnv, {"board_size": 3, "fleet": (1, 2)}),
    "battleship, top left": (BattleshipEnv, BattleshipVectorEnv, {"placement": "top_left"}),
    "battleship, not enumerated": (BattleshipEnv, BattleshipVectorEnv, {"board_size": 8, "fleet": (2, 3, 4, 5)}),
    "bandit": (BanditEnv, BanditVectorEnv, {"n_arms": 3, "horizon": 4}),
    "gaussian bandit": (BanditEnv, BanditVectorEnv, {"n_arms": 2, "horizon": 3, "noise": "gaussian"}),
    "dynamic bandit": (
        DynamicBanditEnv,
        DynamicBanditVectorEnv,
        {"schedule": [(2, (0.1, 0.9)), (1, (0.5, 0.5)), (2, (0.3, 0.2))], "noise": "bernoulli"},
    ),
}
every_game = pytest.mark.parametrize("game", GAMES)
seeds = st.one_of(st.sampled_from([0, 1]), st.integers(0, 2**40))


def make(game: str, n: int) -> Any:
    """A vector environment of n small games."""
    _, vector, options = GAMES[game]
    return vector(n, **options)


def assert_row(batch: Any, row: int, single: Any) -> None:
    """Compare row `row` of what a vector environment returned with what the single one did, exactly."""
    *arrays, infos = batch
    *values, info = single
    for array, value in zip(arrays, values, strict=True):
        assert np.array_equal(array[row], value)
        assert array[row].dtype == np.asarray(value).dtype
    assert infos.keys() == info.keys()
    for key, value in info.items():
        assert np.array_equal(infos[key][row], value)
        assert infos[key].dtype == np.asarray(value).dtype


@every_game
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_each_slot_is_the_single_environment_step_for_step(game: str, data: st.DataObject) -> None:
    single, vector, options = GAMES[game]
    n = data.draw(st.integers(1, 4), "slots")
    many, ones = vector(n, **options), [single(**options) for _ in range(n)]
    n_actions = int(many.single_action_space.n)
    first = data.draw(st.lists(seeds, min_size=n, max_size=n), "first seeds")
    batch = many.reset(seed=first)
    for slot in range(n):
        assert_row(batch, slot, ones[slot].reset(seed=first[slot]))
    playing = np.ones(n, dtype=bool)
    for _ in range(data.draw(st.integers(1, 25), "calls")):
        chosen = data.draw(st.permutations(range(n)).flatmap(lambda p: st.sampled_from([p[: i + 1] for i in range(n)])))
        if data.draw(st.integers(0, 4)) == 0:
            mask = np.isin(np.arange(n), chosen)
            again = data.draw(st.lists(st.none() | seeds, min_size=n, max_size=n), "seeds")
            batch = many.reset(seed=again, options={"reset_mask": mask})
            for slot in sorted(chosen):
                assert_row(batch, slot, ones[slot].reset(seed=again[slot]))
            playing |= mask
            continue
        ids = [slot for slot in chosen if playing[slot]]
        actions = data.draw(st.lists(st.integers(0, n_actions - 1), min_size=len(ids), max_size=len(ids)), "actions")
        batch = many.step(np.array(actions, dtype=np.int64), env_id=np.array(ids, dtype=np.int64))
        for row, slot in enumerate(ids):
            result = ones[slot].step(actions[row])
            assert_row(batch, row, result)
            playing[slot] = not (result[2] or result[3])


@every_game
def test_an_integer_seed_gives_slot_i_the_seed_plus_i(game: str) -> None:
    one, other = make(game, 3), make(game, 3)
    one.reset(seed=5)
    other.reset(seed=[5, 6, 7])
    for action in ([0, 0, 0], [1, 1, 1]):
        left, right = one.step(action), other.step(action)
        assert all(np.array_equal(a, b) for a, b in zip(left[:4], right[:4], strict=True))


@every_game
def test_a_masked_reset_touches_only_its_slots_and_not_the_callers_dictionary(game: str) -> None:
    env = make(game, 3)
    env.reset(seed=0)
    stepped, *_, before = env.step([0, 0, 0])
    mask = np.array([False, True, False])
    options = {"reset_mask": mask}
    observations, infos = env.reset(seed=[None, 4, None], options=options)
    assert list(options) == ["reset_mask"]
    assert len(observations) == 3
    assert np.array_equal(observations[~mask], stepped[~mask])
    assert not observations[1].any()
    for key, values in before.items():
        assert np.array_equal(infos[key][~mask], values[~mask])


@every_game
def test_stepping_chosen_slots_returns_their_rows_in_the_order_given(game: str) -> None:
    together, apart = make(game, 4), make(game, 4)
    together.reset(seed=0)
    apart.reset(seed=0)
    full = together.step([0, 1, 0, 1])
    part = apart.step([1, 1], env_id=[3, 1])
    for whole, rows in zip(full[:4], part[:4], strict=True):
        assert rows.shape == (2, *whole.shape[1:])
        assert rows.dtype == whole.dtype
        assert np.array_equal(rows, whole[[3, 1]])
    for key in full[4]:
        assert np.array_equal(part[4][key], full[4][key][[3, 1]])


@every_game
def test_stepping_no_slot_changes_nothing(game: str) -> None:
    env = make(game, 2)
    env.reset(seed=0)
    observations, rewards, *_ = env.step(np.zeros(0, dtype=np.int64), env_id=[])
    assert observations.shape == (0, *env.single_observation_space.shape)
    assert rewards.shape == (0,)


@every_game
def test_a_finished_or_unstarted_slot_cannot_be_stepped(game: str) -> None:
    env = make(game, 3)
    with pytest.raises(gym.error.ResetNeeded, match=r"slots \[0, 1, 2\] have no game in progress"):
        env.step([0, 0, 0])
    env.reset(seed=0)
    over = np.zeros(3, dtype=bool)
    while not over[1]:
        # always the same cell or arm, in slot 1 alone: lost in Battleship, at the horizon in a bandit
        _, _, terminated, truncated, _ = env.step([0], env_id=[1])
        over[1] = bool(terminated[0] or truncated[0])
    with pytest.raises(gym.error.ResetNeeded, match=r"slots \[1\] have no game in progress; reset them"):
        env.step([0, 0, 0])
    env.step([0, 0], env_id=[0, 2])
    env.reset(options={"reset_mask": over})
    env.step([0, 0, 0])


def test_a_refused_step_changes_nothing() -> None:
    env, untouched = make("battleship", 2), make("battleship", 2)
    env.reset(seed=0)
    untouched.reset(seed=0)
    with pytest.raises(ValueError, match=r"action 9 of slot 1 is out of range; expected 0 … 8"):
        env.step([0, 9])
    assert np.array_equal(env.step([0, 1])[0], untouched.step([0, 1])[0])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([0],), ValueError, r"shape \(1,\), expected \(2,\)"),
        (([0.0, 1.0],), TypeError, "expected integers"),
        (([-1, 0],), ValueError, "action -1 of slot 0"),
        (([0], [2]), ValueError, r"env_id must lie in 0 … 1, got \[2\]"),
        (([0], [-1]), ValueError, "env_id must lie in"),
        (([0, 0], [1, 1]), ValueError, "names a slot twice"),
        (([0], [True, False]), TypeError, "flatnonzero"),
        (([0], [0.5]), TypeError, "must be integers"),
        ((0, 0), TypeError, "must be integers"),
    ],
)
def test_a_wrong_step_says_what_is_wrong(arguments: Any, error: type[Exception], message: str) -> None:
    env = make("battleship", 2)
    env.reset(seed=0)
    with pytest.raises(error, match=message):
        env.step(*arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"seed": [1]}, ValueError, "got 1 seeds for 2 slots"),
        ({"seed": [0, -1]}, ValueError, "seed=-1 is negative"),
        ({"seed": -1}, ValueError, "seed=-1 is negative"),
        ({"options": {"reset_mask": [True, False]}}, TypeError, "NumPy array of bool"),
        ({"options": {"reset_mask": np.array([1, 0])}}, TypeError, "NumPy array of bool"),
        ({"options": {"reset_mask": np.array([True])}}, ValueError, "shape"),
        ({"options": {"reset_mask": np.array([False, False])}}, ValueError, "at least one slot"),
    ],
)
def test_a_wrong_reset_says_what_is_wrong(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make("battleship", 2).reset(**arguments)


def test_no_slots_are_refused() -> None:
    with pytest.raises(ValueError, match="num_envs=0 must be at least 1"):
        BattleshipVectorEnv(0)


def test_gymnasiums_own_vector_environment_agrees() -> None:
    ours = gym.make_vec("grpo/Battleship-v0", 3, vectorization_mode="vector_entry_point")
    disabled = gym.vector.AutoresetMode.DISABLED
    theirs = gym.make_vec("grpo/Battleship-v0", 3, "sync", vector_kwargs={"autoreset_mode": disabled})
    ours.reset(seed=3)
    theirs.reset(seed=3)
    for cell in range(5):
        left, right = ours.step(np.full(3, cell)), theirs.step(np.full(3, cell))
        assert all(np.array_equal(a, b) for a, b in zip(left[:4], right[:4], strict=True))
        assert np.array_equal(left[4]["action_mask"], right[4]["action_mask"])
