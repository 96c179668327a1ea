"""Policies: observation to action distribution. There is no value network."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from grpo_gym.acting import Actor, BlockActor, MlpActor, knows
from grpo_gym.distributions import Distribution, GaussianStyle
from grpo_gym.features import CombinedFeatures, ImageFeatures, find_features_dim
from grpo_gym.heads import make_head
from grpo_gym.normalize import RunningNormalizer
from grpo_gym.prediction import Prediction
from grpo_gym.preprocessing import Preprocessor
from grpo_gym.types import Array, BoolArray, FloatArray


class MlpPolicy(nn.Module):
    """A multi-layer perceptron on the flattened observation, or on what a features extractor makes of it.

    Args:
        observation_space: of a single environment: Box, Discrete, MultiDiscrete, MultiBinary, or a Dict or Tuple of
            these.
        action_space: of a single environment; the same, Boxes with finite bounds.
        net_arch: hidden layers' widths; None for `NET_ARCH`. stable-baselines3's `dict(pi=[...])` is accepted; `vf`
            is refused.
        activation_fn: class of the activation between layers.
        ortho_init: orthogonal weights, gain √2 in the body and 0.01 at the action head, zero biases.
        log_std_init: initial log standard deviation of Box actions.
        one_hot_observations: see `preprocessing.preprocess`.
        normalize_observations: keep a `RunningNormalizer` in front of the first layer; with a features extractor
            in front of that, for all that is no image (and none if nothing else is there).
        normalize_images: see `preprocessing.Preprocessor`.
        squash_output: see `distributions.GaussianStyle`.
        state_dependent_std: the same.
        features_extractor_class: what stands before the layers, see `features`; None for `EXTRACTOR`.
        features_extractor_kwargs: its further arguments.

    Raises:
        ValueError: for a space that is not supported, a value network's `net_arch`, or arguments that do not fit the
            spaces.
    """

    NET_ARCH: ClassVar[tuple[int, ...]] = (64, 64)
    EXTRACTOR: ClassVar[type[nn.Module] | None] = None
    KIND: ClassVar[str] = "Policy"  # how the names end of those for other observations

    def __init__(
        self,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        net_arch: Iterable[int] | dict[str, Iterable[int]] | None = None,
        activation_fn: type[nn.Module] = nn.Tanh,
        ortho_init: bool = True,
        log_std_init: float = 0.0,
        one_hot_observations: bool = False,
        normalize_observations: bool = False,
        normalize_images: bool = True,
        squash_output: bool = False,
        state_dependent_std: bool = False,
        features_extractor_class: type[nn.Module] | None = None,
        features_extractor_kwargs: dict[str, Any] | None = None,
    ):
        super().__init__()
        self.observation_space, self.action_space = observation_space, action_space
        extractor_class = features_extractor_class or self.EXTRACTOR
        if one_hot_observations and extractor_class is not None:
            raise ValueError("one_hot_observations=True is for MlpPolicy, without a features extractor")
        self.preprocessor = Preprocessor(observation_space, one_hot_observations, normalize_images)
        self._check_observations()
        style = GaussianStyle(log_std_init, state_dependent_std, squash_output)
        self._prediction = Prediction(observation_space, action_space)
        self.features_extractor: nn.Module | None = None
        size = self.preprocessor.size
        if extractor_class is not None:
            self.features_extractor = self._make_extractor(extractor_class, features_extractor_kwargs or {})
            size = find_features_dim(self.features_extractor)
        elif features_extractor_kwargs:
            raise ValueError(f"features_extractor_kwargs={features_extractor_kwargs} and no features_extractor_class")
        normalized = size if self.features_extractor is None else self.preprocessor.vector_size
        self.normalizer = RunningNormalizer(normalized) if normalize_observations and normalized else None
        size = self._make_memory(size)
        layers: list[nn.Module] = []
        for width in _hidden_widths(self.NET_ARCH if net_arch is None else net_arch):
            layers += [nn.Linear(size, width), activation_fn()]
            size = width
        self.body = nn.Sequential(*layers)
        self.head = make_head(size, action_space, style)
        if ortho_init:
            for module in (self.features_extractor or nn.Sequential()).modules():
                _orthogonal(module, gain=2**0.5)
            for module in self.body:
                _orthogonal(module, gain=2**0.5)
            _orthogonal(self.head.linear, gain=0.01)
        self.eval()  # what acts and what learns is one function: the ratio of the two begins at 1

    def _check_observations(self) -> None:
        """Refuse observations that are for another class; every space will do for this one."""

    def _make_extractor(self, extractor_class: type[nn.Module], kwargs: dict[str, Any]) -> nn.Module:
        spaces: Any = self.preprocessor.spaces()
        if extractor_class is CombinedFeatures and not self.preprocessor.normalize_images:
            kwargs = {"normalized_image": True, **kwargs}
        plain = self.preprocessor.layout.is_plain
        return extractor_class(spaces[""] if plain else gym.spaces.Dict(spaces), **kwargs)

    def _make_memory(self, n_features: int) -> int:
        """Make what stands between the features and the layers; return how many numbers come out of it."""
        return n_features

    @property
    def noise_size(self) -> int:
        """Uniform numbers that one action takes."""
        return self.head.noise_size

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.head.linear.weight.device

    def flatten(self, observations: Tensor) -> Tensor:
        """Describe observations `[M, ...]` by numbers `[M, d]`, not normalised: the same function for ever.

        Images are averaged over at most 8×8 fields of each channel, see `Preprocessor.sketch`.
        """
        return self.preprocessor.sketch(observations)

    def preprocess(self, observations: Tensor) -> Tensor:
        """Make what `forward` takes of observations `[M, ...]`; done once for a whole batch.

        That is `[M, d]`, flat and normalised. With a features extractor it is what was given: bytes of images stay
        bytes until they are looked at.
        """
        if self.features_extractor is not None:
            return observations
        flat = self.preprocessor.flat(observations)
        return flat if self.normalizer is None else self.normalizer.forward(flat)

    def forward(self, features: Tensor, action_masks: Tensor | None = None) -> Distribution:
        """Preprocessed observations `[M, ...]`, and masks `[M, n]` or None → M action distributions."""
        return self.head.forward(self.body(self._extract(features)), action_masks)

    def _extract(self, features: Tensor) -> Tensor:
        """Preprocessed observations `[M, ...]` → what the layers, or the memory before them, take, `[M, d]`."""
        if self.features_extractor is None:
            return features
        extracted: Tensor = self.features_extractor(self._extractor_inputs(features))
        return extracted

    def _extractor_inputs(self, observations: Tensor) -> Any:
        vector = None if self.normalizer is None else self.normalizer.forward(self.preprocessor.vector(observations))
        parts = self.preprocessor.structured(observations, vector)
        return parts[""] if self.preprocessor.layout.is_plain else parts

    def get_distribution(self, observations: Tensor, action_masks: Tensor | None = None) -> Distribution:
        """Return the action distributions for raw observations `[M, ...]`."""
        return self.forward(self.preprocess(observations), action_masks)

    def evaluate_actions(
        self, observations: Tensor, actions: Tensor, action_masks: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return `(log_prob [M], entropy [M])` of raw observations and actions.

        stable-baselines3 returns `(values, log_prob, entropy)` here; without a critic there are no values.
        """
        distribution = self.get_distribution(observations, action_masks)
        return distribution.log_prob(actions), distribution.entropy()

    @torch.inference_mode()
    def act(
        self, observations: Array, noise: FloatArray | None, action_masks: BoolArray | None = None
    ) -> tuple[Array, FloatArray]:
        """Choose actions, by the given noise or, without any, the most probable ones.

        Args:
            observations: `[M, ...]`.
            noise: uniform in (0, 1), `[M, head.noise_size]`; None for the mode.
            action_masks: `[M, n_actions]` or None.

        Returns:
            Actions as the loss wants them (not clipped, counted from 0) and their log-probabilities `[M]`.
        """
        device = self.device
        masks = None if action_masks is None else torch.from_numpy(action_masks).to(device)
        distribution = self.get_distribution(torch.from_numpy(observations).to(device), masks)
        if noise is None:
            actions = distribution.mode()
        else:
            actions = distribution.sample(torch.from_numpy(noise).to(device))
        return actions.cpu().numpy(), distribution.log_prob(actions).cpu().numpy()

    def predict(
        self,
        observation: Any,
        deterministic: bool = False,
        action_masks: Any = None,
        rng: np.random.Generator | None = None,
    ) -> Any:
        """Choose actions for one observation or a batch, ready for the environment; see `Prediction.predict`."""
        return self._prediction.predict(self, observation, deterministic, action_masks, rng)

    def actor(self) -> Actor:
        """Return what acts as this policy does now, as fast as it can; by itself where it, or a part, is your own."""
        if type(self) is MlpPolicy and knows(self):
            return MlpActor(self)
        return BlockActor(self) if self.device.type == "cpu" else self

    def to_env(self, actions: Array) -> Array:
        """Turn the network's actions into the environment's: clipped, shifted, as rows of its `Layout`."""
        return self.head.to_env(actions)

    def observe(self, observations: Tensor) -> None:
        """Take the raw observations of a finished rollout into the normaliser, if there is one."""
        if self.normalizer is not None:
            flat = self.preprocessor.flat if self.features_extractor is None else self.preprocessor.vector
            self.normalizer.update(flat(observations).to(self.device))


