"""Laws of Battleship: the boards, the shots, the score."""

from __future__ import annotations

import copy
import pickle
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from grpo_envs import BattleshipEnv, BattleshipVectorEnv
from grpo_envs.battleship import checked_fleet, dealer, enumerate_boards, final_reward, ship_positions
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from hypothesis import given, settings
from hypothesis import strategies as st

ID = "grpo/Battleship-v0"


def one_ship(board_size: int = 2, length: int = 2, seed: int = 0) -> tuple[BattleshipEnv, list[int], list[int]]:
    """A game with its ship and water cells, read from the hidden board."""
    env = BattleshipEnv(board_size, fleet=(length,))
    env.reset(seed=seed)
    return env, np.flatnonzero(env._board).tolist(), np.flatnonzero(~env._board).tolist()


def test_the_game_is_registered_for_single_and_vector_use() -> None:
    assert gym.spec(ID).entry_point == "grpo_envs.battleship:BattleshipEnv"
    env = gym.make("grpo_envs:grpo/Battleship-v0", board_size=6, fleet=[2, 2])
    assert env.observation_space == gym.spaces.Box(-1, 1, (6, 6), np.int8)
    assert env.action_space == gym.spaces.Discrete(36)
    vector = gym.make_vec(ID, 3, vectorization_mode="vector_entry_point", placement="top_left")
    assert isinstance(vector, BattleshipVectorEnv)
    assert vector.placement == "top_left"
    assert vector.metadata["autoreset_mode"] is AutoresetMode.DISABLED
    assert vector.observation_space.shape == (3, 5, 5)


@pytest.mark.parametrize("placement", ["full", "top_left"])
def test_gymnasium_finds_nothing_to_warn_of(placement: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gym.make(ID, placement=placement).unwrapped)


def test_the_number_of_placements_and_boards_of_the_5_by_5_game() -> None:
    full, top_left = enumerate_boards(placement="full"), enumerate_boards(placement="top_left")
    assert (len(full), len(np.unique(full, axis=0))) == (9024, 8092)
    assert (len(top_left), len(np.unique(top_left, axis=0))) == (1504, 1352)
    assert (full.sum(axis=1) == 9).all()


def test_a_ship_of_two_lies_in_four_ways_on_four_cells() -> None:
    ways = [[1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 1, 0], [0, 1, 0, 1]]
    assert ship_positions(2, 2, "full").astype(int).tolist() == ways
    # top_left: both coordinates from 0 … 0
    assert ship_positions(2, 2, "top_left").astype(int).tolist() == [[1, 1, 0, 0], [1, 0, 1, 0]]


def test_a_ship_of_one_cell_is_counted_once_a_cell() -> None:
    assert ship_positions(2, 1, "full").astype(int).tolist() == np.eye(4, dtype=int).tolist()


def test_the_top_left_placement_never_reaches_the_last_cell() -> None:
    assert not enumerate_boards(placement="top_left")[:, 24].any()
    assert enumerate_boards(placement="full")[:, 24].any()


def test_ships_may_touch_but_not_overlap() -> None:
    # two ships of two on 2×2: both across or both down, in two orders each
    assert enumerate_boards(2, (2, 2)).tolist() == [[True] * 4] * 4


def test_each_placement_stands_once_in_the_table() -> None:
    # a 2×2 board, ships of 1 and 2: 4 ways for the long one, 2 free cells for the short one
    boards = enumerate_boards(2, (2, 1))
    assert len(boards) == 8
    assert boards.sum(axis=0).tolist() == [6, 6, 6, 6]


def test_the_order_of_the_fleet_does_not_matter() -> None:
    assert (enumerate_boards(5, (4, 2, 3)) == enumerate_boards(5, (2, 3, 4))).all()


def test_boards_too_many_to_list_are_drawn_without_overlap() -> None:
    env = BattleshipEnv(10, fleet=(5, 4, 3, 3, 2))
    boards = []
    for seed in range(50):
        env.reset(seed=seed)
        boards.append(env._board)
    assert {int(board.sum()) for board in boards} == {17}
    assert len({board.tobytes() for board in boards}) == 50
    with pytest.raises(ValueError, match="more than the 1,000,000 that are enumerated"):
        enumerate_boards(10, (5, 4, 3, 3, 2))


