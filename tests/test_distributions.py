import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, distributions

from grpo_gym.distributions import Categorical, CategoricalHead, DiagonalGaussian, GaussianHead, GaussianStyle
from grpo_gym.heads import make_head

reference: Any = distributions  # torch leaves its methods without annotations

SMALLEST, LARGEST = 2.0**-22, 1.0 - 2.0**-22  # of uniform noise

logits_of_five = st.lists(st.floats(-30, 30, width=32), min_size=5, max_size=5)
masks_of_five = st.lists(st.booleans(), min_size=5, max_size=5).filter(any)
points = st.lists(st.floats(-3, 3, width=32), min_size=3, max_size=3)


def categorical(logits: list[float], mask: list[bool] | None = None) -> Categorical:
    return Categorical(torch.tensor([logits]), None if mask is None else torch.tensor([mask]))


@given(logits_of_five, logits_of_five)
def test_a_categorical_equals_torchs(logits: list[float], others: list[float]) -> None:
    ours, theirs = categorical(logits), reference.Categorical(logits=torch.tensor([logits]))
    actions = torch.arange(5)
    expanded = Categorical(torch.tensor([logits]).expand(5, -1))
    assert torch.allclose(expanded.log_prob(actions), theirs.log_prob(actions), atol=1e-5)
    assert torch.allclose(ours.entropy(), theirs.entropy(), atol=1e-5)
    kl = reference.kl_divergence(theirs, reference.Categorical(logits=torch.tensor([others])))
    assert torch.allclose(ours.kl(categorical(others)), kl, rtol=1e-4, atol=1e-5)


@given(logits_of_five, masks_of_five)
def test_a_masked_categorical_equals_torchs_over_the_legal_actions(logits: list[float], mask: list[bool]) -> None:
    legal = torch.tensor(mask)
    ours = categorical(logits, mask)
    theirs = reference.Categorical(logits=torch.tensor(logits)[legal])
    assert torch.allclose(ours.log_probs[0, legal], theirs.logits, atol=1e-5)
    assert torch.allclose(ours.entropy()[0], theirs.entropy(), atol=1e-5)


@given(points, points, points, points)
def test_a_gaussian_equals_torchs(
    mean: list[float], log_std: list[float], other: list[float], other_log_std: list[float]
) -> None:
    def both(m: list[float], s: list[float]) -> tuple[DiagonalGaussian, Any]:
        at, width = torch.tensor([m]), torch.tensor(s).clamp(-2, 2)
        return DiagonalGaussian(at, width), reference.Independent(reference.Normal(at, width.exp()), 1)

    (ours, theirs), (our_other, their_other) = both(mean, log_std), both(other, other_log_std)
    action = torch.tensor([other])
    assert torch.allclose(ours.log_prob(action), theirs.log_prob(action), rtol=1e-4, atol=1e-4)
    assert torch.allclose(ours.entropy(), theirs.entropy(), atol=1e-5)
    kl = reference.kl_divergence(theirs, their_other)
    assert torch.allclose(ours.kl(our_other), kl, rtol=1e-4, atol=1e-4)


@given(logits_of_five, masks_of_five)
def test_illegal_actions_have_probability_exactly_zero_and_are_never_drawn(
    logits: list[float], mask: list[bool]
) -> None:
    noise = torch.tensor([[SMALLEST], [0.25], [0.5], [0.75], [LARGEST]])
    made = Categorical(torch.tensor([logits]).expand(5, -1), torch.tensor([mask]).expand(5, -1))
    assert made.log_probs.exp()[:, ~torch.tensor(mask)].count_nonzero() == 0
    assert all(mask[action] for action in made.sample(noise).tolist())
    assert mask[int(made.mode()[0])]


