import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, Space
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from grpo_gym import update as update_module
from grpo_gym.mlp_learner import MlpLearner, knows
from grpo_gym.policy import MlpPolicy
from grpo_gym.types import Batch
from grpo_gym.update import AutogradLearner, UpdateSettings, update

SETTINGS = UpdateSettings(
    learning_rate=0.003, n_epochs=3, batch_size=50, clip_low=0.2, clip_high=0.3, ent_coef=0.02, max_grad_norm=0.5
)
DISCRETE, BOX = Discrete(5), Box(-1.0, 1.0, (3,), np.float32)


def a_policy(space: Space[Any] = DISCRETE, **kwargs: Any) -> MlpPolicy:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        kwargs = {"net_arch": (16, 8), "ortho_init": False, **kwargs}
        return MlpPolicy(Box(-1.0, 1.0, (4,), np.float32), space, **kwargs)


def adam(policy: MlpPolicy, **kwargs: Any) -> torch.optim.Adam:
    return torch.optim.Adam(policy.parameters(), **{"eps": 1e-5, "fused": True, **kwargs})


def a_batch(policy: MlpPolicy, n_rows: int = 200, masked: bool = False) -> Batch:
    """Rows of a policy that has since moved on: some ratios are beyond the clip range on either side."""
    rng = torch.Generator().manual_seed(0)
    observations = torch.rand(n_rows, 4, generator=rng)
    masks = None
    if isinstance(policy.action_space, Discrete):
        actions = torch.randint(5, (n_rows,), generator=rng)
        if masked:
            masks = torch.rand(n_rows, 5, generator=rng) < 0.5
            masks[torch.arange(n_rows), actions] = True
    else:
        actions = torch.randn(n_rows, 3, generator=rng)
    with torch.no_grad():
        log_probs = policy(observations, masks).log_prob(actions) + 0.2 * torch.randn(n_rows, generator=rng)
    advantages, weights = torch.randn(n_rows, generator=rng), 0.5 + torch.rand(n_rows, generator=rng)
    return Batch(observations, actions, log_probs, advantages, weights, masks)


def both(policy: MlpPolicy, batch: Batch, settings: UpdateSettings) -> tuple[MlpLearner, AutogradLearner]:
    coefficients = (settings.clip_low, settings.clip_high, settings.ent_coef)
    return (
        MlpLearner(policy, adam(policy), batch, *coefficients),
        AutogradLearner(policy, adam(policy), batch, settings),
    )


def changed(policy: MlpPolicy, optimizer: torch.optim.Adam, batch: Batch, settings: UpdateSettings) -> dict[str, float]:
    return update(policy, optimizer, batch, settings, torch.Generator().manual_seed(0))


def by_autograd(
    monkeypatch: pytest.MonkeyPatch,
    policy: MlpPolicy,
    optimizer: torch.optim.Adam,
    batch: Batch,
    settings: UpdateSettings = SETTINGS,
) -> dict[str, float]:
    with monkeypatch.context() as patched:
        patched.setattr(update_module, "knows", lambda *given: False)
        return changed(policy, optimizer, batch, settings)


def weights_of(policy: MlpPolicy) -> Tensor:
    return torch.cat([p.detach().flatten() for p in policy.parameters()])


def moments_of(policy: MlpPolicy, optimizer: torch.optim.Adam) -> list[Tensor]:
    states = [optimizer.state[p] for p in policy.parameters()]
    return [torch.cat([s[name].flatten() for s in states]) for name in ("step", "exp_avg", "exp_avg_sq")]


