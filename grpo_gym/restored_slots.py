"""Slots whose episodes begin in the middle: where snapshots of other episodes were taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from grpo_gym.env_slots import EnvSlots, peeled
from grpo_gym.snapshots import METHODS, MakeEnv, Snapshot
from grpo_gym.types import DEFAULT_HORIZON, Array, BoolArray, IntArray


@dataclass(frozen=True)
class Moment:
    """A moment of an episode that can be returned to.

    Attributes:
        snapshot: see `snapshots.Snapshot`.
        seed: the episode's.
        length: steps that the episode had behind it.
        observation: what was seen then.
        mask: legal actions, `[n_actions]`; None without masks.
    """

    snapshot: Snapshot
    seed: int
    length: int
    observation: Array
    mask: BoolArray | None


class RestoredSlots(EnvSlots):
    """Slots of single environments that `start` from moments: the "seed" is the number of the moment.

    Args:
        make_env: makes one environment.
        n_slots: episodes in play at the same time.
        method: name in `snapshots.METHODS`, proven exact for these environments.
        horizon: steps after which an episode is truncated, counted from its own beginning, not from the moment; None
            for the environment's own limit, or `DEFAULT_HORIZON` where it has none.

    Attributes:
        moments: those that were visited, in order.
        n_visiting: steps taken to come to moments, here and again in `start` if it replays.
    """

    def __init__(self, make_env: MakeEnv, n_slots: int, method: str, horizon: int | None = None):
        super().__init__(make_env, n_slots)
        self.method = method
        self.horizon = horizon or (np.inf if self.has_time_limit else DEFAULT_HORIZON)
        self.moments: list[Moment] = []
        self.n_visiting = 0

    def visit(self, seed: int, actions: Array, observations: Array, lengths: Sequence[int]) -> None:
        """Play an episode once more, and remember some moments of it.

        Args:
            seed: of the episode.
            actions: sent to the environment, `[T, ...]`.
            observations: seen before each of them, `[T, ...]`.
            lengths: after how many steps the moments are, rising, each below T.

        Raises:
            ValueError: if it goes otherwise than before: the environment draws from something besides its seed.
        """
        slot = np.zeros(1, np.int64)
        seen, masks = super().start(slot, np.array([seed]))
        for t in range(max(lengths) + 1):
            # a vector environment may round otherwise than the single one that stands in for it here
            if not np.allclose(seen[0], observations[t], rtol=1e-5, atol=1e-6):
                raise ValueError(
                    f"{self.name}: the episode with seed {seed} sees something else after {t} steps when its actions "
                    "are taken again, so no continuation would begin where it stood; expected an environment that "
                    "draws from self.np_random alone, or use another baseline than 'vine'"
                )
            if t in lengths:
                snapshot = METHODS[self.method](self.envs[0], seed, list(actions[:t]))
                self.moments.append(Moment(snapshot, seed, t, seen[0].copy(), None if masks is None else masks[0]))
            if t < max(lengths):
                step = self.step(slot, actions[t : t + 1])
                seen, masks = step.observations, step.action_masks
        self.n_visiting += max(lengths)

    def start(self, slots: IntArray, seeds: IntArray) -> tuple[Array, BoolArray | None]:
        """Restore moment `seeds[i]` in `slots[i]`."""
        moments = [self.moments[number] for number in seeds.tolist()]
        for slot, moment in zip(slots.tolist(), moments, strict=True):
            env = self.envs[slot] = moment.snapshot(self.envs[slot])
            self._bare[slot], limit = peeled(env)
            self._limits[slot] = min(limit, self.horizon)
            self._seeds[slot], self._lengths[slot] = moment.seed, moment.length
            self.n_visiting += moment.length if self.method == "replay" else 0
        masks = [moment.mask for moment in moments if moment.mask is not None]
        return np.stack([moment.observation for moment in moments]), np.stack(masks) if masks else None
