import pytest
import torch
from torch import Tensor

from grpo_gym.gradient_noise import GradientNoise


def scale_of(gradients: list[list[float]], batch_size: float) -> float | None:
    noise = GradientNoise()
    for gradient in gradients:
        noise.add([torch.tensor(gradient)])
    return noise.scale(batch_size)


def test_the_noise_scale_by_hand() -> None:
    # mean (2, 0); squared distances 1 + 1, over n − 1 = 1, times 10 rows, over |(2, 0)|² = 4
    assert scale_of([[1.0, 0.0], [3.0, 0.0]], 10) == 5.0
    # mean (0, 2); squared distances 9 + 0 + 9, over 2, times 8, over 4
    assert scale_of([[3.0, 2.0], [0.0, 2.0], [-3.0, 2.0]], 8) == 18.0


def test_gradients_that_agree_have_no_noise() -> None:
    assert scale_of([[1.0, -2.0]] * 5, 64) == 0.0


@pytest.mark.parametrize("gradients", [[], [[1.0, 2.0]], [[0.0, 0.0]] * 3, [[1.0, 2.0], [-1.0, -2.0]]])
def test_one_gradient_or_none_on_average_says_nothing(gradients: list[list[float]]) -> None:
    assert scale_of(gradients, 64) is None


def test_the_parameters_are_taken_together() -> None:
    noise = GradientNoise()
    noise.add([torch.tensor([[1.0]]), torch.tensor([0.0])])
    noise.add([torch.tensor([[3.0]]), torch.tensor([0.0])])
    assert noise.scale(10) == 5.0


def test_what_is_added_may_be_overwritten_afterwards() -> None:
    gradient, noise = torch.tensor([1.0]), GradientNoise()
    noise.add([gradient])
    noise.add([gradient.mul_(3.0)])
    # mean 2; squared distances 1 + 1, over 1, over 4
    assert noise.scale(1) == 0.5


@pytest.mark.parametrize("batch_size", [4, 64])
def test_the_size_of_the_minibatches_makes_no_difference(batch_size: int) -> None:
    # rows with gradients of mean (1, 1) and variance 10 each: tr Σ / |g|² = 20 / 2
    rows: Tensor = 1 + 10**0.5 * torch.randn(64_000, 2, generator=torch.Generator().manual_seed(0))
    means = rows.view(-1, batch_size, 2).mean(dim=1)
    assert scale_of(means.tolist(), batch_size) == pytest.approx(10, rel=0.1)


def test_noise_alone_gives_about_the_rows_of_the_pass() -> None:
    found = [
        scale_of((torch.randn(20, 50, generator=torch.Generator().manual_seed(seed)) / 8).tolist(), 64)
        for seed in range(20)
    ]
    assert sum(scale or 0 for scale in found) / 20 == pytest.approx(20 * 64, rel=0.2)