@pytest.mark.parametrize("settings", [SETTINGS, replace(SETTINGS, ent_coef=0.0, batch_size=None)], ids=["", "whole"])
@pytest.mark.parametrize(
    ("kwargs", "masked"),
    [
        ({}, False),
        ({}, True),
        ({"activation_fn": nn.ReLU}, False),
        ({"net_arch": ()}, False),
        ({"space": Discrete(5, start=2)}, False),
        ({"space": BOX}, False),
        ({"space": BOX, "log_std_init": -1.0, "activation_fn": nn.ReLU, "net_arch": (8, 8, 8)}, False),
        ({"space": BOX, "normalize_observations": True, "net_arch": ()}, False),
    ],
)
def test_it_learns_what_autograd_learns(
    monkeypatch: pytest.MonkeyPatch, kwargs: dict[str, Any], masked: bool, settings: UpdateSettings
) -> None:
    ours, theirs = a_policy(**kwargs), a_policy(**kwargs)
    our_adam, their_adam = adam(ours), adam(theirs)
    batch = a_batch(ours, masked=masked)
    assert knows(ours, our_adam)
    for _ in range(2):  # the second goes on from where the first left Adam
        metrics = changed(ours, our_adam, batch, settings)
        expected = by_autograd(monkeypatch, theirs, their_adam, batch, settings)
    assert metrics == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert min(expected["clip_fraction_low"], expected["clip_fraction_high"]) > 0
    torch.testing.assert_close(weights_of(ours), weights_of(theirs), rtol=0, atol=1e-5)
    for moment, of_torch in zip(moments_of(ours, our_adam), moments_of(theirs, their_adam), strict=True):
        torch.testing.assert_close(moment, of_torch, rtol=1e-3, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    clip=st.tuples(st.floats(0, 0.5), st.floats(0, 0.5)),
    ent_coef=st.sampled_from([0.0, 0.1, 10.0]),
    space=st.sampled_from([DISCRETE, BOX]),
    shift=st.floats(-1, 1),
    scale=st.sampled_from([0.0, 1.0, 1e3]),
)
def test_its_gradient_is_that_of_autograd(
    clip: tuple[float, float], ent_coef: float, space: Space[Any], shift: float, scale: float
) -> None:
    policy = a_policy(space)
    batch = a_batch(policy, 30)
    batch = replace(batch, old_log_probs=batch.old_log_probs + shift, advantages=scale * batch.advantages)
    settings = replace(SETTINGS, clip_low=clip[0], clip_high=clip[1], ent_coef=ent_coef)
    learners = both(policy, batch, settings)
    metrics, expected = (learner.differentiate(torch.arange(30)) for learner in learners)
    gradient, of_autograd = (torch.cat([g.flatten() for g in learner.gradients()]) for learner in learners)
    torch.testing.assert_close(gradient, of_autograd, rtol=0, atol=1e-6 * max(1.0, ent_coef, scale))
    assert metrics == pytest.approx({name: float(value) for name, value in expected.items()}, rel=1e-4, abs=1e-5)
    norm, expected_norm = (float(learner.clip(0.5)) for learner in learners)
    assert norm == pytest.approx(expected_norm, rel=1e-4, abs=1e-6)
    clipped, expected_clipped = (torch.cat([g.flatten() for g in learner.gradients()]) for learner in learners)
    torch.testing.assert_close(clipped, expected_clipped, rtol=1e-3, atol=1e-6)


def test_torch_goes_on_where_it_stopped_and_it_where_torch_did(monkeypatch: pytest.MonkeyPatch) -> None:
    policies = [a_policy(BOX) for _ in range(2)]
    optimizers = [adam(policy) for policy in policies]
    batch = a_batch(policies[0])
    for policy, optimizer, torch_first in zip(policies, optimizers, (True, False), strict=True):
        for with_torch in (torch_first, not torch_first):
            if with_torch:
                by_autograd(monkeypatch, policy, optimizer, batch)
            else:
                changed(policy, optimizer, batch, SETTINGS)
    torch.testing.assert_close(weights_of(policies[0]), weights_of(policies[1]), rtol=0, atol=1e-5)


def test_what_is_loaded_goes_on_bit_by_bit() -> None:
    policy, again = a_policy(), a_policy()
    optimizer, other = adam(policy), adam(again)
    batch = a_batch(policy)
    changed(policy, optimizer, batch, SETTINGS)
    again.load_state_dict(policy.state_dict())
    other.load_state_dict(optimizer.state_dict())
    for one, its in ((policy, optimizer), (again, other)):
        changed(one, its, batch, SETTINGS)
    assert torch.equal(weights_of(policy), weights_of(again))


