"""Laws of the agent for several players: what it learns, keeps, says and refuses."""

from __future__ import annotations

import functools
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("pettingzoo", reason="games of several agents; grpo_gym[multiagent] brings it")

from grpo_gym import GRPO, MultiGRPO
from grpo_gym.baselines import BASELINES
from grpo_gym.logger import Logger
from grpo_gym.marl_agent import MULTI_ARGUMENTS
from grpo_gym.marl_evaluation import RandomPlayer, play_games, play_match
from tests.agents import Memory, digest
from tests.games import Bids, Hive, Seats
from tests.toys import Walk

CHECKPOINTS = "pettingzoo:grpo_envs.duel"


def small(env: Any, **kwargs: Any) -> MultiGRPO:
    settings = {"n_groups": 2, "group_size": 3, "batch_size": 8, "learning_rate": 1e-2, "seed": 0}
    agent = GRPO("MlpPolicy", env, **{**settings, "policy_kwargs": {"net_arch": [8]}, **kwargs})
    assert isinstance(agent, MultiGRPO)
    return agent


def test_a_game_of_several_makes_the_agent_for_several_and_others_do_not() -> None:
    for env in (Hive(), Hive, functools.partial(Bids, rounds=2), CHECKPOINTS):
        assert type(GRPO("MlpPolicy", env)) is MultiGRPO
    assert type(GRPO("MlpPolicy", Walk)) is GRPO
    assert type(GRPO("MlpPolicy", env="CartPole-v1")) is GRPO


def test_players_with_equal_spaces_share_a_learner() -> None:
    agent = small(Hive)
    assert list(agent.learners) == ["ant", "bee"]
    assert agent.learners["ant"].observation_space.shape == (2,)
    assert agent.learners["bee"].observation_space.shape == (3,)
    assert agent.learners["ant"].seed != agent.learners["bee"].seed


def test_environment_steps_and_actions_are_counted_apart() -> None:
    agent = small(Hive)
    agent.learn(48)
    assert agent.num_timesteps == 48  # two iterations of 6 games of 4 steps
    assert agent.num_agent_steps == 96


def test_it_learns_to_outbid_itself() -> None:
    agent = small(lambda: Bids(rounds=2), n_groups=4, group_size=8).learn(3000)
    for seat in (0, 1):
        assert agent.predict(np.array([seat, -1], np.float32), deterministic=True)[0] == 2


def test_a_masked_game_of_turns_is_never_played_illegally() -> None:
    from grpo_envs.duel import raw_env

    make = functools.partial(raw_env, board_size=2, fleet=(1,))  # an illegal shot would end the game at -1 and 0
    agent = small(make, league_share=0.5)
    agent.learn(100)
    for game in play_games(make, agent, n_games=40, deterministic=False):
        assert game["player_0"] + game["player_1"] == 0


@pytest.mark.parametrize("identity", [True, False])
def test_only_identity_lets_a_shared_policy_tell_its_players_apart(identity: bool) -> None:
    agent = small(Seats, agent_identity=identity, n_groups=4, group_size=8).learn(400)
    actions, _ = agent.predict({name: np.ones(1) for name in ("seat_0", "seat_1")}, deterministic=True)
    assert (actions == {"seat_0": 0, "seat_1": 1}) is identity


def test_a_player_is_compared_with_itself_alone() -> None:
    # seat_1 always earns 100 more: compared with seat_0 that would be its advantage, compared with itself it is nothing
    plain, rich = (small(lambda b=bonus: Seats(bonus=b)) for bonus in ({}, {"seat_1": 100.0}))
    assert digest(plain.learn(30)) == digest(rich.learn(30))


@pytest.mark.parametrize("baseline", BASELINES)
def test_every_baseline_serves(baseline: str) -> None:
    agent = small(Hive, baseline=baseline).learn(24)
    before = small(Hive, baseline=baseline)
    assert digest(agent) != digest(before)
    for parameters in agent.get_parameters().values():
        assert all(bool(torch.isfinite(tensor).all()) for tensor in parameters["policy"].values())


