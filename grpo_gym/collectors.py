"""What the agent asks of a collector, and the crews that one may work with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import VectorEnv

from grpo_gym.acting import Actor
from grpo_gym.extras import need
from grpo_gym.groups import InPlay, Queue
from grpo_gym.processes import Processes
from grpo_gym.rollout import Played
from grpo_gym.types import IntArray, Rollout
from grpo_gym.vec import EnvLike, find_spec
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


MakeCrew = Callable[[EnvLike, IntArray, "int | None"], Crew]
"""Makes a crew of an environment, the slots of each worker and the horizon."""


def _ray(env: EnvLike, sizes: IntArray, horizon: int | None) -> Crew:
    need("ray", "ray", "collector='ray'")
    from grpo_gym.ray_actors import RayActors

    return RayActors()(env, sizes, horizon)


CREWS: dict[str, MakeCrew] = {"processes": Processes, "ray": _ray}
"""Crews by the name that `GRPO(collector=...)` takes."""


def sendable(env: EnvLike) -> EnvSpec | Callable[[], gym.Env[Any, Any]]:
    """Return what another process can make the environment of.

    Raises:
        ValueError: if it is a vector environment, or one without a spec.
    """
    if isinstance(env, VectorEnv):
        raise ValueError(f"{env} lives in this process and cannot be sent to workers: pass its id, or use n_workers=1")
    if isinstance(env, gym.Env):
        if env.spec is None:
            raise ValueError(f"{env} has no spec, so workers cannot make it: pass a function, lambda: MyEnv()")
        return env.spec
    return find_spec(env) if isinstance(env, str) else env
