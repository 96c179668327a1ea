import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from grpo_gym.array_distributions import ArrayCategorical, ArrayGaussian, find_kind
from grpo_gym.distributions import Categorical, CategoricalHead, DiagonalGaussian, GaussianHead
from grpo_gym.heads import make_head
from grpo_gym.types import Array

BOX, DISCRETE = gym.spaces.Box(-1.0, 1.0, (3,), np.float32), gym.spaces.Discrete(4)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return 0.01 + 0.98 * torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=50, deadline=None)
@given(n_rows=st.integers(1, 70), n=st.integers(1, 9), spread=st.sampled_from([0.01, 1.0, 30.0]), masked=st.booleans())
def test_a_categorical_is_the_one_of_torch(n_rows: int, n: int, spread: float, masked: bool) -> None:
    logits, noise = spread * drawn(n_rows, n), uniform(n_rows, 1)
    masks = None
    if masked:
        masks = drawn(n_rows, n, seed=1) > 0
        masks[:, 0] |= ~masks.any(dim=1)
    theirs = Categorical(logits, masks)
    ours = ArrayCategorical(logits.numpy().T.copy(), None if masks is None else masks.numpy())
    actions = ours.sample(noise.numpy())
    assert actions.dtype == np.int64
    assert actions.tolist() == theirs.sample(noise).tolist()
    assert ours.mode().tolist() == theirs.mode().tolist()
    assert ours.log_prob(actions) == pytest.approx(theirs.log_prob(torch.from_numpy(actions)).numpy(), abs=1e-5)
    assert ours.entropy == pytest.approx(theirs.entropy().numpy(), abs=1e-5)
    assert masks is None or masks[torch.arange(n_rows), torch.from_numpy(actions)].all()


@settings(max_examples=50, deadline=None)
@given(n_rows=st.integers(1, 70), d=st.integers(1, 7), log_std=st.sampled_from([-3.0, 0.0, 1.0, 5.0]))
def test_a_gaussian_is_the_one_of_torch(n_rows: int, d: int, log_std: float) -> None:
    means, noise, deviations = drawn(n_rows, d), uniform(n_rows, d), log_std + 0.1 * drawn(d)
    theirs = DiagonalGaussian(means, deviations.clamp(-20, 2))
    ours = ArrayGaussian(means.numpy().T.copy(), deviations.numpy())
    actions = ours.sample(noise.numpy())
    assert actions == pytest.approx(theirs.sample(noise).numpy(), rel=1e-5, abs=1e-5)
    assert ours.mode().tolist() == means.tolist()
    assert ours.log_prob(actions) == pytest.approx(theirs.log_prob(torch.from_numpy(actions)).numpy(), rel=1e-4)
    assert ours.entropy == pytest.approx(theirs.entropy().numpy(), rel=1e-5)
    assert {x.dtype for x in (actions, ours.log_prob(actions), ours.entropy)} == {np.dtype(np.float32)}


@settings(max_examples=30, deadline=None)
@given(first=st.integers(0, 30), n_rows=st.integers(2, 40), n=st.integers(1, 20), gaussian=st.booleans())
def test_a_row_is_the_same_whatever_is_beside_it(first: int, n_rows: int, n: int, gaussian: bool) -> None:
    outputs, noise = drawn(70, n).numpy(), uniform(70, n if gaussian else 1).numpy()

    def of(rows: slice) -> list[Array]:
        given = outputs[rows].T.copy()
        chosen = ArrayGaussian(given, np.zeros(n, np.float32)) if gaussian else ArrayCategorical(given)
        actions = chosen.sample(noise[rows])
        return [actions, chosen.mode(), chosen.log_prob(actions)]

    some = slice(first, first + n_rows)
    for alone, together in zip(of(some), of(slice(0, 70)), strict=True):
        assert alone.tolist() == together[some].tolist()


def test_slopes_of_two_even_chances() -> None:
    fair = ArrayCategorical(np.zeros((2, 1), np.float32))
    one = np.ones(1, np.float32)
    assert fair.slopes(np.array([0]), one, 0 * one).tolist() == [[0.5], [-0.5]]
    assert fair.slopes(np.array([0]), 0 * one, one).tolist() == [[0.0], [0.0]]  # where the entropy is greatest
    assert fair.entropy == pytest.approx(math.log(2))


def test_slopes_of_a_standard_normal() -> None:
    normal = ArrayGaussian(np.zeros((1, 1), np.float32), np.zeros(1, np.float32))
    one = np.ones(1, np.float32)
    # at a = 2: z/σ = 2, and z² − 1 = 3
    assert normal.slopes(np.array([[2.0]], np.float32), one, 0 * one).tolist() == [[2.0]]
    assert normal.log_std_slopes.tolist() == [3.0]
    assert normal.slopes(np.array([[2.0]], np.float32), 0 * one, one).tolist() == [[0.0]]
    assert normal.log_std_slopes.tolist() == [1.0]


class OtherHead(CategoricalHead):
    """Makes something else."""

    def distribution(self, outputs: Tensor, action_mask: Tensor | None = None) -> Categorical:
        return type("Other", (Categorical,), {})(outputs, action_mask)  # type: ignore[no-any-return]


def test_heads_are_told_by_what_they_make() -> None:
    assert find_kind(make_head(5, DISCRETE)) is ArrayCategorical
    assert find_kind(make_head(5, BOX)) is ArrayGaussian
    assert find_kind(OtherHead(5, DISCRETE)) is None
    fixed = GaussianHead(5, BOX)
    del fixed.log_std
    fixed.register_buffer("log_std", torch.zeros(3))
    assert not isinstance(fixed.log_std, nn.Parameter)
    assert find_kind(fixed) is None
