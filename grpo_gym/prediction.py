"""From whatever a caller has observed to actions that the environment takes."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from grpo_gym.acting import Actor
from grpo_gym.action_code import ActionCode
from grpo_gym.layout import Layout, Leaf
from grpo_gym.noise import uniform_noise
from grpo_gym.preprocessing import channels_first, is_image
from grpo_gym.types import Array, BoolArray


class Prediction:
    """Asks an actor about single observations and batches of any space.

    Args:
        observation_space: of a single environment.
        action_space: of a single environment.
    """

    def __init__(self, observation_space: gym.Space[Any], action_space: gym.Space[Any]):
        self._layout, self._code = Layout(observation_space), ActionCode(action_space)

    def predict(
        self,
        actor: Actor,
        observation: Any,
        deterministic: bool = False,
        action_masks: Any = None,
        rng: np.random.Generator | None = None,
    ) -> Any:
        """Choose actions for one observation or a batch, ready for the environment.

        Args:
            actor: chooses.
            observation: `[...]` for one, `[M, ...]` for a batch; of a Dict or Tuple, a dict or tuple of such. Images
                may have their channels first or last.
            deterministic: take the most probable actions.
            action_masks: legal actions, `[n]` or `[M, n]`; None if all are. See `ActionCode` for actions of parts.
            rng: source of the noise; needed unless `deterministic`.

        Returns:
            The action of one observation (a NumPy scalar for Discrete, a dict for Dict), or actions `[M, ...]` (for
            Dict and Tuple a dict or tuple of such, as Gymnasium's vector environments take them).

        Raises:
            ValueError: if the observation has another shape than the observation space, or is not finite; or if the
                masks do not fit or allow nothing.
        """
        rows, single = self._read(observation)
        masks = None if action_masks is None else self._read_masks(action_masks, len(rows))
        noise = None
        if not deterministic:
            if rng is None:
                raise ValueError("predict(deterministic=False) needs a random generator rng")
            noise = uniform_noise(rng, (len(rows), actor.noise_size))
        actions = actor.to_env(actor.act(rows, noise, masks)[0])
        return self._code.layout.unpack_one(actions[0]) if single else self._code.layout.unpack(actions)

    def _read(self, observation: Any) -> tuple[Array, bool]:
        """Make rows of an observation, and tell whether it is a single one."""
        space = self._layout.space
        if isinstance(observation, tuple) and _is_from_reset(observation, space):
            raise ValueError("predict got a tuple: env.reset() returns (observation, info), pass only the observation")
        parts, singles = [], []
        for leaf, part in zip(self._layout.leaves, self._layout.split(observation), strict=True):
            # a copy: what is read-only or strided is fine for NumPy but not for torch
            array = np.array(part, dtype=leaf.dtype)
            array = _in_our_order(array, leaf)
            single = array.shape == leaf.shape
            if not single and array.shape[1:] != leaf.shape:
                of = f" with {leaf.name!r}" if leaf.name else ""
                raise ValueError(
                    f"predict got an observation{of} of shape {array.shape}, expected "
                    f"{leaf.shape} for one or {('n', *leaf.shape)} for a batch (observation space {space})"
                )
            batch = array[None] if single else array
            if not np.isfinite(batch).all():
                raise ValueError(f"predict got an observation that is not finite: {observation!r}")
            parts.append(batch)
            singles.append(single)
        lengths = {len(part) for part in parts}
        if len(set(singles)) > 1 or len(lengths) > 1:
            shapes = {leaf.name: np.shape(part) for leaf, part in zip(self._layout.leaves, parts, strict=True)}
            raise ValueError(
                f"predict got an observation whose parts are not all single or all batches of one length: {shapes}, "
                f"the first axis counting observations (observation space {space})"
            )
        return self._layout.join(parts), singles[0]

    def _read_masks(self, action_masks: Any, n_rows: int) -> BoolArray:
        masks = self._code.read_masks(action_masks, n_rows, "predict")
        if not self._code.possible(masks).all():
            raise ValueError(f"action_masks={action_masks!r} allow nothing; expected at least one legal action")
        return masks


def _is_from_reset(observation: tuple[Any, ...], space: gym.Space[Any]) -> bool:
    """Tell `(observation, info)` from an observation of a Tuple space."""
    if not isinstance(space, gym.spaces.Tuple):
        return True
    pair = len(observation) == 2 and isinstance(observation[1], dict)
    return pair and not (len(space.spaces) == 2 and isinstance(space.spaces[1], gym.spaces.Dict))


def _in_our_order(array: Array, leaf: Leaf) -> Array:
    """Move the channels of an image to where the space has them, if that makes it fit."""
    if not is_image(leaf.space) or array.ndim not in (3, 4) or array.shape[-3:] == leaf.shape:
        return array
    source, target = (-1, -3) if channels_first(leaf.space) else (-3, -1)
    moved = np.moveaxis(array, source, target)
    return np.ascontiguousarray(moved) if moved.shape[-3:] == leaf.shape else array