def test_the_same_seed_makes_the_same_agent_and_another_another() -> None:
    runs = [digest(small(Bids, seed=seed, league_share=0.5, league_every=1).learn(60)) for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


def test_the_number_of_games_in_play_changes_nothing() -> None:
    assert digest(small(Hive, n_envs=2).learn(48)) == digest(small(Hive).learn(48))


# --- keeping ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_saved_agent_goes_on_exactly_where_it_stood(share: float, tmp_path: Path) -> None:
    options: dict[str, Any] = {"league_share": share, "league_every": 1, "league_size": 2}
    whole = small(Bids, **options).learn(36).learn(36, reset_num_timesteps=False)
    small(Bids, **options).learn(36).save(tmp_path / "half")
    loaded = GRPO.load(tmp_path / "half", Bids).learn(36, reset_num_timesteps=False)
    assert isinstance(loaded, MultiGRPO)
    assert digest(loaded) == digest(whole)
    assert (loaded.num_timesteps, loaded.num_agent_steps) == (72, 72)
    assert isinstance(whole, MultiGRPO)
    assert loaded.league.state() == whole.league.state()
    mine, theirs = loaded.league.tensors(), whole.league.tensors()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_all_arguments_and_roles_come_back(tmp_path: Path) -> None:
    groups = {"a": ["ant_1"], "b": ["ant_0"], "c": ["bee_0"]}
    agent = small(Hive, policy_groups=groups, team_reward=True, agent_identity=True, gamma=0.5)
    agent.save(tmp_path / "agent")
    loaded = MultiGRPO.load(tmp_path / "agent")
    kept = [name for name in MULTI_ARGUMENTS if name not in ("policy", "env", "_init_setup_model")]
    assert {name: getattr(loaded, name) for name in kept} == {name: getattr(agent, name) for name in kept}
    assert list(loaded.roles) == list(agent.roles)
    seen = np.zeros(2, np.float32)
    for name in ("ant_0", "ant_1"):
        assert (
            loaded.predict(seen, agent=name, deterministic=True)[0]
            == agent.predict(seen, agent=name, deterministic=True)[0]
        )


def test_a_new_seed_starts_new_streams(tmp_path: Path) -> None:
    small(Bids).save(tmp_path / "agent")
    first, second = (GRPO.load(tmp_path / "agent", Bids, seed=seed).learn(12) for seed in (5, 6))
    assert digest(first) != digest(second)


def test_files_of_one_and_of_several_players_are_told_apart(tmp_path: Path) -> None:
    GRPO("MlpPolicy", "CartPole-v1").save(tmp_path / "one")
    with pytest.raises(ValueError, match="is an agent for one player"):
        MultiGRPO.load(tmp_path / "one")


def test_another_game_must_have_the_same_players() -> None:
    agent = small(Hive)
    agent.set_env(lambda: Hive(mask_in="info"))
    with pytest.raises(ValueError, match=r"bids_v0 has the players left.*but the agent was made for ant"):
        agent.set_env(Bids)


def test_parameters_go_from_agent_to_agent(tmp_path: Path) -> None:
    agent, other = small(Hive), small(Hive, seed=1)
    agent.save(tmp_path / "agent")
    other.set_parameters(tmp_path / "agent")
    assert digest(other) == digest(agent)
    with pytest.raises(ValueError, match=r"those of \['ant'\], expected \['ant', 'bee'\]"):
        other.set_parameters({"ant": agent.get_parameters()["ant"]})


# --- predicting ---------------------------------------------------------------------------------------------------


def test_predict_takes_one_player_a_batch_or_a_dict_of_players() -> None:
    agent, env = small(Hive), Hive()
    observations, _ = env.reset(seed=1)
    actions, state = agent.predict(observations, state="kept")
    assert set(actions) == {"ant_0", "ant_1"}
    assert all(env.action_space(name).contains(int(action)) for name, action in actions.items())
    assert state == "kept"
    assert agent.predict(np.zeros((5, 2), np.float32), agent="ant_0")[0].shape == (5,)
    with pytest.raises(ValueError, match="agent=one of ant: ant_0"):
        agent.predict(observations["ant_0"])


@pytest.mark.parametrize("batched", [False, True])
def test_predict_heeds_a_mask_in_the_observation(batched: bool) -> None:
    agent = small(lambda: Hive(mask_in="observation"))
    one = {"observation": np.zeros(2, np.float32), "action_mask": np.array([0, 0, 1], np.int8)}
    asked = {name: np.array([value] * 4 if batched else value) for name, value in one.items()}
    assert np.all(agent.predict(asked, agent="ant_0")[0] == 2)
    masks = {"ant_0": [False, True, False]}
    assert agent.predict({"ant_0": np.zeros(2)}, action_masks=masks)[0] == {"ant_0": 1}


def test_predict_tells_players_of_a_batch_their_identity() -> None:
    agent = small(Seats, agent_identity=True, n_groups=4, group_size=8)
    agent.learn(400)
    actions, _ = agent.predict(np.ones((3, 1)), agent="seat_1", deterministic=True)
    assert actions.tolist() == [1, 1, 1]


# --- saying -------------------------------------------------------------------------------------------------------


def logged(agent: MultiGRPO, steps: int = 24) -> dict[str, Any]:
    memory = Memory()
    agent.set_logger(Logger(None, [memory]))
    agent.learn(steps)
    return dict(memory.dumps[-1])


def test_each_policy_has_its_own_keys_where_there_are_several() -> None:
    values = logged(small(Hive))
    for key in ("train/ant/loss", "train/bee/loss", "rollout/ant/group_return_std", "rollout/bee/player_rew_mean"):
        assert key in values
    assert (values["rollout/ep_len_mean"], values["time/total_timesteps"]) == (4.0, 24)
    assert values["time/total_agent_steps"] == 48
    assert "train/loss" in logged(small(Bids))


def test_the_league_is_logged() -> None:
    values = logged(small(Bids, league_share=1.0))
    assert 0.0 <= values["league/score"] <= 1.0
    assert values["league/size"] == 1
    assert 900.0 < values["league/elo"] < 1100.0
    assert not any(key.startswith("league") for key in logged(small(Bids)))


def test_callbacks_are_called_and_can_stop_it() -> None:
    seen: list[Any] = []

    def stop(locals_: dict[str, Any], globals_: dict[str, Any]) -> bool:
        seen.append([info["episode"]["returns"] for info in locals_["infos"] if info])
        return len(seen) < 4

    agent = small(Hive).learn(1000, callback=stop)
    assert agent.num_timesteps == 24
    assert [len(ended) for ended in seen] == [0, 0, 0, 6]
    assert set(seen[-1][0]) == {"ant_0", "ant_1", "bee_0"}


def test_starts_that_do_not_repeat_are_warned_of_once() -> None:
    class Forgetful(Hive):
        def reset(self, seed: int | None = None, options: Any = None) -> Any:
            return super().reset(None)

    with pytest.warns(UserWarning, match="does not repeat the start"):
        agent = small(Forgetful).learn(24)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        agent.learn(24)


# --- refusing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"n_steps": 8, "baseline": "soft_groups"}, "n_steps=8 is not for several agents: games are played whole"),
        ({"n_workers": 2}, "n_workers=2 is not for several agents"),
        ({"max_resamples": 1}, "max_resamples=1 is not for several agents"),
        ({"league_share": 1.5}, "league_share=1.5 must be a finite number, at least 0.0, at most 1.0"),
        ({"league_size": 0}, "league_size=0 must be a whole number"),
        ({"league_every": 0.5}, "league_every=0.5 must be a whole number"),
        ({"policy_groups": {"a": []}}, "must name each of"),
    ],
)
def test_what_cannot_work_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        small(Hive, **options)


