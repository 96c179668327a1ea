"""Trained policies for deployment: one file that torch alone can load and run, without this package.

policy = torch.export.load("agent.pt2").module()
actions = policy(torch.from_numpy(observations))
"""

from __future__ import annotations

import copy
import io
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from grpo_gym.policy import MlpPolicy
from grpo_gym.policy_model import PolicyModel
from grpo_gym.types import Array

N_SAMPLES = 64
"""Observations on which an exported policy is compared with the one it came from."""


class Deployed(nn.Module):
    """From what an environment shows to what it takes: the most probable actions.

    Args:
        policy: on the CPU; becomes a part of it.
    """

    def __init__(self, policy: MlpPolicy):
        super().__init__()
        self.policy, self.space = policy, policy.action_space
        if isinstance(self.space, gym.spaces.Box):
            for name in ("low", "high"):
                self.register_buffer(name, torch.from_numpy(getattr(self.space, name)))

    def forward(self, observations: Tensor, action_masks: Tensor | None = None) -> Tensor:
        """Observations `[n, ...]`, and masks `[n, n_actions]` if it was exported with them → actions `[n, ...]`."""
        actions = self.policy.get_distribution(observations, action_masks).mode()
        if isinstance(self.space, gym.spaces.Discrete):
            return actions + int(self.space.start)
        shaped = actions.reshape(-1, *self.space.shape)  # type: ignore[misc]
        return shaped.clamp(self.get_buffer("low"), self.get_buffer("high")).to(self.get_buffer("low").dtype)


def exported(policy: PolicyModel, action_masks: bool = False) -> bytes:
    """Pack a policy as `torch.export.save` does.

    Args:
        policy: is left as it is.
        action_masks: the exported policy takes masks.

    Returns:
        A `.pt2` file.

    Raises:
        ValueError: if it has a memory or an action space that cannot be exported, or would not act as it does here.
    """
    if not isinstance(policy, MlpPolicy):
        raise ValueError(f"{type(policy).__name__} cannot be exported; expected MlpPolicy, or a subclass of it")
    if isinstance(policy.observation_space, gym.spaces.Dict | gym.spaces.Tuple):
        raise ValueError(f"observations of {policy.observation_space} cannot be exported; expected one array")
    if not isinstance(policy.action_space, gym.spaces.Discrete | gym.spaces.Box):
        raise ValueError(f"actions of {policy.action_space} cannot be exported; expected Discrete or Box")
    if getattr(policy, "memory_size", 0):
        raise ValueError(f"{type(policy).__name__} has a memory and cannot be exported; expected a policy without")
    policy = copy.deepcopy(policy).cpu().eval().requires_grad_(False)
    observations, masks = _samples(policy, action_masks)
    inputs = tuple(torch.from_numpy(x) for x in (observations, masks) if x is not None)
    shapes = [{0: torch.export.Dim.DYNAMIC}] * len(inputs)
    program = torch.export.export(Deployed(policy), inputs, dynamic_shapes=shapes)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    theirs = np.concatenate([loaded(*(x[:1] for x in inputs)).numpy(), loaded(*inputs).numpy()[1:]])
    ours = policy.predict(observations, deterministic=True, action_masks=masks)
    if theirs.dtype != ours.dtype or not np.allclose(theirs, ours, rtol=1e-5, atol=1e-5):
        raise ValueError(
            f"{type(policy).__name__} does not act alike once it is exported, {theirs[:3]} and not {ours[:3]}, so no "
            "file was written; its get_distribution(observations, masks).mode() must be what predict makes actions of"
        )
    return file.getvalue()


def _samples(policy: MlpPolicy, action_masks: bool) -> tuple[Array, Array | None]:
    """Draw observations and masks to compare by."""
    space: gym.Space[Any] = copy.deepcopy(policy.observation_space)
    space.seed(0)
    observations = np.stack([space.sample() for _ in range(N_SAMPLES)])
    if not action_masks:
        return observations, None
    masks = np.random.default_rng(0).random((N_SAMPLES, policy.head.linear.out_features)) < 0.5
    masks[:, 0] |= ~masks.any(axis=1)
    return observations, masks
