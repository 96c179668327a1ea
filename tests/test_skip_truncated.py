from typing import Any

import pytest
import torch

from grpo_gym.advantages import scale
from grpo_gym.baselines import BASELINES, Comparison
from grpo_gym.episodes import select_episodes, select_groups
from tests.agents import digest, small
from tests.test_vine import rollout_of
from tests.toys import Walk


class Long(Walk):
    """Never ends by itself within its limit."""

    def step(self, action: Any) -> Any:
        observation, reward, _, truncated, info = super().step(action)
        return observation, reward, False, truncated, info


def test_without_episodes_that_end_nothing_is_learned() -> None:
    agent = small(Long, skip_truncated=True, max_episode_steps=4)
    before = digest(agent)
    agent.learn(1)
    assert digest(agent) == before
    assert digest(small(Long, max_episode_steps=4).learn(1)) != before


def test_cut_episodes_leave_the_loss_but_are_still_compared_with() -> None:
    agent = small(Walk, skip_truncated=True, baseline="outcome", scale_rewards="none")
    rollout = rollout_of(Walk, n_groups=4, group_size=3)
    cut = rollout.truncated
    assert 0 < int(cut.sum()) < 12
    advantages = BASELINES["outcome"](rollout, Comparison(1.0)).advantages
    batch = agent._make_batch(rollout, advantages)
    assert len(batch) == int(rollout.lengths[~cut].sum())
    assert torch.allclose(batch.advantages, select_episodes(rollout, ~cut).flat(advantages[:, ~cut]).float())
    assert float(batch.weights.mean()) == pytest.approx(1.0)


def test_the_scale_is_that_of_all_episodes() -> None:
    agent = small(Walk, skip_truncated=True)
    rollout = rollout_of(Walk, n_groups=4, group_size=3)
    advantages = BASELINES["outcome"](rollout, Comparison(1.0)).advantages
    whole = rollout.flat(scale(advantages, rollout.mask, 3, "batch"))
    kept = rollout.flat((~rollout.truncated)[None].expand(rollout.mask.shape))
    assert torch.allclose(agent._make_batch(rollout, advantages).advantages, whole[kept].float())


def test_selected_episodes_keep_their_groups_and_all_that_is_theirs() -> None:
    rollout = rollout_of(Walk, n_groups=3, group_size=4)
    chosen = select_episodes(rollout, torch.arange(12) % 5 == 0)
    assert chosen.groups.tolist() == [0, 1, 2]
    assert chosen.members.tolist() == [0, 1, 2]
    assert len(chosen.seeds) == 3
    assert chosen.n_steps == int(rollout.lengths[[0, 5, 10]].sum()) == len(chosen.observations)
    assert torch.equal(chosen.rewards, rollout.rewards[:, [0, 5, 10]])
    only = select_groups(rollout, torch.tensor([False, True, False]))
    assert only.groups.tolist() == [0] * 4
    assert only.seeds.tolist() == [rollout.seeds[1]]


def test_segments_are_refused() -> None:
    with pytest.raises(ValueError, match="skip_truncated=True needs whole ones"):
        small(Walk, skip_truncated=True, n_steps=8, baseline="soft_groups")


def test_anything_but_a_truth_value_is_refused() -> None:
    with pytest.raises(ValueError, match="skip_truncated='yes' must be True or False"):
        small(Walk, skip_truncated="yes")
