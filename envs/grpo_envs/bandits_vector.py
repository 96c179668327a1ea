"""n bandits in arrays: `step` has no Python loop over games."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space

from grpo_envs import slots
from grpo_envs.bandits import (
    DEFAULT_SCHEDULE,
    NO_ARM,
    ArmRules,
    FloatArray,
    IntArray,
    ObservationArray,
    Schedule,
    judge,
    scheduled,
    stationary,
)

BoolArray = npt.NDArray[np.bool_]


class ArmsVectorEnv(VectorEnv[ObservationArray, IntArray, npt.NDArray[Any]]):
    """n games of either bandit, equal to the single one step for step when seeds and actions are equal.

    Nothing is reset by itself (`AutoresetMode.DISABLED`): reset finished slots with a `reset_mask`, or step
    the others alone with `env_id`. Infos are dictionaries of arrays `[k]`. No returned array is ever written
    to again. The rewards of all (step, arm) are kept: 8·n·T·K bytes.
    """

    metadata = slots.metadata()

    def __init__(self, num_envs: int, rules: ArmRules) -> None:
        self._slots = slots.Slots(num_envs)
        self.num_envs = num_envs
        self.n_arms = rules.n_arms
        self.horizon = rules.horizon
        self.single_observation_space = rules.observation_space()
        self.single_action_space = spaces.Discrete(rules.n_arms)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._rules = rules
        self._means = np.zeros((num_envs, rules.n_regimes, rules.n_arms))
        self._rewards = np.zeros((num_envs, rules.horizon, rules.n_arms))
        self._time = np.zeros(num_envs, dtype=np.int64)
        self._arm = np.full(num_envs, NO_ARM)
        self._reward = np.zeros(num_envs)

    def reset(
        self, *, seed: slots.Seeds = None, options: dict[str, Any] | None = None
    ) -> tuple[ObservationArray, dict[str, Any]]:
        """Draw new games for all slots, or for those of `options["reset_mask"]`; see `Slots.deal`.

        Returns:
            Observations `[n, K + 1]` and infos of all n slots, reset or not.
        """
        chosen, deals = self._slots.deal(seed, options, self._rules.deal)
        self._means[chosen] = [deal.means for deal in deals]
        self._rewards[chosen] = [deal.rewards for deal in deals]
        self._time[chosen] = 0
        self._arm[chosen] = NO_ARM
        self._reward[chosen] = 0.0
        everyone = np.arange(self.num_envs)
        return self._observations(everyone), self._infos(everyone)

    def step(
        self, actions: Any, env_id: Any = None
    ) -> tuple[ObservationArray, FloatArray, BoolArray, BoolArray, dict[str, Any]]:
        """Pull an arm in all n games, or only in the k games of `env_id`; see `Slots.chosen`.

        Returns:
            Observations `[k, K + 1]`, rewards, terminated, truncated `[k]` and infos, in the order of `env_id`.
        """
        chosen, arms = self._slots.chosen(actions, env_id, self.n_arms)
        rewards = self._rewards[chosen, self._time[chosen], arms]
        self._arm[chosen] = arms
        self._reward[chosen] = rewards
        self._time[chosen] += 1
        truncated = self._time[chosen] == self.horizon
        self._slots.playing[chosen] = ~truncated
        terminated = np.zeros(len(chosen), dtype=np.bool_)
        return self._observations(chosen), rewards, terminated, truncated, self._infos(chosen)

    def _observations(self, chosen: IntArray) -> ObservationArray:
        observations = np.zeros((len(chosen), self.n_arms + 1), dtype=np.float32)
        arms = self._arm[chosen]
        pulled = np.flatnonzero(arms != NO_ARM)
        observations[pulled, arms[pulled]] = 1.0
        observations[:, -1] = self._reward[chosen]
        return observations

    def _infos(self, chosen: IntArray) -> dict[str, Any]:
        regimes = self._rules.regimes[np.maximum(self._time[chosen] - 1, 0)]
        best_arm, regret = judge(self._means[chosen, regimes], self._arm[chosen])
        return {"regime": regimes, "best_arm": best_arm, "regret": regret}


class BanditVectorEnv(ArmsVectorEnv):
    """`num_envs` games of `BanditEnv`, with its options."""

    def __init__(
        self,
        num_envs: int = 1,
        n_arms: int = 10,
        horizon: int = 100,
        noise: str = "bernoulli",
        means: Sequence[float] | None = None,
    ) -> None:
        super().__init__(num_envs, stationary(n_arms, horizon, noise, means))


class DynamicBanditVectorEnv(ArmsVectorEnv):
    """`num_envs` games of `DynamicBanditEnv`, with its options."""

    def __init__(
        self,
        num_envs: int = 1,
        schedule: Schedule = DEFAULT_SCHEDULE,
        noise: str | None = None,
        noise_std: float | None = None,
    ) -> None:
        super().__init__(num_envs, scheduled(schedule, noise, noise_std))
