"""What the wrappers around an environment tell about its rewards and the ends of its episodes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import gymnasium as gym
from gymnasium import wrappers
from gymnasium.vector import SyncVectorEnv, VectorRewardWrapper, VectorWrapper

Info = dict[str, Any]


def layers_of(env: Any) -> Iterator[Any]:
    """Yield a wrapped environment's wrappers from the outside in, and then itself.

    Of a `SyncVectorEnv` the first sub-environment's layers follow; an `AsyncVectorEnv` keeps its own far away.
    """
    while isinstance(env, gym.Wrapper | VectorWrapper):
        yield env
        env = env.env
    yield env
    if isinstance(env, SyncVectorEnv):
        yield from layers_of(env.envs[0])


def time_limit(env: Any) -> int | None:
    """Return the steps after which an environment, or its spec, says that an episode is cut; None if none does."""
    limits = []
    for layer in layers_of(env):
        # A wrapper's spec is its environment's, copied at every look.
        spec = None if isinstance(layer, gym.Wrapper | VectorWrapper) else getattr(layer, "spec", None)
        limits.append(layer._max_episode_steps if isinstance(layer, wrappers.TimeLimit) else None)
        limits.append(getattr(spec, "max_episode_steps", None))
    return min((limit for limit in limits if limit is not None), default=None)


def has_time_limit(env: Any) -> bool:
    """Tell whether an environment, or its spec, says after how many steps an episode is cut."""
    return time_limit(env) is not None


def is_true_end(info: Info, monitored: bool) -> bool:
    """Tell an episode's end from a lost life, which a recorder does not confirm (as Atari wrappers have it)."""
    return recorded(info) is not None or not monitored


def recorded(info: Info) -> tuple[float, int] | None:
    """Return what a recorder noted of an ended episode, its return and its length."""
    record = info.get("episode")
    if isinstance(record, Mapping) and {"r", "l"} <= record.keys():
        return float(record["r"]), int(record["l"])
    return None


def changes_rewards(layer: Any) -> bool:
    """Tell whether it is in the nature of a wrapper to change rewards."""
    normalizers = wrappers.NormalizeReward, wrappers.vector.NormalizeReward
    return isinstance(layer, (gym.RewardWrapper, VectorRewardWrapper, *normalizers))


def is_monitor(layer: Any) -> bool:
    """Tell whether a wrapper records episodes in `info["episode"]`."""
    kinds = (wrappers.RecordEpisodeStatistics, wrappers.vector.RecordEpisodeStatistics)
    recorder = isinstance(layer, kinds) and getattr(layer, "_stats_key", "episode") == "episode"
    return recorder or type(layer).__name__ == "Monitor"  # stable-baselines3's, by name: it is not needed here
