import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from grpo_gym.noise import SlotNoise, episode_noise, mix, uniform_noise


class Extremes(np.random.Generator):
    """Draws the smallest and the largest number that a generator can."""

    def random(self, *args: object, **kwargs: object) -> np.ndarray:  # type: ignore[override]
        return np.array([0.0, 1.0 - 2.0**-24], np.float32)


def test_noise_keeps_away_from_0_and_1() -> None:
    noise = uniform_noise(Extremes(np.random.PCG64()), (2,))
    assert noise.tolist() == [2.0**-22, 1.0 - 2.0**-22]
    assert noise.dtype == np.float32


def test_scrambled_bits_are_those_that_splitmix64_is_known_for() -> None:
    # the first two numbers of the published generator from the seed 0, whose state grows by GOLDEN
    states = np.array([0x9E3779B97F4A7C15, 0x3C6EF372FE94F82A], np.uint64)
    assert [hex(bits) for bits in mix(states).tolist()] == ["0xe220a8397b1dcdaf", "0x6e789e6aa1b965f4"]


def test_noise_belongs_to_the_step_not_to_when_it_is_drawn() -> None:
    together = episode_noise(np.array([5]), np.array([0]), 6)
    for step in range(3):
        np.testing.assert_array_equal(episode_noise(np.array([5]), np.array([step]), 2), together[:, 2 * step :][:, :2])


@given(
    st.integers(1, 3),
    st.lists(st.integers(0, 40), min_size=3, max_size=3),
    st.lists(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=3, max_size=3), max_size=40),
)
def test_noise_drawn_ahead_is_the_same_whatever_each_slot_does(
    size: int, behind: list[int], calls: list[list[tuple[bool, bool]]]
) -> None:
    ahead = SlotNoise(3, size)
    seeds, steps = np.array([10, 20, 30]), np.array(behind)  # episodes under way at the first call
    np.testing.assert_array_equal(ahead.of(np.arange(3), seeds, steps), episode_noise(seeds, steps, size))
    for call in calls:
        for slot, (begins, _) in enumerate(call):
            seeds[slot], steps[slot] = (seeds[slot] + 1, 0) if begins else (seeds[slot], steps[slot] + 1)
        at = np.array([slot for slot, (begins, plays) in enumerate(call) if begins or plays], np.int64)
        for slot in set(range(3)) - set(at.tolist()):  # it rests, and begins its next episode when it plays again
            seeds[slot], steps[slot] = seeds[slot] + 1, -1
        np.testing.assert_array_equal(ahead.of(at, seeds[at], steps[at]), episode_noise(seeds[at], steps[at], size))
