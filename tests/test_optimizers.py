import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from grpo_gym import mlp_learner
from grpo_gym.optimizers import Adam, make_optimizer
from grpo_gym.policy import MlpPolicy


def a_policy() -> MlpPolicy:
    return MlpPolicy(Box(-1.0, 1.0, (2,), np.float32), Discrete(2), net_arch=(3,))


def test_to_make_learn_save_and_load_does_not_import_what_compiles() -> None:
    program = """
import sys, tempfile
from grpo_gym import GRPO
agent = GRPO("MlpPolicy", "CartPole-v1", n_groups=2, group_size=2)
agent.learn(100)
with tempfile.TemporaryDirectory() as folder:
    agent.save(folder + "/agent")
    GRPO.load(folder + "/agent", env="CartPole-v1").learn(100)
assert agent.optimizer.state, "nothing was learned"
sys.exit("torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, timeout=300, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("chosen", "eps", "stands_in"),
    [
        ({}, 1e-5, True),
        ({"optimizer_class": torch.optim.Adam}, 1e-5, True),
        ({"optimizer_kwargs": {}}, 1e-8, True),
        ({"optimizer_class": torch.optim.AdamW}, 1e-8, False),
    ],
)
def test_adam_has_our_arguments_unless_others_are_given(chosen: dict[str, Any], eps: float, stands_in: bool) -> None:
    policy = a_policy()
    optimizer = make_optimizer(policy, 0.25, **chosen)
    assert type(optimizer) is chosen.get("optimizer_class", Adam)
    assert optimizer.param_groups[0]["eps"] == eps
    assert optimizer.param_groups[0]["lr"] == 0.25
    assert mlp_learner.knows(policy, optimizer) is stands_in


def test_what_is_frozen_is_left_out() -> None:
    policy = a_policy()
    policy.head.linear.requires_grad_(False)
    assert [p.shape for p in make_optimizer(policy, 0.1).param_groups[0]["params"]] == [(3, 2), (3,)]


def test_it_steps_as_torchs_own_does_and_reads_what_that_wrote() -> None:
    both = []
    for optimizer_class in (torch.optim.Adam, Adam):
        weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
        optimizer = optimizer_class([weight], lr=0.5)
        for _ in range(3):
            weight.grad = 2 * weight.detach()
            optimizer.step()
        both.append((weight, optimizer))
    (weight, theirs), (mine, ours) = both
    assert torch.equal(weight, mine)
    fresh = Adam([torch.nn.Parameter(torch.zeros(2))], lr=0.1)
    fresh.load_state_dict(theirs.state_dict())
    assert str(fresh.state_dict()) == str(ours.state_dict())
