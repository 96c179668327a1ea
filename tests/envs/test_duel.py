"""Laws of Battleship for two: the turns, the last shot, the score, and what a match is worth."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import warnings
from math import comb
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from grpo_envs.battleship import enumerate_boards
from grpo_envs.players import FixedOrderPlayer, PosteriorHunter, UniformPlayer, marginal_order
from hypothesis import given, settings
from hypothesis import strategies as st

pettingzoo = pytest.importorskip("pettingzoo", reason="the duel is a PettingZoo game; grpo_gym[multiagent] brings it")

from grpo_envs import duel  # noqa: E402
from grpo_envs.duel import AGENTS, MY_SHIPS, MY_SHOTS, THEIR_SHOTS, BattleshipDuel  # noqa: E402
from grpo_envs.duel_players import MatchResult, Solo, duel_rewards, main, play_match  # noqa: E402
from pettingzoo.test import api_test, render_test, seed_test  # noqa: E402


class Scripted:
    """Fires at the cells of a list, whatever it sees."""

    def __init__(self, *cells: int) -> None:
        self.cells = list(cells)

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> Any:
        shots = np.count_nonzero(observation["observation"][:, MY_SHOTS], axis=(1, 2))
        return np.array(self.cells)[shots], None


def laid(board_0: list[int], board_1: list[int], **options: Any) -> BattleshipDuel:
    """A duel on 2×2 with a ship of 2 each, in these cells."""
    game = BattleshipDuel(2, fleet=(2,), **options)
    game.reset(seed=0)
    game._planes[:, MY_SHIPS] = 0
    for planes, cells in zip(game._planes, (board_0, board_1), strict=True):
        planes[MY_SHIPS, cells] = 1
    return game


def fire(game: Any, *cells: int) -> None:
    for cell in cells:
        game.step(cell)


def play_at_random(game: Any, rng: np.random.Generator) -> int:
    """Play a game that was reset to its end with legal shots; return their number."""
    n_shots = 0
    while not game.terminations[game.agent_selection]:
        observation, reward, _, truncated, info = game.last()
        assert (reward, truncated, info) == (0.0, False, {})
        game.step(rng.choice(np.flatnonzero(observation["action_mask"])))
        n_shots += 1
    return n_shots


@pytest.mark.parametrize("make", [duel.env, duel.raw_env])
@pytest.mark.parametrize(
    "options",
    [{}, {"placement": "top_left"}, {"board_size": 4, "fleet": [2, 3]}, {"hit_reward": 0.5}, {"play_out": True}],
)
def test_pettingzoo_finds_nothing_wrong(make: Any, options: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # PettingZoo lists by name the games that may show dictionaries, its own; it also looks at masks after the end
        warnings.filterwarnings("ignore", "Observation is not a NumPy array")
        warnings.filterwarnings("ignore", "Observation space for each agent probably should be")
        warnings.filterwarnings("ignore", "Action mask numpy array is all zeros")
        api_test(make(**options), num_cycles=200)
        seed_test(lambda: make(**options), num_cycles=60)


def test_pettingzoo_can_render_every_mode() -> None:
    render_test(duel.env)


@pytest.mark.skipif(not hasattr(pettingzoo, "make"), reason="PettingZoo has ids from 1.27 on")
def test_the_game_is_registered() -> None:
    game = pettingzoo.make("aec", "grpo/BattleshipDuel-v0", board_size=4, fleet=[2])
    assert isinstance(game.unwrapped, BattleshipDuel)
    assert str(game) == "battleship_duel_v0"
    space = game.observation_space("player_1")
    assert space["observation"] == gym.spaces.Box(-1, 1, (3, 4, 4), np.int8)
    assert space["action_mask"] == gym.spaces.Box(0, 1, (16,), np.int8)
    assert game.action_space("player_1") == gym.spaces.Discrete(16)


def test_only_the_duel_needs_pettingzoo() -> None:
    code = (
        "import sys; sys.modules['pettingzoo'] = None; import grpo_envs.players; print('fine'); import grpo_envs.duel"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert run.stdout == "fine\n"
    assert run.stderr.splitlines()[-1] == (
        "ImportError: grpo_envs.duel needs pettingzoo, which is not installed: pip install 'grpo_gym[multiagent]'"
    )


def test_players_fire_in_turn_and_see_both_sides() -> None:
    game = laid([0, 1], [1, 3])
    assert game.agent_selection == "player_0"
    fire(game, 1)
    assert game.agent_selection == "player_1"
    fire(game, 2)
    assert game.agent_selection == "player_0"
    mine, theirs = (game.observe(agent)["observation"].reshape(3, 4).tolist() for agent in AGENTS)
    # player_0 hit cell 1 of a board with ships in 1 and 3; player_1 missed with cell 2 where ships are in 0 and 1
    assert mine == [[0, 1, 0, 0], [0, 0, -1, 0], [1, 1, 0, 0]]
    assert theirs == [[0, 0, -1, 0], [0, 1, 0, 0], [0, 1, 0, 1]]


def test_the_mask_is_one_where_who_is_to_move_has_not_fired() -> None:
    game = laid([0, 1], [0, 1])
    fire(game, 2, 3)
    masks = [game.observe(agent)["action_mask"] for agent in AGENTS]
    assert [mask.tolist() for mask in masks] == [[1, 1, 0, 1], [0, 0, 0, 0]]
    assert {mask.dtype for mask in masks} == {np.dtype(np.int8)}
    fire(game, 2)  # illegal: nobody moves any more
    assert [game.observe(agent)["action_mask"].any() for agent in AGENTS] == [False, False]


@pytest.mark.parametrize(
    ("shots", "rewards"),
    [
        # both fire at a fleet in cells 0 and 1
        ((0, 2, 1, 0), [1.0, -1.0]),
        ((0, 0, 2, 1), [-1.0, 1.0]),
        ((0, 0, 1, 1), [0.0, 0.0]),
        ((2, 2, 3, 3, 0, 0, 1, 1), [0.0, 0.0]),
    ],
)
def test_fewer_shots_win_and_equally_many_draw(shots: tuple[int, ...], rewards: list[float]) -> None:
    game = laid([0, 1], [0, 1])
    fire(game, *shots[:-1])
    # also where player_0 has sunk the fleet already: player_1 has the last shot
    assert not any(game.terminations.values())
    assert game.rewards == {"player_0": 0.0, "player_1": 0.0}
    fire(game, shots[-1])
    assert list(game.rewards.values()) == rewards
    assert all(game.terminations.values())
    assert not any(game.truncations.values())


@pytest.mark.parametrize(("shots", "loser"), [((0, 0, 0), 0), ((0, 2, 1, 2), 1)])
def test_an_illegal_shot_loses_and_gives_the_other_nothing(shots: tuple[int, ...], loser: int) -> None:
    game = laid([0, 1], [0, 1])
    fire(game, *shots)
    assert game.rewards[AGENTS[loser]] == -1.0
    assert game.rewards[AGENTS[1 - loser]] == 0.0
    assert all(game.terminations.values())


def test_each_player_learns_its_reward_when_it_is_dismissed() -> None:
    game = laid([0, 1], [0, 1])
    fire(game, 0, 2, 1, 3)
    seen = []
    for agent in game.agent_iter():
        _, reward, terminated, truncated, _ = game.last()
        seen.append((agent, reward, terminated, truncated))
        with pytest.raises(ValueError, match="only valid action is None"):
            game.step(0)
        game.step(None)
    assert seen == [("player_0", 1.0, True, False), ("player_1", -1.0, True, False)]
    assert game.agents == []
    with pytest.raises(gym.error.ResetNeeded, match="call reset"):
        game.step(None)
    game.reset()
    assert game.agents == ["player_0", "player_1"]
    assert game.agent_selection == "player_0"
    assert game.observe("player_0")["action_mask"].tolist() == [1, 1, 1, 1]


def test_a_hit_is_paid_to_who_fired_and_seen_at_its_next_turn() -> None:
    game = laid([0, 1], [0, 1], hit_reward=0.5)
    seen = []
    for cell in (0, 2, 3, 0, 1, 1):  # player_0: hit, miss, hit; player_1: miss, hit, hit
        seen.append((game.agent_selection, game.last()[1]))
        game.step(cell)
    assert seen == [
        ("player_0", 0.0),
        ("player_1", 0.0),
        ("player_0", 0.5),
        ("player_1", 0.0),
        ("player_0", 0.0),
        ("player_1", 0.5),
    ]
    # the last hits come with the result, which here is a draw
    assert all(game.terminations.values())
    assert [game._cumulative_rewards[agent] for agent in AGENTS] == [0.5, 0.5]


@pytest.mark.parametrize(
    ("cells", "turns", "result"),
    [
        # player_0 needs 2 shots; player_1 goes on alone and needs 4
        ((0, 2, 1, 3, 0, 1), (0, 1, 0, 1, 1, 1), [1.0, -1.0]),
        # player_1 needs 2; player_0 goes on alone and needs 3
        ((0, 0, 2, 1, 1), (0, 1, 0, 1, 0), [-1.0, 1.0]),
        # both need 2: nobody has to wait
        ((0, 0, 1, 1), (0, 1, 0, 1), [0.0, 0.0]),
    ],
)
def test_a_game_played_out_lets_the_slower_finish_and_keeps_its_result(
    cells: tuple[int, ...], turns: tuple[int, ...], result: list[float]
) -> None:
    game = laid([0, 1], [0, 1], play_out=True)
    for cell, turn in zip(cells, turns, strict=True):
        assert not any(game.terminations.values())
        assert game.agent_selection == AGENTS[turn]
        assert [game.observe(agent)["action_mask"].any() for agent in AGENTS] == [turn == 0, turn == 1]
        game.step(cell)
    assert list(game.rewards.values()) == result
    assert all(game.terminations.values())


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), orders=st.integers(0, 2**32))
def test_played_out_or_not_a_game_has_one_result(seed: int, orders: int) -> None:
    rng = np.random.default_rng(orders)
    order = {agent: rng.permutation(25).tolist() for agent in AGENTS}
    results, n_shots = [], []
    for play_out in (False, True):
        game = BattleshipDuel(play_out=play_out)
        game.reset(seed=seed)
        left = copy.deepcopy(order)
        while not any(game.terminations.values()):
            game.step(left[game.agent_selection].pop(0))
        results.append(list(game.rewards.values()))
        n_shots.append([25 - len(left[agent]) for agent in AGENTS])
    assert results[0] == results[1]
    # who was faster fires no shot more; the other as many as its ships ask for
    assert min(n_shots[1]) == min(n_shots[0])
    ships = [set(np.flatnonzero(planes[MY_SHIPS])) for planes in game._planes]
    needed = [1 + max(order[agent].index(cell) for cell in ships[1 - n]) for n, agent in enumerate(AGENTS)]
    assert n_shots[1] == needed


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), actions=st.integers(0, 2**32), placement=st.sampled_from(["full", "top_left"]))
def test_every_legal_game_ends_in_whole_rounds_and_sums_to_zero(seed: int, actions: int, placement: str) -> None:
    game = BattleshipDuel(placement=placement)
    game.reset(seed=seed)
    n_shots = play_at_random(game, np.random.default_rng(actions))
    assert n_shots % 2 == 0
    assert 2 * 9 <= n_shots <= 2 * 25
    assert sum(game.rewards.values()) == 0.0
    hits = [np.count_nonzero(game.observe(agent)["observation"][MY_SHOTS] == 1) for agent in AGENTS]
    assert max(hits) == 9
    assert list(game.rewards.values()) == [np.sign(hits[0] - hits[1]), np.sign(hits[1] - hits[0])]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), actions=st.integers(0, 2**32))
def test_my_shots_are_what_the_other_sees_fall_on_its_ships(seed: int, actions: int) -> None:
    game, rng = BattleshipDuel(), np.random.default_rng(actions)
    game.reset(seed=seed)
    for _ in range(12):
        game.step(rng.choice(np.flatnonzero(game.observe(game.agent_selection)["action_mask"])))
        one, other = (game.observe(agent)["observation"] for agent in AGENTS)
        for mine, theirs in ((one, other), (other, one)):
            assert (mine[MY_SHOTS] == theirs[THEIR_SHOTS]).all()
            fell = mine[MY_SHOTS] != 0
            assert (mine[MY_SHOTS][fell] == 2 * theirs[MY_SHIPS][fell] - 1).all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), orders=st.integers(0, 2**32))
def test_who_sits_first_does_not_matter(seed: int, orders: int) -> None:
    rng = np.random.default_rng(orders)
    one, other = rng.permutation(25).tolist(), rng.permutation(25).tolist()
    rewards = []
    for swapped in (False, True):
        game = BattleshipDuel()
        game.reset(seed=seed)
        if swapped:
            game._planes = game._planes[::-1].copy()
        for first, second in zip(*((other, one) if swapped else (one, other)), strict=True):
            if game.terminations["player_0"]:
                break
            fire(game, first, second)
        rewards.append(list(game.rewards.values()))
    assert rewards[0] == rewards[1][::-1]


def test_the_same_seed_lays_the_same_boards_and_zero_is_a_seed() -> None:
    game = BattleshipDuel()
    boards = []
    for seed in (0, 0, 1, None):
        game.reset(seed=seed)
        boards.append(game._planes[:, MY_SHIPS].tolist())
    assert boards[0] == boards[1]
    assert boards[0] != boards[2] != boards[3]
    # the first two draws of NumPy's generator 0 below 9024, in the fixed order of the table
    rng = np.random.default_rng(0)
    assert boards[0] == [enumerate_boards()[rng.integers(9024)].astype(int).tolist() for _ in AGENTS]
    other = BattleshipDuel()
    other.reset(seed=1)
    other.reset()
    # without a seed, the stream of the last one goes on
    assert other._planes[:, MY_SHIPS].tolist() == boards[3]


def test_what_was_returned_is_never_changed_later() -> None:
    game = BattleshipDuel()
    game.reset(seed=0)
    seen = game.observe("player_0")
    kept = copy.deepcopy(seen)
    fire(game, 0, 0, 1, 1)
    game.reset(seed=1)
    assert (seen["observation"] == kept["observation"]).all()
    assert seen["action_mask"].all()


def test_a_copy_plays_on_alone() -> None:
    game = laid([0, 1], [0, 1])
    for twin in (copy.deepcopy(game), pickle.loads(pickle.dumps(game))):
        fire(twin, 0, 2, 1, 3)
        assert twin.rewards["player_0"] == 1.0
    assert game.observe("player_0")["action_mask"].all()


def test_mistakes_are_named() -> None:
    game = laid([0, 1], [0, 1])
    with pytest.raises(ValueError, match=r"action=4 is not a cell of this board; expected 0 … 3"):
        game.step(4)
    with pytest.raises(ValueError, match="action=-1"):
        game.step(-1)
    with pytest.raises(TypeError):
        game.step(None)
    with pytest.raises(gym.error.ResetNeeded, match="call reset"):
        BattleshipDuel().step(0)
    with pytest.raises(ValueError, match="choose from None, human, ansi"):
        duel.env(render_mode="rgb_array")
    with pytest.raises(ValueError, match="raise board_size to 6"):
        duel.env(fleet=(6,))
    with pytest.warns(UserWarning, match='draws nothing without render_mode="human" or "ansi"'):
        assert game.render() is None


def test_text_shows_the_shots_of_both_and_no_ship(capsys: pytest.CaptureFixture[str]) -> None:
    game = laid([0, 1], [1, 3], render_mode="ansi")
    fire(game, 1, 2)
    text = "player_0 fires   player_1 fires\n· X              · ·\n· ·              o ·"
    assert game.render() == text
    assert capsys.readouterr().out == ""
    game.render_mode = "human"
    fire(game, 0)
    assert capsys.readouterr().out == text.replace("· X ", "o X ") + "\n\n"
    assert game.render() is None


def shots_of_uniform(n_cells: int, n_ship: int) -> np.ndarray:
    """Probability that shot k, in random order, is the last hit: C(k−1, S−1) / C(cells, S), for k = 0 … cells."""
    return np.array([0, *(comb(k - 1, n_ship - 1) / comb(n_cells, n_ship) for k in range(1, n_cells + 1))])


def odds(one: np.ndarray, other: np.ndarray) -> list[float]:
    """Probabilities that `one` needs fewer, equally many and more shots than `other`."""
    both = np.outer(one, other)
    return [float(np.triu(both, 1).sum()), float(np.trace(both)), float(np.tril(both, -1).sum())]


def test_the_exact_odds_of_a_game_small_enough_to_do_by_hand() -> None:
    # two ship cells of four: the last is hit with shot 2, 3, 4 with probability 1/6, 2/6, 3/6
    uniform = shots_of_uniform(4, 2)
    assert uniform.tolist() == pytest.approx([0, 0, 1 / 6, 2 / 6, 3 / 6])
    # (1·2 + 1·3 + 2·3)/36 and (1 + 4 + 9)/36
    assert odds(uniform, uniform) == pytest.approx([11 / 36, 14 / 36, 11 / 36])


def test_matches_are_won_as_often_as_is_exactly_expected() -> None:
    boards = enumerate_boards()
    shots = 25 - boards[:, marginal_order(boards)][:, ::-1].argmax(axis=1)
    fixed, uniform = np.bincount(shots, minlength=26) / len(boards), shots_of_uniform(25, 9)
    assert odds(uniform, uniform) == pytest.approx([0.3863, 0.2274, 0.3863], abs=5e-5)
    assert odds(fixed, uniform) == pytest.approx([0.4832, 0.1932, 0.3236], abs=5e-5)
    # four standard errors of 1,000 games are below 0.064
    one, other = Solo(UniformPlayer(seed=0)), Solo(UniformPlayer(seed=1))
    rewards = duel_rewards(one, other, 1000)
    played = [float(np.mean(rewards[:, 0] == reward)) for reward in (1, 0, -1)]
    assert played == pytest.approx(odds(uniform, uniform), abs=0.064)
    assert (rewards.sum(axis=1) == 0).all()
    match = np.array(play_match(Solo(FixedOrderPlayer()), one, 1000)) / 1000
    assert match.tolist() == pytest.approx(odds(fixed, uniform), abs=0.064)


def test_the_hunter_nearly_always_beats_the_fixed_order() -> None:
    match = play_match(Solo(PosteriorHunter()), Solo(FixedOrderPlayer()), 100)
    assert sum(match) == 100
    assert match.wins >= 90


def test_swapped_seats_make_a_match_of_equals_even() -> None:
    # each pair of boards is played from both sides, so what one wins on it the other wins too
    match = play_match(Solo(PosteriorHunter()), Solo(PosteriorHunter()), 100)
    assert match.wins == match.losses
    assert match.draws == 100 - 2 * match.wins


def test_naming_the_players_the_other_way_round_swaps_wins_and_losses() -> None:
    fixed, hunter = Solo(FixedOrderPlayer(3, (2,))), Solo(PosteriorHunter(3, (2,)))
    options: dict[str, Any] = {"board_size": 3, "fleet": (2,)}
    match = play_match(fixed, hunter, 60, seed=5, **options)
    assert play_match(hunter, fixed, 60, seed=5, **options) == MatchResult(match.losses, match.draws, match.wins)


def test_an_illegal_shot_counts_as_a_loss_and_a_win() -> None:
    cheat, fair = Scripted(0, 0), Scripted(0, 1, 2, 3)
    # four ship cells of four: nobody is done before the second shot, which is at cell 0 again
    options: dict[str, Any] = {"board_size": 2, "fleet": (2, 2)}
    assert play_match(cheat, fair, 10, **options) == MatchResult(0, 0, 10)
    assert play_match(fair, cheat, 10, **options) == MatchResult(10, 0, 0)


def test_a_match_needs_an_even_number_of_games() -> None:
    player = Solo(UniformPlayer(seed=0))
    for n_games in (0, 3):
        with pytest.raises(ValueError, match=f"n_games={n_games} must be even"):
            play_match(player, player, n_games)
    with pytest.raises(ValueError, match="n_games=0 must be at least 1"):
        duel_rewards(player, player, 0)


def test_solo_players_choose_for_one_game_or_many() -> None:
    game = BattleshipDuel()
    game.reset(seed=0)
    fire(game, 12, 0)
    seen = game.observe("player_0")
    player = Solo(FixedOrderPlayer())
    one, state = player.predict(seen)
    assert np.shape(one) == ()
    assert state is None
    many, _ = player.predict({key: np.stack([value] * 3) for key, value in seen.items()})
    assert many.tolist() == [one] * 3
    # 12 was the first of the order, and has been fired at
    assert seen["action_mask"][one] == 1
    assert one == FixedOrderPlayer().order[1]


def test_the_table_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--games", "20"])
    table = capsys.readouterr().out
    assert "20 games a match" in table
    assert "hunter vs fixed order" in table
