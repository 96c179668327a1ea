"""Memory together with the family's other parts: what works, and what is refused in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from grpo_gym import GRPO
from grpo_gym.adapters import merge_adapters
from grpo_gym.baselines import BASELINES
from grpo_gym.episodes import concatenate, select_episodes
from grpo_gym.policy import MlpPolicy
from grpo_gym.recurrent import MlpGruPolicy
from grpo_gym.references import ESTIMATORS, Reference
from grpo_gym.types import Rollout
from grpo_gym.update import make_batch
from grpo_gym.variants import VARIANTS
from tests.agents import digest, watched
from tests.test_recurrent import SEGMENTS, segments, small_gru, whole
from tests.toys import MaskedByInfo, Walk

KWARGS: dict[str, Any] = {"hidden_size": 6, "net_arch": [8]}


def small_variant(name: str, **kwargs: Any) -> GRPO:
    settings: dict[str, Any] = {"n_groups": 2, "group_size": 3, "batch_size": 8, "n_epochs": 2, "seed": 0}
    return GRPO("MlpGruPolicy", Walk, variant=name, policy_kwargs=KWARGS, **{**settings, **kwargs})


# --- what works ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("baseline", sorted(set(BASELINES) - {"vine"}))
def test_every_baseline_but_the_vine_teaches_what_has_a_memory(baseline: str) -> None:
    agent = small_gru(Walk, baseline=baseline)
    before = digest(agent)
    assert digest(agent.learn(36)) != before


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_begins_at_a_ratio_of_one(name: str) -> None:
    agent = small_variant(name, batch_size=None, n_epochs=1, min_group_std=0.0, max_resamples=0)
    memory = watched(agent)
    agent.learn(1)
    assert abs(float(memory.of("train/approx_kl")[0])) < 1e-6


def test_minibatches_of_sequences_are_whole_and_their_ratios_too() -> None:
    agent = small_variant("gspo", batch_size=4)
    assert agent.learn(60)._n_updates > 2


def test_trajectories_keep_their_memories_when_some_are_left_out_or_joined_with_others() -> None:
    policy, rollouts = segments(Walk, 3)

    def differences(rollout: Rollout) -> torch.Tensor:
        batch = make_batch(policy, rollout, torch.zeros_like(rollout.rewards), "step")
        log_probs: torch.Tensor = policy(*batch.inputs).log_prob(batch.actions)
        return (log_probs - batch.old_log_probs).abs()

    for rollout in rollouts[1:]:
        assert not rollout.starts.all()
        kept = torch.arange(len(rollout.starts)) % 3 != 0
        assert differences(select_episodes(rollout, kept)).max() < 1e-5
    assert differences(concatenate(rollouts)).max() < 1e-5


@pytest.mark.parametrize("make", [Walk, MaskedByInfo])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_who_acted_is_no_distance_from_itself(make: Any, estimator: str) -> None:
    policy, (rollout,) = whole(make)
    reference = Reference(policy, 0.5, estimator)
    penalised, kl = reference.penalise(rollout, policy)
    assert kl == pytest.approx(0.0, abs=1e-6)
    assert torch.allclose(penalised.rewards, rollout.rewards, atol=1e-5)
    if estimator != "exact":
        assert torch.allclose(reference.look_at(rollout), rollout.log_probs, atol=1e-5)  # type: ignore[arg-type]


@pytest.mark.parametrize("place", ["loss", "reward"])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_reference_with_a_memory_is_saved_and_followed_to_the_last_bit(
    place: str, estimator: str, tmp_path: Path
) -> None:
    settings = {"kl_coef": 0.1, "kl_in": place, "kl_estimator": estimator, "reference_update": 0.5}
    straight = small_gru(Walk, **settings).learn(36)
    straight.save(tmp_path / "agent")
    loaded = GRPO.load(tmp_path / "agent", env=Walk)
    for one in (straight, loaded):
        one.learn(36, reset_num_timesteps=False)
    assert digest(loaded) == digest(straight)


def test_of_learner_and_reference_one_may_have_a_memory_and_the_other_none(tmp_path: Path) -> None:
    small_gru(Walk).save(tmp_path / "remembers")
    small_gru(Walk, policy="MlpPolicy", policy_kwargs={}).save(tmp_path / "forgets")
    for policy, kwargs, reference in (("MlpGruPolicy", KWARGS, "forgets"), ("MlpPolicy", {}, "remembers")):
        agent = small_gru(
            Walk, policy=policy, policy_kwargs=kwargs, kl_coef=0.1, reference=str(tmp_path / f"{reference}.zip")
        )
        memory = watched(agent)
        agent.learn(36)
        assert float(memory.of("train/reference_kl")[0]) > 0


def test_adapters_stand_beside_the_layers_and_leave_the_unit_as_it_is(tmp_path: Path) -> None:
    base = small_gru(Walk).learn(36)
    base.save(tmp_path / "agent")
    tuned = GRPO.load(tmp_path / "agent", env=Walk, adapter_rank=2, kl_coef=0.1).learn(36)
    for name, tensor in base.policy.state_dict().items():
        assert torch.equal(tuned.policy.state_dict()[name], tensor)
    plain: Any = merge_adapters(tuned.policy)
    assert isinstance(plain, MlpGruPolicy)
    _, (rollout,) = whole(Walk)
    features, lengths = plain.preprocess(rollout.observations), rollout.lengths

    def log_probs(policy: Any) -> torch.Tensor:
        found: torch.Tensor = policy(features, None, None, lengths).log_prob(rollout.actions)
        return found

    assert torch.allclose(log_probs(tuned.policy), log_probs(plain), atol=1e-6)
    assert not torch.allclose(log_probs(tuned.policy), log_probs(base.policy), atol=1e-4)


# --- what is refused -------------------------------------------------------------------------------------------


def test_the_vine_is_refused() -> None:
    with pytest.raises(ValueError, match=r"baseline='vine' plays on from the middle.*use another baseline"):
        GRPO("MlpGruPolicy", "CartPole-v1", baseline="vine")


def test_a_divergence_where_episodes_are_cut_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"n_steps=5 cuts episodes, and kl_coef.*expected n_steps=None"):
        small_gru(Walk, **SEGMENTS, kl_coef=0.1)
    small_gru(Walk).save(tmp_path / "remembers")
    forgets = small_gru(
        Walk, **SEGMENTS, policy="MlpPolicy", policy_kwargs={}, kl_coef=0.1, reference=str(tmp_path / "remembers.zip")
    )
    with pytest.raises(ValueError, match=r"n_steps=5 cuts episodes, and kl_coef.*expected n_steps=None"):
        forgets.learn(36)


def test_games_of_several_are_refused() -> None:
    pytest.importorskip("pettingzoo", reason="games of several agents; grpo_gym[multiagent] brings it")
    from tests.games import Hive

    for policy in ("MlpGruPolicy", MlpGruPolicy):
        with pytest.raises(ValueError, match=r"has a memory, which is not for several agents: use one without"):
            GRPO(policy, Hive)
    assert GRPO(MlpPolicy, Hive)
