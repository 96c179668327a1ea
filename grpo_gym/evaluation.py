"""Playing whole episodes with whatever can choose actions, and the mean of what they earned.

Episodes are divided among the sub-environments beforehand, episode `i` to sub-environment `i % n_envs`. Who
is ready first would otherwise play more, and short episodes would be over-represented
(stable-baselines3 issue 402).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import VectorEnv

from grpo_gym.env_layers import changes_rewards, has_time_limit
from grpo_gym.eval_envs import EnvFactory, EnvList, EvalBatch, VectorEnvs, make_envs
from grpo_gym.eval_player import Episode, EvalHook, Player
from grpo_gym.types import DEFAULT_HORIZON, Predictor

EvalEnv = str | EnvSpec | EnvFactory | gym.Env[Any, Any] | Sequence[gym.Env[Any, Any]] | VectorEnv[Any, Any, Any]

LARGEST_BATCH = 16
"""Environments made for an id at most; more would gain little and cost memory."""


def evaluate_policy(
    model: Predictor,
    env: EvalEnv,
    n_eval_episodes: int = 10,
    deterministic: bool = True,
    render: bool = False,
    callback: EvalHook | None = None,
    reward_threshold: float | None = None,
    return_episode_rewards: bool = False,
    warn: bool = True,
    *,
    seeds: Sequence[int] | None = None,
    max_episode_steps: int | None = None,
) -> tuple[float, float] | tuple[list[float], list[int]]:
    """Play `n_eval_episodes` episodes and return the mean of their returns and its spread.

    Args:
        model: anything with `predict`. It sees batches, `[n_envs, ...]`, and gets `action_masks=`
            (bool, `[n_envs, n_actions]`) if it takes that keyword and the environment has masks:
            a method `action_masks()`, or `info["action_mask"]`.
        env: an id, a spec or a function that makes an environment (a batch of them is made, and closed
            afterwards); an environment, or a list of equal ones; or a Gymnasium vector environment of any
            autoreset mode.
        n_eval_episodes: how many episodes.
        deterministic: the policy's most probable action rather than a sample.
        render: call `render` after each step; an environment made here from an id opens a window.
        callback: called as `callback(locals, globals)` after each step of each sub-environment whose step
            counts. `locals` holds `i` (which sub-environment), `reward`, `done`, `info`, `observations`
            (before the step), `actions`, `new_observations`, `model` and `env`.
        reward_threshold: a mean that the caller insists on.
        return_episode_rewards: return `(returns, lengths)` of each episode instead, in the order of the
            episodes.
        warn: warn if rewards are counted above a wrapper that changes them, and if episodes were cut.
        seeds: play exactly these: episode `i` starts from `reset(seed=seeds[i])`, and there are `len(seeds)`
            episodes, whatever `n_eval_episodes` says.
        max_episode_steps: cut longer episodes here; None for the environment's own limit, or
            `DEFAULT_HORIZON` where it has none.

    Returns:
        Mean and population standard deviation of the returns; two lists with `return_episode_rewards`.

    Raises:
        AssertionError: if the mean is not above `reward_threshold`.
        TypeError: if `env` is none of the above.
        ValueError: if there is no episode to play, or if an environment stops giving action masks.
        RuntimeError: if an episode of a vector environment outlasts `max_episode_steps`: it cannot be cut
            from outside.
    """
    episodes = play_episodes(
        model,
        env,
        n_eval_episodes,
        deterministic=deterministic,
        render=render,
        callback=callback,
        warn=warn,
        seeds=seeds,
        max_episode_steps=max_episode_steps,
    )
    rewards = [episode.reward for episode in episodes]
    mean, std = float(np.mean(rewards)), float(np.std(rewards))
    if reward_threshold is not None and not mean > reward_threshold:
        raise AssertionError(f"mean reward {mean:.2f} is not above reward_threshold={reward_threshold:.2f}")
    return (rewards, [episode.length for episode in episodes]) if return_episode_rewards else (mean, std)


def play_episodes(
    model: Predictor,
    env: EvalEnv,
    n_eval_episodes: int = 10,
    *,
    deterministic: bool = True,
    render: bool = False,
    callback: EvalHook | None = None,
    warn: bool = True,
    seeds: Sequence[int] | None = None,
    max_episode_steps: int | None = None,
) -> list[Episode]:
    """Do the work of `evaluate_policy`, which explains the arguments, and return the episodes in order."""
    count = n_eval_episodes if seeds is None else len(seeds)
    if count < 1 or (max_episode_steps is not None and max_episode_steps < 1):
        raise ValueError(
            f"got n_eval_episodes={n_eval_episodes}, seeds={seeds} and max_episode_steps={max_episode_steps}; "
            "at least one episode of at least one step is needed"
        )
    made: list[gym.Env[Any, Any]] = []
    if isinstance(env, str | EnvSpec) or (callable(env) and not isinstance(env, gym.Env | VectorEnv)):
        env = made = make_envs(env, 1 if render else min(count, LARGEST_BATCH), render)
    try:
        places = existing_envs(env)
        limit = max_episode_steps
        if limit is None and not has_time_limit(places if isinstance(places, VectorEnv) else places[0]):
            limit = DEFAULT_HORIZON
        episodes: list[Episode] = []
        for batch, targets in _rounds(places, count, seeds, limit):
            player = Player(model, env, batch, deterministic, render, callback, limit)
            episodes += player.play(targets)
    finally:
        for one in made:
            one.close()
    if warn:
        _warn_of_rewards(batch)
    if warn and max_episode_steps is None:
        _warn_of_cuts(episodes)
    return episodes


def existing_envs(env: Any) -> VectorEnv[Any, Any, Any] | list[gym.Env[Any, Any]]:
    """Return a vector environment as it is, and single environments as a list; refuse anything else."""
    if isinstance(env, VectorEnv):
        return env
    envs = list(env) if isinstance(env, list | tuple) else [env]
    if not envs or not all(isinstance(one, gym.Env) for one in envs):
        raise TypeError(
            f"env is {env!r}; expected an id, a spec, a function that makes an environment, a gymnasium.Env, "
            "a list of them, or a gymnasium.vector.VectorEnv"
        )
    return envs


def _rounds(
    places: VectorEnv[Any, Any, Any] | list[gym.Env[Any, Any]],
    count: int,
    seeds: Sequence[int] | None,
    max_episode_steps: int | None,
) -> list[tuple[EvalBatch, list[int]]]:
    """Return the batches to play one after another, with the number of episodes for each environment."""
    integers = None if seeds is None else [int(seed) for seed in seeds]
    if isinstance(places, VectorEnv):
        n = places.num_envs
        if integers is None:
            return [(VectorEnvs(places), [len(range(slot, count, n)) for slot in range(n)])]
        # A vector environment takes seeds only when all of it is reset: one episode each, as often as needed.
        waves = [integers[start : start + n] for start in range(0, count, n)]
        batch = VectorEnvs(places, [wave + wave[-1:] * (n - len(wave)) for wave in waves])
        return [(batch, [int(slot < len(wave)) for slot in range(n)]) for wave in waves]
    jobs: Sequence[int | None] = [None] * count if integers is None else integers
    queues = [jobs[slot :: len(places)] for slot in range(len(places))]
    return [(EnvList(places, queues, max_episode_steps), [len(queue) for queue in queues])]


def _warn_of_rewards(batch: EvalBatch) -> None:
    changed = [type(layer).__name__ for layer in batch.layers if changes_rewards(layer)]
    if changed and not batch.monitored:
        warnings.warn(
            f"the evaluation counts the rewards that {changed[0]} has changed. Put "
            "gymnasium.wrappers.RecordEpisodeStatistics under it to see the environment's own",
            UserWarning,
            stacklevel=4,
        )


def _warn_of_cuts(episodes: Sequence[Episode]) -> None:
    n_cut = sum(episode.cut for episode in episodes)
    if n_cut:
        warnings.warn(
            f"{n_cut} of {len(episodes)} evaluation episodes had no end and were cut after {DEFAULT_HORIZON} "
            "steps, because the environment has no time limit; choose one with max_episode_steps",
            UserWarning,
            stacklevel=4,
        )
