"""What is logged: pure functions from records to `{key: value}`. docs/log_keys.md has every formula."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from grpo_gym.advantages import group_spread, no_spread
from grpo_gym.types import Compared, Rollout
from grpo_gym.update import UpdateSettings


def rollout_stats(rollout: Rollout, compared: Compared, tied_share: float) -> dict[str, float]:
    """Describe the groups of an iteration.

    Args:
        rollout: the episodes.
        compared: what the baseline made of them.
        tied_share: groups without spread, as a share of all that were played.
    """
    stats = {
        "rollout/frac_zero_std_groups": tied_share,
        "rollout/idle_fraction": rollout.idle_steps / (rollout.idle_steps + rollout.n_steps),
    }
    returns, values = compared.returns[rollout.mask], compared.values[rollout.mask]
    if not no_spread(returns.amin(), returns.amax()):
        unexplained = (returns - values).var(correction=0) / returns.var(correction=0)
        stats["rollout/unexplained_variance"] = unexplained.item()
    whole = rollout.starts & (rollout.terminated | rollout.truncated)
    if bool(whole.all()):  # the members of a group that is cut end at different times
        episode_returns = rollout.rewards.double().sum(dim=0)
        n_live = rollout.mask.view(len(rollout.mask), -1, rollout.group_size).sum(dim=2)
        stats["rollout/group_return_std"] = group_spread(episode_returns, rollout.group_size).mean().item()
        stats["rollout/frac_lone_steps"] = (n_live == 1).sum().item() / rollout.n_steps
        stats["rollout/live_peers"] = (n_live * (n_live - 1)).sum().item() / rollout.n_steps
    return stats


def episode_stats(episodes: Iterable[dict[str, Any]], successes: Iterable[float]) -> dict[str, float]:
    """Average the last episodes, as stable-baselines3 does."""
    episodes, successes = list(episodes), list(successes)
    stats = {}
    if episodes:
        stats["rollout/ep_rew_mean"] = sum(episode["r"] for episode in episodes) / len(episodes)
        stats["rollout/ep_len_mean"] = sum(episode["l"] for episode in episodes) / len(episodes)
    if successes:
        stats["rollout/success_rate"] = sum(successes) / len(successes)
    return stats


def shaping_stats(values: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Average what was noted when rewards were composed: a number an episode, or one a rollout."""
    return {key: sum(noted) / len(noted) for key, noted in values.items()}


def update_stats(metrics: dict[str, float], settings: UpdateSettings, log_std: torch.Tensor | None) -> dict[str, float]:
    """Name the metrics of an update, which are means over all its minibatches; none without an update."""
    stats = {f"train/{name}": value for name, value in metrics.items()}
    stats["train/learning_rate"] = settings.learning_rate
    stats["train/clip_range"] = settings.clip_low
    if settings.kl_coef > 0:
        stats["train/kl_coef"] = settings.kl_coef
    if settings.clip_high != settings.clip_low:
        stats["train/clip_range_high"] = settings.clip_high
    if log_std is not None:
        stats["train/std"] = log_std.exp().mean().item()
    return stats
