"""The agents of single policies that make up one for several: how they are made, and what they compare."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import torch

from grpo_gym.advantages import groups_with_spread
from grpo_gym.agent import GRPO
from grpo_gym.episodes import select_groups
from grpo_gym.marl_records import Experience
from grpo_gym.marl_roles import Role
from grpo_gym.policy import MlpPolicy
from grpo_gym.types import Compared, Rollout

Part = tuple[Rollout, Compared, float]
"""An iteration of one policy: its trajectories, what the baseline makes of them, the share of groups that tied."""


def make_learner(policy: str | type[MlpPolicy], role: Role, options: dict[str, Any]) -> GRPO:
    """Make the agent of one policy; it has no environment of its own."""
    seed = options.get("seed")
    learner = GRPO(policy, None, **{**options, "seed": None if seed is None else seed_of(seed, role.name)})
    learner.observation_space, learner.action_space = role.observation_space, role.action_space
    learner._setup_model()
    return learner


def seed_of(seed: int, role: str) -> int:
    """Give the learner of a policy its own seed."""
    return int(np.random.SeedSequence([seed, zlib.crc32(role.encode())]).generate_state(1)[0])


def compare_players(learner: GRPO, experience: Experience) -> Part:
    """Compare each player with itself in other games, never with another.

    Returns:
        The policy's rollout, what the baseline makes of each player's part of it, and the share of groups that tied.
    """
    rollout, agents = experience
    learner._seconds_comparing = 0.0
    parts = []
    for agent in dict.fromkeys(agents):
        own = torch.tensor([one == agent for one in agents])
        parts.append(learner._compare(select_groups(rollout, own)))
    compared = Compared(*(torch.cat(columns, dim=1) for columns in zip(*parts, strict=True)))
    spread = groups_with_spread(compared.advantages, rollout.groups)
    return rollout, compared, (~spread).float().mean().item()
