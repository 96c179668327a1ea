from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete

from grpo_gym.preprocessing import Preprocessor, flat_size, preprocess

ALL_SUPPORTED = [
    Box(-1.0, 1.0, (2, 3), np.float32),
    Box(-1.0, 1.0, (), np.float32),
    Box(-np.inf, np.inf, (4,), np.float64),
    Box(0, 255, (3, 3, 1), np.uint8),
    Discrete(4),
    Discrete(4, start=-2),
    MultiDiscrete([2, 3]),
    MultiDiscrete(np.array([[2, 3], [4, 5]])),
    MultiDiscrete([2, 3], start=[5, -1]),
    MultiDiscrete([2, 3], dtype=np.uint16),
    MultiBinary(3),
    MultiBinary([2, 2]),
]


@pytest.mark.parametrize("space", ALL_SUPPORTED, ids=str)
def test_every_supported_space_becomes_flat_floats_of_the_stated_size(space: gym.Space[Any]) -> None:
    space.seed(0)
    samples = np.stack([np.asarray(space.sample()) for _ in range(5)])
    flat = preprocess(torch.from_numpy(samples), space)
    assert flat.shape == (5, flat_size(space))
    assert flat.dtype == torch.float32


def test_what_measures_is_left_as_it_is() -> None:
    flat = preprocess(torch.tensor([[[1.5, -2.0], [3.0, 400.0]]]), Box(-1e3, 1e3, (2, 2)))
    assert flat.tolist() == [[1.5, -2.0, 3.0, 400.0]]


def test_a_discrete_observation_is_one_hot_from_its_start() -> None:
    assert preprocess(torch.tensor([-1, 1]), Discrete(3, start=-1)).tolist() == [[1, 0, 0], [0, 0, 1]]


def test_a_multidiscrete_observation_is_one_hot_entry_by_entry() -> None:
    space = MultiDiscrete([2, 3], start=[5, -1])
    assert preprocess(torch.tensor([[5, 1], [6, -1]]), space).tolist() == [[1, 0, 0, 0, 1], [0, 1, 1, 0, 0]]


def test_bits_stay_bits() -> None:
    assert preprocess(torch.tensor([[1, 0, 1]], dtype=torch.int8), MultiBinary(3)).tolist() == [[1, 0, 1]]


def test_levels_of_an_integer_box_can_be_told_apart() -> None:
    space = Box(-1, 1, (2,), np.int8)
    one_hot = preprocess(torch.tensor([[-1, 1], [0, 0]], dtype=torch.int8), space, one_hot=True)
    assert one_hot.tolist() == [[1, 0, 0, 0, 0, 1], [0, 1, 0, 0, 1, 0]]
    assert flat_size(space, one_hot=True) == 6


def test_one_hot_levels_need_an_integer_box() -> None:
    with pytest.raises(ValueError, match=r"one_hot_observations=True expects an integer Box, got Box"):
        flat_size(Box(-1.0, 1.0, (2,)), one_hot=True)


def test_one_hot_levels_are_at_most_256() -> None:
    assert flat_size(Box(0, 255, (1,), np.uint8), one_hot=True) == 256
    with pytest.raises(ValueError, match=r"at most 256 levels an entry, got 257"):
        flat_size(Box(0, 256, (1,), np.int32), one_hot=True)


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (gym.spaces.Dict({"mission": gym.spaces.Text(9)}), "'mission'.*Text.*FlattenObservation"),
        (gym.spaces.Tuple([Discrete(2), gym.spaces.Text(3)]), r"'1' is a Text"),
        (gym.spaces.Text(5), "Text"),
        (gym.spaces.Sequence(Discrete(2)), "Sequence"),
        (gym.spaces.Graph(Discrete(2), None), "Graph"),
    ],
)
def test_other_observation_spaces_are_refused_by_name(space: gym.Space[Any], words: str) -> None:
    with pytest.raises(ValueError, match="not supported") as caught:
        Preprocessor(space)
    caught.match(words)
    caught.match("expected Box, Discrete, MultiDiscrete, MultiBinary")
