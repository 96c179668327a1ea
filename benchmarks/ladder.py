"""The ladder: our learner with one baseline after the other, and nothing else changed."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from benchmarks.tasks import Task
from grpo_gym.recipes import recipe

TASK_NAMES = ("CartPole-v1", "Acrobot-v1", "Pendulum-v1", "LunarLander-v3")
"""The tasks that it is measured on."""

RUNGS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "ladder_scalar": {"baseline": "scalar"},
        "ladder_outcome": {"baseline": "outcome"},
        "ladder_batch": {"baseline": "batch"},
        "ladder_live_peers": {"baseline": "live_peers"},
        "ladder_shrunk": {"baseline": "shrunk"},
        "ladder_soft_1": {"baseline": "soft_groups", "gae_lambda": 1.0},
        "ladder_soft": {"baseline": "soft_groups", "gae_lambda": 0.95},
    }
)
"""What each settings of the ladder changes, the lowest first."""

_NOT_FROM_THE_RECIPE = ("baseline", "gae_lambda", "n_steps")


def arguments(task: Task, rung: str) -> dict[str, Any]:
    """Return the constructor arguments of a rung: those of the task's recipe, with whole episodes and its baseline.

    Raises:
        ValueError: if the ladder is not measured on this task.
    """
    if task.name not in TASK_NAMES:
        raise ValueError(f"{rung} is not for {task.name}: the ladder is measured on {', '.join(TASK_NAMES)}")
    common = {name: value for name, value in recipe(task.env_id).items() if name not in _NOT_FROM_THE_RECIPE}
    return {**common, **RUNGS[rung]}