def test_without_an_environment_the_players_are_not_known() -> None:
    with pytest.raises(ValueError, match="env=None: expected a PettingZoo environment"):
        MultiGRPO("MlpPolicy", None)


# --- playing against others ----------------------------------------------------------------------------------------


class Names:
    """Names the same number again and again."""

    def __init__(self, number: int):
        self.number = number

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        return np.full(len(observation), self.number), state


def test_a_match_is_played_from_both_seats() -> None:
    assert play_match(Bids, Names(2), Names(0), 10) == (10, 0, 0)
    assert play_match(Bids, Names(1), Names(1), 10) == (0, 10, 0)
    random = RandomPlayer(Bids().action_space("left"), seed=1)
    wins, _, losses = play_match(Bids, Names(2), random, 300)
    assert losses == 0
    assert 160 < wins < 240  # two of three numbers are smaller
    with pytest.raises(ValueError, match="a match needs a game for two"):
        play_match(Hive, Names(0), Names(0), 10)


def test_games_are_scored_for_each_player_and_the_agent_plays_all_seats() -> None:
    agent = small(lambda: Hive(mask_in="info"))
    games = play_games(lambda: Hive(mask_in="info"), agent, n_games=5, n_envs=2)
    assert len(games) == 5
    assert set(games[0]) == {"ant_0", "ant_1", "bee_0"}
    ones = {name: Names(2) for name in ("ant_0", "ant_1", "bee_0")}
    assert play_games(Hive, ones, n_games=1) == [{"ant_0": 6.0, "ant_1": 4.0, "bee_0": 6.0}]


def test_the_random_player_heeds_masks_and_bounds() -> None:
    from gymnasium.spaces import Box, Discrete

    player = RandomPlayer(Discrete(3, start=5))
    masks = np.array([[False, True, False]] * 20)
    assert set(player.predict(np.zeros((20, 2)), action_masks=masks)[0].tolist()) == {6}
    actions, _ = RandomPlayer(Box(-2.0, -1.0, (3,), np.float32)).predict(np.zeros((4, 2)))
    assert actions.shape == (4, 3)
    assert ((actions >= -2) & (actions <= -1)).all()


def test_the_one_policy_is_exported_and_several_are_one_by_one(tmp_path: Path) -> None:
    agent = small(lambda: Bids(rounds=2)).learn(24)
    agent.export(tmp_path / "bids.pt2")
    seen = np.array([[0, -1], [1, -1], [0, 2]], np.float32)
    actions = torch.export.load(tmp_path / "bids.pt2").module()(torch.from_numpy(seen))
    assert actions.tolist() == agent.predict(seen, deterministic=True)[0].tolist()
    several = small(Hive)
    with pytest.raises(ValueError, match=r"one policy, and these are 2: use agent.learners\['ant'\].export"):
        several.export(tmp_path / "hive.pt2")
    several.learners["bee"].export(tmp_path / "bee.pt2")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bee.pt2", "bids.pt2"]
