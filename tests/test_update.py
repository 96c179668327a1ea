import math
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor

from grpo_gym.policy import MlpPolicy
from grpo_gym.types import Batch
from grpo_gym.update import UpdateSettings, make_batch, update
from tests.toys import MaskedByInfo, Walk, play, policy_for, rollout_of

SETTINGS = UpdateSettings(
    learning_rate=0.01, n_epochs=3, batch_size=7, clip_low=0.2, clip_high=0.2, ent_coef=0.0, max_grad_norm=0.5
)
WHOLE = replace(SETTINGS, n_epochs=1, batch_size=None)
ACTION_SPACES = {"discrete": Discrete(3), "box": Box(-1.0, 1.0, (2,), np.float32)}
every_action_space = pytest.mark.parametrize("space", ACTION_SPACES.values(), ids=ACTION_SPACES)


def a_policy(space: Any = ACTION_SPACES["discrete"], **kwargs: Any) -> MlpPolicy:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MlpPolicy(Box(-1.0, 1.0, (2,), np.float32), space, (8,), ortho_init=False, **kwargs)


def a_batch(policy: MlpPolicy, n_rows: int = 20) -> Batch:
    """Rows as the policy would have played them; the first number of each observation is its row's."""
    rng = np.random.default_rng(0)
    observations = rng.uniform(-1, 1, (n_rows, 2)).astype(np.float32)
    observations[:, 0] = np.arange(n_rows) / n_rows
    noise = rng.uniform(0.01, 0.99, (n_rows, policy.noise_size)).astype(np.float32)
    actions, log_probs = policy.act(observations, noise)
    return Batch(
        torch.from_numpy(observations),
        torch.from_numpy(actions),
        torch.from_numpy(log_probs),
        torch.from_numpy(rng.standard_normal(n_rows).astype(np.float32)),
        torch.ones(n_rows),
    )


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def weights_of(policy: MlpPolicy) -> Tensor:
    return torch.cat([p.detach().flatten().clone() for p in policy.parameters()])


def updated(
    policy: MlpPolicy, batch: Batch, settings: UpdateSettings, optimizer: type[torch.optim.Optimizer] = torch.optim.SGD
) -> tuple[Tensor, dict[str, float]]:
    """The change of all weights, and the metrics."""
    before = weights_of(policy)
    metrics = update(policy, optimizer(policy.parameters(), lr=123.0), batch, settings, generator())  # type: ignore[call-arg]
    return weights_of(policy) - before, metrics


@every_action_space
@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.SGD])
def test_advantages_of_zero_change_no_weight_at_all(space: Any, optimizer: type[torch.optim.Optimizer]) -> None:
    policy = a_policy(space)
    batch = replace(a_batch(policy), advantages=torch.zeros(20))
    change, metrics = updated(policy, batch, SETTINGS, optimizer)
    assert change.count_nonzero() == 0
    assert metrics["loss"] == metrics["grad_norm"] == 0
    assert metrics["n_updates"] == 9


@every_action_space
def test_the_entropy_bonus_alone_raises_the_entropy(space: Any) -> None:
    policy = a_policy(space)
    batch = replace(a_batch(policy), advantages=torch.zeros(20))
    before = policy(batch.observations).entropy().mean()
    change, _ = updated(policy, batch, replace(SETTINGS, ent_coef=0.1))
    assert change.count_nonzero() > 0
    assert policy(batch.observations).entropy().mean() > before


@every_action_space
def test_good_actions_become_likelier_and_bad_ones_rarer(space: Any) -> None:
    policy = a_policy(space)
    batch = a_batch(policy)
    updated(policy, batch, replace(SETTINGS, n_epochs=20))
    gained = policy(batch.observations).log_prob(batch.actions) - batch.old_log_probs
    assert (gained * batch.advantages).mean() > 0.01


@every_action_space
def test_before_the_first_step_the_policy_is_still_the_one_that_acted(space: Any) -> None:
    policy = a_policy(space)
    _, metrics = updated(policy, a_batch(policy), WHOLE)
    assert metrics["approx_kl"] == pytest.approx(0, abs=1e-7)
    assert metrics["clip_fraction"] == 0
    assert metrics["n_updates"] == 1


