"""Speeds of collecting by more than one process, and of learning in EnvPool."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.speed.case import Round, Sizes, speed
from benchmarks.tasks import EVALUATION_SEEDS
from grpo_gym import GRPO, evaluate_policy


def _play(agent: GRPO) -> int:
    """Play one iteration by whoever plays for this agent, and return the env steps taken."""
    rollout = agent.sampler.play(agent.policy.actor(), agent.n_groups, agent._plan_rng, lambda played: True)
    assert rollout is not None
    return rollout.n_steps + rollout.idle_steps


def collecting_together(env_id: str, collector: str, sizes: Sizes) -> Round:
    """Collect 32 whole episodes by two workers, against the same in this process; they are the same episodes.

    Args:
        env_id: Gymnasium id.
        collector: see `GRPO`.
        sizes: `seconds` is used; 0.1 or less makes the episodes short.
    """
    horizon = 20 if sizes.seconds <= 0.1 else None
    agents = {
        f"{n} workers" if n > 1 else "this process": GRPO(
            "MlpPolicy",
            env_id,
            n_groups=8,
            group_size=4,
            n_workers=n,
            collector=collector if n > 1 else "processes",
            max_episode_steps=horizon,
            seed=0,
            device="cpu",
        )
        for n in (2, 1)
    }
    for agent in agents.values():
        _play(agent)

    def one_round(number: int) -> dict[str, dict[str, float]]:
        found = {name: speed(lambda agent=agent: _play(agent), sizes.seconds) for name, agent in agents.items()}  # type: ignore[misc]
        # this process's own processor time says nothing of what workers do
        return {name: {"env steps/s": values["env steps/s"]} for name, values in found.items()}

    return one_round


def learning_in_envpool(arguments: Mapping[str, Any], passes: int, sizes: Sizes) -> Round:
    """Construct and `learn` CartPole with these arguments, in EnvPool and in our own slots; the round is the seed.

    `mean return` is that of the last hundred training episodes, whose actions are drawn; `score` that of the agent when
    it is done, over the benchmark's 20 episodes in Gymnasium's CartPole.

    Args:
        arguments: of `GRPO`.
        passes: env steps of a `learn`, in units of `sizes.train_steps`.
        sizes: `train_steps` is used.
    """

    def one(env_id: str, seed: int) -> dict[str, float]:
        agent = GRPO("MlpPolicy", env_id, seed=seed, device="cpu", **arguments)
        values = speed(lambda: agent.learn(passes * sizes.train_steps).num_timesteps)
        returns = [episode["r"] for episode in agent.ep_info_buffer]
        score, _ = evaluate_policy(agent, "CartPole-v1", seeds=EVALUATION_SEEDS, warn=False)
        return {**values, "mean return": sum(returns) / len(returns), "score": float(np.mean(score))}

    one("envpool:CartPole-v1", 0)
    one("CartPole-v1", 0)
    return lambda number: {"envpool": one("envpool:CartPole-v1", number), "slots": one("CartPole-v1", number)}
