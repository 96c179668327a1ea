"""Policies with a memory, for where the observation does not tell all: a GRU between the features and the layers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence, unpack_sequence

from grpo_gym.acting import BlockActor, MlpActor, RecurrentActor, by_blocks, column_block, copied, in_blocks, knows
from grpo_gym.distributions import Distribution
from grpo_gym.policy import CnnPolicy, MlpPolicy, MultiInputPolicy
from grpo_gym.types import Array, BoolArray, FloatArray


class MlpGruPolicy(MlpPolicy):
    """A gated recurrent unit on what `MlpPolicy` puts before its layers, then a multi-layer perceptron.

      r = σ(W_r x + U_r h + b_r),  z = σ(W_z x + U_z h + b_z),  n = tanh(W_n x + b_n + r ⊙ (U_n h + c_n))
      h ← (1 − z) ⊙ n + z ⊙ h

    h is the memory: zeros when an episode begins. Trajectories are learned from whole, gradients going back through
    all of their steps to the memory with which they began. Baselines that compare states ("soft_groups", "bins",
    "anchor_states") see the observation alone. See Cho et al. 2014 (arXiv 1406.1078).

    Args:
        observation_space: see `MlpPolicy`.
        action_space: the same.
        hidden_size: numbers h that the unit remembers.
        net_arch: widths of the layers after it; None for `NET_ARCH`.
        ortho_init: see `MlpPolicy`; the unit's matrices are orthogonal too, each with gain 1, its biases zero.
        **kwargs: the other arguments of `MlpPolicy`.

    Raises:
        ValueError: see `MlpPolicy`; or if nothing can be remembered.
    """

    NET_ARCH: ClassVar[tuple[int, ...]] = (64,)
    KIND = "GruPolicy"

    def __init__(
        self,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        hidden_size: int = 64,
        net_arch: Iterable[int] | dict[str, Iterable[int]] | None = None,
        ortho_init: bool = True,
        **kwargs: Any,
    ):
        if hidden_size < 1:
            raise ValueError(f"hidden_size={hidden_size}, expected at least 1; 'MlpPolicy' has no memory")
        self.memory_size = hidden_size
        super().__init__(observation_space, action_space, net_arch, ortho_init=ortho_init, **kwargs)
        self.gru.train()  # nothing in it differs, but cuDNN gives no gradient to one that only evaluates
        if ortho_init:
            for name, parameter in self.gru.named_parameters():
                initialize = nn.init.orthogonal_ if name.startswith("weight") else nn.init.zeros_
                for gate in parameter.detach().chunk(3):
                    initialize(gate)

    def _make_memory(self, n_features: int) -> int:
        self.gru = nn.GRU(n_features, self.memory_size)
        return self.memory_size

    def forward(
        self,
        features: Tensor,
        action_masks: Tensor | None = None,
        memories: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Distribution:
        """Give the action distributions of whole trajectories.

        Args:
            features: preprocessed observations, `[M, ...]`, one trajectory after the other.
            action_masks: `[M, n]` or None.
            memories: what was remembered when each began, `[N, memory_size]`; None for nothing.
            lengths: of each, `[N]`, on the CPU; None if each is a single step.
        """
        if memories is None:
            n_trajectories = len(features) if lengths is None else len(lengths)
            memories = features.new_zeros(n_trajectories, self.memory_size)
        hidden = self.remember(features, memories, lengths)
        return self.head.forward(self.body(hidden), action_masks)

    def remember(self, features: Tensor, memories: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return what is remembered after each step, `[M, memory_size]`; arguments are those of `forward`."""
        features = self._extract(features)
        if lengths is None:
            after_one: Tensor = self.gru(features[None], memories[None])[0][0]
            return after_one
        packed = pack_sequence(list(torch.split(features, lengths.tolist())), enforce_sorted=False)
        return torch.cat(unpack_sequence(self.gru(packed, memories[None])[0]))

    def get_distribution_from(
        self, memories: Tensor, observations: Tensor, action_masks: Tensor | None = None
    ) -> tuple[Distribution, Tensor]:
        """Return what `get_distribution` does, but remembering, and the memories for the next step; see `act_from`."""
        hidden = self.remember(self.preprocess(observations), memories)
        return self.head.forward(self.body(hidden), action_masks), hidden

    @torch.inference_mode()
    def act_from(
        self, memories: FloatArray, observations: Array, noise: FloatArray | None, action_masks: BoolArray | None = None
    ) -> tuple[Array, FloatArray, FloatArray]:
        """Choose actions as `act` does, but remembering.

        Args:
            memories: zeros where an episode begins, `[M, memory_size]`.
            observations: `[M, ...]`.
            noise: see `act`.
            action_masks: see `act`.

        Returns:
            Actions, their log-probabilities `[M]`, and the memories for the next step.
        """
        device = self.device
        given = torch.from_numpy(memories).to(device), torch.from_numpy(observations).to(device)
        masks = None if action_masks is None else torch.from_numpy(action_masks).to(device)
        distribution, hidden = self.get_distribution_from(*given, masks)
        actions = distribution.mode() if noise is None else distribution.sample(torch.from_numpy(noise).to(device))
        return actions.cpu().numpy(), distribution.log_prob(actions).cpu().numpy(), hidden.cpu().numpy()

    def actor(self) -> RecurrentActor:
        """Return what acts as this policy does now, a block of observations at a time."""
        if type(self) is MlpGruPolicy and knows(self):
            return GruActor(self)
        return BlockGruActor(self) if self.device.type == "cpu" else self


