"""Uniform numbers that distributions turn into actions: whose they are, not when they are drawn, decides them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from grpo_gym.types import FloatArray, IntArray

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""Odd and without pattern: its multiples are far apart in 64 bits (2⁶⁴ over the golden ratio)."""

NOISE_MARGIN = 2.0**-22
"""Uniform noise is kept this far from 0 and 1, where float32 sums and the normal quantile still behave."""

AHEAD = 32
"""Steps whose noise is drawn together, for all slots: a call takes as long whether it draws one number or hundreds.

What is drawn for steps that an episode does not live to take is wasted.
"""


def uniform_noise(rng: np.random.Generator, shape: tuple[int, ...]) -> FloatArray:
    """Draw noise that every distribution can turn into actions: float32, in [2⁻²², 1 − 2⁻²²]."""
    return np.clip(rng.random(shape, dtype=np.float32), NOISE_MARGIN, 1.0 - NOISE_MARGIN)


def episode_noise(noise_seeds: IntArray, steps: IntArray, size: int, n_steps: int = 1) -> FloatArray:
    """Give the noise of steps of each of k episodes: a function of the episode's own seed and the step alone.

      u = the (t·size + i)-th number of SplitMix64 from the seed, i in 1…n_steps·size

    See Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators".

    Args:
        noise_seeds: see `groups.Jobs`, `[k]`.
        steps: t, how many steps each episode has behind it, `[k]`.
        size: uniform numbers that one action takes.
        n_steps: t and so many less one that follow.

    Returns:
        `[k, n_steps · size]`, as `uniform_noise` has them.
    """
    count = (steps * size)[:, None] + np.arange(1, n_steps * size + 1)
    bits = mix(noise_seeds.astype(np.uint64)[:, None] + count.astype(np.uint64) * GOLDEN)
    uniform = (bits >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)
    clipped: FloatArray = np.minimum(np.maximum(uniform, NOISE_MARGIN), 1.0 - NOISE_MARGIN)
    return clipped


def mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Scramble 64 bits: SplitMix64's output function, a bijection."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


class SlotNoise:
    """What `episode_noise` gives, for episodes in slots, drawn some steps ahead.

    Each is asked for step by step, from its first step on or, if it was under way, from the first call of all.

    Args:
        n_slots: episodes in play at the same time.
        size: uniform numbers that one action takes.
    """

    def __init__(self, n_slots: int, size: int):
        self.size = size
        self._drawn = np.zeros((AHEAD, n_slots, size), np.float32)
        self._next = 0  # of what was drawn

    def of(self, slots: IntArray, noise_seeds: IntArray, steps: IntArray) -> FloatArray:
        """See `episode_noise`; `slots`, `[k]`, are where it is kept."""
        lacking = (steps == 0).nonzero()[0] if self._next else np.arange(len(slots))
        if len(lacking):
            n_steps = AHEAD - self._next
            drawn = episode_noise(noise_seeds[lacking], steps[lacking], self.size, n_steps)
            self._drawn[self._next :, slots[lacking]] = drawn.reshape(-1, n_steps, self.size).swapaxes(0, 1)
        noise: FloatArray = self._drawn[self._next].take(slots, axis=0)
        self._next = (self._next + 1) % AHEAD
        return noise
