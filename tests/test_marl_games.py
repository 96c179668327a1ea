"""Laws of games behind one face: who is asked, what came to whom, and how environments are found."""

from __future__ import annotations

import functools
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("pettingzoo", reason="games of several agents; grpo_gym[multiagent] brings it")

from grpo_gym.marl_games import (
    End,
    ParallelGame,
    TurnGame,
    is_pettingzoo,
    make_games,
    mask_of,
    space_without_mask,
    without_mask,
)
from tests.games import SEEN, Bids, Hive
from tests.toys import Walk


def asked(game: Any) -> list[str]:
    return [ask.agent for ask in game.asks]


def test_only_the_living_are_asked_and_the_game_is_over_when_none_is() -> None:
    game = ParallelGame(Hive())
    game.start(seed=0)
    history = [asked(game)]
    while game.asks:
        game.act([0] * len(game.asks))
        history.append(asked(game))
    assert history == [["ant_0", "ant_1"], ["ant_0", "ant_1", "bee_0"], ["ant_0", "bee_0"], ["bee_0"], []]


def test_who_ends_is_told_with_what_it_saw_last_and_whether_it_was_cut() -> None:
    game = ParallelGame(Hive())
    game.start(seed=0)
    ends: list[End] = []
    while game.asks:
        game.act([2] * len(game.asks))
        ends += game.ends
    assert [(end.agent, end.observation[1], end.terminated) for end in ends] == [
        ("ant_1", 2.0, True),
        ("ant_0", 3.0, True),
        ("bee_0", 4.0, False),
    ]


def test_the_loser_finds_its_reward_when_it_is_dismissed() -> None:
    game = TurnGame(Bids())
    game.start(seed=0)
    assert asked(game) == ["left"]
    game.act([2])
    assert (asked(game), game.rewards) == (["right"], [])
    game.act([0])
    assert (asked(game), game.rewards) == ([], [("left", 1.0), ("right", -1.0)])
    assert [(end.agent, end.terminated) for end in game.ends] == [("left", True), ("right", True)]


def test_turns_are_neither_joined_nor_repeated() -> None:
    env = Bids(rounds=2)
    game = TurnGame(env)
    game.start(seed=0)
    seats, seen = [], []
    while game.asks:
        seats += asked(game)
        seen.append(game.asks[0].observation.tolist())
        game.act([1])
    assert seats == ["left", "right", "left", "right"]
    assert seen == [[0.0, -1.0], [1.0, 1.0], [0.0, 1.0], [1.0, 1.0]]
    assert env.n_steps == 4


@pytest.mark.parametrize("where", ["observation", "info"])
def test_a_mask_is_found_in_the_observation_or_in_the_info(where: str) -> None:
    game = ParallelGame(Hive(mask_in=where))
    game.start(seed=0)
    for ask in game.asks:
        assert ask.mask is not None
        assert ask.mask.tolist() == [True, False, True]
        assert without_mask(ask.observation).shape == (2,)


def test_the_mask_is_no_part_of_what_the_network_sees() -> None:
    assert space_without_mask(Hive(mask_in="observation").observation_space("ant_0")) == SEEN
    assert space_without_mask(SEEN) is SEEN
    more = gym.spaces.Dict({"a": SEEN, "b": SEEN, "action_mask": SEEN})
    assert space_without_mask(more) == gym.spaces.Dict({"a": SEEN, "b": SEEN})
    assert set(without_mask({"a": 1, "b": 2, "action_mask": 3})) == {"a", "b"}
    assert mask_of({"a": 1}, {"b": 2}) is None


def test_an_environment_is_copied_and_a_function_or_a_class_called() -> None:
    given = Hive()
    for env in (given, Hive, functools.partial(Hive, mask_in="info")):
        games = make_games(env, 3)
        assert len({id(game.env) for game in games} | {id(given)}) == 4
        assert all(isinstance(game, ParallelGame) for game in games)
    assert isinstance(make_games(Bids(), 1)[0], TurnGame)


def test_environments_are_found_by_module_and_by_id() -> None:
    import grpo_envs.duel  # registers itself

    assert isinstance(make_games("pettingzoo:grpo_envs.duel", 1)[0], TurnGame)
    assert isinstance(make_games("pettingzoo:grpo/BattleshipDuel-v0", 1)[0], TurnGame)
    example = "pettingzoo:pettingzoo.test.example_envs.generated_agents_parallel_v0"
    assert isinstance(make_games(example, 1)[0], ParallelGame)
    assert type(make_games(grpo_envs.duel.env, 1)[0].env) is grpo_envs.duel.raw_env  # the checks are stepped past


def test_a_function_is_called_once_for_each_game_and_not_once_more() -> None:
    made: list[Any] = []

    def make() -> Any:
        made.append(Hive())
        return made[-1]

    assert is_pettingzoo(make)
    assert [game.env for game in make_games(make, 3)] == made
    assert len(made) == 3
    make_games(make, 2)
    assert len(made) == 5


def test_what_is_pettingzoos_is_told_from_what_is_not() -> None:
    for env in ("pettingzoo:a.b", Hive(), Hive, functools.partial(Hive), Bids, Bids()):
        assert is_pettingzoo(env)
    for other in ("CartPole-v1", Walk(), Walk, functools.partial(Walk), gym.spec("CartPole-v1"), None):
        assert not is_pettingzoo(other)


@pytest.mark.parametrize(
    ("env", "error", "says"),
    [
        ("pettingzoo:no/Such-v0", ValueError, "no environment 'no/Such-v0' in its registry"),
        ("pettingzoo:math", ValueError, "math has neither parallel_env nor env"),
        ("pettingzoo:no_such_module", ImportError, "no_such_module"),
        (3, TypeError, "env=3 is a int; expected a PettingZoo"),
        (Walk, TypeError, "made a Walk; expected a PettingZoo"),
    ],
)
def test_what_is_no_game_is_refused(env: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        make_games(env, 1)


def test_the_same_environment_twice_is_refused() -> None:
    env = Hive()
    with pytest.raises(ValueError, match="the same environment twice"):
        make_games(lambda: env, 2)


def test_an_environment_that_cannot_be_copied_asks_for_a_function() -> None:
    class Bound(Hive):
        def __deepcopy__(self, memo: Any) -> Any:
            raise TypeError("it holds a window")

    with pytest.raises(ValueError, match=r"it holds a window.*pass a function"):
        make_games(Bound(), 2)


def test_a_player_that_is_not_asked_can_be_looked_at() -> None:
    turns, at_once = TurnGame(Bids()), ParallelGame(Hive())
    turns.start(seed=0)
    at_once.start(seed=0)
    assert turns.seen_by("right").tolist() == [1.0, -1.0]
    assert np.array_equal(at_once.seen_by("ant_0"), at_once.asks[0].observation)