def test_the_first_step_of_adam_is_the_learning_rate_in_each_direction() -> None:
    policy = a_policy()
    before = weights_of(policy)
    changed(policy, adam(policy, eps=1e-12), a_batch(policy), replace(SETTINGS, n_epochs=1, batch_size=None))
    moved = (weights_of(policy) - before).abs()
    torch.testing.assert_close(moved, torch.full_like(moved, 0.003), rtol=1e-2, atol=0)


def test_the_policy_changes_when_it_is_stored_and_not_before() -> None:
    policy = a_policy()
    optimizer, before = adam(policy), weights_of(policy)
    learner = MlpLearner(policy, optimizer, a_batch(policy), 0.2, 0.2, 0.0)
    learner.differentiate(torch.arange(200))
    learner.descend(0.1)
    assert torch.equal(weights_of(policy), before)
    assert not optimizer.state
    learner.store()
    assert not torch.equal(weights_of(policy), before)
    assert all(p.dtype == torch.float32 for p in policy.parameters())
    learner.descend(0.1)  # and what is stored is the policy's own
    assert moments_of(policy, optimizer)[0].tolist() == [1.0] * 6


def test_a_deviation_beyond_its_range_is_left_alone() -> None:
    policy = a_policy(BOX)
    with torch.no_grad():
        dict(policy.named_parameters())["head.log_std"].copy_(torch.tensor([0.0, 2.5, 2.0]))
    batch = a_batch(policy)
    learners = both(policy, batch, replace(SETTINGS, clip_low=0.2, clip_high=0.2, ent_coef=0.1))
    for learner in learners:
        learner.differentiate(torch.arange(200))
    first = [name for name, _ in policy.named_parameters()].index("head.log_std")
    starts = sum(p.numel() for p in list(policy.parameters())[:first])
    ours = learners[0].gradients()[0][starts : starts + 3]
    theirs = learners[1].gradients()[first]
    assert ours[1] == theirs[1] == 0
    assert min(abs(ours[0]), abs(ours[2])) > 0
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


class Own(MlpPolicy):
    """Somebody's own."""


def frozen(policy: MlpPolicy) -> MlpPolicy:
    policy.head.linear.bias.requires_grad_(False)
    return policy


@pytest.mark.parametrize(
    ("policy", "optimizer"),
    [
        (a_policy(), torch.optim.SGD),
        (a_policy(), lambda p: torch.optim.AdamW(p, weight_decay=0.0)),
        (a_policy(), lambda p: torch.optim.Adam(p, weight_decay=0.1)),
        (a_policy(), lambda p: torch.optim.Adam(p, amsgrad=True)),
        (a_policy(), lambda p: torch.optim.Adam(p, maximize=True)),
        (a_policy(), lambda p: torch.optim.Adam(list(p)[:-1])),
        (a_policy(), lambda p: torch.optim.Adam([{"params": [one]} for one in p])),
        (a_policy(activation_fn=nn.GELU), torch.optim.Adam),
        (a_policy().double(), torch.optim.Adam),
        (frozen(a_policy()), torch.optim.Adam),
        (Own(Box(-1.0, 1.0, (4,)), DISCRETE), torch.optim.Adam),
    ],
    ids=["sgd", "adamw", "decay", "amsgrad", "maximize", "some", "groups", "gelu", "float64", "frozen", "own"],
)
def test_what_it_does_not_know_is_left_to_torch(policy: MlpPolicy, optimizer: Any) -> None:
    assert not knows(policy, optimizer(policy.parameters()))


def test_weights_that_have_taken_unequal_numbers_of_steps_are_left_to_torch() -> None:
    policy = a_policy()
    optimizer = adam(policy)
    frozen(policy)
    changed(policy, optimizer, a_batch(policy), SETTINGS)
    for parameter in policy.parameters():
        parameter.requires_grad_(True)
    assert not knows(policy, optimizer)
    changed(policy, optimizer, a_batch(policy), SETTINGS)
    assert not math.isnan(float(weights_of(policy).sum()))