def test_the_first_gradient_is_the_policy_gradient() -> None:
    policy = a_policy()
    batch = a_batch(policy)
    (-(batch.advantages * policy(batch.observations).log_prob(batch.actions)).mean()).backward()
    expected = torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])
    change, metrics = updated(policy, batch, replace(WHOLE, max_grad_norm=1e9, learning_rate=1.0))
    assert torch.allclose(change, -expected, atol=1e-6)
    assert metrics["grad_norm"] == pytest.approx(expected.norm().item(), rel=1e-4)


def test_the_learning_rate_of_the_settings_is_the_one_that_is_used() -> None:
    changes = []
    for learning_rate in (0.25, 0.5):
        policy = a_policy()
        optimizer = torch.optim.SGD(policy.parameters(), lr=123.0)
        before = weights_of(policy)
        update(policy, optimizer, a_batch(policy), replace(WHOLE, learning_rate=learning_rate), generator())
        assert [group["lr"] for group in optimizer.param_groups] == [learning_rate]
        changes.append(weights_of(policy) - before)
    assert torch.allclose(2 * changes[0], changes[1], atol=1e-6)


def test_a_learning_rate_of_zero_changes_nothing() -> None:
    policy = a_policy()
    change, _ = updated(policy, a_batch(policy), replace(SETTINGS, learning_rate=0.0), torch.optim.Adam)
    assert change.count_nonzero() == 0


def test_large_gradients_are_scaled_to_the_maximal_norm_and_reported_as_they_were() -> None:
    policy = a_policy()
    batch = a_batch(policy)
    batch = replace(batch, advantages=1e4 * batch.advantages)
    change, metrics = updated(policy, batch, replace(WHOLE, learning_rate=1.0))
    assert change.norm().item() == pytest.approx(0.5, rel=1e-3)
    assert metrics["grad_norm"] > 100


@pytest.mark.parametrize(
    ("n_rows", "batch_size", "sizes"),
    [
        (20, None, [20]),
        (20, 20, [20]),
        (20, 10**9, [20]),
        (20, 10, [10, 10]),
        (20, 7, [7, 7, 6]),
        (20, 19, [10, 10]),
        (21, 20, [11, 10]),
        (7, 1, [1] * 7),
        (1, 1, [1]),
        (1, None, [1]),
        (1, 64, [1]),
        (65, 64, [33, 32]),
    ],
)
def test_rows_are_spread_evenly_over_minibatches(n_rows: int, batch_size: int | None, sizes: list[int]) -> None:
    policy = a_policy()
    seen: list[int] = []
    policy.register_forward_pre_hook(lambda module, given: seen.append(len(given[0])))
    _, metrics = updated(policy, a_batch(policy, n_rows), replace(SETTINGS, n_epochs=2, batch_size=batch_size))
    assert seen == sizes * 2
    assert metrics["n_updates"] == len(sizes) * 2
    assert all(math.isfinite(value) for value in metrics.values())


def test_each_epoch_sees_every_row_once_in_a_new_order() -> None:
    policy = a_policy()
    batch = a_batch(policy)
    seen: list[float] = []
    policy.register_forward_pre_hook(lambda module, given: seen.extend(given[0][:, 0].tolist()))
    updated(policy, batch, replace(SETTINGS, n_epochs=2))
    rows = batch.observations[:, 0].tolist()
    assert sorted(seen[:20]) == sorted(seen[20:]) == rows
    assert rows != seen[:20] != seen[20:]


@every_action_space
def test_the_same_generator_gives_the_same_weights_bit_by_bit(space: Any) -> None:
    changes = []
    for global_seed in (1, 2):
        with torch.random.fork_rng(devices=[]):
            policy = a_policy(space)
            batch = a_batch(policy)
            torch.manual_seed(global_seed)
            change, _ = updated(policy, batch, replace(SETTINGS, ent_coef=0.01), torch.optim.Adam)
        changes.append(change)
    assert torch.equal(*changes)


def test_another_generator_gives_other_minibatches() -> None:
    policies = [a_policy(), a_policy()]
    for seed, policy in enumerate(policies):
        optimizer = torch.optim.Adam(policy.parameters())
        update(policy, optimizer, a_batch(a_policy()), SETTINGS, generator(seed))
    assert not torch.equal(weights_of(policies[0]), weights_of(policies[1]))