@pytest.mark.parametrize("noise", [SMALLEST, LARGEST])
@pytest.mark.parametrize("mask", [[0, 0, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [1, 0, 0, 0, 1]])
@pytest.mark.parametrize("first", [0.0, 12.0, -12.0, -80.0, 1e4])
def test_the_ends_of_the_noise_stay_legal_under_masks_at_the_ends(noise: float, mask: list[int], first: float) -> None:
    legal = [bool(entry) for entry in mask]
    drawn = int(categorical([first, 1.0, 0.0, -1.0, first], legal).sample(torch.tensor([[noise]])))
    assert legal[drawn]


@pytest.mark.parametrize("n_actions", [100, 1000, 5000, 20_000])
def test_rounding_of_many_probabilities_never_draws_the_illegal_last_action(n_actions: int) -> None:
    # in float32 the probabilities of 4,999 equal actions add up to less than 1 − 2⁻²²
    mask = torch.arange(n_actions)[None] < n_actions - 1
    drawn = Categorical(torch.zeros(1, n_actions), mask).sample(torch.tensor([[LARGEST]]))
    assert drawn.tolist() == [n_actions - 2]


def test_masked_entropy_and_gradients_are_finite() -> None:
    logits = torch.tensor([[1e3, 0.0, -1e3]], requires_grad=True)
    made = Categorical(logits, torch.tensor([[True, True, False]]))
    (made.entropy() + made.log_prob(torch.tensor([1]))).sum().backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad[0, 2] == 0


def test_actions_come_as_often_as_their_probabilities_say() -> None:
    noise = (torch.arange(1000) + 0.5)[:, None] / 1000
    made = Categorical(torch.tensor([0.1, 0.2, 0.3, 0.4]).log().expand(1000, -1))
    assert made.sample(noise).bincount().tolist() == [100, 200, 300, 400]


def test_with_a_mask_too() -> None:
    noise = (torch.arange(1000) + 0.5)[:, None] / 1000
    mask = torch.tensor([False, True, True, False]).expand(1000, -1)
    made = Categorical(torch.tensor([0.1, 0.2, 0.3, 0.4]).log().expand(1000, -1), mask)
    assert made.sample(noise).bincount().tolist() == [0, 400, 600]


def test_a_gaussian_action_is_the_quantile_of_its_noise() -> None:
    made = DiagonalGaussian(torch.tensor([[1.0, -2.0]]), torch.tensor([0.0, math.log(3.0)]))
    assert made.sample(torch.tensor([[0.5, 0.5]])).tolist() == [[1, -2]]
    # Φ(1) = 0.841345
    assert made.sample(torch.tensor([[0.841345, 0.841345]]))[0].tolist() == pytest.approx([2.0, 1.0], abs=1e-4)


def test_the_share_of_gaussian_actions_within_one_deviation_is_0_683() -> None:
    noise = (torch.arange(10_000) + 0.5)[:, None] / 10_000
    actions = DiagonalGaussian(torch.zeros(10_000, 1), torch.zeros(1)).sample(noise)
    assert actions.isfinite().all()
    assert (actions.abs() < 1).sum() == 6826  # 2 · round(3413.4)
    assert actions.std() == pytest.approx(1.0, abs=1e-3)


def test_antithetic_noise_mirrors_a_gaussian_action() -> None:
    noise = torch.arange(1, 4096)[:, None] / 4096
    made = DiagonalGaussian(torch.full((4095, 1), 2.0), torch.tensor([-1.0]))
    assert torch.allclose(made.sample(noise) - 2, -(made.sample(1 - noise) - 2), atol=1e-6)


def test_the_ends_of_the_noise_give_finite_gaussian_actions() -> None:
    made = DiagonalGaussian(torch.zeros(2, 1), torch.zeros(1))
    assert made.sample(torch.tensor([[SMALLEST], [LARGEST]]))[:, 0].tolist() == pytest.approx([-5.04, 5.04], abs=0.01)


def test_the_modes_by_hand() -> None:
    assert categorical([0.0, 2.0, 2.0, 1.0, -1.0]).mode().tolist() == [1]
    assert DiagonalGaussian(torch.tensor([[3.0, -4.0]]), torch.zeros(2)).mode().tolist() == [[3, -4]]


def test_entropies_by_hand() -> None:
    assert categorical([7.0] * 5).entropy().item() == pytest.approx(math.log(5))
    assert categorical([7.0] * 5, [True, False, True, False, False]).entropy().item() == pytest.approx(math.log(2))
    assert categorical([7.0] * 5, [True, False, False, False, False]).entropy().item() == 0
    # (1 + log 2π)/2 + log σ
    assert DiagonalGaussian(torch.zeros(1, 1), torch.ones(1)).entropy().item() == pytest.approx(2.418939)


def discrete_head(start: int = 0) -> CategoricalHead:
    head = make_head(4, Discrete(3, start=start))
    assert isinstance(head, CategoricalHead)
    return head


def box_head(low: float, high: float, shape: tuple[int, ...], log_std: float = 0.0) -> GaussianHead:
    head = make_head(4, Box(low, high, shape, np.float32), GaussianStyle(log_std))
    assert isinstance(head, GaussianHead)
    return head


@pytest.mark.parametrize(("start", "expected"), [(0, [0, 1, 2]), (5, [5, 6, 7]), (-1, [-1, 0, 1])])
def test_discrete_actions_are_counted_from_the_start_of_the_space(start: int, expected: list[int]) -> None:
    assert discrete_head(start).to_env(np.array([0, 1, 2])).tolist() == expected


def test_discrete_actions_have_the_type_of_the_space() -> None:
    assert discrete_head().to_env(np.array([2])).dtype == np.int64
    small: Any = Discrete(3)
    small.dtype = np.dtype(np.int32)  # older versions of gymnasium take no argument dtype
    assert make_head(4, small).to_env(np.array([2])).dtype == np.int32


def test_box_actions_are_clipped_shaped_and_typed_on_their_way_to_the_environment() -> None:
    raw = np.array([[0.5, -9.0, 9.0, 1.0]], np.float32)
    given_ = box_head(-1.0, 2.0, (2, 2)).to_env(raw)
    assert given_.tolist() == [[[0.5, -1.0], [2.0, 1.0]]]
    assert given_.dtype == np.float32
    assert raw.tolist() == [[0.5, -9.0, 9.0, 1.0]]


def test_each_dimension_has_bounds_of_its_own() -> None:
    space: Box = Box(np.array([-1.0, 0.0]), np.array([1.0, 10.0]), dtype=np.float64)
    given_ = make_head(4, space).to_env(np.array([[-5.0, -5.0], [5.0, 5.0]], np.float32))
    assert given_.tolist() == [[-1, 0], [1, 5]]
    assert given_.dtype == np.float64


def test_the_log_probability_is_that_of_the_unclipped_action() -> None:
    made = box_head(-1.0, 1.0, (1,)).forward(torch.zeros(1, 4))
    distance = 3.0 - made.mean.item()
    # −z²/2 − log √2π
    assert made.log_prob(torch.tensor([[3.0]])).item() == pytest.approx(-(distance**2) / 2 - 0.9189385, rel=1e-5)


@pytest.mark.parametrize(("log_std", "clamped"), [(50.0, 2.0), (-50.0, -20.0), (-0.5, -0.5)])
def test_a_gaussian_log_std_is_kept_between_minus_20_and_2(log_std: float, clamped: float) -> None:
    assert box_head(-1, 1, (2,), log_std).forward(torch.zeros(3, 4)).log_std.tolist() == [[clamped] * 2] * 3


def test_a_box_uses_as_much_noise_as_it_has_dimensions_and_a_discrete_space_one() -> None:
    assert box_head(-1, 1, (2, 3)).noise_size == 6
    assert discrete_head().noise_size == 1


def test_a_mask_for_a_box_is_refused() -> None:
    with pytest.raises(ValueError, match=r"action mask.*Box.*only discrete"):
        box_head(-1, 1, (2,)).forward(torch.zeros(1, 4), torch.ones(1, 2, dtype=torch.bool))


def test_infinite_action_bounds_are_refused_and_a_wrapper_is_named() -> None:
    with pytest.raises(ValueError, match=r"Box.*infinite bounds.*RescaleAction"):
        make_head(4, Box(-np.inf, np.inf, (1,)))


@pytest.mark.parametrize(
    "space",
    [
        gym.spaces.Text(5),
        gym.spaces.Sequence(Discrete(2)),
        gym.spaces.Dict({"a": Discrete(2), "b": gym.spaces.Text(5)}),
        gym.spaces.Tuple([]),
    ],
)
def test_other_action_spaces_are_refused_by_name(space: gym.Space[Any]) -> None:
    with pytest.raises(ValueError, match=rf"action space {type(space).__name__}.*; expected Box, Discrete, Multi"):
        make_head(4, space)


@given(logits_of_five, st.integers(0, 2**22 - 2))
def test_more_noise_never_gives_an_earlier_action(logits: list[float], k: int) -> None:
    low, high = (max(k, 1) / 2**22, (k + 1) / 2**22)
    made = Categorical(torch.tensor([logits, logits]))
    drawn: Tensor = made.sample(torch.tensor([[low], [high]]))
    assert drawn[0] <= drawn[1]
