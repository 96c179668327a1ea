"""The score: deterministic returns on the common seeds, all episodes side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.learners import Predict
from benchmarks.tasks import EVALUATION_SEEDS, Task


class Evaluator:
    """Scores policies on one task, always on the same episodes' starts.

    Args:
        task: the task.
        seeds: env seeds of the scored episodes.
    """

    def __init__(self, task: Task, seeds: Sequence[int] = EVALUATION_SEEDS) -> None:
        self._seeds = tuple(seeds)
        self._masked = task.masked
        self._envs: list[Any] = [task.make_env() for _ in self._seeds]

    def scores(self, predict: Predict) -> tuple[float, ...]:
        """Return the raw undiscounted return of one episode per seed.

        Episodes that are over are no longer stepped, so the batch that `predict` sees shrinks.
        """
        starts = [env.reset(seed=seed) for env, seed in zip(self._envs, self._seeds, strict=True)]
        returns = [0.0] * len(self._envs)
        live = {i: start for i, start in enumerate(starts)}
        while live:
            masks = np.stack([info["action_mask"] for _, info in live.values()]) if self._masked else None
            actions = predict(np.stack([observation for observation, _ in live.values()]), masks)
            for i, action in zip(tuple(live), actions, strict=True):
                observation, reward, terminated, truncated, info = self._envs[i].step(action)
                returns[i] += float(reward)
                if terminated or truncated:
                    del live[i]
                else:
                    live[i] = (observation, info)
        return tuple(returns)

    def close(self) -> None:
        """Close the environments."""
        for env in self._envs:
            env.close()