def test_a_kl_limit_ends_the_update_before_the_step_beyond_it() -> None:
    free, limited = a_policy(), a_policy()
    batch = a_batch(free)
    many = replace(SETTINGS, n_epochs=50, batch_size=None, learning_rate=0.03)
    updated(free, batch, many, torch.optim.Adam)
    _, metrics = updated(limited, batch, replace(many, target_kl=0.01), torch.optim.Adam)
    n_updates = int(metrics["n_updates"])
    assert 1 < n_updates < 50
    again = a_policy()
    updated(again, batch, replace(many, n_epochs=n_updates), torch.optim.Adam)
    assert torch.equal(weights_of(again), weights_of(limited))

    def kl(policy: MlpPolicy) -> float:
        log_ratio = policy(batch.observations).log_prob(batch.actions) - batch.old_log_probs
        return float((log_ratio.exp() - 1 - log_ratio).detach().mean())

    one_less = a_policy()
    updated(one_less, batch, replace(many, n_epochs=n_updates - 1), torch.optim.Adam)
    assert kl(one_less) <= 0.015 < kl(limited) < kl(free)


def test_a_kl_limit_that_is_exceeded_at_once_takes_no_step() -> None:
    policy = a_policy()
    batch = a_batch(policy)
    stale = replace(batch, old_log_probs=batch.old_log_probs - 1)
    change, metrics = updated(policy, stale, replace(SETTINGS, target_kl=0.01))
    assert metrics == {"n_updates": 0}
    assert change.count_nonzero() == 0


@every_action_space
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("target_kl", [None, 0.01])
def test_a_gradient_that_is_not_finite_is_not_applied(space: Any, bad: float, target_kl: float | None) -> None:
    policy = a_policy(space)
    batch = a_batch(policy)
    batch.advantages[3] = bad
    before = weights_of(policy)
    optimizer = torch.optim.Adam(policy.parameters())
    with pytest.raises(FloatingPointError, match=r"gradient is not finite.*lower learning_rate \(now 0.01\)"):
        update(policy, optimizer, batch, replace(WHOLE, target_kl=target_kl), generator())
    assert torch.equal(weights_of(policy), before)
    assert not optimizer.state


@every_action_space
@pytest.mark.parametrize("learning_rate", [1e6, 1e25])
def test_a_learning_rate_far_too_high_leaves_finite_weights(space: Any, learning_rate: float) -> None:
    policy = a_policy(space)
    absurd = replace(SETTINGS, learning_rate=learning_rate, n_epochs=20)
    # no gradient is left where everything is clipped: then there is nothing to raise about
    with suppress(FloatingPointError):
        updated(policy, a_batch(policy), absurd, torch.optim.Adam)
    assert weights_of(policy).isfinite().all()


def test_a_step_that_blows_up_the_network_is_the_last_one() -> None:
    policy = a_policy(activation_fn=torch.nn.ReLU)
    batch = a_batch(policy)
    with pytest.raises(FloatingPointError, match=r"after 1 optimiser steps.*lower learning_rate \(now 1e\+25\)"):
        updated(policy, batch, replace(SETTINGS, learning_rate=1e25), torch.optim.Adam)
    assert weights_of(policy).isfinite().all()


def test_metrics_are_means_over_the_minibatches() -> None:
    policy = a_policy()
    batch = a_batch(policy)
    _, metrics = updated(policy, batch, replace(SETTINGS, learning_rate=0.0, batch_size=10, n_epochs=1))
    distribution = policy(batch.observations)
    assert metrics["entropy_loss"] == pytest.approx(-distribution.entropy().mean().item(), rel=1e-5)
    # before any step ρ = 1
    assert metrics["policy_gradient_loss"] == pytest.approx(-batch.advantages.mean().item(), abs=1e-6)
    assert set(metrics) == {
        "loss",
        "policy_gradient_loss",
        "entropy_loss",
        "approx_kl",
        "clip_fraction",
        "clip_fraction_low",
        "clip_fraction_high",
        "grad_norm",
        "gradient_noise_scale",
        "n_updates",
    }


