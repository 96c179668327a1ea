"""Speeds of collecting by more than one process."""

from __future__ import annotations

from benchmarks.speed.case import Round, Sizes, speed
from grpo_gym import GRPO


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
