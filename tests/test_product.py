import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats
from torch import Tensor

from grpo_gym.distributions import GaussianStyle, SquashedGaussian
from grpo_gym.heads import ActionHead, ProductHead, make_head
from grpo_gym.product import MultiCategorical, Product
from tests.identities import HYBRID, SPACES

SQUASHED = GaussianStyle(log_std_init=-0.5, squash_output=True)
GIVEN = GaussianStyle(log_std_init=-0.5, state_dependent_std=True)

means = st.floats(-3, 3)
log_stds = st.floats(-3, 0.6)


def head_for(space: gym.Space[Any], style: GaussianStyle | None = None) -> ActionHead:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make_head(4, space, style or GaussianStyle())


def choices_of(probabilities: list[list[float]], mask: list[int] | None = None) -> MultiCategorical:
    """The distribution of one action of a head that is given these probabilities."""
    head = head_for(MultiDiscrete([len(row) for row in probabilities]))
    logits = torch.tensor([p for row in probabilities for p in row]).log()[None]
    made = head.distribution(logits, None if mask is None else torch.tensor([mask]).bool())
    assert isinstance(made, MultiCategorical)
    return made


# --- choices ---------------------------------------------------------------------------------------------------


def test_choices_of_different_sizes_have_the_product_of_their_probabilities() -> None:
    made = choices_of([[0.25, 0.75], [0.5, 0.2, 0.3]])
    assert made.log_prob(torch.tensor([[1, 2]])).exp().item() == pytest.approx(0.75 * 0.3)
    assert made.mode().tolist() == [[1, 0]]
    # −Σ p log p: 0.562335 + 1.029653
    assert made.entropy().item() == pytest.approx(1.591988, abs=1e-5)


def test_masked_alternatives_have_probability_zero_each_choice_by_its_own_mask() -> None:
    made = choices_of([[0.25, 0.75], [0.5, 0.2, 0.3]], [1, 0, 0, 1, 1])
    assert made.log_prob(torch.tensor([[0, 1]])).exp().item() == pytest.approx(0.4)
    assert made.log_prob(torch.tensor([[1, 1]])).exp().item() == 0
    assert made.log_prob(torch.tensor([[0, 0]])).exp().item() == 0
    assert made.mode().tolist() == [[0, 2]]


def test_each_choice_has_a_number_of_its_own() -> None:
    made = choices_of([[0.25, 0.75], [0.5, 0.2, 0.3]])
    assert made.sample(torch.tensor([[0.2, 0.6]])).tolist() == [[0, 1]]
    assert made.sample(torch.tensor([[0.3, 0.999999]])).tolist() == [[1, 2]]


@given(st.lists(st.floats(0.01, 0.99), min_size=5, max_size=5), st.lists(st.floats(0.01, 0.99), min_size=5, max_size=5))
def test_the_divergence_of_choices_is_never_negative_and_zero_from_itself(p: list[float], q: list[float]) -> None:
    one, other = choices_of([p[:2], p[2:]]), choices_of([q[:2], q[2:]])
    assert one.kl(other).item() >= -1e-5
    assert one.kl(one).item() == 0


def test_bits_are_choices_of_two() -> None:
    made = head_for(MultiBinary(2)).distribution(torch.tensor([[0.0, math.log(3.0), 0.0, 0.0]]))
    assert made.log_prob(torch.tensor([[1, 0]])).exp().item() == pytest.approx(0.75 * 0.5)


# --- products --------------------------------------------------------------------------------------------------


def a_product(style: GaussianStyle | None = None) -> tuple[Product, Tensor, Any]:
    """The distributions of three hybrid actions, actions drawn from them, and SciPy's normal of their numbers."""
    head = head_for(HYBRID, style)
    made = head.forward(torch.randn(3, 4, generator=torch.Generator().manual_seed(0)))
    assert isinstance(made, Product)
    actions = made.sample(torch.rand(3, 7, generator=torch.Generator().manual_seed(1)))
    normal = stats.norm(made.reals.mean.detach().numpy(), made.reals.log_std.detach().exp().numpy())
    return made, actions, normal


