"""Laws of who is played by which policy, and of the league they meet."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

pytest.importorskip("pettingzoo", reason="games of several agents; grpo_gym[multiagent] brings it")

from grpo_gym.marl_games import make_games
from grpo_gym.marl_league import FIRST_RATING, League
from grpo_gym.marl_records import Cast, Episode
from grpo_gym.marl_roles import Roles, find_roles, own_noise
from grpo_gym.policy import MlpPolicy
from tests.games import Hive, Seats


def roles(env: Any, groups: Any = None, identity: bool = False) -> Roles:
    return find_roles(make_games(env, 1)[0], groups, identity)


def players(of: Roles) -> dict[str, tuple[str, ...]]:
    return {role.name: role.agents for role in of}


def test_players_with_equal_spaces_share_a_policy_named_by_what_they_have_in_common() -> None:
    assert players(roles(Hive)) == {"ant": ("ant_0", "ant_1"), "bee": ("bee_0",)}
    assert players(roles(lambda: Hive({"x": (0, 1), "y": (0, 1)}))) == {"x": ("x", "y")}
    assert players(roles(lambda: Hive(possible=False))) == {"ant": ("ant_0", "ant_1")}  # the bee is not born yet


def test_groups_can_be_named() -> None:
    groups = {"first": ["ant_0"], "rest": ["ant_1"], "bees": ["bee_0"]}
    assert players(roles(Hive, groups)) == {"first": ("ant_0",), "rest": ("ant_1",), "bees": ("bee_0",)}


@pytest.mark.parametrize(
    ("groups", "says"),
    [
        ({"all": ["ant_0", "ant_1", "bee_0"]}, "'all' joins ant_0 and bee_0.*expected equal spaces"),
        ({"ants": ["ant_0", "ant_1"]}, "must name each of ant_0, ant_1, bee_0 once"),
        ({"a": ["ant_0", "ant_1", "bee_0", "wasp_0"]}, "must name each"),
        ({"a": ["ant_0", "ant_1"], "b": ["bee_0", "ant_1"]}, "must name each"),
    ],
)
def test_groups_that_cannot_be_are_refused(groups: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        roles(Hive, groups)


def test_a_stranger_without_a_fitting_policy_is_refused() -> None:
    game = make_games(Hive, 1)[0]
    with pytest.raises(ValueError, match="no policy is known for the player 'wasp_0'"):
        find_roles(make_games(Seats, 1)[0], None, False).of("wasp_0", game)


def test_identity_stands_after_the_observation() -> None:
    (role,) = roles(Seats, identity=True)
    assert role.observation_space == Box(0.0, 1.0, (3,), np.float32)
    assert role.see("seat_1", np.array([0.5], np.float32)).tolist() == [0.5, 0.0, 1.0]
    with pytest.raises(ValueError, match="knows seat_0, seat_1, not 'seat_9'"):
        role.see("seat_9", np.array([0.5], np.float32))


def test_players_of_a_game_have_different_noise_and_the_same_in_each_process() -> None:
    assert own_noise(5, "left") != own_noise(5, "right")
    assert own_noise(5, "left") != own_noise(6, "left")
    assert own_noise(5, "left") == 7206875925951096306


# --- the league ------------------------------------------------------------------------------------------------


def some_policy() -> MlpPolicy:
    return MlpPolicy(Box(-1.0, 1.0, (2,), np.float32), Discrete(2), net_arch=[2])


def full(share: float = 0.5, size: int = 3, n: int = 1) -> League:
    league = League(share, size, every=1)
    for iteration in range(n):
        league.enlist({"p": some_policy()}, iteration, np.random.default_rng(iteration))
    return league


def test_the_league_is_bounded_and_who_joined_never_changes() -> None:
    league, policy, rng = League(0.5, 3, every=2), some_policy(), np.random.default_rng(0)
    for iteration in range(12):
        league.enlist({"p": policy}, iteration, rng)
    assert len(league.members) == 3
    assert all(member.iteration % 2 == 0 for member in league.members)
    assert league.members[-1].iteration == 10
    kept = league.members[-1].policies["p"].state_dict()["head.linear.weight"]
    before = kept.clone()
    policy.head.linear.weight.data += 1.0
    assert (kept == before).all()


def test_without_a_share_there_is_no_league() -> None:
    league = full(share=0.0)
    assert league.members == []
    assert league.cast(4, ["a", "b"], np.random.default_rng(0)) == [Cast()] * 4


def test_the_share_is_kept_and_the_sides_take_turns() -> None:
    casts = full(share=0.5, n=2).cast(8, ["a", "b"], np.random.default_rng(0))
    assert sorted(str(cast.side) for cast in casts) == ["None"] * 4 + ["a"] * 2 + ["b"] * 2
    assert {cast.opponent for cast in casts} <= {-1, 0, 1}
    assert [set(cast.opponents) for cast in casts] == [{"p"}] * 4 + [set()] * 4


def test_a_win_between_equals_moves_half_of_k_points_and_none_are_made_or_lost() -> None:
    league = full(n=1)
    casts = league.cast(2, ["a"], np.random.default_rng(0))
    won = Episode(0, {"a": 1.0, "b": -1.0}, ("a",), 2)
    assert league.rate(casts, [won, won]) == {"league/score": 1.0, "league/elo": 1008.0, "league/size": 1}
    assert league.rating + league.members[0].rating == 2 * FIRST_RATING
    drawn = won._replace(returns={"a": 0.0, "b": 0.0})
    league.rate(casts, [drawn])
    assert league.rating < 1008.0  # the stronger loses by a draw
    assert league.rate([Cast()], [won]) == {}


def test_a_league_comes_back_as_it_was() -> None:
    league = full(n=2)
    league.rating = 1234.5
    other = League(0.5, 3, 1)
    other.load(league.state(), league.tensors(), {"p": some_policy()})
    assert other.state() == league.state()
    mine, theirs = league.tensors(), other.tensors()
    assert mine.keys() == theirs.keys()
    assert all((mine[name] == theirs[name]).all() for name in mine)
