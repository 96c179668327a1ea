"""Laws of the reference players, and the scores that curves are to be compared with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from grpo_envs import BanditVectorEnv, BattleshipEnv, BattleshipVectorEnv, DynamicBanditVectorEnv
from grpo_envs.bandit_players import learned
from grpo_envs.battleship import enumerate_boards
from grpo_envs.players import (
    UCB1,
    ArmStatistics,
    DiscountedThompsonSampling,
    FixedOrderPlayer,
    PosteriorHunter,
    ThompsonSampling,
    UniformArms,
    UniformPlayer,
    bandit_regret,
    battleship_rewards,
    fixed_order_score,
    hunter_score,
    lai_robbins,
    main,
    marginal_order,
    uniform_score,
)


def test_uniform_play_scores_one_minus_fourteen_point_four_seventeenths() -> None:
    # 16 water cells, each before the last of 9 ship cells with probability 9/10
    assert uniform_score() == pytest.approx(1 - 14.4 / 17)
    assert round(uniform_score(), 3) == 0.153


@pytest.mark.parametrize(("placement", "fixed", "hunter"), [("top_left", 0.4050, 0.7160), ("full", 0.1913, 0.6146)])
def test_the_exact_scores_of_the_5_by_5_game(placement: str, fixed: float, hunter: float) -> None:
    boards = enumerate_boards(placement=placement)
    assert fixed_order_score(boards, marginal_order(boards)) == pytest.approx(fixed, abs=5e-5)
    assert hunter_score(boards) == pytest.approx(hunter, abs=5e-5)


def test_the_exact_scores_of_a_game_small_enough_to_do_by_hand() -> None:
    # one ship of 2 on 2×2: across above, across below, down left, down right, in cells 0 1 / 2 3
    boards = enumerate_boards(2, (2,))
    assert marginal_order(boards).tolist() == [0, 1, 2, 3]
    # boards 01, 23, 02, 13 are sunk with 0, 2, 1, 2 misses: 1 − misses/3
    assert fixed_order_score(boards, [0, 1, 2, 3]) == pytest.approx(np.mean([1, 1 / 3, 2 / 3, 1 / 3]))
    # the hunter fires at 0; a hit leaves 01 and 02: 1, then 2; a miss leaves 13 and 23: 3 for sure, 1, then 2
    assert hunter_score(boards) == pytest.approx(np.mean([1, 2 / 3, 2 / 3, 1 / 3]))


@pytest.mark.parametrize("placement", ["full", "top_left"])
def test_what_is_played_is_what_was_computed(placement: str) -> None:
    boards = enumerate_boards(placement=placement)
    env = BattleshipVectorEnv(400, placement=placement)
    players: list[tuple[Any, float]] = [
        (UniformPlayer(seed=0), uniform_score()),
        (FixedOrderPlayer(placement=placement), fixed_order_score(boards, marginal_order(boards))),
        (PosteriorHunter(placement=placement), hunter_score(boards)),
    ]
    for player, exact in players:
        rewards = battleship_rewards(player, env)
        # four standard errors
        assert rewards.mean() == pytest.approx(exact, abs=4 * rewards.std() / 20)
        assert 1 / 17 <= rewards.min() <= rewards.max() <= 1


def test_the_hunter_plays_on_every_board_as_its_exact_score_says() -> None:
    boards = enumerate_boards(3, (1, 2))
    env = BattleshipEnv(3, (1, 2))
    player = PosteriorHunter(3, (1, 2))
    total = 0.0
    for board in boards:
        observation, _ = env.reset(seed=0)
        env._board = board
        terminated = False
        while not terminated:
            action, _ = player.predict(observation)
            observation, reward, terminated, _, _ = env.step(action)
        total += reward
    assert total / len(boards) == pytest.approx(hunter_score(boards))


def test_a_hunter_of_another_game_says_so() -> None:
    view = np.zeros((5, 5), dtype=np.int8)
    view[4, 4] = 1
    with pytest.raises(ValueError, match="fits no placement of this player's game"):
        PosteriorHunter(placement="top_left").predict(view)


def test_the_hunter_fires_where_the_rest_of_a_hit_ship_can_lie() -> None:
    view = np.zeros((3, 3), dtype=np.int8)
    view[0, 0] = 1
    # one ship of 3 at the corner: across or down, one of each; the first row by row
    assert PosteriorHunter(3, (3,)).predict(view)[0] == 1
    view[0, 1] = -1
    assert PosteriorHunter(3, (3,)).predict(view)[0] == 3


@pytest.mark.parametrize(
    "player", [UniformPlayer(seed=0), FixedOrderPlayer(), PosteriorHunter()], ids=lambda p: type(p).__name__
)
def test_battleship_players_fire_legally_at_one_board_or_many(player: Any) -> None:
    env = BattleshipVectorEnv(20)
    observations, _ = env.reset(seed=0)
    for _ in range(8):
        actions, state = player.predict(observations, None, np.zeros(20, dtype=bool), deterministic=True)
        assert actions.shape == (20,)
        assert state is None
        assert env.action_masks()[np.arange(20), actions].all()
        observations, *_ = env.step(actions)
    one, _ = player.predict(observations[3])
    assert np.shape(one) == ()
    assert observations[3].ravel()[one] == 0
    with pytest.raises(ValueError, match="expected"):
        player.predict(np.zeros(25))


def test_the_uniform_player_fires_at_every_legal_cell_equally_often() -> None:
    views = np.zeros((6000, 2, 2), dtype=np.int8)
    views[:, 0, 0] = 1
    actions, _ = UniformPlayer(seed=0).predict(views)
    # standard error of a third of 6000 is 37
    assert np.bincount(actions, minlength=4).tolist() == pytest.approx([0, 2000, 2000, 2000], abs=150)


def test_what_was_learned_is_counts_and_sums_and_a_new_game_forgets_them() -> None:
    state = ArmStatistics(
        np.array([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]]), np.array([[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]])
    )
    # row 0 pulled arm 1 for 0.5; row 1 begins, by its observation; row 2 begins, by the caller
    batch = np.array([[0.0, 1.0, 0.5], [0.0, 0.0, 0.0], [1.0, 0.0, 1.0]])
    known = learned(batch, state, [False, False, True], discount=0.5)
    assert known.counts.tolist() == [[0.5, 2.0], [0, 0], [0, 0]]
    assert known.sums.tolist() == [[0.5, 1.0], [0, 0], [0, 0]]
    assert state.counts.tolist() == [[1, 2], [1, 2], [1, 2]]


def test_ucb1_tries_each_arm_and_then_the_highest_bound() -> None:
    player = UCB1(2)
    arm, state = player.predict(np.array([0.0, 0.0, 0.0]))
    assert arm == 0
    arm, state = player.predict(np.array([1.0, 0.0, 1.0]), state)
    assert arm == 1
    # pulls 1 and 1: equal width, means 1 and 0
    arm, state = player.predict(np.array([0.0, 1.0, 0.0]), state)
    assert arm == 0
    # pulls 3 and 1, both paid nothing more: means 1/3 and 0, widths √(2 ln 4 / 3) = 0.96 and √(2 ln 4) = 1.67
    arm, state = player.predict(np.array([1.0, 0.0, 0.0]), state)
    arm, _ = player.predict(np.array([1.0, 0.0, 0.0]), state)
    assert arm == 1


def test_thompson_sampling_draws_from_the_posterior() -> None:
    known = ArmStatistics(np.full((20_000, 1), 8.0), np.full((20_000, 1), 6.0))
    # Beta(7, 3): mean 0.7, variance 21/1100
    draws = ThompsonSampling(1, seed=0)._draw(known)
    assert draws.mean() == pytest.approx(0.7, abs=0.005)
    assert draws.var() == pytest.approx(21 / 1100, abs=0.001)
    # σ = 2, 8 pulls, sum 6: precision 1 + 2, mean 1.5/3
    draws = ThompsonSampling(1, "gaussian", noise_std=2.0, seed=0)._draw(known)
    assert draws.mean() == pytest.approx(0.5, abs=0.02)
    assert draws.var() == pytest.approx(1 / 3, abs=0.02)


@pytest.mark.parametrize(
    "player",
    [UniformArms(3, seed=0), UCB1(3), ThompsonSampling(3, seed=0), DiscountedThompsonSampling(3, seed=0)],
    ids=lambda p: type(p).__name__,
)
def test_bandit_players_take_one_game_or_many(player: Any) -> None:
    arm, _ = player.predict(np.zeros(4, dtype=np.float32), None, None, True)
    assert np.shape(arm) == ()
    arms, state = player.predict(np.zeros((5, 4), dtype=np.float32))
    arms, _ = player.predict(np.eye(5, 4, dtype=np.float32), state, np.zeros(5, dtype=bool))
    assert arms.shape == (5,)
    assert ((arms >= 0) & (arms < 3)).all()
    with pytest.raises(ValueError, match=r"expected \[4\] or \[n, 4\] for 3 arms"):
        player.predict(np.zeros(3))


def test_thompson_sampling_beats_ucb1_beats_uniform_play() -> None:
    env = BanditVectorEnv(200, n_arms=5, horizon=300)
    players: list[Any] = [ThompsonSampling(5, seed=0), UCB1(5), UniformArms(5, seed=0)]
    regrets = [bandit_regret(player, env).sum(axis=1).mean() for player in players]
    assert regrets[0] < 0.6 * regrets[1] < 0.6 * 0.6 * regrets[2]


def test_uniform_play_pays_the_mean_gap_of_each_regime() -> None:
    regret = bandit_regret(UniformArms(5, seed=0), DynamicBanditVectorEnv(500))
    # flat: 0; arm 3: 0.8 − 0.28; arm 0: 0.7 − 0.26
    per_regime = regret.mean(axis=0).reshape(5, 20).mean(axis=1)
    assert per_regime == pytest.approx([0, 0.52, 0, 0.44, 0], abs=0.02)


def test_forgetting_helps_where_arms_change() -> None:
    env = DynamicBanditVectorEnv(300, schedule=[(200, (0.9, 0.1)), (200, (0.1, 0.9))], noise="bernoulli")
    kept = bandit_regret(ThompsonSampling(2, seed=0), env)[:, 200:].sum(axis=1).mean()
    discounted = bandit_regret(DiscountedThompsonSampling(2, discount=0.9, seed=0), env)[:, 200:].sum(axis=1).mean()
    assert discounted < 0.5 * kept


def test_the_lai_robbins_constant_of_two_arms() -> None:
    # gap 0.5 over (0.5)²/2
    assert lai_robbins([1.0, 0.5], "gaussian") == pytest.approx(4.0)
    # gap 0.25 over KL(1/4 ‖ 1/2) = ¼ ln ½ + ¾ ln 3/2 = 0.130812
    assert lai_robbins([0.5, 0.25]) == pytest.approx(0.25 / 0.130812, rel=1e-5)
    assert lai_robbins([0.5, 0.5]) == 0.0
    with pytest.raises(ValueError, match="strictly inside"):
        lai_robbins([1.0, 0.5])
    with pytest.raises(ValueError, match="choose from"):
        lai_robbins([0.9, 0.5], "cauchy")


def test_players_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="choose from bernoulli, gaussian"):
        ThompsonSampling(2, noise="cauchy")
    with pytest.raises(ValueError, match="discount=0"):
        DiscountedThompsonSampling(2, discount=0)
    with pytest.raises(ValueError, match='noise="gaussian"'):
        ThompsonSampling(2).predict(np.array([1.0, 0.0, -0.5]))
    with pytest.raises(ValueError, match="more than the 1,000,000"):
        PosteriorHunter(10, (5, 4, 3, 3, 2))


def test_the_table_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--games", "20", "--horizon", "20"])
    table = capsys.readouterr().out
    assert "9,024 placements, 8,092 boards" in table
    assert "greedy exact posterior     exact 0.7160" in table
    assert "discounted TS, 0.9" in table
