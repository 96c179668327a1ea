"""A policy from end to end: what an environment shows in, what it takes out, all in tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from grpo_gym.action_code import ActionCode
from grpo_gym.distributions import CLIPPED
from grpo_gym.policy import MlpPolicy
from grpo_gym.preprocessing import torch_type
from grpo_gym.recurrent import MlpGruPolicy


class EnvActions(nn.Module):
    """From the numbers that a policy chooses to the environment's actions: for tensors what `to_env` is for arrays.

    Args:
        policy: whose actions they are.
    """

    starts: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, policy: MlpPolicy):
        super().__init__()
        self.code = ActionCode(policy.action_space)
        self.squash: bool = getattr(policy.head, "style", CLIPPED).squash_output
        self.n_choices, self.n_reals = len(self.code.sizes), len(self.code.low)
        # no empty buffers: torch.export takes them all for one, and cannot load that
        for name in ("starts",) * bool(self.n_choices) + ("low", "high") * bool(self.n_reals):
            self.register_buffer(name, torch.from_numpy(getattr(self.code, name)))

    def forward(self, actions: Tensor) -> Any:
        """`[n]` or `[n, k + d]` → a tensor `[n, ...]`; of a Dict or Tuple a dict or tuple of such."""
        columns = actions.reshape(actions.shape[0], self.n_choices + self.n_reals)
        choices, reals = columns[:, : self.n_choices].long(), columns[:, self.n_choices :]
        if self.n_choices:
            choices = choices + self.starts
        if self.squash:
            reals = self.low + (reals.tanh() + 1) / 2 * (self.high - self.low)
        if self.n_reals:
            reals = reals.clamp(self.low, self.high)
        layout = self.code.layout
        parts = zip(self.code.deal(choices, reals), layout.leaves, strict=True)
        return layout.nest(part.to(torch_type(leaf.dtype)) for part, leaf in parts)


class Deployed(nn.Module):
    """Chooses the most probable actions.

    Args:
        policy: on the CPU; becomes a part of it.
    """

    def __init__(self, policy: MlpPolicy):
        super().__init__()
        self.policy, self.to_env = policy, EnvActions(policy)

    def forward(self, observations: Any, action_masks: Tensor | None = None) -> Any:
        """Observations, and masks `[n, mask_size]` if it was exported with them → actions.

        Observations and actions are tensors `[n, ...]`, or dicts and tuples of such, as the spaces are.
        """
        return self.to_env(self.policy.get_distribution(_rows(self.policy, observations), action_masks).mode())


class DeployedGru(nn.Module):
    """Chooses the most probable actions, remembering.

    Args:
        policy: on the CPU; becomes a part of it.
    """

    def __init__(self, policy: MlpGruPolicy):
        super().__init__()
        self.policy, self.to_env = policy, EnvActions(policy)

    def forward(
        self, observations: Any, state: Tensor, episode_start: Tensor, action_masks: Tensor | None = None
    ) -> tuple[Any, Tensor]:
        """Observations, and what is remembered → actions, and what to remember.

        Args:
            observations: see `Deployed.forward`.
            state: `[n, memory_size]`, float32; zeros at first.
            episode_start: True where the state is to be forgotten, `[n]`.
            action_masks: see `Deployed.forward`.
        """
        memories = torch.where(episode_start[:, None], 0.0, state)
        rows = _rows(self.policy, observations)
        distribution, state = self.policy.get_distribution_from(memories, rows, action_masks)
        return self.to_env(distribution.mode()), state


def _rows(policy: MlpPolicy, observations: Any) -> Any:
    """Take observations apart, so that no bytes of them need be packed: see `preprocessing.Rows`."""
    layout = policy.preprocessor.layout
    return observations if layout.is_plain else layout.split(observations)
