"""What is written down while games of several agents are played: who plays, what came to whom, and trajectories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from grpo_gym.acting import Actor
from grpo_gym.episodes import TrajectoryRecorder
from grpo_gym.groups import Jobs, Plan
from grpo_gym.marl_games import End, Game
from grpo_gym.marl_roles import Role
from grpo_gym.types import Array, BoolArray, FloatArray, Rollout


@dataclass(frozen=True)
class Cast:
    """Who plays in the games of one group, the same in all of them.

    Attributes:
        side: who learns, a player if there is one policy and a policy if there are several; None if all do.
        opponents: what acts for the others, for each policy; it does not learn.
        opponent: number of the league's member that the others are; −1 for none.
    """

    side: str | None = None
    opponents: Mapping[str, Actor] = field(default_factory=dict)
    opponent: int = -1

    def learns(self, agent: str, role: Role) -> bool:
        """Tell whether a player is played by the policy that learns."""
        return self.side is None or self.side == (role.name if len(self.opponents) > 1 else agent)


class Episode(NamedTuple):
    """What a game came to.

    Attributes:
        group: number of its group in the plan.
        returns: of each player that acted, not discounted.
        learning: those of them that the learning policies played.
        n_steps: environment steps.
    """

    group: int
    returns: dict[str, float]
    learning: tuple[str, ...]
    n_steps: int


class Experience(NamedTuple):
    """What an iteration gives to one policy.

    Attributes:
        rollout: a trajectory for each player and game. Its groups are those of (seed, player): the same player in
            the members of a group of games. A player that a game never had has an empty trajectory there.
        agents: the player of each of its groups, those of one player side by side.
    """

    rollout: Rollout
    agents: list[str]


class Games(NamedTuple):
    """What an iteration's games came to: for each policy, and one by one. `n_agent_steps` counts actions."""

    experience: dict[str, Experience]
    episodes: list[Episode]
    n_agent_steps: int


class Tick(NamedTuple):
    """What happened in one step of the games that were in play, as callbacks are told.

    Attributes:
        n_steps: environment steps, one for each game.
        infos: a dictionary a game; that of an ended one has `"episode": {"r", "l", "returns"}`.
        dones: the game is over, `[k]`.
    """

    n_steps: int
    infos: list[dict[str, Any]]
    dones: BoolArray


@dataclass
class Player:
    """A player in one game.

    What comes to a player belongs to the last thing it did: `credit[at]` is that action's reward.
    """

    agent: str
    role: Role
    actor: Actor
    row: int
    noise_seed: int
    n_actions: int = 0
    total: float = 0.0
    seen: Array = field(default_factory=lambda: np.zeros(0))
    credit: FloatArray = field(default_factory=lambda: np.zeros(1, np.float32))
    at: int = 0
    end: End | None = None


@dataclass
class Table:
    """A game in play, as one member of one group."""

    game: Game
    group: int = 0
    member: int = 0
    n_steps: int = 0
    players: dict[str, Player] = field(default_factory=dict)


class Record:
    """The trajectories of one policy's players. Number `k·P + g` is player k in group g of the plan."""

    def __init__(self, role: Role, plan: Plan):
        self.role, self.plan = role, plan
        self.steps = TrajectoryRecorder()
        self._agents = list(role.agents)
        self._members: dict[int, set[int]] = {}

    def begin(self, agent: str, group: int, member: int, noise_seed: int, starts: bool = True) -> int:
        """Open a player's trajectory in one game, and return its row."""
        if agent not in self._agents:
            self._agents.append(agent)
        number = self._agents.index(agent) * len(self.plan.seeds) + group
        self._members.setdefault(number, set()).add(member)
        jobs = Jobs(*(np.array([x]) for x in (number, member, self.plan.seeds[group], noise_seed)))
        return int(self.steps.begin(jobs, starts)[0])

    def end(self, row: int, terminated: bool, observation: Array) -> None:
        """Write down how it ended, and what was seen last."""
        over = np.array([terminated])
        self.steps.end(np.array([row]), over, ~over, observation[None])

    def experience(self) -> Experience | None:
        """Return what was written; None if the policy learned from no game."""
        if not self._members:
            return None
        n_groups = len(self.plan.seeds)
        nothing = np.zeros(self.role.observation_space.shape or (), self.role.observation_space.dtype)
        for number, present in list(self._members.items()):
            agent = self._agents[number // n_groups]
            for member in set(range(self.plan.group_size)) - present:
                self.end(self.begin(agent, number % n_groups, member, 0, starts=False), True, nothing)
        agents = [self._agents[number // n_groups] for number in sorted(self._members)]
        return Experience(self.steps.rollout(self.plan.group_size), agents)
