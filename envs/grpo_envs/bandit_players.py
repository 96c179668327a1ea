"""Reference players of the bandits, and the Lai–Robbins bound.

A player's `predict` takes one observation `[K + 1]` or a batch `[n, K + 1]`, and the state it returned before.
It learns from the last arm and reward in the observation. A row begins anew where `episode_start` is True
and where the observation names no arm (the first of a game); a `state` of None knows nothing yet. Players play
the same whatever `deterministic` says: their randomness is their method, not noise added to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


class ArmStatistics(NamedTuple):
    """What a player knows: (discounted) number of pulls and sum of rewards of each arm, both `[n, K]`."""

    counts: FloatArray
    sums: FloatArray


class UniformArms:
    """Pull an arm drawn uniformly.

    Args:
        n_arms: K.
        seed: of the player's own random stream.
    """

    def __init__(self, n_arms: int, seed: int | None = None) -> None:
        self.n_arms = n_arms
        self._rng = np.random.default_rng(seed)

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, None]:
        """Return arms `[n]` (or one arm) and None."""
        batch, single = _batch(observation, self.n_arms)
        arms = self._rng.integers(self.n_arms, size=len(batch))
        return (arms[0] if single else arms), None


class UCB1:
    """Pull the arm with the highest upper confidence bound; each arm once at first, equal arms the lowest.

      bound_k = mean_k + reward_range · √(2 ln t / n_k)

    See Auer, Cesa-Bianchi and Fischer 2002, "Finite-time analysis of the multiarmed bandit problem".

    Args:
        n_arms: K.
        reward_range: width of the interval that rewards lie in; for Gaussian noise of standard deviation σ,
            2σ (a range of width b is sub-Gaussian with σ = b/2).
    """

    def __init__(self, n_arms: int, reward_range: float = 1.0) -> None:
        self.n_arms = n_arms
        self.reward_range = reward_range

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, ArmStatistics]:
        """Return arms `[n]` (or one arm) and the statistics to be handed in next time."""
        batch, single = _batch(observation, self.n_arms)
        known = learned(batch, state, episode_start, discount=1.0)
        pulls = known.counts.sum(axis=1, keepdims=True)
        n = np.maximum(known.counts, 1.0)
        bound = known.sums / n + self.reward_range * np.sqrt(2 * np.log(np.maximum(pulls, 1.0)) / n)
        arms = np.where(known.counts == 0, np.inf, bound).argmax(axis=1)
        return (arms[0] if single else arms), known


class DiscountedThompsonSampling:
    """Pull the best arm of one draw from the posterior, in which older pulls count less and less.

    Bernoulli: mean_k ~ Beta(1 + s_k, 1 + n_k − s_k), rewards in [0, 1].
    Gaussian: mean_k ~ N(v·s_k/σ², v) with v = 1/(1 + n_k/σ²): prior N(0, 1), known noise σ.
    Before each pull is added, all counts n and sums s are multiplied by `discount`.

    See Raj and Kalyani 2017 (arXiv 1707.09727).

    Args:
        n_arms: K.
        noise: "bernoulli" or "gaussian".
        noise_std: σ of Gaussian noise, in reward units; not used for Bernoulli.
        discount: in (0, 1]; counts settle near 1/(1 − discount) pulls.
        seed: of the player's own random stream.

    Raises:
        ValueError: if the noise is not known, or a number is out of range.
    """

    def __init__(
        self,
        n_arms: int,
        noise: str = "bernoulli",
        noise_std: float = 1.0,
        discount: float = 0.9,
        seed: int | None = None,
    ) -> None:
        if noise not in ("bernoulli", "gaussian"):
            raise ValueError(f"noise={noise!r} is not known; choose from bernoulli, gaussian")
        if not 0 < discount <= 1 or not noise_std > 0:
            raise ValueError(f"discount={discount} must lie in (0, 1] and noise_std={noise_std} be above 0")
        self.n_arms = n_arms
        self.noise = noise
        self.noise_std = noise_std
        self.discount = discount
        self._rng = np.random.default_rng(seed)

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, ArmStatistics]:
        """Return arms `[n]` (or one arm) and the statistics to be handed in next time.

        Raises:
            ValueError: if a Bernoulli player is shown a reward outside [0, 1].
        """
        batch, single = _batch(observation, self.n_arms)
        if self.noise == "bernoulli" and ((batch[:, -1] < 0) | (batch[:, -1] > 1)).any():
            raise ValueError('a reward lies outside [0, 1]; make the player with noise="gaussian"')
        known = learned(batch, state, episode_start, self.discount)
        arms = self._draw(known).argmax(axis=1)
        return (arms[0] if single else arms), known

    def _draw(self, known: ArmStatistics) -> FloatArray:
        """Draw each arm's mean from its posterior, `[n, K]`."""
        if self.noise == "bernoulli":
            # float32 rewards and discounting leave n − s a rounding below 0
            return self._rng.beta(1 + known.sums, 1 + np.maximum(known.counts - known.sums, 0))
        precision = 1 + known.counts / self.noise_std**2
        mean = known.sums / self.noise_std**2 / precision
        return mean + self._rng.standard_normal(mean.shape) / np.sqrt(precision)


