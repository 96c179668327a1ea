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
"""Steps whose noise is drawn together: a call costs twenty microseconds whether it draws one number or hundreds.

What is drawn for steps that an episode does not live to take is wasted: 0.1 µs of each that is begun.
"""


def uniform_noise(rng: np.random.Generator, shape: tuple[int, ...]) -> FloatArray:
    """Draw noise that every distribution can turn into actions: float32, in [2⁻²², 1 − 2⁻²²]."""
    return np.clip(rng.random(shape, dtype=np.float32), NOISE_MARGIN, 1.0 - NOISE_MARGIN)


def episode_noise(noise_seeds: IntArray, steps: IntArray, size: int) -> FloatArray:
    """Give the noise of a step of each of k episodes: a function of the episode's own seed and the step alone.

      u = the (t·size + i)-th number of SplitMix64 from the seed, i in 1…size

    See Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators".

    Args:
        noise_seeds: see `groups.Jobs`, `[k]`.
        steps: t, how many steps each episode has behind it, `[k]`.
        size: uniform numbers that one action takes.

    Returns:
        `[k, size]`, as `uniform_noise` has them.
    """
    count = (steps * size)[:, None] + np.arange(1, size + 1)
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
        self._drawn = np.zeros((n_slots, AHEAD, size), np.float32)
        self._was_asked = False

    def of(self, slots: IntArray, noise_seeds: IntArray, steps: IntArray) -> FloatArray:
        """See `episode_noise`; `slots`, `[k]`, are where it is kept."""
        within = steps % AHEAD
        spent = (within == 0).nonzero()[0] if self._was_asked else np.arange(len(slots))
        self._was_asked = True
        if len(spent):
            where = slots[spent]
            drawn = episode_noise(noise_seeds[spent], steps[spent] // AHEAD, AHEAD * self.size)
            self._drawn[where] = drawn.reshape(len(where), AHEAD, self.size)
        noise: FloatArray = self._drawn[slots, within]
        return noise
