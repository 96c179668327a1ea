"""What the agent asks of a collector, and the crews that one may work with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import VectorEnv

from grpo_gym.acting import Actor
from grpo_gym.arguments import one_of
from grpo_gym.groups import InPlay, Queue
from grpo_gym.processes import Processes
from grpo_gym.rollout import Played
from grpo_gym.types import ENVPOOL, Rollout
from grpo_gym.vec import EnvLike, copies_of, find_spec
from grpo_gym.workers import Crew


class AnyCollector(Protocol):
    """What the agent asks of a collector: weights and jobs in, trajectories out."""

    def collect(
        self,
        actor: Actor,
        queue: Queue,
        n_steps: int | None = None,
        on_step: Callable[[Played], bool] = lambda played: True,
    ) -> Rollout | None:
        """See `rollout.Collector.collect`."""
        ...

    def in_play(self) -> InPlay:
        """See `rollout.Collector.in_play`."""
        ...

    def resume(self, episodes: InPlay) -> None:
        """See `rollout.Collector.resume`."""
        ...


MakeCrew = Callable[[Sequence[bytes]], Crew]
"""Makes a crew of what `workers.pack_work` packed for each worker."""


def _ray(work: Sequence[bytes]) -> Crew:
    from grpo_gym.ray_actors import RayActors

    return RayActors()(work)


CREWS: dict[str, MakeCrew] = {"processes": Processes, "ray": _ray}
"""Crews by the name that `GRPO(collector=...)` takes."""


def find_crew(collector: str | MakeCrew) -> MakeCrew:
    """Return what makes the crew.

    Raises:
        ValueError: if there is none of this name.
    """
    if callable(collector):
        return collector
    one_of("collector", collector, CREWS)
    return CREWS[collector]


def sendable(env: EnvLike) -> str | EnvSpec | Callable[[], gym.Env[Any, Any]]:
    """Return what another process can make the environment of.

    Raises:
        ValueError: if it is a vector environment, or one without a spec that cannot be copied.
    """
    if isinstance(env, VectorEnv):
        raise ValueError(f"{env} lives in this process and cannot be sent to workers: pass its id, or use n_workers=1")
    if isinstance(env, gym.Env):
        return copies_of(env) if env.spec is None else env.spec
    return find_spec(env) if isinstance(env, str) and not env.startswith(ENVPOOL) else env
