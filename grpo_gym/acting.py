"""A policy as it is now, made for acting: small networks choose actions sooner in NumPy than in torch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeGuard

import numpy as np
import torch
from torch import nn

from grpo_gym.array_distributions import ArrayCategorical, ArrayDistribution, ArrayGaussian, find_kind
from grpo_gym.types import Array, BoolArray, FloatArray

if TYPE_CHECKING:
    from grpo_gym.policy import MlpPolicy

BLOCK = 16
"""Observations that go through the network at a time, the last ones filled up with zeros: matrix products round
differently for other shapes, and an action must not depend on how many others are chosen beside it.

A block stands on end, `[d, BLOCK]`, and meets the weights from the right. In this order 16 columns are whole tiles of
each kernel of OpenBLAS, so that all are rounded alike; as rows, the 13th to 16th are not where AVX2 is the best there
is, and as 32 columns none of this holds.
"""


def _tanh(x: FloatArray) -> None:
    np.tanh(x, out=x)


def _relu(x: FloatArray) -> None:
    np.maximum(x, 0, out=x)


ACTIVATIONS: dict[type[nn.Module], Callable[[FloatArray], None]] = {nn.Tanh: _tanh, nn.ReLU: _relu}
"""What `MlpActor` knows of activations; each overwrites its argument."""


class Actor(Protocol):
    """What chooses the actions of a rollout. It can be sent to another process.

    Attributes:
        noise_size: uniform numbers that one action takes.
    """

    @property
    def noise_size(self) -> int: ...  # noqa: D102

    def act(
        self, observations: Array, noise: FloatArray | None, action_masks: BoolArray | None = None
    ) -> tuple[Array, FloatArray]:
        """Choose actions, by the given noise or, without any, the most probable ones.

        Args:
            observations: rows as `layout.Layout` has them, `[M, ...]`.
            noise: uniform in (0, 1), `[M, noise_size]`; None for the mode.
            action_masks: `[M, n]`, as `action_code.ActionCode` has them, or None.

        Returns:
            Actions as the loss wants them, `[M]` or `[M, k]`, and their log-probabilities `[M]`.
        """
        ...

    def to_env(self, actions: Array) -> Array:
        """Turn actions into the environment's, rows as `layout.Layout` has them: `action_code.ActionCode.to_env`."""
        ...


class RecurrentActor(Actor, Protocol):
    """An actor with a memory, which whoever plays keeps for it: `memory_size` numbers for each episode.

    An episode begins with zeros; `act` takes every observation for the first of its episode.
    """

    @property
    def memory_size(self) -> int: ...  # noqa: D102

    def act_from(
        self, memories: FloatArray, observations: Array, noise: FloatArray | None, action_masks: BoolArray | None = None
    ) -> tuple[Array, FloatArray, FloatArray]:
        """Return actions, their log-probabilities, and `[M, memory_size]` that follows on `memories`."""
        ...


def remembers(actor: object) -> TypeGuard[RecurrentActor]:
    """Tell whether an actor has a memory."""
    return hasattr(actor, "act_from")


class MlpActor:
    """Acts as an `MlpPolicy` does at the moment, by a copy of its weights.

    The same observation and noise give the same action, bit by bit, whatever else is in the batch.

    Args:
        policy: one of which `knows` is true.
    """

    def __init__(self, policy: MlpPolicy):
        self._preprocessor = policy.preprocessor
        self._layers = []
        modules = list(policy.body)
        for linear, activation in zip(modules[::2], modules[1::2], strict=True):
            self._layers.append((copied(linear.weight), column_block(linear.bias), ACTIVATIONS[type(activation)]))
        self._weight, self._bias = copied(policy.head.linear.weight), column_block(policy.head.linear.bias)
        head = policy.head if policy.device.type == "cpu" else copy.deepcopy(policy.head).cpu()
        self._kind = find_kind(head)
        log_std = head.log_std if self._kind is ArrayGaussian else None
        self._log_std = None if log_std is None else copied(log_std)
        # what of the head is used besides is not learned, unless torch makes the distribution: a copy takes its time
        self._head = copy.deepcopy(head) if self._kind is None else head
        self._scaling = None
        if policy.normalizer is not None:
            shift, scale = policy.normalizer.shift_and_scale()
            highest = column_block(torch.full_like(shift, policy.normalizer.clip))
            self._scaling = column_block(shift), column_block(scale), -highest, highest
        self.noise_size = policy.noise_size
        self.to_env = self._head.to_env

    def act(
        self, observations: Array, noise: FloatArray | None, action_masks: BoolArray | None = None
    ) -> tuple[Array, FloatArray]:
        """See `MlpPolicy.act`."""
        return self._choose(self._features(observations), len(observations), noise, action_masks)

    def _features(self, observations: Array) -> FloatArray:
        """Preprocess observations, in blocks `[n_blocks, d, BLOCK]`."""
        if self._preprocessor.only_flattens:
            rows = observations.reshape(len(observations), self._preprocessor.size)
        else:
            rows = self._preprocessor.flat(torch.from_numpy(observations)).numpy()
        blocks = in_blocks(rows)
        if self._scaling is not None:
            shift, scale, lowest, highest = self._scaling
            blocks -= shift
            blocks *= scale
            np.minimum(np.maximum(blocks, lowest, out=blocks), highest, out=blocks)
        return blocks

    def _choose(
        self, x: FloatArray, n_rows: int, noise: FloatArray | None, action_masks: BoolArray | None
    ) -> tuple[Array, FloatArray]:
        """Go from the blocks of `n_rows` features through the layers to actions."""
        # a lone block sooner as a matrix, by the same product of it
        x, product = (x[0], np.dot) if len(x) == 1 else (x, np.matmul)
        for weight, bias, activation in self._layers:
            x = product(weight, x)
            x += bias
            activation(x)
        x = product(self._weight, x)
        x += self._bias
        outputs = x if x.ndim == 2 else x.swapaxes(0, 1).reshape(x.shape[1], -1)
        distribution = self._distribution(outputs, action_masks)
        if distribution is None:
            return self._choose_in_torch(outputs[:, :n_rows].T.copy(), noise, action_masks)
        actions = distribution.mode() if noise is None else distribution.sample(_filled_up(noise, outputs.shape[1]))
        return actions[:n_rows], distribution.log_prob(actions)[:n_rows]

    def _distribution(self, outputs: FloatArray, action_masks: BoolArray | None) -> ArrayDistribution | None:
        if self._kind is ArrayCategorical:
            masks = None if action_masks is None else _filled_up(action_masks, outputs.shape[1])
            return ArrayCategorical(outputs, masks)
        if self._log_std is not None and action_masks is None:
            return ArrayGaussian(outputs, self._log_std)
        return None

    @torch.inference_mode()
    def _choose_in_torch(
        self, outputs: FloatArray, noise: FloatArray | None, action_masks: BoolArray | None
    ) -> tuple[Array, FloatArray]:
        masks = None if action_masks is None else torch.from_numpy(action_masks)
        distribution = self._head.distribution(torch.from_numpy(outputs), masks)
        actions = distribution.mode() if noise is None else distribution.sample(torch.from_numpy(noise))
        return actions.numpy(), distribution.log_prob(actions).numpy()


