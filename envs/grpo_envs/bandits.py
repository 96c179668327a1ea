"""Multi-armed bandits, stationary and with regimes that change unannounced: rules, and single environments."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from grpo_envs import rendering

FloatArray = npt.NDArray[np.float64]
ObservationArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
Schedule = Sequence[tuple[int, Sequence[float]]]

NO_ARM = -1
_FLAT = (0.4, 0.4, 0.4, 0.4, 0.4)
DEFAULT_SCHEDULE: Schedule = (
    (20, _FLAT),
    (20, (0.1, 0.2, 0.0, 0.8, 0.3)),
    (20, _FLAT),
    (20, (0.7, 0.1, 0.3, 0.2, 0.0)),
    (20, _FLAT),
)
DEFAULT_NOISE_STD = 0.1


class Deal(NamedTuple):
    """All that is random in one game, drawn before its first step.

    The reward of each (step, arm) is drawn in advance, so games of one seed have common random numbers: they
    pay the same for the same arm at the same step, whatever was pulled before.

    Attributes:
        means: mean reward of each arm in each regime, `[R, K]`.
        rewards: what each arm would pay at each step, `[T, K]`.
    """

    means: FloatArray
    rewards: FloatArray


@dataclass(frozen=True, eq=False)
class ArmRules:
    """What a bandit is made of: K arms, T steps, R regimes.

    Attributes:
        regimes: regime of each step, `[T]`.
        means: `[R, K]`; None to draw them at each reset, uniform in [0, 1] for Bernoulli noise, else N(0, 1).
        n_arms: K.
        noise: None, "bernoulli" or "gaussian".
        noise_std: of Gaussian noise, in reward units.
    """

    regimes: IntArray
    means: FloatArray | None
    n_arms: int
    noise: str | None
    noise_std: float

    @property
    def horizon(self) -> int:
        """Steps of a game, T."""
        return len(self.regimes)

    @property
    def n_regimes(self) -> int:
        """Items of the schedule, R."""
        return int(self.regimes[-1]) + 1

    def deal(self, rng: np.random.Generator) -> Deal:
        """Draw one game: means first, if they are drawn, then the noise of every (step, arm)."""
        means = self.means
        if means is None:
            shape = (1, self.n_arms)
            means = rng.random(shape) if self.noise == "bernoulli" else rng.standard_normal(shape)
        expected = means[self.regimes]
        if self.noise == "bernoulli":
            return Deal(means, (rng.random(expected.shape) < expected).astype(np.float64))
        if self.noise == "gaussian":
            return Deal(means, expected + self.noise_std * rng.standard_normal(expected.shape))
        return Deal(means, expected)

    def observation_space(self) -> spaces.Box[np.float32]:
        """Return the box of `[K + 1]`: one-hot of the last arm, then the last reward (0 at the start)."""
        low = np.zeros(self.n_arms + 1, dtype=np.float32)
        high = np.ones(self.n_arms + 1, dtype=np.float32)
        if self.noise == "gaussian":
            low[-1], high[-1] = -np.inf, np.inf
        elif self.noise is None and self.means is not None:
            low[-1], high[-1] = min(0.0, self.means.min()), max(0.0, self.means.max())
        return spaces.Box(low, high, dtype=np.float32)


def stationary(n_arms: int, horizon: int, noise: str, means: Sequence[float] | None) -> ArmRules:
    """Check and make the rules of `BanditEnv`.

    Raises:
        ValueError: if an option is out of range, or `means` does not fit the arms or the noise.
    """
    if n_arms < 2:
        raise ValueError(f"n_arms={n_arms} leaves nothing to choose; take 2 or more")
    if horizon < 1:
        raise ValueError(f"horizon={horizon} must be at least 1 step")
    if noise not in ("bernoulli", "gaussian"):
        raise ValueError(f"noise={noise!r} is not known; choose from bernoulli, gaussian")
    fixed = None
    if means is not None:
        fixed = _checked_means([means], noise)
        if fixed.shape[1] != n_arms:
            raise ValueError(f"means has {fixed.shape[1]} values for {n_arms} arms; pass n_arms={fixed.shape[1]}")
    return ArmRules(np.zeros(horizon, dtype=np.int64), fixed, n_arms, noise, noise_std=1.0)


def scheduled(schedule: Schedule, noise: str | None, noise_std: float | None) -> ArmRules:
    """Check and make the rules of `DynamicBanditEnv`.

    Raises:
        ValueError: if the schedule is empty or uneven, or the noise does not fit.
    """
    if noise not in (None, "bernoulli", "gaussian"):
        raise ValueError(f"noise={noise!r} is not known; choose from None, bernoulli, gaussian")
    if noise_std is not None and (noise != "gaussian" or not noise_std > 0):
        raise ValueError(f"noise_std={noise_std} with noise={noise!r}: give a number > 0 and noise='gaussian'")
    if len(schedule) == 0:
        raise ValueError("schedule is empty; give one (duration, means) for each regime")
    durations = [operator.index(duration) for duration, _ in schedule]
    if min(durations) < 1:
        raise ValueError(f"schedule has durations {durations}; each must be at least 1 step")
    means = _checked_means([row for _, row in schedule], noise)
    regimes = np.repeat(np.arange(len(durations)), durations)
    return ArmRules(regimes, means, means.shape[1], noise, DEFAULT_NOISE_STD if noise_std is None else noise_std)


def _checked_means(rows: Sequence[Sequence[float]], noise: str | None) -> FloatArray:
    widths = [len(row) for row in rows]
    if min(widths) != max(widths) or min(widths) < 2:
        raise ValueError(f"means have {widths} arms; every regime needs the same number, 2 or more")
    means = np.array(rows, dtype=np.float64)
    if not np.isfinite(means).all():
        raise ValueError(f"means must be finite, got {means.tolist()}")
    if noise == "bernoulli" and (means.min() < 0 or means.max() > 1):
        raise ValueError(f"means of Bernoulli arms are probabilities in [0, 1], got {means.tolist()}")
    return means


def judge(means: FloatArray, arms: Any) -> tuple[IntArray, FloatArray]:
    """Compare pulls with the exact oracle.

      regret = max_k mean_k − mean of the pulled arm

    Args:
        means: of the step's regime, `[..., K]`.
        arms: pulled arm, `[...]`; −1 for none, whose regret is 0.

    Returns:
        Best arm `[...]`, the lowest of several, −1 where all arms are equal; and regret `[...]`.
    """
    best = means.max(axis=-1)
    pulled = np.take_along_axis(means, np.maximum(arms, 0)[..., None], axis=-1)[..., 0]
    best_arm = np.where(best == means.min(axis=-1), NO_ARM, means.argmax(axis=-1))
    return best_arm, np.where(arms == NO_ARM, 0.0, best - pulled)


class ArmsEnv(gym.Env[ObservationArray, np.int64]):
    """One game of either bandit; `BanditEnv` and `DynamicBanditEnv` say which."""

    metadata = rendering.metadata()

    def __init__(self, rules: ArmRules, render_mode: str | None) -> None:
        rendering.check_render_mode(render_mode)
        self.render_mode = render_mode
        self.n_arms = rules.n_arms
        self.horizon = rules.horizon
        self.observation_space = rules.observation_space()
        self.action_space = spaces.Discrete(rules.n_arms)
        self._rules = rules
        self._deal = Deal(np.zeros((rules.n_regimes, rules.n_arms)), np.zeros((rules.horizon, rules.n_arms)))
        self._time = rules.horizon
        self._arm = NO_ARM
        self._reward = 0.0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[ObservationArray, dict[str, Any]]:
        """Draw a new game; with `seed`, the game of that seed."""
        super().reset(seed=seed)
        self._deal = self._rules.deal(self.np_random)
        self._time, self._arm, self._reward = 0, NO_ARM, 0.0
        return self._observation(), self._info()

    def step(self, action: int | np.integer[Any]) -> tuple[ObservationArray, float, bool, bool, dict[str, Any]]:
        """Pull an arm.

        Raises:
            ResetNeeded: if no game is in progress.
            ValueError: if there is no such arm.
        """
        if self._time >= self.horizon:
            raise gym.error.ResetNeeded("no game in progress: it ended or never began; call reset() first")
        arm = operator.index(action)
        if not 0 <= arm < self.n_arms:
            raise ValueError(f"action={arm} is not an arm; expected 0 … {self.n_arms - 1}")
        self._reward = float(self._deal.rewards[self._time, arm])
        self._arm = arm
        self._time += 1
        return self._observation(), self._reward, False, self._time == self.horizon, self._info()

    def render(self) -> Any:
        """Draw the true means of the regime, the last pulled arm marked: text, or `[96, 32·K, 3]` uint8."""
        if self.render_mode is None:
            rendering.warn_no_render_mode()
            return None
        means = self._deal.means[self._regime()]
        if self.render_mode == "ansi":
            arms = " ".join(f"[{m:.2f}]" if arm == self._arm else f" {m:.2f} " for arm, m in enumerate(means))
            return f"step {self._time}/{self.horizon}  regime {self._regime()}  {arms}  reward {self._reward:.2f}"
        low, high = min(0.0, self._deal.means.min()), self._deal.means.max()
        return rendering.bars_image((means - low) / max(high - low, 1e-9), self._arm)

    def _regime(self) -> int:
        """Regime of the step last taken; of the first step before it."""
        return int(self._rules.regimes[max(self._time - 1, 0)])

    def _observation(self) -> ObservationArray:
        observation = np.zeros(self.n_arms + 1, dtype=np.float32)
        if self._arm != NO_ARM:
            observation[self._arm] = 1.0
        observation[-1] = self._reward
        return observation

    def _info(self) -> dict[str, Any]:
        best_arm, regret = judge(self._deal.means[self._regime()], np.int64(self._arm))
        return {"regime": self._regime(), "best_arm": int(best_arm), "regret": float(regret)}


class BanditEnv(ArmsEnv):
    """Pull one of K arms whose mean rewards never change.

    Observation: `Box` float32 `[K + 1]`: one-hot of the last arm, then its reward; zeros at the start. The
    time is not observed. Action: `Discrete(K)`. Reward: what the arm pays. After `horizon` steps the game is
    `truncated`: a bandit has no end of its own. Gaussian rewards have no bounds, and neither has their box.
    `info` tells of the step just taken: `best_arm` (the oracle's arm; −1 if all are equal), `regret` (mean of
    the best arm minus mean of the pulled one) and `regime` (always 0 here).

    The same seed gives the same means, and the same reward for each (step, arm): see `Deal`.

    Args:
        n_arms: K, 2 or more.
        horizon: steps of a game.
        noise: "bernoulli" pays 1 with the arm's mean as probability, else 0; "gaussian" pays mean + N(0, 1).
        means: `[K]`; None draws them at each reset: uniform in [0, 1] for Bernoulli, N(0, 1) for Gaussian.
        render_mode: None, "ansi" or "rgb_array".

    Raises:
        ValueError: if an option is out of range.
    """

    def __init__(
        self,
        n_arms: int = 10,
        horizon: int = 100,
        noise: str = "bernoulli",
        means: Sequence[float] | None = None,
        render_mode: str | None = None,
    ) -> None:
        super().__init__(stationary(n_arms, horizon, noise, means), render_mode)


class DynamicBanditEnv(ArmsEnv):
    """Pull one of K arms whose mean rewards switch, unannounced, on a fixed schedule.

    Observation, action, reward, end and `info` as in `BanditEnv`; the last arm and its reward are all that
    tells of a switch. `info["regime"]` counts the items of the schedule from 0.

    Args:
        schedule: (duration in steps, means `[K]`) for each regime. Default: 5 arms, a switch every 20 of 100
            steps: all 0.4; arm 3 best with 0.8; all 0.4; arm 0 best with 0.7; all 0.4.
        noise: None pays the mean itself; "bernoulli" and "gaussian" as in `BanditEnv`.
        noise_std: of Gaussian noise; 0.1 if not given.
        render_mode: None, "ansi" or "rgb_array".

    Raises:
        ValueError: if the schedule or the noise makes no game.
    """

    def __init__(
        self,
        schedule: Schedule = DEFAULT_SCHEDULE,
        noise: str | None = None,
        noise_std: float | None = None,
        render_mode: str | None = None,
    ) -> None:
        super().__init__(scheduled(schedule, noise, noise_std), render_mode)
