import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grpo_gym.normalize import RunningNormalizer

batches = st.lists(
    st.lists(st.tuples(*[st.floats(-100, 100, width=32)] * 2), min_size=1, max_size=5), min_size=1, max_size=5
)


def test_before_the_first_update_it_changes_nothing() -> None:
    x = torch.tensor([[0.5, -3.0], [9.0, 0.0]])
    assert torch.equal(RunningNormalizer(2)(x), x)


def test_by_hand() -> None:
    normalizer = RunningNormalizer(1)
    normalizer.update(torch.tensor([[1.0], [3.0]]))  # mean 2, variance 1
    assert normalizer(torch.tensor([[1.0], [2.0], [4.0]]))[:, 0].tolist() == pytest.approx([-1, 0, 2])
    normalizer.update(torch.tensor([[2.0], [6.0]]))  # of 1, 3, 2, 6: mean 3, variance (4 + 0 + 1 + 9) / 4
    assert normalizer.mean.item() == 3.0
    assert normalizer.variance.item() == 3.5
    assert normalizer.count.item() == 4


@given(batches)
def test_batches_one_by_one_are_the_same_as_all_at_once(given_: list[list[tuple[float, float]]]) -> None:
    normalizer = RunningNormalizer(2)
    for batch in given_:
        normalizer.update(torch.tensor(batch))
    everything = np.concatenate([np.array(batch) for batch in given_])
    assert normalizer.mean.numpy() == pytest.approx(everything.mean(axis=0), abs=1e-9)
    assert normalizer.variance.numpy() == pytest.approx(everything.var(axis=0), abs=1e-6)
    assert normalizer.count.item() == len(everything)


def test_a_large_offset_costs_no_accuracy() -> None:
    normalizer = RunningNormalizer(1)
    for _ in range(100):
        normalizer.update(torch.tensor([[1e6 - 1.0], [1e6 + 1.0]]))
    assert normalizer.variance.item() == pytest.approx(1.0, abs=1e-9)


def test_what_lies_far_out_is_clipped_to_ten_deviations() -> None:
    normalizer = RunningNormalizer(1)
    normalizer.update(torch.tensor([[-1.0], [1.0]]))
    assert normalizer(torch.tensor([[1e9], [-1e9]]))[:, 0].tolist() == [10, -10]


def test_a_dimension_that_never_changes_becomes_zero() -> None:
    normalizer = RunningNormalizer(1)
    for _ in range(3):
        normalizer.update(torch.full((7, 1), 0.1))
    assert normalizer(torch.full((2, 1), 0.1)).tolist() == [[0], [0]]


def test_one_observation_is_enough() -> None:
    normalizer = RunningNormalizer(2)
    normalizer.update(torch.tensor([[5.0, -5.0]]))
    assert normalizer(torch.tensor([[5.0, -5.0]])).tolist() == [[0, 0]]


def test_looking_does_not_change_it() -> None:
    normalizer = RunningNormalizer(1)
    normalizer.update(torch.tensor([[1.0], [3.0]]))
    before = {name: value.clone() for name, value in normalizer.state_dict().items()}
    normalizer.train()
    normalizer(torch.tensor([[100.0]]))
    assert all(torch.equal(value, before[name]) for name, value in normalizer.state_dict().items())


def test_it_is_saved_and_restored_with_all_its_digits() -> None:
    one, other = RunningNormalizer(2), RunningNormalizer(2)
    one.update(torch.rand(9, 2, generator=torch.Generator().manual_seed(0)))
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.mean, other.mean)
    assert torch.equal(one.variance, other.variance)
    assert other.mean.dtype == torch.float64
    assert other.count == 9


def test_it_has_nothing_to_train() -> None:
    assert not list(RunningNormalizer(3).parameters())