def test_the_noise_scale_is_that_of_the_first_pass() -> None:
    policy = a_policy()
    batch = a_batch(policy)
    gradients = []
    for rows in torch.randperm(20, generator=generator()).tensor_split(3):
        part = batch.select(rows)
        loss = -(part.advantages * policy(part.observations).log_prob(part.actions)).mean()
        gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(policy.parameters()))]))
    mean = torch.stack(gradients).mean(dim=0)
    around = sum((gradient - mean).square().sum() for gradient in gradients)
    still = replace(SETTINGS, learning_rate=0.0)  # 3 passes of 3 minibatches
    _, metrics = updated(policy, batch, still)
    assert metrics["gradient_noise_scale"] == pytest.approx(float(20 / 3 * around / 2 / mean.square().sum()), rel=1e-3)


def test_one_minibatch_has_no_noise_scale() -> None:
    policy = a_policy()
    assert "gradient_noise_scale" not in updated(policy, a_batch(policy), replace(WHOLE, n_epochs=3))[1]


def test_weights_of_the_batch_weigh_the_steps() -> None:
    policies = [a_policy(), a_policy()]
    batch = a_batch(policies[0], 4)
    weighted = replace(batch, weights=torch.tensor([2.0, 0.0, 2.0, 0.0]))
    only_these = batch.select(torch.tensor([0, 2]))
    one, _ = updated(policies[0], weighted, WHOLE)
    other, _ = updated(policies[1], only_these, WHOLE)
    assert torch.allclose(one, other, atol=1e-7)


def test_frozen_parameters_stay_as_they_are() -> None:
    policy = a_policy()
    body = [p.requires_grad_(False).clone() for p in policy.body.parameters()]
    change, _ = updated(policy, a_batch(policy), SETTINGS)
    assert change.count_nonzero() > 0
    assert all(torch.equal(p, before) for p, before in zip(policy.body.parameters(), body, strict=True))


@pytest.mark.parametrize("make", [Walk, MaskedByInfo])
def test_a_batch_holds_each_step_beside_its_own_advantage(make: type[Walk]) -> None:
    rollout = play(make, 6)
    policy = policy_for(make(), normalize_observations=True)  # type: ignore[arg-type]
    policy.observe(rollout.observations)
    # advantages that name their place: 100·episode + t
    t, n = torch.arange(len(rollout.mask))[:, None], torch.arange(6)[None, :]
    batch = make_batch(policy, rollout, (100 * n + t).float(), "trajectory")
    places = [100 * n + t for n, length in enumerate(rollout.lengths.tolist()) for t in range(length)]
    assert batch.advantages.tolist() == places
    assert len(batch) == rollout.n_steps
    assert torch.equal(batch.observations, policy.preprocess(rollout.observations))
    assert torch.equal(batch.actions, rollout.actions)
    assert torch.equal(batch.old_log_probs, rollout.log_probs)
    assert (batch.action_masks is None) == (make is Walk)
    shares = [rollout.n_steps / (6 * length) for length in rollout.lengths.tolist() for _ in range(length)]
    assert batch.weights.tolist() == pytest.approx(shares)
    assert not any(x.requires_grad for x in (batch.observations, batch.advantages, batch.weights))


@pytest.mark.parametrize("aggregation", ["step", "trajectory"])
def test_the_weights_of_a_batch_have_mean_one(aggregation: str) -> None:
    policy = MlpPolicy(Box(-1.0, 1.0, (1,), np.float32), Discrete(2))
    rollout = rollout_of([[1.0], [1.0, 2.0], [1.0] * 5, [0.0]], 2)
    batch = make_batch(policy, rollout, torch.zeros_like(rollout.rewards), aggregation)
    assert batch.weights.mean().item() == pytest.approx(1.0)


def test_selecting_rows_of_a_batch_selects_them_everywhere() -> None:
    columns = [torch.arange(4.0) + 10 * k for k in range(5)]
    batch = replace(Batch(*columns), action_masks=torch.eye(4, dtype=torch.bool))
    chosen = batch.select(torch.tensor([3, 1]))
    assert len(chosen) == 2
    for k, name in enumerate(("observations", "actions", "old_log_probs", "advantages", "weights")):
        assert getattr(chosen, name).tolist() == [10 * k + 3, 10 * k + 1]
    assert chosen.action_masks is not None
    assert chosen.action_masks.int().tolist() == [[0, 0, 0, 1], [0, 1, 0, 0]]
    assert Batch(*columns).select(torch.tensor([0])).action_masks is None
