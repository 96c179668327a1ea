"""Our agent as a learner of the suite, cut at exactly the budget."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from numpy.typing import NDArray

from benchmarks import ladder, variants
from benchmarks.learners import OnProgress, Trained
from benchmarks.tasks import Task
from grpo_gym import GRPO, BaseCallback
from grpo_gym.recipes import recipe
from grpo_gym.vec import find_spec

SETTINGS: dict[str, Callable[[Task], dict[str, Any]]] = {
    "recipe": lambda task: recipe(task.env_id),
    "default": lambda task: {},
    "segments": lambda task: {"n_steps": 128},
    "segments_1": lambda task: {"n_steps": 128, "value_window": 1},
    **{rung: partial(ladder.arguments, rung=rung) for rung in ladder.RUNGS},
    **{settings: partial(variants.arguments, settings=settings) for settings in variants.SETTINGS},
}
"""Constructor arguments by the name of the settings: the environment's recipe, none at all, segments alone (with
their memory, or without), a rung of the ladder, or a member of the family."""


class GrpoLearner:
    """`grpo_gym.GRPO`. At the budget an unfinished rollout is thrown away: what remains learned from less."""

    def train(self, task: Task, seed: int, settings: str, on_progress: OnProgress) -> Trained:
        """See `Learner.train`."""
        if settings not in SETTINGS:
            raise ValueError(f"grpo has no settings {settings!r}: choose from {', '.join(SETTINGS)}")
        spec = find_spec(task.env_id)
        spec.kwargs.update(task.env_kwargs)
        agent = GRPO("MlpPolicy", spec, seed=seed, device="cpu", **SETTINGS[settings](task))

        def predict(observations: NDArray[Any], masks: NDArray[Any] | None) -> NDArray[Any]:
            actions: NDArray[Any] = agent.predict(observations, deterministic=True, action_masks=masks)[0]
            return actions

        class Progress(BaseCallback):
            def _on_step(self) -> bool:
                on_progress(self.num_timesteps, predict)
                return self.num_timesteps < task.steps

        agent.learn(task.steps, callback=Progress())
        return Trained(agent.num_timesteps, predict)


GRPO_LEARNER = GrpoLearner()
