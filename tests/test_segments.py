"""Rollouts that are cut before their episodes end, and go on in the next one."""

from __future__ import annotations

import itertools
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from grpo_gym import GRPO, BaseCallback
from grpo_gym.groups import EndlessQueue, Plan
from grpo_gym.rollout import Collector, Played, collect
from grpo_gym.soft_groups import soft_group_values
from grpo_gym.types import Rollout
from grpo_gym.vec import make_slots
from tests.agents import digest
from tests.toys import UNIT_BOX, Diary, Endless, MaskedByInfo, Walk, policy_for

SEGMENTS: dict[str, Any] = {"baseline": "soft_groups", "n_groups": 2, "group_size": 2, "n_steps": 5, "seed": 0}


def play(env: Any, n_rollouts: int, n_steps: int = 4, horizon: int | None = None) -> list[Rollout]:
    """Rollouts one after the other, of two groups of two slots."""
    slots = make_slots(env, 4)
    collector, queue, policy = Collector(slots, horizon), EndlessQueue(7, 2, 2), policy_for(slots)
    rollouts = [collector.collect(policy, queue, n_steps) for _ in range(n_rollouts)]
    assert all(rollout is not None for rollout in rollouts)
    return [rollout for rollout in rollouts if rollout is not None]


def pieces(rollout: Rollout) -> list[torch.Tensor]:
    return list(torch.split(rollout.observations, rollout.lengths.tolist()))


@pytest.mark.parametrize("make", [Walk, MaskedByInfo])
def test_pieces_put_together_are_the_episodes_that_would_have_been_played_whole(make: Any) -> None:
    slots = make_slots(make, 4)
    episodes: dict[tuple[int, int], list[torch.Tensor]] = {}
    complete: set[tuple[int, int]] = set()
    for rollout in play(make, 5, n_steps=3):
        actions = torch.split(rollout.actions, rollout.lengths.tolist())
        seeds = rollout.seeds[rollout.groups.numpy()]
        for n, (seed, member) in enumerate(zip(seeds.tolist(), rollout.members.tolist(), strict=True)):
            episodes.setdefault((seed, member), []).append(actions[n])
            if rollout.terminated[n] or rollout.truncated[n]:
                complete.add((seed, member))
    assert len(complete) >= 6
    queue = EndlessQueue(7, 2, 2)
    for _ in range(12):
        jobs = queue.take(np.arange(4))
        for seed, member, noise_seed in zip(jobs.seeds, jobs.members, jobs.noise_seeds, strict=True):
            if (seed, member) in complete:
                alone = collect(slots, policy_for(slots), Plan(np.array([seed]), 1, np.array([noise_seed])))
                assert alone is not None
                assert torch.equal(torch.cat(episodes[seed, member]), alone.actions)


def test_every_slot_plays_every_step() -> None:
    for rollout in play(Walk, 3, n_steps=7):
        assert rollout.n_steps == 4 * 7 == int(rollout.lengths.sum())
        assert rollout.idle_steps == 0


def test_a_cut_is_neither_an_end_nor_a_time_limit() -> None:
    for rollout in play(partial(Walk, limit=10**6), 3, n_steps=2):
        cut = ~(rollout.terminated | rollout.truncated)
        assert cut.any()
        assert not (rollout.terminated & rollout.truncated).any()


def test_what_was_seen_last_before_a_cut_is_seen_first_after_it() -> None:
    first, second = play(Endless, 2, n_steps=3)
    assert first.starts.tolist() == [True] * 4
    assert second.starts.tolist() == [False] * 4
    assert torch.equal(first.final_observations, second.first_observations)
    assert first.seeds[first.groups].tolist() == second.seeds[second.groups].tolist()


def test_an_episode_that_ends_at_the_cut_is_not_cut() -> None:
    # a diary's n-th episode has 1 + n % 3 steps: four slots begin episodes of 1, 2, 3 and 1 steps
    numbers = itertools.count()
    first, second = play(partial(Diary, numbers), 2, n_steps=1)
    assert (first.terminated | first.truncated).tolist() == [True, False, False, True]
    assert second.starts.tolist() == [False, True, False, True]  # group by group, member by member
    assert all(len(piece) == 1 for piece in pieces(second))


def test_the_horizon_counts_the_steps_of_all_pieces() -> None:
    rollouts = play(Endless, 3, n_steps=4, horizon=10)
    assert [int(r.truncated.sum()) for r in rollouts] == [0, 0, 4]
    assert rollouts[2].lengths.tolist() == [2] * 8
    assert rollouts[2].starts.tolist() == [False, False, True, True] * 2


def test_the_k_th_episodes_of_a_group_share_their_seed_whenever_they_begin() -> None:
    early, late = EndlessQueue(3, 2, 2), EndlessQueue(3, 2, 2)
    together = [early.take(np.arange(4)) for _ in range(3)]
    assert [jobs.seeds[0] == jobs.seeds[1] != jobs.seeds[2] == jobs.seeds[3] for jobs in together] == [True] * 3
    assert len({int(seed) for jobs in together for seed in jobs.seeds}) == 6
    assert len({int(seed) for jobs in together for seed in jobs.noise_seeds}) == 12
    for k in range(3):  # slot 2 runs ahead of the others
        assert late.take(np.array([2])).seeds.tolist() == [together[k].seeds[2]]
    assert late.take(np.arange(2)).seeds.tolist() == together[0].seeds[:2].tolist()
    assert late.n_begun.tolist() == [1, 1, 3, 0]


