"""The policy gradient that each baseline gives on average, beside the exact one of a small MDP.

Three states, two actions, at most three steps, noisy rewards; action 1 in state 2 ends the episode. At step t the
policy takes action 1 in state s with probability σ(θₜₛ), so that ∂ log π(a|s) / ∂θₜₛ = a − σ(θₜₛ). γ = 1: only then
do whole returns and returns-to-go have the same mean gradient.
"""

from functools import cache, partial

import numpy as np
import pytest
import torch
from torch import Tensor

from grpo_gym import soft_groups
from grpo_gym.baselines import BASELINES, Comparison
from grpo_gym.types import Rollout

REWARD = torch.tensor([[0.0, 2.0], [-1.0, 1.0], [3.0, 0.0]])
NEXT_STATE = torch.tensor(
    [[[0.6, 0.3, 0.1], [0.1, 0.3, 0.6]], [[0.5, 0.0, 0.5], [0.0, 0.8, 0.2]], [[0.2, 0.6, 0.2], [0.0, 0.0, 0.0]]]
)
ONE = torch.sigmoid(torch.tensor([0.4, -0.4, 0.0]))
"""π(1|s) at every step."""

N_STEPS, GROUP_SIZE = 3, 4


def exact() -> Tensor:
    """The gradient ∂E[R]/∂θ, `[T, 3]`: P(sₜ = s)·π(0|s)·π(1|s)·(Q(s, 1) − Q(s, 0)) at step t."""
    value, gaps = torch.zeros(3), []
    for _ in range(N_STEPS):
        q = REWARD + NEXT_STATE @ value
        gaps.append(q[:, 1] - q[:, 0])
        value = (1 - ONE) * q[:, 0] + ONE * q[:, 1]
    gradient, reached = torch.zeros(N_STEPS, 3), torch.full((3,), 1 / 3)
    for t, gap in enumerate(reversed(gaps)):
        gradient[t] = reached * (1 - ONE) * ONE * gap
        reached = ((1 - ONE) * reached) @ NEXT_STATE[:, 0] + (ONE * reached) @ NEXT_STATE[:, 1]
    return gradient


@cache
def rollouts(n_rollouts: int, n_groups: int) -> list[Rollout]:
    """Rollouts of that policy; the members of a group share their first state, nothing else."""
    generator = torch.Generator().manual_seed(0)
    shape = (n_rollouts, n_groups * GROUP_SIZE)
    state = torch.randint(3, (n_rollouts, n_groups), generator=generator).repeat_interleave(GROUP_SIZE, dim=1)
    live = torch.ones(shape, dtype=torch.bool)
    steps: list[tuple[Tensor, ...]] = []
    for _ in range(N_STEPS):
        action = (torch.rand(shape, generator=generator) < ONE[state]).long()
        reward = REWARD[state, action] + torch.randn(shape, generator=generator)
        steps.append((state, action, torch.where(live, reward, 0.0), live))
        odds = NEXT_STATE[state, action]
        live = live & (odds.sum(dim=2) > 0)
        state = torch.multinomial(torch.where(live[..., None], odds, 1.0).view(-1, 3), 1, generator=generator)
        state = state.view(shape)
    columns = [torch.stack(column, dim=1) for column in zip(*steps, strict=True)]
    return [a_rollout(*arrays) for arrays in zip(*columns, strict=True)]


def a_rollout(states: Tensor, actions: Tensor, rewards: Tensor, mask: Tensor) -> Rollout:
    """Make a rollout of whole episodes from `[T, N]` arrays; an observation is `[state, t]`."""
    number = torch.arange(mask.shape[1])
    times = torch.arange(N_STEPS)[:, None].expand(mask.shape)
    return Rollout(
        observations=torch.stack([states, times], dim=2).float().transpose(0, 1)[mask.T],
        actions=actions.T[mask.T],
        log_probs=torch.zeros(int(mask.sum())),
        action_masks=None,
        rewards=rewards,
        mask=mask,
        terminated=torch.ones(len(number), dtype=torch.bool),
        truncated=torch.zeros(len(number), dtype=torch.bool),
        final_observations=torch.zeros(len(number), 2),
        starts=torch.ones(len(number), dtype=torch.bool),
        groups=number // GROUP_SIZE,
        members=number % GROUP_SIZE,
        seeds=np.arange(len(number) // GROUP_SIZE),
        group_size=GROUP_SIZE,
    )


def standard_errors_off(name: str, expected: Tensor, n_rollouts: int = 800, n_groups: int = 3) -> Tensor:
    """By how many standard errors the mean gradient of these rollouts misses `expected`, `[T, 3]`.

    The gradient of a rollout is the mean over its episodes of Σₜ Âₜ ∇ log π.
    """
    found = []
    for rollout in rollouts(n_rollouts, n_groups):
        advantages = BASELINES[name](rollout, Comparison(gamma=1.0, gae_lambda=1.0)).advantages
        state, time = rollout.observations.long().T
        slopes = (rollout.actions - ONE[state]) * rollout.flat(advantages)
        total = torch.zeros(3 * N_STEPS).double().index_add_(0, 3 * time + state, slopes.double())
        found.append(total.view(N_STEPS, 3) / len(rollout.members))
    gradients = torch.stack(found)
    standard_error = gradients.std(dim=0) / n_rollouts**0.5
    off: Tensor = (gradients.mean(dim=0) - expected) / standard_error
    return off


def test_the_exact_gradient_is_the_slope_of_the_expected_return() -> None:
    theta = torch.logit(ONE).repeat(N_STEPS, 1).requires_grad_()
    value = torch.zeros(3)
    for t in reversed(range(N_STEPS)):
        one = torch.sigmoid(theta[t])
        q = REWARD + NEXT_STATE @ value
        value = (1 - one) * q[:, 0] + one * q[:, 1]
    (slope,) = torch.autograd.grad(value.mean(), theta)
    assert torch.allclose(slope, exact(), atol=1e-6)


@pytest.mark.parametrize("name", ["scalar", "leave_one_out", "batch", "live_peers"])
def test_the_mean_gradient_is_the_exact_one(name: str) -> None:
    assert standard_errors_off(name, exact()).abs().max() < 4


def test_the_group_mean_with_oneself_in_it_takes_away_a_fourth_of_four_members() -> None:
    assert standard_errors_off("outcome", 3 / 4 * exact()).abs().max() < 4
    # and a fourth would be seen
    assert standard_errors_off("outcome", exact()).abs().max() > 6


def test_shrunk_peers_are_off_by_less_than_can_be_seen_here() -> None:
    # how far they are shrunk is estimated from the same returns, the judged one among them: of this gradient that
    # takes 1.5 % ± 0.2 %, measured with 8,000 rollouts
    assert standard_errors_off("shrunk", exact()).abs().max() < 4


@pytest.mark.parametrize("ridges", [(1e-2,), soft_groups.RIDGES])
def test_soft_groups_of_whole_returns_too(monkeypatch: pytest.MonkeyPatch, ridges: tuple[float, ...]) -> None:
    # with one ridge there is no bias; the choice among six is made with the judged returns: it takes 2 % ± 0.3 % of
    # the gradient of 12 episodes, measured with 5,000 rollouts
    monkeypatch.setattr(soft_groups, "RIDGES", ridges)
    few = partial(soft_groups.random_fourier_features, n_features=6)
    monkeypatch.setattr(soft_groups, "random_fourier_features", few)
    assert standard_errors_off("soft_groups", exact(), n_rollouts=150, n_groups=8).abs().max() < 4
