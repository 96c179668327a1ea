import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from grpo_gym.distributions import Categorical, DiagonalGaussian
from grpo_gym.losses import (
    aggregation_weights,
    capped_surrogate,
    clipped_surrogate,
    clipped_weights,
    grpo_loss,
    kl_k1,
    kl_k2,
    kl_k3,
    sequence_log_ratio,
)

Estimator = Callable[[Tensor, Tensor], Tensor]
lengths_of_episodes = st.lists(st.integers(1, 6), min_size=1, max_size=6)


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected"),
    [
        (1.5, 1.0, 1.28),  # min(1.5, 1.28)
        (0.5, 1.0, 0.5),  # min(0.5, 0.8)
        (1.5, -1.0, -1.5),  # min(−1.5, −1.28): the clipped ratio would be chosen by min(ρ, clip(ρ))
        (0.5, -1.0, -0.8),  # min(−0.5, −0.8)
        (1.1, -2.0, -2.2),
        (1.1, 2.0, 2.2),
        (3.0, 0.0, 0.0),
    ],
)
def test_the_surrogate_is_the_minimum_of_the_products(ratio: float, advantage: float, expected: float) -> None:
    surrogate = clipped_surrogate(torch.tensor([ratio]), torch.tensor([advantage]), 0.2, 0.28)
    assert surrogate.item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("ratio", "advantage", "slope"),
    [(1.5, 1.0, 0.0), (0.5, -1.0, 0.0), (1.5, -1.0, -1.0), (0.5, 1.0, 1.0), (1.1, 3.0, 3.0), (1.0, -2.0, -2.0)],
)
def test_the_gradient_stops_only_where_the_ratio_has_gone_far_enough_already(
    ratio: float, advantage: float, slope: float
) -> None:
    moving = torch.tensor([ratio], requires_grad=True)
    clipped_surrogate(moving, torch.tensor([advantage]), 0.2, 0.28).sum().backward()  # type: ignore[no-untyped-call]
    assert moving.grad is not None
    assert moving.grad.item() == slope


def test_the_two_sides_of_the_clip_are_separate() -> None:
    ratio, advantages = torch.tensor([0.1, 9.0]), torch.tensor([-1.0, 1.0])
    assert clipped_surrogate(ratio, advantages, 0.25, 0.5).tolist() == [-0.75, 1.5]


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected", "slope"),
    [
        (6.0, -1.0, -4.0, 0.0),  # min(−4, −1.2)
        (3.0, -1.0, -3.0, -1.0),
        (0.5, -1.0, -0.8, 0.0),
        (6.0, 1.0, 1.2, 0.0),
        (1.1, 2.0, 2.2, 2.0),
    ],
)
def test_the_cap_closes_the_last_open_side(ratio: float, advantage: float, expected: float, slope: float) -> None:
    moving = torch.tensor([ratio], requires_grad=True)
    gain = capped_surrogate(moving, torch.tensor([advantage]), 0.2, 0.2, 4.0)
    assert gain.item() == pytest.approx(expected)
    (found,) = torch.autograd.grad(gain.sum(), moving)
    assert found.item() == slope
    # as it is written for the dual clip
    dual = clipped_surrogate(moving, torch.tensor([advantage]), 0.2, 0.2)
    assert gain.item() == pytest.approx(max(dual.item(), 4.0 * advantage) if advantage < 0 else dual.item())


def test_clipped_weights_by_hand() -> None:
    log_probs = torch.tensor([2.0, 0.5, 9.0]).log().requires_grad_()
    gain = clipped_weights(log_probs, log_probs.exp(), torch.tensor([1.0, -2.0, 1.0]), 0.2, 0.5)
    # 1.5·log 2; 0.8·−2·log 0.5; 1.5·log 9
    assert gain.tolist() == pytest.approx([1.0397208, 1.1090355, 3.2958369])
    (taught,) = torch.autograd.grad(gain.sum(), log_probs)
    assert taught.tolist() == pytest.approx([1.5, -1.6, 1.5])


def test_a_sequence_has_the_geometric_mean_of_its_ratios() -> None:
    log_ratio = torch.tensor([2.0, 3.0, 0.5, 4.0]).log()
    ratio = sequence_log_ratio(log_ratio, torch.tensor([7, 3, 7, 3])).exp()
    assert ratio.tolist() == pytest.approx([1, 12**0.5, 1, 12**0.5])  # √(2·0.5), √(3·4)