class BlockActor:
    """Acts as a policy does, but a block of observations at a time: torch, too, rounds by how many there are.

    Args:
        policy: acts by itself.
    """

    def __init__(self, policy: Actor):
        self._policy = policy
        self.noise_size = policy.noise_size
        self.to_env = policy.to_env

    def act(
        self, observations: Array, noise: FloatArray | None, action_masks: BoolArray | None = None
    ) -> tuple[Array, FloatArray]:
        """See `MlpPolicy.act`."""
        actions, log_probs = by_blocks(self._policy.act, observations, noise, action_masks)
        return actions, log_probs


def by_blocks(act: Callable[..., tuple[Array, ...]], first: Array, *others: Array | None) -> tuple[Array, ...]:
    """Call `act(first, *others)` for a block of rows at a time, and put what it returns together: `[M, ...]` each.

    Args:
        act: from arrays `[BLOCK, ...]` to arrays `[BLOCK, ...]`.
        first: `[M, ...]`.
        others: the same, or None, which stays None.
    """
    n_rows = len(first)
    # the first row fills up: unlike zeros it is an observation, and legal
    index = np.arange(-(-n_rows // BLOCK) * BLOCK)
    index[n_rows:] = 0
    blocks = [act(*(None if x is None else x[rows] for x in (first, *others))) for rows in index.reshape(-1, BLOCK)]
    return tuple(np.concatenate(column)[:n_rows] for column in zip(*blocks, strict=True))


def _filled_up(rows: Array, n_rows: int) -> Array:
    """Append rows that are legal and not looked at: sums, too, round differently for other shapes."""
    if len(rows) == n_rows:
        return rows
    filled = np.full((n_rows, *rows.shape[1:]), 0.5, rows.dtype)
    filled[: len(rows)] = rows
    return filled


def in_blocks(rows: Array) -> FloatArray:
    """Part `[M, d]` into blocks `[n_blocks, d, BLOCK]`, with zeros where the last one has no rows.

    They lie in one piece: products of others are rounded differently on some processors.
    """
    n_rows, size = rows.shape
    n_full = max(n_rows - 1, 0) // BLOCK
    blocks = np.zeros((n_full + 1, size, BLOCK), np.float32)
    blocks[:-1] = rows[: n_full * BLOCK].reshape(n_full, BLOCK, size).swapaxes(1, 2)
    last = rows[n_full * BLOCK :]
    blocks[-1, :, : len(last)] = last.T
    return blocks


def knows(policy: MlpPolicy) -> bool:
    """Tell whether `MlpActor` can stand in."""
    return policy.features_extractor is None and only_linear(policy)


def only_linear(policy: MlpPolicy) -> bool:
    """Tell whether there are linear layers alone, each with an activation that `MlpActor` has."""
    modules = list(policy.body)
    return all(type(module) is nn.Linear for module in modules[::2]) and all(
        type(module) in ACTIVATIONS for module in modules[1::2]
    )


def column_block(x: torch.Tensor | nn.Module) -> FloatArray:
    """Repeat `[d]` for a whole block, `[d, BLOCK]`: NumPy adds equal shapes sooner than a column to each of many."""
    return np.repeat(copied(x)[:, None], BLOCK, axis=1)


def copied(x: torch.Tensor | nn.Module) -> FloatArray:
    """Return numbers as they are now, which do not change with the policy's."""
    assert isinstance(x, torch.Tensor)
    return np.array(x.detach().cpu().numpy(), np.float32)
