"""What users run inside `learn`: hooks called at its start, at every vector step and rollout, at its end.

Names, arguments and order of calls are stable-baselines3's, so its callbacks and ours can be mixed.
`on_step` comes once for each *vector* step, in which `num_timesteps` grows by the number of slots that still
play an episode: it varies. `eval_freq` and `save_freq` count these calls, as in stable-baselines3; to count
environment steps, put the callback into `EveryNTimesteps`.
"""

from __future__ import annotations

import os
from os import PathLike
from typing import Any

import numpy as np

from grpo_gym.callback_base import (
    BaseCallback,
    CallbackList,
    ConvertCallback,
    EventCallback,
    as_callback,
    warn_of_no_turn,
)
from grpo_gym.eval_callback import (
    EvalCallback,
    StopTrainingOnNoModelImprovement,
    StopTrainingOnRewardThreshold,
)
from grpo_gym.log_formats import to_screen
from grpo_gym.progress import ProgressBarCallback
from grpo_gym.tensorboard_callbacks import HParamCallback, VideoCallback

__all__ = [
    "BaseCallback",
    "CallbackList",
    "CheckpointCallback",
    "ConvertCallback",
    "EvalCallback",
    "EventCallback",
    "EveryNTimesteps",
    "HParamCallback",
    "LogEveryNTimesteps",
    "ProgressBarCallback",
    "StopTrainingOnMaxEpisodes",
    "StopTrainingOnNoModelImprovement",
    "StopTrainingOnRewardThreshold",
    "VideoCallback",
    "as_callback",
]


class CheckpointCallback(BaseCallback):
    """Save the agent every `save_freq` calls, as `{save_path}/{name_prefix}_{num_timesteps}_steps.zip`.

    Args:
        save_freq: in calls: vector steps, or events of `EveryNTimesteps`. If there are fewer, `learn` warns.
        save_path: the folder; made if need be.
        name_prefix: how the file names begin.
        save_replay_buffer: accepted for stable-baselines3's sake: there is no replay buffer.
        save_vecnormalize: likewise: the normalisation is inside of each checkpoint.
        verbose: from 2 on, print where.

    Raises:
        ValueError: if `save_freq` is below 1.
    """

    def __init__(
        self,
        save_freq: int,
        save_path: str | PathLike[str],
        name_prefix: str = "rl_model",
        save_replay_buffer: bool = False,
        save_vecnormalize: bool = False,
        verbose: int = 0,
    ) -> None:
        super().__init__(verbose)
        if save_freq < 1:
            raise ValueError(f"save_freq={save_freq}; it counts calls from one checkpoint to the next, at least 1")
        self.save_freq = save_freq
        self.save_path = save_path
        self.name_prefix = name_prefix
        self.save_replay_buffer = save_replay_buffer
        self.save_vecnormalize = save_vecnormalize

    def _init_callback(self) -> None:
        os.makedirs(self.save_path, exist_ok=True)

    def _on_step(self) -> bool:
        if self.n_calls % self.save_freq == 0:
            path = os.path.join(self.save_path, f"{self.name_prefix}_{self.num_timesteps}_steps.zip")
            self.model.save(path)
            if self.verbose >= 2:
                to_screen(f"Saving model checkpoint to {path}")
        return True

    def _on_training_end(self) -> None:
        warn_of_no_turn(self, "save_freq", self.save_freq)


class StopTrainingOnMaxEpisodes(BaseCallback):
    """Stop after `max_episodes * n_envs` episodes.

    Args:
        max_episodes: for each of the agent's environments, on average.
        verbose: from 1 on, print when it stops training.
    """

    def __init__(self, max_episodes: int, verbose: int = 0) -> None:
        super().__init__(verbose)
        self.max_episodes = max_episodes
        self.n_episodes = 0
        self._total_max_episodes = max_episodes

    def _init_callback(self) -> None:
        self._total_max_episodes = self.max_episodes * self.model.n_envs

    def _on_step(self) -> bool:
        self.n_episodes += int(np.sum(self.locals["dones"]))
        goes_on = self.n_episodes < self._total_max_episodes
        if self.verbose >= 1 and not goes_on:
            to_screen(
                f"Stopping training after {self.num_timesteps} steps and {self.n_episodes} episodes: "
                f"max_episodes={self.max_episodes} for each of {self.model.n_envs} environments is reached"
            )
        return goes_on


class EveryNTimesteps(EventCallback):
    """Call another callback each time at least `n_steps` more environment steps were taken.

    Args:
        n_steps: environment steps, of all environments together.
        callback: what to call.

    Raises:
        ValueError: if `n_steps` is below 1.
    """

    def __init__(self, n_steps: int, callback: BaseCallback) -> None:
        super().__init__(callback)
        if n_steps < 1:
            raise ValueError(f"n_steps={n_steps}; it counts steps from one event to the next, at least 1")
        self.n_steps = n_steps
        self.last_time_trigger = 0

    def _on_training_start(self) -> None:
        # A further `learn` may have begun to count at 0 again.
        self.last_time_trigger = min(self.last_time_trigger, self.num_timesteps)

    def _on_step(self) -> bool:
        if self.num_timesteps - self.last_time_trigger >= self.n_steps:
            self.last_time_trigger = self.num_timesteps
            return self._on_event()
        return True


class LogEveryNTimesteps(EveryNTimesteps):
    """Dump the log each time at least `n_steps` more environment steps were taken.

    Args:
        n_steps: environment steps, of all environments together.
    """

    def __init__(self, n_steps: int) -> None:
        super().__init__(n_steps, ConvertCallback(self._dump))

    def _dump(self, locals_: dict[str, Any], globals_: dict[str, Any]) -> None:
        self.model.dump_logs()