def test_a_hybrid_actions_density_is_the_product_of_its_parts() -> None:
    made, actions, normal = a_product()
    numbers = normal.logpdf(actions[:, 5:].detach().numpy()).sum(axis=1)
    expected = made.choices.log_prob(actions[:, :5].long()).detach().numpy() + numbers
    assert made.log_prob(actions).detach().numpy() == pytest.approx(expected, rel=1e-5)
    entropy = made.choices.entropy().detach().numpy() + normal.entropy().sum(axis=1)
    assert made.entropy().detach().numpy() == pytest.approx(entropy, rel=1e-5)


def test_a_product_diverges_by_the_sum_of_its_parts() -> None:
    made, _, _ = a_product()
    other = Product(made.choices, type(made.reals)(made.reals.mean + made.reals.log_std.exp(), made.reals.log_std))
    assert made.kl(other).tolist() == pytest.approx([1.0] * 3, rel=1e-5)  # two means one deviation away: 2 · ½
    assert made.kl(made).tolist() == [0, 0, 0]


@pytest.mark.parametrize("rows", [[2, 0], [True, False, True]])
def test_rows_of_a_product_are_the_products_of_those_rows(rows: list[int] | list[bool]) -> None:
    made, actions, _ = a_product()
    index = torch.tensor(rows)
    assert torch.equal(made[index].log_prob(actions[index]), made.log_prob(actions)[index])
    assert torch.equal(made[index].entropy(), made.entropy()[index])


def test_the_mode_is_that_of_each_part() -> None:
    made, _, _ = a_product()
    assert made.mode()[:, :5].tolist() == made.choices.mode().tolist()
    assert torch.equal(made.mode()[:, 5:], made.reals.mean)


@pytest.mark.parametrize("style", [GaussianStyle(2.0), SQUASHED, GIVEN], ids=["plain", "squashed", "given"])
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_drawn_actions_are_in_the_space_and_have_a_finite_probability_and_gradient(
    space: gym.Space[Any], style: GaussianStyle
) -> None:
    has_numbers = isinstance(space, Box) or space in (SPACES["dict"], SPACES["boxes"])
    head = head_for(space, style if has_numbers else None)
    made = head.forward(torch.randn(50, 4, generator=torch.Generator().manual_seed(0)))
    noise = torch.rand(50, head.noise_size, generator=torch.Generator().manual_seed(1))
    actions = made.sample(noise)
    layout = head.code.layout if isinstance(head, ProductHead) else None
    rows = head.to_env(actions.detach().numpy())
    assert all(space.contains(layout.unpack_one(row) if layout else row) for row in rows)
    (made.log_prob(actions.detach()) + made.entropy()).sum().backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in head.parameters())


def test_a_mask_where_nothing_can_be_masked_is_refused() -> None:
    with pytest.raises(ValueError, match="only discrete actions have one"):
        head_for(SPACES["boxes"]).forward(torch.zeros(1, 4), torch.ones(1, 2, dtype=torch.bool))


# --- how numbers are drawn -------------------------------------------------------------------------------------


@given(means, log_stds, st.floats(-4, 4))
def test_the_density_of_a_squashed_number_is_that_of_its_tangent(mean: float, log_std: float, u: float) -> None:
    made = SquashedGaussian(torch.tensor([[mean]], dtype=torch.float64), torch.tensor([log_std], dtype=torch.float64))
    expected = stats.norm(mean, math.exp(log_std)).logpdf(u) - math.log(1 - math.tanh(u) ** 2)
    assert made.log_prob(torch.tensor([[u]], dtype=torch.float64)).item() == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_a_squashed_density_by_hand() -> None:
    made = SquashedGaussian(torch.zeros(1, 1), torch.zeros(1))
    # of tanh 0 = 0, where the tangent's slope is 1: 1/√(2π)
    assert made.log_prob(torch.zeros(1, 1)).item() == pytest.approx(-0.9189385)
    # tanh(½ log 3) = ½, slope ¾: φ(0.5493061)/¾ = 0.457436
    assert made.log_prob(torch.tensor([[0.5 * math.log(3)]])).exp().item() == pytest.approx(0.457436, rel=1e-5)