def test_drawing_by_rejection_and_from_the_table_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grpo_envs.battleship.MAX_ENUMERATED", 0)
    deal = dealer.__wrapped__(5, (2, 3, 4), "top_left")
    rng = np.random.default_rng(0)
    marginals = np.mean([deal(rng) for _ in range(4000)], axis=0)
    monkeypatch.undo()
    # standard error of a frequency of 4000 is at most 0.008
    assert marginals == pytest.approx(enumerate_boards(placement="top_left").mean(axis=0), abs=0.04)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fleet": (6,)}, "raise board_size to 6"),
        ({"fleet": (5, 5, 5, 5, 5, 1)}, "covers 26 cells"),
        ({"fleet": ()}, "at least one ship"),
        ({"fleet": (0, 2)}, "at least one ship"),
        # two ships of 2 of which each covers the cell (0, 0)
        ({"board_size": 2, "fleet": (2, 2), "placement": "top_left"}, "no way to place"),
        # 45 ships of 2 on 100 cells can be laid, but never by chance
        ({"board_size": 10, "fleet": (2,) * 45}, "collided in 64,000 draws"),
        ({"placement": "left"}, "choose from full, top_left"),
    ],
)
def test_an_impossible_game_is_refused_when_it_is_made(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BattleshipEnv(**options)
    with pytest.raises(ValueError, match=message):
        BattleshipVectorEnv(2, **options)


def test_an_unknown_render_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="choose from None, ansi, rgb_array"):
        BattleshipEnv(render_mode="human")


def test_the_score_is_one_without_a_miss_and_one_seventeenth_with_all_sixteen() -> None:
    assert final_reward(0, 16) == 1.0
    assert final_reward(16, 16) == pytest.approx(1 / 17)
    assert final_reward(17, 16) == 0.0


def test_a_shot_shows_hit_or_miss_and_the_last_hit_pays() -> None:
    env, ship, water = one_ship()
    observation, reward, terminated, truncated, info = env.step(water[0])
    assert observation.ravel()[water].tolist() == [-1, 0]
    assert (reward, terminated, truncated) == (0.0, False, False)
    assert info["action_mask"].dtype == np.int8
    assert np.flatnonzero(info["action_mask"] == 0).tolist() == [water[0]]
    observation, reward, terminated, _, _ = env.step(ship[0])
    assert observation.ravel()[ship].tolist() == [1, 0]
    assert (reward, terminated) == (0.0, False)
    _, reward, terminated, _, info = env.step(ship[1])
    # one miss of two water cells: 1 − 1/3
    assert reward == pytest.approx(2 / 3)
    assert terminated
    assert (env.action_masks() == (info["action_mask"] == 1)).all()


def test_firing_at_the_same_cell_again_is_a_wasted_miss() -> None:
    env, ship, _ = one_ship()
    first, *_ = env.step(ship[0])
    again, reward, terminated, _, _ = env.step(ship[0])
    assert (again == first).all()
    assert (reward, terminated) == (0.0, False)
    _, reward, _, _, _ = env.step(ship[1])
    assert reward == pytest.approx(2 / 3)


def test_a_game_wasted_on_one_cell_is_lost_with_nothing() -> None:
    env, _, water = one_ship()
    assert [env.step(water[0])[1:3] for _ in range(3)] == [(0.0, False), (0.0, False), (0.0, True)]


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32), actions=st.integers(0, 2**32), legal=st.booleans())
def test_every_game_ends_within_25_shots_and_pays_once(seed: int, actions: int, legal: bool) -> None:
    env, rng = BattleshipEnv(), np.random.default_rng(actions)
    env.reset(seed=seed)
    rewards, terminated = [], False
    while not terminated:
        choices = np.flatnonzero(env.action_masks()) if legal else np.arange(25)
        _, reward, terminated, truncated, _ = env.step(rng.choice(choices))
        assert not truncated
        rewards.append(reward)
    assert len(rewards) <= 25
    assert set(rewards[:-1]) <= {0.0}
    assert (1 / 17 if legal else 0.0) <= rewards[-1] <= 1.0