def test_trajectories_belong_to_the_group_of_their_seed() -> None:
    for rollout in play(Walk, 3, n_steps=9):
        assert len(set(rollout.seeds.tolist())) == len(rollout.seeds) == int(rollout.groups.max()) + 1
        for group in range(len(rollout.seeds)):
            starts = rollout.first_observations[(rollout.groups == group) & rollout.starts]
            assert (starts == starts[:1]).all()


def test_a_rollout_that_was_stopped_leaves_nothing_in_play() -> None:
    slots = make_slots(Endless, 4)
    collector, queue, policy = Collector(slots), EndlessQueue(7, 2, 2), policy_for(slots)
    steps = itertools.count()

    def stop(played: Played) -> bool:
        return next(steps) < 5

    assert collector.collect(policy, queue, 4) is not None
    assert collector.collect(policy, queue, 4, stop) is not None
    assert collector.collect(policy, queue, 4, stop) is None
    again = collector.collect(policy, queue, 4)
    assert again is not None
    assert again.starts.all()


def test_what_comes_after_a_cut_is_estimated_and_after_an_end_is_nothing() -> None:
    (rollout,) = play(Walk, 1, n_steps=40)
    _, tail = soft_group_values(rollout, 0.9, lambda x: x)
    assert tail[rollout.terminated].tolist() == [0.0] * int(rollout.terminated.sum())
    assert (tail[~rollout.terminated] != 0).all()


class Counts(BaseCallback):
    """Notes how many steps were taken at the end of each rollout."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[int] = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self.ends.append(self.num_timesteps)


def test_an_iteration_is_n_steps_of_every_environment() -> None:
    counts = Counts()
    GRPO("MlpPolicy", Walk, **SEGMENTS).learn(50, callback=counts)
    assert counts.ends == [20, 40, 60]


def test_the_window_moves_on_with_the_iterations() -> None:
    agent = GRPO("MlpPolicy", Walk, value_window=3, **SEGMENTS).learn(60)
    second = agent._earlier[1]
    agent.learn(20, reset_num_timesteps=False)
    assert [len(iteration.states) for iteration in agent._earlier] == [20, 20]
    assert agent._earlier[0] is second
    agent.set_env(Walk)
    assert not agent._earlier


@pytest.mark.parametrize("given", [{"value_window": 1}, {"baseline": "live_peers", "n_steps": None}])
def test_who_looks_at_one_iteration_keeps_none(given: dict[str, Any]) -> None:
    assert not GRPO("MlpPolicy", Walk, **{**SEGMENTS, **given}).learn(60)._earlier


def test_earlier_iterations_change_what_is_learned() -> None:
    short, long = (GRPO("MlpPolicy", Walk, value_window=n, **SEGMENTS).learn(60) for n in (1, 3))
    assert digest(short) != digest(long)


def test_training_in_segments_is_repeatable() -> None:
    one, two = (GRPO("MlpPolicy", Walk, **SEGMENTS).learn(100) for _ in range(2))
    for ours, theirs in zip(one.policy.parameters(), two.policy.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_vector_environment_of_another_size_is_refused() -> None:
    from gymnasium.vector import AutoresetMode, SyncVectorEnv

    env = SyncVectorEnv([Walk] * 3, autoreset_mode=AutoresetMode.DISABLED)
    with pytest.raises(ValueError, match=r"has 3 environments.*expected n_groups \* group_size = 4"):
        GRPO("MlpPolicy", env, **SEGMENTS)


@pytest.mark.parametrize("make", [Walk, MaskedByInfo, partial(Walk, UNIT_BOX)])
def test_episodes_in_play_come_back_with_a_checkpoint(make: Any, tmp_path: Path) -> None:
    agent = GRPO("MlpPolicy", make, **{**SEGMENTS, "n_steps": 3}).learn(60)
    agent.save(tmp_path / "agent")
    loaded = GRPO.load(tmp_path / "agent", env=make)
    loaded.save(tmp_path / "again")  # before they are in play again
    again = GRPO.load(tmp_path / "again")
    again.set_env(make)
    assert agent.sampler.in_play().lengths.sum() > 0  # type: ignore[union-attr]
    for one in (agent, loaded, again):
        one.learn(60, reset_num_timesteps=False)
    assert digest(loaded) == digest(again) == digest(agent)


def test_episodes_in_play_that_cannot_be_replayed_are_replaced_with_a_warning(tmp_path: Path) -> None:
    agent = GRPO("MlpPolicy", Unseeded, **SEGMENTS).learn(20)
    agent.save(tmp_path / "agent")
    loaded = GRPO.load(tmp_path / "agent", env=Unseeded)
    with pytest.warns(UserWarning, match="does not come to where it stood.*not bit for bit"):
        loaded.learn(20, reset_num_timesteps=False)
    assert loaded.num_timesteps == 40


class Unseeded(Walk):
    """Starts as its seed says and is pushed by chance that nobody seeds."""

    def step(self, action: Any) -> Any:
        self.x += 0.01 * float(np.random.default_rng().standard_normal())
        return super().step(action)