def test_the_kl_estimators_by_hand() -> None:
    log_prob, other = torch.tensor([math.log(0.5)]), torch.tensor([math.log(0.25)])
    assert kl_k1(log_prob, other).item() == pytest.approx(0.693147)  # log 2
    assert kl_k2(log_prob, other).item() == pytest.approx(0.2402265)  # (log 2)² / 2
    assert kl_k3(log_prob, other).item() == pytest.approx(0.193147)  # 1/2 + log 2 − 1
    assert kl_k1(other, log_prob).item() == pytest.approx(-0.693147)
    assert kl_k3(other, log_prob).item() == pytest.approx(0.306853)  # 2 − log 2 − 1


class Enumerated:
    """A distribution whose expectations are exact: all actions, or a fine grid of them, and their weights."""

    def __init__(self, make: Callable[[Tensor], Categorical | DiagonalGaussian], actions: Tensor, width: float):
        self.make, self.actions, self.width = make, actions, width

    def log_probs(self, parameters: Tensor) -> Tensor:
        made = self.make(parameters.expand(len(self.actions), -1))
        return made.log_prob(self.actions)

    def mean(self, values: Tensor, parameters: Tensor) -> Tensor:
        """The expectation of `values` of all actions, drawn by `parameters` without gradient."""
        return (self.log_probs(parameters).detach().exp() * self.width * values).sum()

    def kl(self, one: Tensor, other: Tensor) -> float:
        return float(self.make(one[None]).kl(self.make(other[None])))  # type: ignore[arg-type]

    def entropy(self, parameters: Tensor) -> Tensor:
        return self.make(parameters[None]).entropy()


def gaussian(parameters: Tensor) -> DiagonalGaussian:
    return DiagonalGaussian(parameters[:, :1], parameters[:, 1:])


def masked(logits: Tensor) -> Categorical:
    return Categorical(logits, torch.tensor([[True, True, False, True]]).expand(len(logits), -1))


GRID = torch.linspace(-15, 15, 20_001, dtype=torch.float64)[:, None]
CASES = {
    "categorical": (Enumerated(Categorical, torch.arange(3), 1.0), [0.3, -0.7, 1.1], [-0.2, 0.5, 0.4]),
    "masked": (Enumerated(masked, torch.tensor([0, 1, 3]), 1.0), [0.3, -0.7, 9.0, 1.1], [-0.2, 0.5, 3.0, 0.4]),
    "gaussian": (Enumerated(gaussian, GRID, 30 / 20_000), [0.4, -0.3], [-0.2, 0.2]),
}
every_distribution = pytest.mark.parametrize("name", CASES)


def case(name: str) -> tuple[Enumerated, Tensor, Tensor]:
    family, one, other = CASES[name]
    return family, torch.tensor(one, dtype=torch.float64), torch.tensor(other, dtype=torch.float64)


def slope(function: Callable[[Tensor], float], at: Tensor) -> Tensor:
    """The gradient by central differences."""
    steps = 1e-5 * torch.eye(len(at), dtype=at.dtype)
    return torch.tensor([(function(at + step) - function(at - step)) / 2e-5 for step in steps], dtype=at.dtype)


