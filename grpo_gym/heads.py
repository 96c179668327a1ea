"""The last layer of a policy: from features to the distribution of actions of any space."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from grpo_gym.action_code import ActionCode
from grpo_gym.distributions import (
    CLIPPED,
    ILLEGAL_LOGIT,
    Categorical,
    CategoricalHead,
    DiagonalGaussian,
    GaussianHead,
    GaussianStyle,
)
from grpo_gym.product import MultiCategorical, Product
from grpo_gym.types import Array


class ProductHead(nn.Module):
    """From features to the distribution of actions with several parts: MultiDiscrete, MultiBinary, Dict, Tuple.

    One linear layer gives a number for each alternative of each choice, then those of the real numbers.

    Attributes:
        noise_size: uniform numbers that one action takes, k + d.
        log_std: of the real numbers; None if there are none, or the network gives it.
    """

    index: Tensor
    absent: Tensor

    def __init__(self, n_features: int, code: ActionCode, style: GaussianStyle = CLIPPED):
        super().__init__()
        self.code, self.style = code, style
        sizes, n_reals = code.sizes, len(code.low)
        self.noise_size = len(sizes) + n_reals
        self.linear = nn.Linear(n_features, code.mask_size + style.n_outputs(n_reals))
        self.log_std = style.parameter(n_reals) if n_reals else None
        if not len(sizes):
            return  # no empty buffers: torch.export cannot load them
        # choices of different sizes side by side, [k, max size]: where in a row the alternatives of each are
        alternatives = np.arange(sizes.max())
        first = np.cumsum(sizes) - sizes
        index = np.minimum(first[:, None] + alternatives, code.mask_size - 1)
        self.register_buffer("index", torch.from_numpy(index), persistent=False)
        self.register_buffer("absent", torch.from_numpy(alternatives >= sizes[:, None]), persistent=False)

    def forward(
        self, features: Tensor, action_mask: Tensor | None = None
    ) -> MultiCategorical | DiagonalGaussian | Product:
        """`[M, n_features]` → M distributions."""
        return self.distribution(self.linear(features), action_mask)

    def distribution(
        self, outputs: Tensor, action_mask: Tensor | None = None
    ) -> MultiCategorical | DiagonalGaussian | Product:
        """Outputs of the linear layer, `[M, n]`, and masks `[M, Σ sizes]` or None → M distributions.

        Raises:
            ValueError: if there is an action mask and no choice to be masked.
        """
        k, n_logits = len(self.code.sizes), self.code.mask_size
        if action_mask is not None and not k:
            space = self.code.layout.space
            raise ValueError(f"an action mask was given for {space}; only discrete actions have one")
        reals = self.style.distribution(outputs[:, n_logits:], self.log_std) if len(self.code.low) else None
        if not k:
            assert reals is not None
            return reals
        absent = self.absent if action_mask is None else self.absent | ~action_mask[:, self.index]
        logits = torch.where(absent, ILLEGAL_LOGIT, outputs[:, self.index])
        choices = MultiCategorical(Categorical(logits.flatten(0, 1)), k)
        return choices if reals is None else Product(choices, reals)

    def to_env(self, actions: Array) -> Array:
        """Make rows of the environment's actions, see `ActionCode`: `[M, k + d]` → `[M, ...]`."""
        k, low, high = len(self.code.sizes), self.code.low, self.code.high
        return self.code.to_env(actions[:, :k].astype(np.int64), self.style.within(actions[:, k:], low, high))


ActionHead = CategoricalHead | GaussianHead | ProductHead


def make_head(n_features: int, space: gym.Space[object], style: GaussianStyle = CLIPPED) -> ActionHead:
    """Choose the head for an action space.

    Args:
        n_features: numbers that come from the layers before.
        space: of a single environment.
        style: how real numbers are drawn.

    Raises:
        ValueError: if the space is not supported, a Box has infinite bounds, or the style is for real numbers and
            there are none.
    """
    code = ActionCode(space)
    if not len(code.low):
        for name in ("squash_output", "state_dependent_std"):
            if getattr(style, name):
                raise ValueError(f"{name}=True is about the numbers of a Box, but the action space is {space}")
    if isinstance(space, gym.spaces.Discrete):
        return CategoricalHead(n_features, space)
    if isinstance(space, gym.spaces.Box):
        return GaussianHead(n_features, space, style)
    return ProductHead(n_features, code, style)