class ThompsonSampling(DiscountedThompsonSampling):
    """Pull the best arm of one draw from the posterior: `DiscountedThompsonSampling` that forgets nothing.

    See Thompson 1933; Agrawal and Goyal 2012 (arXiv 1111.1797).

    Args:
        n_arms: K.
        noise: "bernoulli" or "gaussian".
        noise_std: σ of Gaussian noise, in reward units; not used for Bernoulli.
        seed: of the player's own random stream.
    """

    def __init__(self, n_arms: int, noise: str = "bernoulli", noise_std: float = 1.0, seed: int | None = None) -> None:
        super().__init__(n_arms, noise, noise_std, discount=1.0, seed=seed)


def learned(batch: FloatArray, state: Any, episode_start: Any, discount: float) -> ArmStatistics:
    """Add the last pull of each row `[n, K + 1]` to what was known; the state handed in stays as it was."""
    one_hot, rewards = batch[:, :-1], batch[:, -1:]
    if state is None:
        state = ArmStatistics(np.zeros_like(one_hot), np.zeros_like(one_hot))
    begins = one_hot.sum(axis=1) == 0
    if episode_start is not None:
        begins |= np.atleast_1d(np.asarray(episode_start, dtype=np.bool_))
    kept = np.where(begins, 0.0, discount)[:, None]
    # a row that begins has pulled nothing yet in its own game
    new = np.where(begins[:, None], 0.0, one_hot)
    return ArmStatistics(kept * state.counts + new, kept * state.sums + new * rewards)


def lai_robbins(means: Sequence[float], noise: str = "bernoulli", noise_std: float = 1.0) -> float:
    """Return c of the Lai–Robbins bound: no consistent player has regret below c·ln T as T grows.

      c = Σ_k (μ* − μ_k) / KL(k ‖ *), over arms below the best

    See Lai and Robbins 1985, "Asymptotically efficient adaptive allocation rules".

    Args:
        means: of the arms, `[K]`; with Bernoulli noise strictly inside (0, 1).
        noise: "bernoulli" or "gaussian".
        noise_std: of Gaussian noise, in reward units.

    Returns:
        c, in reward units; 0 if all arms are equal.

    Raises:
        ValueError: if the noise is not known, or a Bernoulli mean is not inside (0, 1).
    """
    mu: FloatArray = np.asarray(means, dtype=np.float64)
    best = float(mu.max())
    below: FloatArray = mu[np.less(mu, best)]
    if noise == "gaussian":
        divergence = (best - below) ** 2 / (2 * noise_std**2)
    elif noise == "bernoulli":
        if mu.min() <= 0 or best >= 1:
            raise ValueError(f"means must lie strictly inside (0, 1) for a finite bound, got {mu.tolist()}")
        divergence = below * np.log(below / best) + (1 - below) * np.log((1 - below) / (1 - best))
    else:
        raise ValueError(f"noise={noise!r} is not known; choose from bernoulli, gaussian")
    return float(np.sum((best - below) / divergence))


def _batch(observation: Any, n_arms: int) -> tuple[FloatArray, bool]:
    """`[K + 1]` or `[n, K + 1]` → float64 `[n, K + 1]`, and whether it was one."""
    rows = np.asarray(observation, dtype=np.float64)
    if rows.ndim not in (1, 2) or rows.shape[-1] != n_arms + 1:
        raise ValueError(
            f"observation has shape {rows.shape}; expected [{n_arms + 1}] or [n, {n_arms + 1}] for {n_arms} arms"
        )
    return np.atleast_2d(rows), rows.ndim == 1
