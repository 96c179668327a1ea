"""Who is played by which policy, and what a policy sees of its players' observations."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import gymnasium as gym
import numpy as np

from grpo_gym.marl_games import Game, space_without_mask, without_mask
from grpo_gym.noise import GOLDEN, mix
from grpo_gym.types import Array


@dataclass(frozen=True)
class Role:
    """One policy and its players.

    Attributes:
        name: of the policy.
        agents: its players, in their order.
        space: what each of them sees, without a mask.
        action_space: what each of them may do.
        with_identity: the policy is also told which of them it plays.
    """

    name: str
    agents: tuple[str, ...]
    space: gym.Space[Any]
    action_space: gym.Space[Any]
    with_identity: bool = False

    @cached_property
    def observation_space(self) -> gym.Space[Any]:
        """What the policy sees: with identity a flat Box, its last entries one for each player."""
        if not self.with_identity:
            return self.space
        flat = gym.spaces.flatten_space(self.space)
        if not isinstance(flat, gym.spaces.Box):
            raise ValueError(f"agent_identity=True cannot be added to {self.space}; expected a space that flattens")
        n = len(self.agents)
        low, high = np.append(flat.low, np.zeros(n)), np.append(flat.high, np.ones(n))
        return gym.spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)

    def see(self, agent: str, observation: Any) -> Array:
        """Turn what the environment gave a player into what the policy sees."""
        seen = without_mask(observation)
        if not self.with_identity:
            return np.asarray(seen, self.space.dtype)
        if agent not in self.agents:
            raise ValueError(
                f"agent_identity=True knows {', '.join(self.agents)}, not {agent!r}: an environment that invents names "
                "needs agent_identity=False"
            )
        flat = np.asarray(gym.spaces.flatten(self.space, seen), np.float32)
        return np.append(flat, np.eye(len(self.agents), dtype=np.float32)[self.agents.index(agent)])


class Roles:
    """All policies of a game, by the name of each.

    Args:
        roles: at least one; no player is in two.
    """

    def __init__(self, roles: Iterable[Role]):
        self.by_name = {role.name: role for role in roles}
        self._of = {agent: role for role in self.by_name.values() for agent in role.agents}

    def of(self, agent: str, game: Game | None = None) -> Role:
        """Return a player's role; one whose name is new has that of the players with its spaces.

        Raises:
            ValueError: if it has none.
        """
        if agent not in self._of:
            spaces = None if game is None else spaces_of(game, agent)
            fitting = [r for r in self if (r.space, r.action_space) == spaces]
            if len(fitting) != 1:
                known = "; ".join(f"{r.name}: {', '.join(r.agents)}" for r in self)
                raise ValueError(
                    f"no policy is known for the player {agent!r}, and its spaces {spaces} are those of "
                    f"{len(fitting)} of them ({known}): name it in policy_groups, or in the environment's "
                    "possible_agents"
                )
            self._of[agent] = fitting[0]
        return self._of[agent]

    def knows(self, agent: Any) -> bool:
        """Tell whether this is a player's name."""
        return agent in self._of

    def __iter__(self) -> Iterator[Role]:
        return iter(self.by_name.values())

    def __str__(self) -> str:
        return "; ".join(f"{r.name}: {', '.join(r.agents)} ({r.observation_space} → {r.action_space})" for r in self)


def find_roles(game: Game, policy_groups: Mapping[str, Sequence[str]] | None, agent_identity: bool) -> Roles:
    """Find out who is played by which policy.

    Args:
        game: tells its players and their spaces; it is reset where it names no `possible_agents`.
        policy_groups: the players of each policy; None for one policy for all players with equal spaces.
        agent_identity: see `Role.with_identity`.

    Raises:
        ValueError: if a group names players that there are not, leaves some out, has one twice, or joins players
            with different spaces.
    """
    agents = list(getattr(game.env, "possible_agents", None) or ())
    if not agents:
        game.start(seed=0)
        agents = list(game.env.agents)
    spaces = {agent: spaces_of(game, agent) for agent in agents}
    if policy_groups is None:
        return Roles(Role(name, tuple(of), *spaces[of[0]], agent_identity) for name, of in _by_spaces(spaces).items())
    listed = [agent for group in policy_groups.values() for agent in group]
    if sorted(listed) != sorted(agents):
        raise ValueError(f"policy_groups={policy_groups} must name each of {', '.join(agents)} once")
    for name, group in policy_groups.items():
        for agent in group:
            if spaces[agent] != spaces[group[0]]:
                raise ValueError(
                    f"policy_groups: {name!r} joins {group[0]} and {agent}, but one has {spaces[group[0]]} and the "
                    f"other {spaces[agent]}; expected equal spaces: give them a policy each"
                )
    return Roles(Role(name, tuple(of), *spaces[of[0]], agent_identity) for name, of in policy_groups.items() if len(of))


def spaces_of(game: Game, agent: str) -> tuple[gym.Space[Any], gym.Space[Any]]:
    """Return a player's observation space, without a mask, and its action space."""
    return space_without_mask(game.env.observation_space(agent)), game.env.action_space(agent)


def own_noise(noise_seed: int, agent: str) -> int:
    """Give a player its own stream of action noise in a game."""
    own = np.array([noise_seed], np.uint64) + np.array([1 + zlib.crc32(str(agent).encode())], np.uint64) * GOLDEN
    return int((mix(own) >> np.uint64(1))[0])


def _by_spaces(spaces: Mapping[str, Any]) -> dict[str, list[str]]:
    """Join players with equal spaces, under what their names have in common."""
    groups: list[list[str]] = []
    for agent, own in spaces.items():
        for group in groups:
            if spaces[group[0]] == own:
                group.append(agent)
                break
        else:
            groups.append([agent])
    named: dict[str, list[str]] = {}
    for group in groups:
        alike = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*group, strict=False))
        name = "".join(letters[0] for letters in alike).rstrip("_0123456789")
        named[name if name and name not in named else group[0]] = group
    return named
