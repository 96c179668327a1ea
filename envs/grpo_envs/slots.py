"""What every native vector environment here shares: seeds, partial resets, and stepping chosen slots.

Gymnasium's `SyncVectorEnv` is the model for `reset`, EnvPool for `step(actions, env_id)`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode

IntArray = npt.NDArray[np.int64]
Seeds = int | Sequence[int | None] | IntArray | None
T = TypeVar("T")


def metadata() -> dict[str, Any]:
    """Return what Gymnasium asks of a vector environment's `metadata`; a new dictionary for each class."""
    return {"autoreset_mode": AutoresetMode.DISABLED, "render_modes": []}


class Slots:
    """Which slots have a game in progress, and the random stream of each.

    A slot reset with seed s draws what `Env.reset(seed=s)` draws, and goes on from there as the single
    environment does when it is reset without a seed. A generator costs more than a game: slots that share a
    seed are dealt once, and a slot's own generator is made only when it is reset without a seed.

    Args:
        num_envs: number of slots, n.

    Raises:
        ValueError: if n < 1.
    """

    def __init__(self, num_envs: int) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs={num_envs} must be at least 1")
        self.num_envs = num_envs
        self.playing = np.zeros(num_envs, dtype=np.bool_)
        self._all = np.arange(num_envs)
        # an int s stands for "the stream of seed s, after one deal"
        self._streams: list[np.random.Generator | int | None] = [None] * num_envs

    def deal(
        self, seed: Seeds, options: dict[str, Any] | None, deal: Callable[[np.random.Generator], T]
    ) -> tuple[IntArray, list[T]]:
        """Choose the slots to reset, and draw what each begins with.

        Args:
            seed: int s: slot i gets s + i. A list: one seed or None a slot. None: each slot's stream goes on.
            options: `{"reset_mask": bool [n]}` resets only these slots; seeds of the others are not used.
            deal: draws the beginning of one game.

        Returns:
            Slots `[k]`, and what was dealt to each of them; equal seeds are dealt the same object.

        Raises:
            ValueError: if a seed is negative, or a shape is wrong.
            TypeError: if the mask is not a boolean array.
        """
        seeds = self._seeds(seed)
        slots = self._masked(options)
        by_seed: dict[int, T] = {}
        dealt = []
        for slot in slots.tolist():
            slot_seed = seeds[slot]
            if slot_seed is None:
                dealt.append(deal(self._stream(slot, deal)))
                continue
            if slot_seed not in by_seed:
                by_seed[slot_seed] = deal(_generator(slot_seed))
            dealt.append(by_seed[slot_seed])
            self._streams[slot] = slot_seed
        self.playing[slots] = True
        return slots, dealt

    def chosen(self, actions: Any, env_id: Any, n_actions: int) -> tuple[IntArray, IntArray]:
        """Check what `step` was given.

        Args:
            actions: `[k]` integers in 0 … n_actions − 1; `actions[i]` is for slot `env_id[i]`.
            env_id: `[k]` distinct slots, or None for all n in order.
            n_actions: size of the `Discrete` action space.

        Returns:
            Slots `[k]` and actions `[k]`.

        Raises:
            ValueError: if a shape, a slot or an action is wrong.
            TypeError: if actions or slots are not integers.
            ResetNeeded: if a chosen slot has no game in progress.
        """
        slots = self._all if env_id is None else self._checked_ids(env_id)
        moves = np.asarray(actions)
        if moves.shape != slots.shape:
            raise ValueError(
                f"actions have shape {moves.shape}, expected {slots.shape}: one action for each stepped slot"
            )
        if not np.issubdtype(moves.dtype, np.integer):
            raise TypeError(f"actions have dtype {moves.dtype}, expected integers")
        if moves.size and (moves.min() < 0 or moves.max() >= n_actions):
            wrong = int(np.flatnonzero((moves < 0) | (moves >= n_actions))[0])
            raise ValueError(
                f"action {moves[wrong]} of slot {slots[wrong]} is out of range; expected 0 … {n_actions - 1}"
            )
        playing = self.playing[slots]
        if not playing.all():
            raise gym.error.ResetNeeded(
                f"slots {slots[~playing].tolist()} have no game in progress; reset them with "
                'reset(options={"reset_mask": mask}), or leave them out of step(actions, env_id)'
            )
        return slots, moves.astype(np.int64, copy=False)

    def _checked_ids(self, env_id: Any) -> IntArray:
        ids = np.asarray(env_id)
        if ids.dtype == np.bool_:
            raise TypeError("env_id is a boolean mask, expected slot numbers; pass np.flatnonzero(mask)")
        if ids.ndim != 1 or (ids.size and not np.issubdtype(ids.dtype, np.integer)):
            raise TypeError(f"env_id must be integers [k], got dtype {ids.dtype} and shape {ids.shape}")
        slots: IntArray = ids.astype(np.int64)
        if slots.size and (slots.min() < 0 or slots.max() >= self.num_envs):
            raise ValueError(f"env_id must lie in 0 … {self.num_envs - 1}, got {slots.tolist()}")
        named = np.zeros(self.num_envs, dtype=np.bool_)
        named[slots] = True
        if np.count_nonzero(named) != slots.size:
            raise ValueError(f"env_id names a slot twice: {slots.tolist()}; step it once a call")
        return slots

    def _seeds(self, seed: Seeds) -> Sequence[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if isinstance(seed, int | np.integer):
            seeds: list[int | None] = [operator.index(seed) + i for i in range(self.num_envs)]
        else:
            seeds = [None if s is None else operator.index(s) for s in seed]
        if len(seeds) != self.num_envs:
            raise ValueError(
                f"got {len(seeds)} seeds for {self.num_envs} slots; pass one a slot, None where a slot is not "
                "to be seeded"
            )
        for s in seeds:
            if s is not None and s < 0:
                raise ValueError(f"seed={s} is negative; seeds are integers ≥ 0")
        return seeds

    def _masked(self, options: dict[str, Any] | None) -> IntArray:
        if options is None or "reset_mask" not in options:
            return self._all
        mask = options["reset_mask"]
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
            raise TypeError(f'options["reset_mask"] must be a NumPy array of bool, got {mask!r}')
        if mask.shape != (self.num_envs,):
            raise ValueError(f'options["reset_mask"] has shape {mask.shape}, expected {(self.num_envs,)}')
        if not mask.any():
            raise ValueError('options["reset_mask"] is False everywhere; name at least one slot to reset')
        return np.flatnonzero(mask)

    def _stream(self, slot: int, deal: Callable[[np.random.Generator], T]) -> np.random.Generator:
        stream = self._streams[slot]
        if not isinstance(stream, np.random.Generator):
            seed = stream
            stream = _generator(seed)
            if seed is not None:
                deal(stream)  # its first deal was made at the seeded reset
            self._streams[slot] = stream
        return stream


def _generator(seed: int | None) -> np.random.Generator:
    """Return the generator that Gymnasium gives an environment for this seed, without its checks."""
    return np.random.Generator(np.random.PCG64(seed))
