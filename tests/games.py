"""Small games of several players for PettingZoo, each with one virtue or one vice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pettingzoo
from gymnasium.spaces import Box, Dict, Discrete

Lives = Mapping[str, tuple[int, int]]

SEEN = Box(-1.0, 100.0, (2,), np.float32)


class Hive(pettingzoo.ParallelEnv):  # type: ignore[misc]
    """Players come and go: each acts in the steps `lives[agent] = (first, after the last)`. Its action is its reward.

    Observation `[start, t]`, the start drawn from the seed. Ants end by themselves, all others are cut. Bees see one
    number more. It counts its steps and refuses actions of any but the living.
    """

    def __init__(self, lives: Lives | None = None, possible: bool = True, mask_in: str = "", n_actions: int = 3):
        self.lives = dict(lives or {"ant_0": (0, 3), "ant_1": (0, 2), "bee_0": (1, 4)})
        if possible:
            self.possible_agents = list(self.lives)
        self.mask_in, self.n_actions = mask_in, n_actions
        self.metadata = {"name": "hive_v0"}
        self.n_steps = 0
        self.closed = False

    def observation_space(self, agent: str) -> Any:
        seen = Box(-1.0, 100.0, (3,), np.float32) if agent.startswith("bee") else SEEN
        if self.mask_in == "observation":
            return Dict({"observation": seen, "action_mask": Box(0, 1, (self.n_actions,), np.int8)})
        return seen

    def action_space(self, agent: str) -> Any:
        return Discrete(self.n_actions)

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.t, self.start = 0, float(np.random.default_rng(seed).random())
        self.agents = [agent for agent, (first, _) in self.lives.items() if first == 0]
        return self._seen(self.agents), self._infos(self.agents)

    def step(self, actions: dict[str, int]) -> Any:
        assert sorted(actions) == sorted(self.agents), f"{sorted(actions)} acted, {sorted(self.agents)} live"
        if self.mask_in:
            assert all(action != 1 for action in actions.values()), "1 is illegal"
        self.n_steps += 1
        self.t += 1
        acted = self.agents
        ended = [agent for agent in acted if self.lives[agent][1] == self.t]
        born = [agent for agent, (first, _) in self.lives.items() if first == self.t]
        self.agents = [agent for agent in acted if agent not in ended] + born
        told = [*acted, *born]
        return (
            self._seen(told),
            {agent: float(actions.get(agent, 0)) for agent in told},
            {agent: agent in ended and agent.startswith("ant") for agent in told},
            {agent: agent in ended and not agent.startswith("ant") for agent in told},
            self._infos(told),
        )

    def close(self) -> None:
        self.closed = True

    def _mask(self) -> Any:
        mask = np.ones(self.n_actions, np.int8)
        mask[1] = 0
        return mask

    def _seen(self, agents: list[str]) -> dict[str, Any]:
        seen = {}
        for agent in agents:
            numbers = [self.start, self.t] + [0.5] * agent.startswith("bee")
            seen[agent] = np.array(numbers, np.float32)
        if self.mask_in == "observation":
            return {agent: {"observation": one, "action_mask": self._mask()} for agent, one in seen.items()}
        return seen

    def _infos(self, agents: list[str]) -> dict[str, Any]:
        return {agent: {"action_mask": self._mask()} if self.mask_in == "info" else {} for agent in agents}


class Bids(pettingzoo.AECEnv):  # type: ignore[misc]
    """Two players name a number in turn, `rounds` times; the higher sum wins 1, the lower loses 1.

    Observation `[whose seat, what was named last]`. It begins alike from every seed.
    """

    def __init__(self, rounds: int = 1, n_actions: int = 3):
        self.rounds, self.n_actions = rounds, n_actions
        self.possible_agents = ["left", "right"]
        self.metadata = {"name": "bids_v0", "render_modes": []}
        self.n_steps = 0

    def observation_space(self, agent: str) -> Any:
        return SEEN

    def action_space(self, agent: str) -> Any:
        return Discrete(self.n_actions)

    def reset(self, seed: int | None = None, options: Any = None) -> None:
        self.agents = list(self.possible_agents)
        self.agent_selection = "left"
        self.sums = dict.fromkeys(self.agents, 0)
        self.named, self.turns = -1, 0
        self.rewards = dict.fromkeys(self.agents, 0.0)
        self._cumulative_rewards = dict.fromkeys(self.agents, 0.0)
        self.terminations = dict.fromkeys(self.agents, False)
        self.truncations = dict.fromkeys(self.agents, False)
        self.infos: dict[str, Any] = {agent: {} for agent in self.agents}

    def observe(self, agent: str) -> Any:
        return np.array([self.possible_agents.index(agent), self.named], np.float32)

    def step(self, action: Any) -> None:
        agent = self.agent_selection
        if self.terminations[agent]:
            self._was_dead_step(action)
            return
        self.n_steps += 1
        self._cumulative_rewards[agent] = 0.0
        self.sums[agent] += int(action)
        self.named = int(action)
        self.turns += 1
        if self.turns == 2 * self.rounds:
            lead = float(np.sign(self.sums["left"] - self.sums["right"]))
            self.rewards = {"left": lead, "right": -lead}
            self.terminations = dict.fromkeys(self.agents, True)
        self.agent_selection = "right" if agent == "left" else "left"
        self._accumulate_rewards()


class Seats(pettingzoo.ParallelEnv):  # type: ignore[misc]
    """One step: each player earns 1 by naming its own number. All see the same, so that only identity tells them."""

    def __init__(self, n: int = 2, bonus: Mapping[str, float] | None = None):
        self.possible_agents = [f"seat_{i}" for i in range(n)]
        self.bonus = dict(bonus or {})
        self.metadata = {"name": "seats_v0"}

    def observation_space(self, agent: str) -> Any:
        return Box(0.0, 1.0, (1,), np.float32)

    def action_space(self, agent: str) -> Any:
        return Discrete(len(self.possible_agents))

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.agents = list(self.possible_agents)
        return {agent: np.ones(1, np.float32) for agent in self.agents}, {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, int]) -> Any:
        names = self.agents
        rewards = {
            agent: float(actions[agent] == i) + self.bonus.get(agent, 0.0)
            for i, agent in enumerate(self.possible_agents)
        }
        self.agents = []
        seen = {agent: np.ones(1, np.float32) for agent in names}
        return seen, rewards, dict.fromkeys(names, True), dict.fromkeys(names, False), {agent: {} for agent in names}
