"""Between playing and learning: rewards are composed or penalised, and what teaches nothing is left out."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from torch import Tensor

from grpo_gym.advantages import groups_with_spread, may_be_learned, scale
from grpo_gym.episodes import select_episodes
from grpo_gym.policy_model import PolicyModel
from grpo_gym.references import Reference
from grpo_gym.rewards import RewardPart, compose
from grpo_gym.types import Compared, Rollout


def shape_rewards(
    rollout: Rollout,
    policy: PolicyModel,
    parts: Sequence[RewardPart] | None,
    reference: Reference | None,
    noted: dict[str, list[float]],
) -> Rollout:
    """Replace the environment's rewards by composed ones, and take the KL divergence from a reference off them.

    Args:
        rollout: as played.
        policy: that played it.
        parts: see `rewards.compose`; None for the environment's rewards.
        reference: None for no penalty.
        noted: to its lists are added the sum of each part over each episode, and the mean divergence.
    """
    if parts is not None:
        rollout, sums = compose(rollout, parts, policy.to_env)
        for name, values in sums.items():
            noted.setdefault(f"reward/{name}", []).extend(values)
    if reference is not None:
        rollout, kl = reference.penalise(rollout, policy)
        noted.setdefault("train/reference_kl", []).append(kl)
    return rollout


def select_teaching(
    rollout: Rollout, compared: Compared, scale_rewards: str, truncated_episodes: str
) -> tuple[Rollout, Tensor] | None:
    """Scale the advantages, and leave out groups and episodes that teach nothing.

    Args:
        rollout: of N trajectories.
        compared: what the baseline made of them.
        scale_rewards: see `advantages.scale`.
        truncated_episodes: see `advantages.may_be_learned`.

    Returns:
        The n that are left and their advantages `[T, n]`; None if none is.
    """
    advantages = scale(compared.advantages, rollout.mask, rollout.group_size, scale_rewards, compared.returns[0])
    teaching = groups_with_spread(advantages, rollout.groups)[rollout.groups]
    kept = teaching & may_be_learned(rollout.truncated, advantages, truncated_episodes)
    if bool(kept.any()):
        return select_episodes(rollout, kept), advantages[:, kept]
    if bool(teaching.any()):
        warnings.warn(
            f"all {int(teaching.sum())} episodes that teach something were truncated, and "
            f"truncated_episodes={truncated_episodes!r} leaves them out: nothing is learned from this iteration. Where "
            "the limit is a part of the task, choose 'drop_bad' or 'keep'",
            stacklevel=2,
        )
    return None