class CnnGruPolicy(MlpGruPolicy, CnnPolicy):
    """`CnnPolicy`'s convolutional network on images, then the unit and the layers of `MlpGruPolicy`."""


class MultiInputGruPolicy(MlpGruPolicy, MultiInputPolicy):
    """`MultiInputPolicy`'s networks on the parts of a Dict or Tuple, then the unit and the layers of `MlpGruPolicy`."""


class GruActor(MlpActor):
    """Acts as an `MlpGruPolicy` does at the moment, by a copy of its weights; see `MlpActor`."""

    def __init__(self, policy: MlpGruPolicy):
        super().__init__(policy)
        self.memory_size = policy.memory_size
        weights = dict(policy.gru.named_parameters())
        self._from_features, self._from_memory = copied(weights["weight_ih_l0"]), copied(weights["weight_hh_l0"])
        self._bias_of_features = column_block(weights["bias_ih_l0"])
        self._bias_of_memory = column_block(weights["bias_hh_l0"])

    def act(
        self, observations: Array, noise: FloatArray | None, action_masks: BoolArray | None = None
    ) -> tuple[Array, FloatArray]:
        """See `RecurrentActor`."""
        nothing = np.zeros((len(observations), self.memory_size), np.float32)
        return self.act_from(nothing, observations, noise, action_masks)[:2]

    def act_from(
        self, memories: FloatArray, observations: Array, noise: FloatArray | None, action_masks: BoolArray | None = None
    ) -> tuple[Array, FloatArray, FloatArray]:
        """See `MlpGruPolicy.act_from`."""
        size, n_rows = self.memory_size, len(observations)
        h = in_blocks(memories)
        x = self._from_features @ self._features(observations) + self._bias_of_features
        u = self._from_memory @ h + self._bias_of_memory
        gates = 0.5 + 0.5 * np.tanh(0.5 * (x[:, : 2 * size] + u[:, : 2 * size]))  # σ, without overflow
        new = np.tanh(x[:, 2 * size :] + gates[:, :size] * u[:, 2 * size :])
        h = new + gates[:, size:] * (h - new)
        return *self._choose(h, n_rows, noise, action_masks), h.swapaxes(1, 2).reshape(-1, size)[:n_rows]


class BlockGruActor(BlockActor):
    """Acts as a recurrent policy does, a block of observations at a time; see `BlockActor`.

    Args:
        policy: acts by itself.
    """

    def __init__(self, policy: RecurrentActor):
        super().__init__(policy)
        self._act_from, self.memory_size = policy.act_from, policy.memory_size

    def act_from(
        self, memories: FloatArray, observations: Array, noise: FloatArray | None, action_masks: BoolArray | None = None
    ) -> tuple[Array, FloatArray, FloatArray]:
        """See `MlpGruPolicy.act_from`."""
        actions, log_probs, after = by_blocks(self._act_from, memories, observations, noise, action_masks)
        return actions, log_probs, after


class Recollection:
    """An actor for one call: it goes on from the state that the caller was given, and has the next one afterwards.

    Args:
        actor: has the memory.
        state: what it remembers, `[M, memory_size]`; None for nothing.
        episode_start: where that is to be forgotten, `[M]`; None for nowhere.

    Attributes:
        state: what to go on from next time.
    """

    def __init__(self, actor: RecurrentActor, state: Any, episode_start: Any):
        self.state = state
        self._actor, self._episode_start = actor, episode_start
        self.noise_size, self.to_env = actor.noise_size, actor.to_env

    def act(
        self, observations: Array, noise: FloatArray | None, action_masks: BoolArray | None = None
    ) -> tuple[Array, FloatArray]:
        """See `Actor.act`.

        Raises:
            ValueError: if there are not as many states, or episode starts, as observations.
        """
        shape = (len(observations), self._actor.memory_size)
        memories = np.zeros(shape, np.float32) if self.state is None else np.array(self.state, np.float32)
        if memories.shape != shape:
            raise ValueError(
                f"predict got a state of shape {memories.shape}, expected {shape} for {shape[0]} observations: pass "
                "what the last predict returned, or None where all episodes begin"
            )
        if self._episode_start is not None:
            forgotten = np.asarray(self._episode_start, np.bool_).reshape(-1)
            if len(forgotten) != len(observations):
                raise ValueError(
                    f"episode_start has {len(forgotten)} entries, expected one for each of {len(observations)} "
                    "observations"
                )
            memories[forgotten] = 0.0
        actions, log_probs, self.state = self._actor.act_from(memories, observations, noise, action_masks)
        return actions, log_probs
