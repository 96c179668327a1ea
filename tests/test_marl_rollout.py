"""Laws of the trajectories of several players: one for each, no phantom rows, and every reward where it belongs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("pettingzoo", reason="games of several agents; grpo_gym[multiagent] brings it")

from grpo_gym.groups import Plan
from grpo_gym.marl_games import make_games
from grpo_gym.marl_records import Cast, Games, Tick
from grpo_gym.marl_roles import find_roles
from grpo_gym.marl_rollout import GameCollector
from grpo_gym.types import Array, BoolArray, FloatArray, Rollout
from tests.games import Bids, Hive, Seats


class Names:
    """Names the number that it was made with, or one drawn by the noise; remembers the noise."""

    noise_size = 1

    def __init__(self, number: int | None = None):
        self.number = number
        self.noise: list[float] = []

    def act(
        self, observations: Array, noise: FloatArray | None, action_masks: BoolArray | None = None
    ) -> tuple[Array, FloatArray]:
        assert noise is not None
        self.noise += noise[:, 0].tolist()
        actions = (3 * noise[:, 0]).astype(np.int64) if self.number is None else np.full(len(noise), self.number)
        if action_masks is not None:
            actions = action_masks.argmax(axis=1)
        return actions, np.zeros(len(actions), np.float32)

    def to_env(self, actions: Array) -> Array:
        return actions


TWO_BY_TWO = Plan(np.array([7, 8]), 2, np.array([1, 2, 3, 4]))


def play(
    env: Any,
    number: int | None = None,
    plan: Plan = TWO_BY_TWO,
    casts: list[Cast] | None = None,
    n_games: int = 4,
    identity: bool = False,
    **kwargs: Any,
) -> Games:
    games = make_games(env, n_games)
    roles = find_roles(games[0], None, identity)
    collector = GameCollector(games, roles, kwargs.pop("horizon", None), kwargs.pop("team_reward", False), "game")
    actors = {role.name: Names(number) for role in roles}
    played = collector.collect(actors, plan, casts or [Cast()] * len(plan.seeds), **kwargs)
    assert played is not None
    return played


def rows(rollout: Rollout, name: str = "rewards") -> list[list[float]]:
    """What is in each trajectory, without the padding."""
    padded = getattr(rollout, name)
    return [column[: int(n)].tolist() for column, n in zip(padded.T, rollout.lengths, strict=True)]


def test_each_player_has_one_trajectory_as_long_as_its_life() -> None:
    played = play(Hive, number=2)
    ants, bees = played.experience["ant"], played.experience["bee"]
    assert (ants.agents, bees.agents) == (["ant_0", "ant_0", "ant_1", "ant_1"], ["bee_0", "bee_0"])
    assert rows(ants.rollout) == [[2, 2, 2]] * 4 + [[2, 2]] * 4
    assert rows(bees.rollout) == [[2, 2, 2]] * 4
    assert ants.rollout.seeds.tolist() == [7, 8, 7, 8]
    assert ants.rollout.groups.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert ants.rollout.members.tolist() == [0, 1] * 4
    assert ants.rollout.observations.shape == (20, 2)
    assert bees.rollout.observations.shape == (12, 3)


def test_ends_and_cuts_are_told_apart_and_the_last_sight_is_kept() -> None:
    played = play(Hive)
    ants, bees = (played.experience[name].rollout for name in ("ant", "bee"))
    assert ants.terminated.all()
    assert not ants.truncated.any()
    assert bees.truncated.all()
    assert not bees.terminated.any()
    assert ants.final_observations[:, 1].tolist() == [3.0] * 4 + [2.0] * 4


def test_every_step_and_every_action_is_counted() -> None:
    ticks: list[Tick] = []

    def on_step(tick: Tick) -> bool:
        ticks.append(tick)
        return True

    played = play(Hive, on_step=on_step)
    assert sum(tick.n_steps for tick in ticks) == 16  # 4 games of 4 steps
    assert played.n_agent_steps == 32  # of which ants and bees took 3 + 2 + 3 actions
    assert [episode.n_steps for episode in played.episodes] == [4, 4, 4, 4]
    last = ticks[-1].infos[0]["episode"]
    assert last["l"] == 4
    assert set(last["returns"]) == {"ant_0", "ant_1", "bee_0"}


def test_winner_and_loser_find_their_rewards_at_their_last_action() -> None:
    env = Bids(rounds=2)
    played = play(env, casts=[Cast()] * 2)
    rollout = played.experience["left"].rollout  # "left" and "right" have nothing in common but their spaces
    for episode in range(4):
        left, right = rollout.rewards[:, episode], rollout.rewards[:, 4 + episode]
        assert left[0] == right[0] == 0
        assert left[1] == -right[1]
    assert rollout.rewards.abs().sum() > 0


def test_each_player_draws_its_own_noise_and_a_game_does_not_depend_on_what_is_played_beside_it() -> None:
    reference = play(Hive).experience["ant"].rollout
    assert len(set(map(tuple, rows(reference)))) > 4
    for n_games in (1, 3):
        rollout = play(Hive, n_games=n_games).experience["ant"].rollout
        assert torch.equal(rollout.actions, reference.actions)
        assert torch.equal(rollout.rewards, reference.rewards)
        assert torch.equal(rollout.observations, reference.observations)


def test_team_reward_is_the_sum_and_the_dead_get_their_share() -> None:
    rollout = play(Hive, number=1, team_reward=True).experience["ant"].rollout
    # two ants earn 2, then both ants and the bee 3; ant_1 is gone when 2 and 1 follow
    assert rows(rollout)[0] == [2, 3, 2 + 1]
    assert rows(rollout)[4] == [2, 3 + 2 + 1]
    assert rows(play(Hive, number=1, team_reward=True).experience["bee"].rollout)[0] == [3, 2, 1]


def test_what_comes_before_a_players_first_action_is_not_learned_from() -> None:
    class Gift(Bids):
        def reset(self, seed: int | None = None, options: Any = None) -> None:
            super().reset(seed)
            self._cumulative_rewards["right"] = 5.0

    rewards = play(Gift, number=1).experience["left"].rollout.rewards
    assert rewards.sum() == 0


def test_a_player_that_some_games_never_had_has_an_empty_trajectory_there() -> None:
    class Sometimes(Hive):
        count = 0

        def reset(self, seed: int | None = None, options: Any = None) -> Any:
            type(self).count += 1
            self.lives = {"ant_0": (0, 2), "ant_1": (0, 1)} if self.count % 2 else {"ant_0": (0, 2)}
            return super().reset(seed)

    plan = Plan(np.array([7]), 2, np.array([1, 2]))
    games = make_games(lambda: Sometimes({"ant_0": (0, 2), "ant_1": (0, 1)}), 1)
    collector = GameCollector(games, find_roles(games[0], None, False), None, False, "sometimes")
    played = collector.collect({"ant": Names(1)}, plan, [Cast()])
    assert played is not None
    rollout, agents = played.experience["ant"]
    assert agents == ["ant_0", "ant_1"]
    assert rows(rollout) == [[1, 1], [1, 1], [1], []]
    assert rollout.starts.tolist() == [True, True, True, False]


def test_names_that_nobody_foretold_are_played_by_the_policy_with_their_spaces() -> None:
    lives = {"ant_0": (0, 2), "bee_0": (0, 2), "ant_99": (1, 3)}
    played = play(lambda: Hive(lives, possible=False), number=1)
    assert played.experience["ant"].agents == ["ant_0", "ant_0", "ant_99", "ant_99"]
    assert rows(played.experience["ant"].rollout) == [[1, 1]] * 8


@pytest.mark.parametrize("where", ["observation", "info"])
def test_masks_are_heeded_and_kept(where: str) -> None:
    rollout = play(lambda: Hive(mask_in=where)).experience["ant"].rollout
    assert rollout.action_masks is not None
    assert rollout.action_masks.tolist() == [[True, False, True]] * 20
    assert (rollout.actions != 1).all()


def test_a_game_is_cut_at_the_horizon_for_all_that_live() -> None:
    played = play(Hive, horizon=2)
    rollout = played.experience["ant"].rollout
    assert rows(rollout, "mask") == [[True, True]] * 8
    assert rollout.truncated.tolist() == [True] * 4 + [False] * 4  # ant_1 died in that step
    assert [episode.n_steps for episode in played.episodes] == [2] * 4
    turns = play(Bids(rounds=2), horizon=3).experience["left"].rollout
    assert turns.lengths.tolist() == [2] * 4 + [1] * 4
    assert turns.truncated.all()


def test_what_was_not_read_when_a_game_is_cut_is_not_lost() -> None:
    class Toll(Bids):
        def step(self, action: Any) -> None:
            mover = self.agent_selection
            super().step(action)
            if self.turns == 3:  # who moved last is told at its next turn, and there is none
                self._cumulative_rewards[mover] += 7.0

    rollout = play(Toll(rounds=2), horizon=3).experience["left"].rollout
    assert rows(rollout) == [[0, 7]] * 4 + [[0]] * 4


def test_a_game_without_players_is_refused() -> None:
    with pytest.raises(ValueError, match="the game with seed 7 begins without any player"):
        play(lambda: Hive({"ant_0": (1, 2)}))


def test_players_that_end_together_but_differently_end_the_game() -> None:
    played = play(lambda: Hive({"ant_0": (0, 2), "bee_0": (0, 2)}), number=1)
    ants, bees = (played.experience[name].rollout for name in ("ant", "bee"))
    assert [episode.n_steps for episode in played.episodes] == [2] * 4
    assert ants.terminated.all()
    assert bees.truncated.all()


def test_opponents_leave_no_trajectory_and_act_alike_in_all_games_of_a_group() -> None:
    opponent = Names()
    casts = [Cast("left", {"left": opponent}, 0), Cast("right", {"left": opponent}, 0)]
    played = play(Bids, casts=casts)
    rollout, agents = played.experience["left"]
    assert agents == ["left", "right"]
    assert rollout.groups.tolist() == [0, 0, 1, 1]
    assert rollout.seeds.tolist() == [7, 8]
    assert [episode.learning for episode in played.episodes] == [("left",)] * 2 + [("right",)] * 2
    assert len(opponent.noise) == 4
    assert len(set(opponent.noise)) == 2


def test_identity_tells_players_apart() -> None:
    rollout = play(Seats, identity=True).experience["seat"].rollout
    assert rollout.observations.tolist() == [[1.0, 1.0, 0.0]] * 4 + [[1.0, 0.0, 1.0]] * 4


def test_a_rollout_that_is_stopped_gives_nothing() -> None:
    games = make_games(Hive, 4)
    collector = GameCollector(games, find_roles(games[0], None, False), None, False, "hive")
    actors = {"ant": Names(), "bee": Names()}
    assert collector.collect(actors, TWO_BY_TWO, [Cast()] * 2, lambda tick: False) is None


def test_starts_that_do_not_repeat_are_noticed() -> None:
    class Forgetful(Hive):
        def reset(self, seed: int | None = None, options: Any = None) -> Any:
            return super().reset(None)

    for env, found in ((Hive, None), (Forgetful, 7)):
        games = make_games(env, 4)
        collector = GameCollector(games, find_roles(games[0], None, False), None, False, "hive")
        collector.collect({"ant": Names(), "bee": Names()}, TWO_BY_TWO, [Cast()] * 2)
        assert collector.unequal_start == found


def test_numbers_that_are_not_finite_are_refused_where_they_enter() -> None:
    class Broken(Hive):
        def __init__(self, reward: bool) -> None:
            super().__init__()
            self.reward = reward

        def step(self, actions: dict[str, int]) -> Any:
            seen, rewards, *rest = super().step(actions)
            if self.reward:
                rewards["ant_1"] = float("nan")
            else:
                seen["ant_0"][0] = np.inf
            return seen, rewards, *rest

    with pytest.raises(ValueError, match=r"the reward of ant_1 is not finite .nan. at step 1 of the game with seed"):
        play(lambda: Broken(True))
    with pytest.raises(ValueError, match="the observation of ant_0 is not finite"):
        play(lambda: Broken(False))


def test_a_mask_that_allows_nothing_is_refused() -> None:
    class Stuck(Hive):
        def _mask(self) -> Any:
            return np.zeros(self.n_actions, np.int8)

    with pytest.raises(ValueError, match=r"action mask of ant_0 .* at least one legal action"):
        play(lambda: Stuck(mask_in="info"))
