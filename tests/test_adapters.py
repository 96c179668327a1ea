import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from grpo_gym import GRPO
from grpo_gym.adapters import LowRankLinear, add_adapters, merge_adapters, without_adapters
from tests.agents import digest, small, watched, weights_digest
from tests.toys import UNIT_BOX, IdentityDiscrete, Walk, policy_for

OBSERVATIONS = torch.linspace(-2, 2, 20).view(10, 2)


def an_adapted_policy(rank: int = 2) -> Any:
    policy = policy_for(Walk())  # type: ignore[arg-type]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        add_adapters(policy, rank)
    return policy


def moved(policy: Any) -> Any:
    with torch.no_grad():
        for module in policy.modules():
            if isinstance(module, LowRankLinear):
                module.up.add_(0.3)
    return policy


def logits(policy: Any) -> torch.Tensor:
    found: torch.Tensor = policy.get_distribution(OBSERVATIONS).log_probs.detach()
    return found


def test_a_layer_by_hand() -> None:
    base = nn.Linear(2, 1).requires_grad_(False)
    base.weight.copy_(torch.tensor([[1.0, 2.0]]))
    base.bias.fill_(0.5)
    layer = LowRankLinear(base, rank=1)
    with torch.no_grad():
        layer.down.copy_(torch.tensor([[3.0, -1.0]]))
        layer.up.fill_(2.0)
    # 1·1 + 2·2 + 0.5 = 5.5, and 2·(3·1 − 1·2) = 2
    x = torch.tensor([[1.0, 2.0]])
    assert layer(x).tolist() == [[7.5]]
    assert layer.merged().weight.tolist() == [[7.0, 0.0]]
    assert layer.merged()(x).tolist() == [[7.5]]
    layer.enabled = False
    assert layer(x).tolist() == [[5.5]]


def test_new_adapters_change_nothing() -> None:
    assert torch.equal(logits(an_adapted_policy()), logits(policy_for(Walk())))  # type: ignore[arg-type]


def test_only_the_adapters_learn() -> None:
    policy = an_adapted_policy(rank=3)
    learning = {name: p.shape for name, p in policy.named_parameters() if p.requires_grad}
    assert learning == {
        "body.0.down": (3, 2),
        "body.0.up": (8, 3),
        "head.linear.down": (3, 8),
        "head.linear.up": (3, 3),
    }


def test_without_its_adapters_a_policy_is_its_base() -> None:
    policy, base = moved(an_adapted_policy()), policy_for(Walk())  # type: ignore[arg-type]
    assert not torch.allclose(logits(policy), logits(base))
    with without_adapters(policy):
        assert torch.equal(logits(policy), logits(base))
    assert not torch.allclose(logits(policy), logits(base))


def test_merged_it_does_the_same_and_has_the_size_of_the_base() -> None:
    policy = moved(an_adapted_policy())
    merged, base = merge_adapters(policy), policy_for(Walk())  # type: ignore[arg-type]
    assert torch.allclose(logits(merged), logits(policy), atol=1e-6)
    assert {k: x.shape for k, x in merged.state_dict().items()} == {k: x.shape for k, x in base.state_dict().items()}
    assert all(p.requires_grad for p in merged.parameters())


def test_a_network_without_linear_layers_is_refused() -> None:
    with pytest.raises(ValueError, match="adapter_rank=2: Sequential has no linear layer"):
        add_adapters(nn.Sequential(nn.Tanh()), 2)


# --- in training -----------------------------------------------------------------------------------------------


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    path = tmp_path / "trained.zip"
    small(IdentityDiscrete, normalize_observations=True).learn(100).save(path)
    return path


def test_training_leaves_the_base_as_it_is(trained: Path) -> None:
    base = GRPO.load(trained).policy.state_dict()
    agent = GRPO.load(trained, IdentityDiscrete, adapter_rank=2).learn(100)
    after = agent.policy.state_dict()
    assert all(torch.equal(after[name], base[name]) for name in base)  # the normalisation too
    assert after["head.linear.up"].count_nonzero() > 0


def test_before_its_first_update_an_adapted_agent_acts_as_the_base(trained: Path) -> None:
    observations = np.arange(3)
    base, adapted = GRPO.load(trained), GRPO.load(trained, IdentityDiscrete, adapter_rank=2)
    assert base.predict(observations, deterministic=True)[0].tolist() == (
        adapted.predict(observations, deterministic=True)[0].tolist()
    )


@pytest.mark.parametrize("space", [None, UNIT_BOX])
def test_what_acts_is_what_learns(space: Any, tmp_path: Path) -> None:
    def make() -> Walk:
        return Walk(space)

    small(make).learn(60).save(tmp_path / "walker")
    agent = GRPO.load(tmp_path / "walker", make, adapter_rank=2, n_epochs=1, batch_size=None)
    memory = watched(agent)
    agent.learn(100)
    assert memory.of("train/approx_kl") == pytest.approx([0.0] * len(memory.of("train/approx_kl")), abs=1e-6)


def test_the_base_is_the_reference_without_a_second_network(trained: Path) -> None:
    loose, tight = (
        GRPO.load(trained, IdentityDiscrete, adapter_rank=2, kl_coef=kl_coef, kl_estimator="exact", gamma=0.0)
        for kl_coef in (1e-9, 10.0)
    )
    distances = []
    for agent in (loose, tight):
        memory = watched(agent)
        agent.learn(300)
        assert agent._reference is not None
        assert agent._reference.policy is agent.policy
        distances.append(memory.of("train/reference_kl")[-1])
    assert 0 < distances[1] < 0.2 * distances[0]


@pytest.mark.parametrize("settings", [{}, {"kl_coef": 0.1}, {"kl_coef": 0.1, "reference_update": 0.5}], ids=str)
def test_a_saved_adapter_goes_on_bit_for_bit(settings: dict[str, Any], trained: Path, tmp_path: Path) -> None:
    agent = GRPO.load(trained, IdentityDiscrete, adapter_rank=2, **settings).learn(72)
    agent.save(tmp_path / "adapted")
    loaded = GRPO.load(tmp_path / "adapted", IdentityDiscrete)
    assert loaded.adapter_rank == 2
    for one in (agent, loaded):
        one.learn(72, reset_num_timesteps=False)
    assert digest(loaded) == digest(agent)


def test_a_merged_agent_is_a_plain_one(trained: Path, tmp_path: Path) -> None:
    agent = GRPO.load(trained, IdentityDiscrete, adapter_rank=2).learn(100)
    adapted = copy.deepcopy(agent.policy)
    agent.merge_adapters()
    assert agent.adapter_rank is None
    observations = torch.arange(3)
    for one, other in zip(agent.policy.state_dict(), GRPO.load(trained).policy.state_dict(), strict=True):
        assert one == other
    policies: list[Any] = [agent.policy, adapted]
    merged, before = (policy.evaluate_actions(observations, observations)[0] for policy in policies)
    assert torch.allclose(merged, before, atol=1e-6)
    agent.save(tmp_path / "merged")
    assert weights_digest(GRPO.load(tmp_path / "merged")) == weights_digest(agent)
    agent.learn(48)  # and it learns as a whole


def test_adapters_of_another_rank_are_refused(trained: Path, tmp_path: Path) -> None:
    GRPO.load(trained, IdentityDiscrete, adapter_rank=2).save(tmp_path / "adapted")
    for given in (3, None):
        with pytest.raises(ValueError, match=f"has adapters of rank 2, adapter_rank={given} was given"):
            GRPO.load(tmp_path / "adapted", adapter_rank=given)
