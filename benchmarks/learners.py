"""The seam between the suite and an algorithm: what a learner is, and the table of learners.

To add one, write a class with a `train` method as in `Learner`, and give it a line in `LEARNERS`:

    class Mine:
        def train(self, task, seed, settings, on_progress):
            agent = build(task.make_env, seed, **SETTINGS[settings][task.name])
            def predict(observations, masks):                 # a batch in, deterministic actions out
                return agent.predict(observations, action_masks=masks, deterministic=True)[0]
            agent.learn(task.steps, callback=lambda: on_progress(agent.num_timesteps, predict))
            return Trained(agent.num_timesteps, predict)

The suite does the rest: it decides when to evaluate, stops the clocks while it does, scores on the common
seeds and writes the records.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

from numpy.typing import NDArray

from benchmarks.tasks import Task


class Predict(Protocol):
    """The policy as it is now, without noise."""

    def __call__(self, observations: NDArray[Any], masks: NDArray[Any] | None) -> NDArray[Any]:
        """Return deterministic actions `[B, …]` that the environment accepts as they are.

        Args:
            observations: raw observations, shape `[B, …]`; B changes from call to call. Normalising them
                with frozen training statistics is the learner's part.
            masks: which actions are legal, boolean, shape `[B, n_actions]`; None unless `task.masked`.
        """


class OnProgress(Protocol):
    """What a learner calls while it trains."""

    def __call__(self, steps: int, predict: Predict, diagnostics: Mapping[str, float] | None = None) -> None:
        """Tell the suite that `steps` env steps have been taken in all.

        Cheap unless an evaluation is due: call it after every vector step, or at least after every
        iteration. The time an evaluation takes is not counted as training.
        """


@dataclass(frozen=True)
class Trained:
    """What training returns: env steps taken in all, every step counted, and the final policy."""

    steps: int
    predict: Predict
    diagnostics: Mapping[str, float] = field(default_factory=dict)


class Learner(Protocol):
    """One algorithm."""

    def train(self, task: Task, seed: int, settings: str, on_progress: OnProgress) -> Trained:
        """Train for `task.steps` env steps and return the final policy.

        The clocks run from the call to the return. The process has one torch thread; draw all randomness
        from `seed`. A learner that works in whole iterations may pass the budget by part of one.

        Raises:
            ValueError: if the learner has no settings of that name for this task.
        """


LEARNERS: Mapping[str, str] = MappingProxyType(
    {
        "grpo": "benchmarks.ours:GRPO_LEARNER",
        "ppo": "benchmarks.peers:PPO_PEER",
        "a2c": "benchmarks.peers:A2C_PEER",
        "ars": "benchmarks.peers:ARS_PEER",
        "maskable_ppo": "benchmarks.peers:MASKABLE_PPO_PEER",
    }
)
"""Where each learner is, "module:attribute"; imported only in the process that trains it."""


def load(name: str) -> Learner:
    """Import and return the learner of that name.

    Raises:
        ValueError: if there is none; the message lists the names there are.
    """
    if name not in LEARNERS:
        raise ValueError(f"there is no learner {name!r}: choose from {', '.join(LEARNERS)}")
    module, attribute = LEARNERS[name].split(":")
    learner: Learner = getattr(importlib.import_module(module), attribute)
    return learner