@given(means, log_stds)
def test_squashed_densities_add_up_to_one(mean: float, log_std: float) -> None:
    made = SquashedGaussian(torch.tensor([mean]).expand(20001, 1), torch.tensor([log_std]))
    u = torch.linspace(mean - 9 * math.exp(log_std), mean + 9 * math.exp(log_std), 20001)[:, None]
    density, at = made.log_prob(u).double().exp(), torch.tanh(u.double())[:, 0]
    assert integrate.trapezoid(density, at) == pytest.approx(1.0, abs=2e-2)


@given(means, log_stds)
def test_the_entropy_of_a_squashed_number_is_the_mean_of_its_log_density(mean: float, log_std: float) -> None:
    std = math.exp(log_std)
    z = np.linspace(-9, 9, 4001)
    log_density = stats.norm.logpdf(z) - log_std - np.log(1 / np.cosh(mean + std * z) ** 2)
    expected = -integrate.trapezoid(stats.norm.pdf(z) * log_density, z)
    made = SquashedGaussian(torch.tensor([[mean]], dtype=torch.float64), torch.tensor([log_std], dtype=torch.float64))
    assert made.entropy().item() == pytest.approx(expected, abs=2e-4)
    assert made.entropy().item() <= math.log(2) + 1e-6


def test_far_out_a_squashed_density_stays_finite() -> None:
    made = SquashedGaussian(torch.tensor([[50.0]]), torch.zeros(1))
    assert made.log_prob(torch.tensor([[50.0], [-50.0]])).isfinite().all()
    assert made.entropy().isfinite().all()


def test_squashed_numbers_fill_the_bounds_and_never_leave_them() -> None:
    head = head_for(Box(np.array([-1.0, 0.0], np.float32), np.array([1.0, 10.0], np.float32)), SQUASHED)
    given_ = head.to_env(np.array([[0.0, 0.0], [99.0, -99.0], [0.5 * math.log(3), 0.0]], np.float32))
    assert given_.tolist() == [[0, 5], [1, 0], [pytest.approx(0.5), 5]]


def test_a_std_that_the_network_gives_begins_at_its_initial_value_and_depends_on_the_state() -> None:
    head = head_for(Box(-1.0, 1.0, (2,)), GIVEN)
    torch.nn.init.zeros_(head.linear.bias)
    assert head.forward(torch.zeros(1, 4)).log_std.tolist() == [[-0.5, -0.5]]  # type: ignore[union-attr]
    one, other = head.forward(torch.randn(2, 4, generator=torch.Generator().manual_seed(0))).log_std  # type: ignore[union-attr]
    assert one.tolist() != other.tolist()
    assert [name for name, _ in head.named_parameters()] == ["linear.weight", "linear.bias"]


def test_without_numbers_there_is_no_std_to_learn() -> None:
    assert [name for name, _ in head_for(MultiDiscrete([2, 2])).named_parameters()] == ["linear.weight", "linear.bias"]


@pytest.mark.parametrize("name", ["squash_output", "state_dependent_std"])
@pytest.mark.parametrize("space", [Discrete(3), Dict({"a": MultiBinary(2)})], ids=str)
def test_what_is_about_numbers_is_refused_where_there_are_none(name: str, space: gym.Space[Any]) -> None:
    with pytest.raises(ValueError, match=f"{name}=True is about the numbers of a Box, but the action space is"):
        head_for(space, GaussianStyle(**{name: True}))