class CnnPolicy(MlpPolicy):
    """A convolutional network on images, `features.ImageFeatures`, and a layer of action outputs.

    Images are bytes from 0 to 255, `[H, W, C]` or `[C, H, W]`: channels are the smallest axis. With
    `normalize_images=False` they may be of any numbers, and are not scaled.
    """

    NET_ARCH: ClassVar[tuple[int, ...]] = ()
    EXTRACTOR: ClassVar[type[nn.Module] | None] = ImageFeatures

    def _check_observations(self) -> None:
        space = self.observation_space
        if not self.preprocessor.layout.is_plain:
            raise ValueError(
                f"{type(self).__name__} is for images alone, got {space}; use policy='MultiInput{self.KIND}'"
            )
        if not self.preprocessor.images[0]:
            raise ValueError(
                f"{type(self).__name__} expects images, Box(0, 255, (height, width, channels), uint8) or channels "
                f"first, got {space}; use policy='Mlp{self.KIND}', or for images of other numbers "
                "policy_kwargs={'normalize_images': False}"
            )


class MultiInputPolicy(MlpPolicy):
    """For a Dict or Tuple: `features.ImageFeatures` for each image, everything else flat, then a perceptron.

    Of what counts as an image see `CnnPolicy`. `MlpPolicy` lays the images out number by number.
    """

    EXTRACTOR = CombinedFeatures

    def _check_observations(self) -> None:
        if self.preprocessor.layout.is_plain:
            better = ("Cnn" if self.preprocessor.images[0] else "Mlp") + self.KIND
            raise ValueError(
                f"{type(self).__name__} expects a Dict or Tuple of observations, got {self.observation_space}; use "
                f"policy={better!r}"
            )


def _hidden_widths(net_arch: Iterable[int] | dict[str, Iterable[int]]) -> list[int]:
    if isinstance(net_arch, dict):
        if "vf" in net_arch:
            raise ValueError(
                f"net_arch={net_arch} has layers for a value network, but GRPO is critic-free: give only 'pi', "
                "or a plain list of widths"
            )
        return list(net_arch.get("pi", ()))
    return list(net_arch)


def _orthogonal(module: nn.Module, gain: float) -> None:
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.orthogonal_(module.weight, gain)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
