"""Earlier selves to play against: a bounded league, frozen policies with a rating each."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from grpo_gym.acting import Actor
from grpo_gym.marl_records import Cast, Episode
from grpo_gym.policy_model import PolicyModel

FIRST_RATING = 1000.0
K_FACTOR = 16.0
"""Points that change hands over a group of games, at most."""


@dataclass
class Member:
    """The policies as they once were.

    Attributes:
        iteration: when that was.
        rating: Elo points.
        policies: by name; never changed.
    """

    iteration: int
    rating: float
    policies: Mapping[str, PolicyModel]

    @cached_property
    def actors(self) -> dict[str, Actor]:
        """What acts for each policy."""
        return {name: policy.actor() for name, policy in self.policies.items()}


class League:
    """Earlier selves, and the rating of the present one among them.

    Args:
        share: of the groups that are played against the league, in [0, 1].
        size: members at most; when it is full, one drawn at random makes room, so that old ones become rare but
            stay: after n more have joined, a member is still there with probability (1 − 1/size)ⁿ.
        every: iterations between two that join.

    Attributes:
        members: in the order in which they joined.
        rating: of the present policies.
    """

    def __init__(self, share: float, size: int, every: int):
        self.share, self.size, self.every = share, size, every
        self.members: list[Member] = []
        self.rating = FIRST_RATING

    def enlist(self, policies: Mapping[str, PolicyModel], iteration: int, rng: np.random.Generator) -> None:
        """Let the policies as they are now join, if it is time."""
        if self.share == 0 or iteration % self.every:
            return
        if len(self.members) == self.size:
            del self.members[int(rng.integers(self.size))]
        frozen = {name: _frozen(policy) for name, policy in policies.items()}
        self.members.append(Member(iteration, self.rating, frozen))

    def cast(self, n_groups: int, sides: Sequence[str], rng: np.random.Generator) -> list[Cast]:
        """Draw who plays in each group: a share of them against the league, each side learning equally often.

        Args:
            n_groups: P.
            sides: players or policies, one of which learns where the others are the league's.
            rng: the only source of randomness.
        """
        n_league = round(self.share * n_groups)
        if n_league == 0:
            return [Cast()] * n_groups
        first = int(rng.integers(len(sides)))  # where the groups are no multiple of the sides, chance decides
        casts = []
        for k in range(n_league):
            number = int(rng.integers(len(self.members)))
            casts.append(Cast(sides[(first + k) % len(sides)], self.members[number].actors, number))
        return casts + [Cast()] * (n_groups - n_league)

    def rate(self, casts: Sequence[Cast], episodes: Sequence[Episode]) -> dict[str, float]:
        """Move the ratings by what became of an iteration's games against the league.

          E = 1 / (1 + 10^((R' − R)/400)),  R ← R + K·(S − E),  R' ← R' − K·(S − E)

        S is the mean score of a group's games: 1 for a higher mean return of the learning side than of the others,
        ½ for the same. See Elo 1978, "The rating of chessplayers".

        Returns:
            What is logged; nothing without such games.
        """
        scores = []
        for group, cast in enumerate(casts):
            if cast.side is None:
                continue
            score = float(np.mean([_score(episode) for episode in episodes if episode.group == group]))
            member = self.members[cast.opponent]
            expected = 1.0 / (1.0 + 10.0 ** ((member.rating - self.rating) / 400.0))
            change = K_FACTOR * (score - expected)
            self.rating += change
            member.rating -= change
            scores.append(score)
        if not scores:
            return {}
        return {"league/score": float(np.mean(scores)), "league/elo": self.rating, "league/size": len(self.members)}

    def state(self) -> dict[str, Any]:
        """Return what JSON can hold of it; `tensors` has the rest."""
        members = [{"iteration": member.iteration, "rating": member.rating} for member in self.members]
        return {"rating": self.rating, "members": members}

    def tensors(self) -> dict[str, Tensor]:
        """Return the members' weights by name."""
        return {
            f"league/{n}/{role}/{name}": tensor
            for n, member in enumerate(self.members)
            for role, policy in member.policies.items()
            for name, tensor in policy.state_dict().items()
        }

    def load(
        self, state: Mapping[str, Any], tensors: Mapping[str, Tensor], policies: Mapping[str, PolicyModel]
    ) -> None:
        """Take over what `state` and `tensors` returned; `policies` are of the members' kind."""
        self.rating, self.members = state["rating"], []
        for n, member in enumerate(state["members"]):
            frozen = {role: _frozen(policy) for role, policy in policies.items()}
            for role, policy in frozen.items():
                prefix = f"league/{n}/{role}/"
                policy.load_state_dict({k[len(prefix) :]: x for k, x in tensors.items() if k.startswith(prefix)})
            self.members.append(Member(member["iteration"], member["rating"], frozen))


def _score(episode: Episode) -> float:
    own = [r for agent, r in episode.returns.items() if agent in episode.learning]
    others = [r for agent, r in episode.returns.items() if agent not in episode.learning]
    if not own or not others:
        return 0.5
    return float((np.sign(np.mean(own) - np.mean(others)) + 1) / 2)


def _frozen(policy: PolicyModel) -> PolicyModel:
    """Copy a policy that will not learn any more."""
    frozen = copy.deepcopy(policy)
    for parameter in frozen.parameters():
        parameter.requires_grad = False
    return frozen