def test_the_same_seed_lays_the_same_board_and_zero_is_a_seed() -> None:
    env = BattleshipEnv()
    boards = []
    for seed in (0, 0, 1):
        env.reset(seed=seed)
        boards.append(env._board.tolist())
    assert boards[0] == boards[1] != boards[2]
    # the first draw of NumPy's generator 0 below 9024, in the fixed order of the table
    assert boards[0] == enumerate_boards()[np.random.default_rng(0).integers(9024)].tolist()


def test_stepping_without_a_game_or_off_the_board_says_so() -> None:
    env, ship, _ = one_ship()
    with pytest.raises(ValueError, match=r"action=4 is not a cell of this board; expected 0 … 3"):
        env.step(4)
    with pytest.raises(ValueError, match="action=-1"):
        env.step(-1)
    env.step(ship[0])
    env.step(ship[1])
    with pytest.raises(gym.error.ResetNeeded, match="call reset"):
        env.step(0)


def test_what_was_returned_is_never_changed_later() -> None:
    env = BattleshipEnv()
    first, info = env.reset(seed=0)
    env.step(0)
    assert (first == 0).all()
    assert (info["action_mask"] == 1).all()
    vector = BattleshipVectorEnv(2)
    first, info = vector.reset(seed=0)
    stepped, _, _, _, later = vector.step([0, 1])
    kept = stepped.copy(), later["action_mask"].copy()
    vector.step([2, 3])
    vector.reset(seed=1)
    assert (first == 0).all()
    assert (info["action_mask"] == 1).all()
    assert (stepped == kept[0]).all()
    assert (later["action_mask"] == kept[1]).all()


def test_a_copy_plays_on_alone() -> None:
    env, ship, _ = one_ship()
    for twin in (copy.deepcopy(env), pickle.loads(pickle.dumps(env))):
        twin.step(ship[0])
        assert twin.step(ship[1])[1:3] == (1.0, True)
    assert env.action_masks().all()


def test_text_shows_fog_hits_and_misses() -> None:
    env = BattleshipEnv(2, fleet=(2,), render_mode="ansi")
    env.reset(seed=0)
    ship, water = np.flatnonzero(env._board), np.flatnonzero(~env._board)
    assert env.render() == "· ·\n· ·"
    env.step(ship[0])
    env.step(water[0])
    signs = ["·"] * 4
    signs[ship[0]], signs[water[0]] = "X", "o"
    assert env.render() == f"{signs[0]} {signs[1]}\n{signs[2]} {signs[3]}"


def test_the_picture_has_a_tile_a_cell_and_changes_with_a_shot() -> None:
    env = BattleshipEnv(render_mode="rgb_array")
    env.reset(seed=0)
    before = env.render()
    assert (before.shape, before.dtype) == ((160, 160, 3), np.uint8)
    env.step(0)
    changed = (env.render() != before).any(axis=2)
    assert changed[1:32, 1:32].all()
    assert not changed[32:].any()
    assert not changed[:, 32:].any()


def test_rendering_without_a_mode_warns() -> None:
    env = BattleshipEnv()
    env.reset(seed=0)
    with pytest.warns(UserWarning, match="draws nothing"):
        assert env.render() is None


def test_the_fleet_is_placed_in_ascending_size() -> None:
    assert checked_fleet(5, [4, 2, 3], "full") == (2, 3, 4)


def test_vector_masks_are_one_where_no_shot_fell() -> None:
    env = BattleshipVectorEnv(2)
    env.reset(seed=0)
    _, _, _, _, info = env.step(np.array([3, 7]))
    assert info["action_mask"].shape == (2, 25)
    assert info["action_mask"].dtype == np.int8
    assert np.argwhere(info["action_mask"] == 0).tolist() == [[0, 3], [1, 7]]
    assert (env.action_masks() == (info["action_mask"] == 1)).all()
