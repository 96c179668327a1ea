"""What a policy must be able to do to be trained."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import Parameter

from grpo_gym.acting import Actor


class Likelihood(Protocol):
    """A batch of M action distributions, as far as learning asks."""

    def log_prob(self, actions: Tensor) -> Tensor:
        """Return log-probabilities (or densities, summed over dimensions) in nats, `[M]`, with gradient."""
        ...

    def entropy(self) -> Tensor:
        """Return the entropies in nats, summed over dimensions, `[M]`, with gradient."""
        ...


class PolicyModel(Actor, Protocol):
    """What `GRPO` asks of a policy: `MlpPolicy` and its like, or any object that has these.

    A class is made as `cls(observation_space, action_space, **policy_kwargs)`, with the agent's
    `normalize_observations` too if it takes that; an object is taken as it is. An `nn.Module` has torch's methods
    already.
    """

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        ...

    def actor(self) -> Actor:
        """Return what acts as this policy does now; it may be the policy itself."""
        ...

    def preprocess(self, observations: Tensor) -> Tensor:
        """Make what `__call__` takes of observations `[M, ...]`, rows as `layout.Layout` has them; once a batch."""
        ...

    def __call__(self, features: Tensor, action_masks: Tensor | None = None) -> Likelihood:
        """Return the distributions of actions for preprocessed observations `[M, ...]`."""
        ...

    def flatten(self, observations: Tensor) -> Tensor:
        """Describe observations `[M, ...]` by numbers `[M, d]` that never change: what tells states apart."""
        ...

    def observe(self, observations: Tensor) -> None:
        """Take note of the observations of a finished iteration, for a running normalisation; or do nothing."""
        ...

    def parameters(self) -> Iterator[Parameter]:
        """Return what the optimiser changes."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return all that a checkpoint keeps."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any], strict: bool = True) -> Any:
        """Take it back."""
        ...

    def to(self, device: torch.device) -> Any:
        """Move to a device, and return the policy that is there."""
        ...