def gradient(loss: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    moving = at.clone().requires_grad_()
    (result,) = torch.autograd.grad(loss(moving), moving)
    return result


@every_distribution
@pytest.mark.parametrize("estimator", [kl_k1, kl_k3])
def test_k1_and_k3_are_the_exact_kl_on_average(name: str, estimator: Estimator) -> None:
    family, one, other = case(name)
    estimate = family.mean(estimator(family.log_probs(one), family.log_probs(other)), one)
    assert float(estimate) == pytest.approx(family.kl(one, other), rel=1e-6)


@every_distribution
def test_as_a_loss_k2_has_the_gradient_of_the_kl_from_the_policy(name: str) -> None:
    family, one, other = case(name)
    taught = gradient(lambda p: family.mean(kl_k2(family.log_probs(p), family.log_probs(other)), one), one)
    assert torch.allclose(taught, slope(lambda p: family.kl(p, other), one), atol=1e-7)
    assert taught.norm() > 0.1


@every_distribution
def test_as_a_loss_k3_has_the_gradient_of_the_kl_to_the_policy(name: str) -> None:
    family, one, other = case(name)
    taught = gradient(lambda p: family.mean(kl_k3(family.log_probs(p), family.log_probs(other)), one), one)
    assert torch.allclose(taught, slope(lambda p: family.kl(other, p), one), atol=1e-7)
    assert not torch.allclose(taught, slope(lambda p: family.kl(p, other), one), atol=1e-2)


@every_distribution
def test_as_a_loss_k1_teaches_nothing(name: str) -> None:
    family, one, other = case(name)
    taught = gradient(lambda p: family.mean(kl_k1(family.log_probs(p), family.log_probs(other)), one), one)
    assert taught.abs().max() < 1e-9


@every_distribution
@pytest.mark.parametrize("estimator", [kl_k2, kl_k3])
def test_a_step_down_a_kl_loss_lowers_the_exact_kl(name: str, estimator: Estimator) -> None:
    family, one, other = case(name)
    down = gradient(lambda p: family.mean(estimator(family.log_probs(p), family.log_probs(other)), one), one)
    moved = one - 0.01 * down
    assert family.kl(moved, other) < family.kl(one, other)
    assert family.kl(other, moved) < family.kl(other, one)


@every_distribution
def test_the_entropy_bonus_raises_the_exact_entropy(name: str) -> None:
    family, one, _ = case(name)
    nothing = torch.zeros(1, dtype=torch.float64)

    def loss(parameters: Tensor) -> Tensor:
        ones = torch.ones_like(nothing)
        return grpo_loss(nothing, family.entropy(parameters), nothing, nothing, ones, 0.2, 0.2, ent_coef=0.5)[0]

    down = gradient(loss, one)
    assert torch.allclose(down, -0.5 * slope(lambda p: float(family.entropy(p)), one), atol=1e-7)
    assert family.entropy(one - 0.01 * down) > family.entropy(one)


MASK = torch.tensor([[True, True], [False, True], [False, True]])


def test_the_three_aggregations_by_hand() -> None:
    # lengths 1 and 3: M = 4 steps, N = 2 episodes, T = 3
    assert aggregation_weights(MASK, "step").tolist() == [[1, 1], [0, 1], [0, 1]]
    trajectory = aggregation_weights(MASK, "trajectory")  # 4 / (2·1) and 4 / (2·3)
    assert torch.allclose(trajectory, torch.tensor([[2, 2 / 3], [0, 2 / 3], [0, 2 / 3]]))
    constant = aggregation_weights(MASK, "constant")  # 4 / (2·3)
    assert torch.allclose(constant, torch.tensor([[2 / 3, 2 / 3], [0, 2 / 3], [0, 2 / 3]]))
    assert aggregation_weights(MASK, "constant", horizon=10)[0].tolist() == pytest.approx([0.2, 0.2])  # 4 / (2·10)


def test_every_group_alike_by_hand() -> None:
    # groups {0, 1} with 2 + 1 steps and {2} with 1: M = 4 steps, P = 2 groups
    mask = torch.tensor([[True, True, True], [True, False, False]])
    weights = aggregation_weights(mask, "group", groups=torch.tensor([0, 0, 1]))
    assert torch.allclose(weights, torch.tensor([[2 / 3, 2 / 3, 2], [2 / 3, 0, 0]]))
    assert weights.sum().item() == pytest.approx(4)


def terms_and_mask(lengths: list[int]) -> tuple[Tensor, Tensor]:
    mask = torch.arange(max(lengths))[:, None] < torch.tensor(lengths)
    return torch.where(mask, torch.arange(mask.numel()).view(mask.shape) % 7 - 2.0, 0.0), mask


@given(lengths_of_episodes)
def test_the_mean_of_weight_times_term_is_each_definition(lengths: list[int]) -> None:
    terms, mask = terms_and_mask(lengths)
    per_episode = terms.sum(dim=0)
    definitions = {
        "step": per_episode.sum() / sum(lengths),
        "trajectory": (per_episode / torch.tensor(lengths)).mean(),
        "constant": per_episode.sum() / (len(lengths) * max(lengths)),
    }
    for how, definition in definitions.items():
        mean = (aggregation_weights(mask, how) * terms)[mask].mean()
        assert mean.item() == pytest.approx(definition.item(), abs=1e-5)


@given(lengths_of_episodes.filter(lambda lengths: sum(lengths) % 2 == 0))
def test_the_loss_is_the_mean_over_equal_minibatches(lengths: list[int]) -> None:
    terms, mask = terms_and_mask(lengths)
    weighted = (aggregation_weights(mask, "trajectory") * terms)[mask]
    shuffled = weighted[torch.randperm(len(weighted), generator=torch.Generator().manual_seed(0))]
    halves = shuffled.view(2, -1).mean(dim=1)
    assert halves.mean().item() == pytest.approx(weighted.mean().item(), abs=1e-5)


def test_an_unknown_aggregation_is_refused_and_the_known_are_named() -> None:
    with pytest.raises(ValueError, match="'token' is not known; choose from step, trajectory, group, constant"):
        aggregation_weights(MASK, "token")


def a_loss(log_probs: Tensor, entropy: Tensor, advantages: Tensor, weights: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    return grpo_loss(log_probs, entropy, torch.zeros(4), advantages, weights, 0.2, 0.28, ent_coef=0.1)


def test_the_loss_and_its_metrics_by_hand() -> None:
    log_probs = torch.tensor([1.5, 0.5, 1.0, 1.5]).log()
    entropy, advantages = torch.tensor([1.0, 2.0, 3.0, 2.0]), torch.tensor([1.0, -1.0, 3.0, -1.0])
    loss, metrics = a_loss(log_probs, entropy, advantages, torch.tensor([2.0, 1.0, 0.5, 0.5]))
    # surrogates 1.28, −0.8, 3, −1.5, weighted 2.56 − 0.8 + 1.5 − 0.75 = 2.51; entropies 2 + 2 + 1.5 + 1 = 6.5
    assert metrics["policy_gradient_loss"].item() == pytest.approx(-2.51 / 4)
    assert loss.item() == pytest.approx(-2.51 / 4 - 0.1 * 6.5 / 4)
    assert metrics["loss"].item() == loss.item()
    assert metrics["entropy_loss"].item() == -2.0
    # k3 = ρ − 1 − log ρ: 0.5 − log 1.5 twice, −0.5 + log 2, 0
    assert metrics["approx_kl"].item() == pytest.approx((2 * 0.094535 + 0.193147) / 4, rel=1e-4)
    assert metrics["clip_fraction_low"].item() == 0.25
    assert metrics["clip_fraction_high"].item() == 0.5
    assert metrics["clip_fraction"].item() == 0.75
    assert all(metric.shape == () and not metric.requires_grad for metric in metrics.values())


def test_rows_of_weight_zero_change_neither_loss_nor_gradient() -> None:
    weights = torch.tensor([2.0, 2.0, 0.0, 0.0])
    log_probs = torch.tensor([0.1, -0.1, 0.3, -0.3])
    entropy, advantages = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([1.0, -1.0, 2.0, -2.0])
    moving, moving_entropy = log_probs.clone().requires_grad_(), entropy.clone().requires_grad_()
    loss, _ = a_loss(moving, moving_entropy, advantages, weights)
    loss.backward()  # type: ignore[no-untyped-call]
    assert moving.grad is not None
    assert moving_entropy.grad is not None
    assert moving.grad[2:].tolist() == [0, 0]
    assert moving_entropy.grad[2:].tolist() == [0, 0]
    assert moving.grad[:2].count_nonzero() == 2
    other_rows = torch.tensor([0.0, 0.0, 1.0, 1.0])
    changed, _ = a_loss(log_probs + other_rows, entropy + other_rows, advantages * (1 + 9 * other_rows), weights)
    assert changed.item() == loss.item()


def test_a_good_action_that_became_rare_is_still_raised() -> None:
    log_probs = torch.zeros(4, requires_grad=True)
    loss, _ = grpo_loss(log_probs, torch.ones(4), torch.ones(4), torch.ones(4), torch.ones(4), 0.2, 0.2)
    (taught,) = torch.autograd.grad(loss, log_probs)
    # ρ = 1/e lies below the range: −ρ·Â / 4
    assert torch.allclose(taught, torch.full((4,), -math.exp(-1) / 4))


def test_before_the_first_step_the_gradient_is_the_policy_gradient() -> None:
    advantages = torch.tensor([1.0, -2.0, 0.0, 4.0])
    log_probs = torch.full((4,), -1.0, requires_grad=True)
    loss, _ = grpo_loss(log_probs, torch.ones(4), torch.full((4,), -1.0), advantages, torch.ones(4), 0.2, 0.2)
    (taught,) = torch.autograd.grad(loss, log_probs)
    assert taught.tolist() == [-0.25, 0.5, 0.0, -1.0]
