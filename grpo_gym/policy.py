"""The policy: observation to action distribution. There is no value network."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from grpo_gym.acting import Actor, MlpActor, knows
from grpo_gym.distributions import Distribution, make_head
from grpo_gym.groups import uniform_noise
from grpo_gym.normalize import RunningNormalizer
from grpo_gym.preprocessing import flat_size, preprocess
from grpo_gym.types import Array, BoolArray, FloatArray


class MlpPolicy(nn.Module):
    """A multi-layer perceptron on the flattened observation.

    Args:
        observation_space: of a single environment.
        action_space: of a single environment; Discrete or Box with finite bounds.
        net_arch: hidden layers' widths. stable-baselines3's `dict(pi=[...])` is accepted; `vf` is refused.
        activation_fn: class of the activation between layers.
        ortho_init: orthogonal weights, gain √2 in the body and 0.01 at the action head, zero biases.
        log_std_init: initial log standard deviation of Box actions.
        one_hot_observations: see `preprocessing.preprocess`.
        normalize_observations: keep a `RunningNormalizer` in front of the first layer.

    Raises:
        ValueError: for a space that is not supported, or a value network's `net_arch`.
    """

    def __init__(
        self,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        net_arch: Iterable[int] | dict[str, Iterable[int]] = (64, 64),
        activation_fn: type[nn.Module] = nn.Tanh,
        ortho_init: bool = True,
        log_std_init: float = 0.0,
        one_hot_observations: bool = False,
        normalize_observations: bool = False,
    ):
        super().__init__()
        self.observation_space, self.action_space = observation_space, action_space
        self.one_hot_observations = one_hot_observations
        size = flat_size(observation_space, one_hot_observations)
        self.normalizer = RunningNormalizer(size) if normalize_observations else None
        layers: list[nn.Module] = []
        for width in _hidden_widths(net_arch):
            layers += [nn.Linear(size, width), activation_fn()]
            size = width
        self.body = nn.Sequential(*layers)
        self.head = make_head(size, action_space, log_std_init)
        if ortho_init:
            for module in self.body:
                _orthogonal(module, gain=2**0.5)
            _orthogonal(self.head.linear, gain=0.01)

    @property
    def noise_size(self) -> int:
        """Uniform numbers that one action takes."""
        return self.head.noise_size

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.head.linear.weight.device

    def flatten(self, observations: Tensor) -> Tensor:
        """Flatten observations `[M, ...]` → `[M, d]`, not normalised: the same function for ever."""
        return preprocess(observations, self.observation_space, self.one_hot_observations)

    def preprocess(self, observations: Tensor) -> Tensor:
        """Flatten and normalise observations `[M, ...]` → `[M, d]`; done once for a whole batch."""
        flat = self.flatten(observations)
        return flat if self.normalizer is None else self.normalizer.forward(flat)

    def forward(self, features: Tensor, action_masks: Tensor | None = None) -> Distribution:
        """Preprocessed observations `[M, d]`, and masks `[M, n]` or None → M action distributions."""
        return self.head.forward(self.body(features), action_masks)

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
        """Choose actions for one observation or a batch, ready for the environment.

        Args:
            observation: `[...]` for one, `[M, ...]` for a batch.
            deterministic: take the most probable actions.
            action_masks: legal actions, `[n]` or `[M, n]`; None if all are.
            rng: source of the noise; needed unless `deterministic`.

        Returns:
            The action of one observation (a NumPy scalar for Discrete), or an array `[M, ...]`.

        Raises:
            ValueError: if the observation has another shape than the observation space.
        """
        if isinstance(observation, tuple):
            raise ValueError("predict got a tuple: env.reset() returns (observation, info), pass only the observation")
        # a copy: what is read-only or strided is fine for NumPy but not for torch
        array = np.array(observation, dtype=self.observation_space.dtype)
        shape = self.observation_space.shape or ()
        single = array.shape == shape
        if not single and array.shape[1:] != shape:
            raise ValueError(
                f"predict got an observation of shape {array.shape}, expected {shape} for one or "
                f"{('n', *shape)} for a batch (observation space {self.observation_space})"
            )
        batch = array[None] if single else array
        if not np.isfinite(batch).all():
            raise ValueError(f"predict got an observation that is not finite: {observation!r}")
        masks = None if action_masks is None else np.asarray(action_masks, dtype=np.bool_)
        if masks is not None:
            masks = masks.reshape(len(batch), -1)
            n_actions = self.head.linear.out_features
            if masks.shape[1] != n_actions:
                raise ValueError(f"action_masks have {masks.shape[1]} entries an observation, expected {n_actions}")
            if not masks.any(axis=1).all():
                raise ValueError(f"action_masks={action_masks!r} allow nothing; expected at least one legal action")
        noise = None
        if not deterministic:
            if rng is None:
                raise ValueError("predict(deterministic=False) needs a random generator rng")
            noise = uniform_noise(rng, (len(batch), self.head.noise_size))
        actions = self.to_env(self.act(batch, noise, masks)[0])
        return actions[0] if single else actions

    def actor(self) -> Actor:
        """Return what acts as this policy does now, as fast as it can; a subclass acts itself."""
        return MlpActor(self) if type(self) is MlpPolicy and knows(self) else self

    def to_env(self, actions: Array) -> Array:
        """Turn the network's actions into the environment's: clipped, shifted, in the space's shape."""
        return self.head.to_env(actions)

    def observe(self, observations: Tensor) -> None:
        """Take the raw observations of a finished rollout into the normaliser, if there is one."""
        if self.normalizer is not None:
            self.normalizer.update(self.flatten(observations).to(self.device))


POLICIES: dict[str, type[MlpPolicy]] = {"MlpPolicy": MlpPolicy}
"""Policies by the name that `GRPO(policy=...)` takes."""


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
    if isinstance(module, nn.Linear):
        nn.init.orthogonal_(module.weight, gain)
        nn.init.zeros_(module.bias)
