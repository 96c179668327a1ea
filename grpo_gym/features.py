"""Networks in front of the layers of a policy: from observations to features.

A class of your own is made as `cls(observation_space, **features_extractor_kwargs)`, has an attribute `features_dim`,
and gets floats: images `[M, C, H, W]`, divided by 255 if `normalize_images`; of a Dict or Tuple a dict of all parts,
by the keys that lead to them ("outer/inner"). `observation_space` is that of what it gets. stable-baselines3's
feature extractors are such classes.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import torch
from torch import Tensor, nn

from grpo_gym.preprocessing import flat_size, is_image

SMALLEST_NATURE = 36
"""Height and width from which the Nature network has something left to look at."""


class ImageFeatures(nn.Module):
    """A convolutional network for images `[M, C, H, W]`.

    From 36×36 on that of Mnih et al. 2015, "Human-level control through deep reinforcement learning": 8×8, 4×4 and 3×3
    fields in steps of 4, 2 and 1. For smaller images three layers of 3×3 in steps of 1, 2 and 2, which never run out
    of pixels.

    Args:
        space: a Box of three axes, channels first.
        features_dim: features that come out.
    """

    def __init__(self, space: gym.spaces.Box, features_dim: int = 512):
        super().__init__()
        self.features_dim = features_dim
        n_channels, height, width = space.shape
        if min(height, width) >= SMALLEST_NATURE:
            layers = [(n_channels, 32, 8, 4, 0), (32, 64, 4, 2, 0), (64, 64, 3, 1, 0)]
        else:
            layers = [(n_channels, 16, 3, 1, 1), (16, 32, 3, 2, 1), (32, 32, 3, 2, 1)]
        modules: list[nn.Module] = []
        for n_in, n_out, field, stride, padding in layers:
            modules += [nn.Conv2d(n_in, n_out, field, stride, padding), nn.ReLU()]
            height, width = ((side + 2 * padding - field) // stride + 1 for side in (height, width))
        n_flat = layers[-1][1] * height * width
        self.network = nn.Sequential(*modules, nn.Flatten(), nn.Linear(n_flat, features_dim), nn.ReLU())

    def forward(self, images: Tensor) -> Tensor:
        """`[M, C, H, W]` → `[M, features_dim]`."""
        features: Tensor = self.network(images)
        return features


class CombinedFeatures(nn.Module):
    """`ImageFeatures` for each image of a Dict, and all that is no image as it is.

    Args:
        space: the parts by name; images with their channels first.
        image_features_dim: features of each image.
        normalized_image: see `preprocessing.is_image`.
    """

    def __init__(self, space: gym.spaces.Dict, image_features_dim: int = 256, normalized_image: bool = False):
        super().__init__()
        self.image_names = [name for name, part in space.spaces.items() if is_image(part, normalized_image)]
        self.other_names = [name for name in space.spaces if name not in self.image_names]
        images: Any = [space[name] for name in self.image_names]
        # a list: a ModuleDict accepts not every name
        self.images = nn.ModuleList([ImageFeatures(image, image_features_dim) for image in images])
        n_others = sum(flat_size(space[name]) for name in self.other_names)
        self.features_dim = len(images) * image_features_dim + n_others

    def forward(self, parts: dict[str, Tensor]) -> Tensor:
        """Parts `[M, ...]` by name → `[M, features_dim]`."""
        features = [network(parts[name]) for name, network in zip(self.image_names, self.images, strict=True)]
        return torch.cat(
            [*features, *(parts[name].reshape(parts[name].shape[0], -1) for name in self.other_names)], dim=1
        )


EXTRACTORS: dict[str, type[nn.Module]] = {
    "grpo_gym.ImageFeatures": ImageFeatures,
    "grpo_gym.CombinedFeatures": CombinedFeatures,
}
"""Classes that a checkpoint may name as `features_extractor_class`."""


def find_features_dim(extractor: nn.Module) -> int:
    """Return how many features come out of an extractor.

    Raises:
        TypeError: if it does not say.
    """
    dim = getattr(extractor, "features_dim", None)
    if not isinstance(dim, int) or dim < 1:
        raise TypeError(
            f"{type(extractor).__name__}.features_dim is {dim!r}, expected a whole number of at least 1: a "
            "features_extractor_class must say how many features it makes"
        )
    return dim
