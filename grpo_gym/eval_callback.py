"""Evaluating the agent while it trains, keeping the best, and stopping when that is good enough."""

from __future__ import annotations

import math
import os
from os import PathLike
from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec

from grpo_gym.callback_base import BaseCallback, EventCallback, goes_on, warn_of_no_turn
from grpo_gym.env_layers import has_time_limit
from grpo_gym.eval_envs import make_envs
from grpo_gym.eval_player import Episode
from grpo_gym.evaluation import LARGEST_BATCH, EvalEnv, existing_envs, play_episodes
from grpo_gym.log_formats import to_screen


class EvalCallback(EventCallback):
    """Evaluate every `eval_freq` calls, log the result, and save the agent whenever it was the best so far.

    Logged: `eval/mean_reward`, `eval/mean_ep_length`, and `eval/success_rate` where episodes end with
    `info["is_success"]`. Training is not disturbed: the environments are others, and no random stream but
    the agent's own for `predict` is drawn from.

    Args:
        eval_env: see `evaluate_policy`. What is made here (from an id, a spec or a function) is seeded with
            the agent's seed when training starts, and closed when it ends; what is handed in is neither.
        callback_on_new_best: called after each evaluation that was the best so far.
        callback_after_eval: called after each evaluation.
        n_eval_episodes: in each evaluation.
        eval_freq: in calls: vector steps, or events of `EveryNTimesteps`. 0 or less: never. If there are fewer, `learn`
            warns.
        log_path: folder for `evaluations.npz`: `timesteps` `[k]`, `results` and `ep_lengths` `[k, n]`, and
            `successes` `[k, n]` (NaN where unknown) of the k evaluations so far.
        best_model_save_path: folder for `best_model.zip`.
        deterministic: the policy's most probable action rather than a sample.
        render: draw each step.
        verbose: from 1 on, print results.
        warn: see `evaluate_policy`.

    Raises:
        TypeError, ValueError: if `eval_env` cannot be played in, or is the training environment.

    Attributes:
        best_mean_reward: so far; -inf before the first evaluation.
        last_mean_reward: of the last evaluation.
    """

    def __init__(
        self,
        eval_env: EvalEnv,
        callback_on_new_best: BaseCallback | None = None,
        callback_after_eval: BaseCallback | None = None,
        n_eval_episodes: int = 5,
        eval_freq: int = 10000,
        log_path: str | PathLike[str] | None = None,
        best_model_save_path: str | PathLike[str] | None = None,
        deterministic: bool = True,
        render: bool = False,
        verbose: int = 1,
        warn: bool = True,
    ) -> None:
        self.callback_on_new_best = callback_on_new_best
        super().__init__(callback_after_eval, verbose)
        self.eval_env = eval_env
        if n_eval_episodes < 1:
            raise ValueError(f"n_eval_episodes={n_eval_episodes}; an evaluation needs at least 1")
        if not self._must_be_made():
            existing_envs(eval_env)
        self.n_eval_episodes = n_eval_episodes
        self.eval_freq = eval_freq
        self.log_path = None if log_path is None else os.path.join(log_path, "evaluations")
        self.best_model_save_path = best_model_save_path
        self.deterministic = deterministic
        self.render = render
        self.warn = warn
        self.best_mean_reward = -math.inf
        self.last_mean_reward = -math.inf
        self.evaluations_timesteps: list[int] = []
        self.evaluations_results: list[list[float]] = []
        self.evaluations_length: list[list[int]] = []
        self.evaluations_successes: list[list[float]] = []
        self._made: list[gym.Env[Any, Any]] = []

    def children(self) -> list[BaseCallback]:
        """Return both callbacks."""
        best = [] if self.callback_on_new_best is None else [self.callback_on_new_best]
        return best + super().children()

    def _init_callback(self) -> None:
        training = self.training_env
        shared = [training, getattr(training, "env", None), *getattr(training, "envs", ())]
        if any(self.eval_env is env for env in shared):
            raise ValueError("eval_env is the training environment, whose episodes it would cut off; make another")
        for folder in (self.best_model_save_path, self.log_path and os.path.dirname(self.log_path)):
            if folder:
                os.makedirs(folder, exist_ok=True)

    def _on_training_start(self) -> None:
        if self._must_be_made():
            n_envs = 1 if self.render else min(self.n_eval_episodes, LARGEST_BATCH)
            self._made = make_envs(cast(Any, self.eval_env), n_envs, self.render)
            seed = getattr(self.model, "seed", None)
            for index, one in enumerate(self._made):
                one.reset(seed=None if seed is None else seed + index)

    def _must_be_made(self) -> bool:
        env = self.eval_env
        return isinstance(env, str | EnvSpec) or (callable(env) and not isinstance(env, gym.Env))

    def _on_training_end(self) -> None:
        made, self._made = self._made, []
        for env in made:
            env.close()
        if self.eval_freq > 0:
            warn_of_no_turn(self, "eval_freq", self.eval_freq)

    def _on_step(self) -> bool:
        if self.eval_freq <= 0 or self.n_calls % self.eval_freq != 0:
            return True
        self._report(self._evaluate())
        on = True
        if self.last_mean_reward > self.best_mean_reward:
            self.best_mean_reward = self.last_mean_reward
            if self.verbose >= 1:
                to_screen("New best mean reward!")
            if self.best_model_save_path is not None:
                self.model.save(os.path.join(self.best_model_save_path, "best_model"))
            if self.callback_on_new_best is not None:
                on = goes_on(self.callback_on_new_best.on_step())
        return on and self._on_event()

    def _evaluate(self) -> list[Episode]:
        env = self._made or self.eval_env
        # Where nothing ends an episode but the agent's own limit, it must end evaluations too.
        first = env[0] if isinstance(env, list | tuple) else env
        limit = None if has_time_limit(first) else getattr(self.model, "max_episode_steps", None)
        return play_episodes(
            self.model,
            env,
            self.n_eval_episodes,
            deterministic=self.deterministic,
            render=self.render,
            warn=self.warn,
            max_episode_steps=limit,
        )

    def _report(self, episodes: list[Episode]) -> None:
        rewards = [episode.reward for episode in episodes]
        lengths = [episode.length for episode in episodes]
        successes = [episode.success for episode in episodes]
        known = [success for success in successes if not math.isnan(success)]
        self.last_mean_reward = float(np.mean(rewards))
        self.logger.record("eval/mean_reward", self.last_mean_reward)
        self.logger.record("eval/mean_ep_length", float(np.mean(lengths)))
        if known:
            self.logger.record("eval/success_rate", float(np.mean(known)))
        self.logger.record("time/total_timesteps", self.num_timesteps, exclude="tensorboard")
        self.logger.dump(self.num_timesteps)
        if self.verbose >= 1:
            to_screen(
                f"Eval num_timesteps={self.num_timesteps}, "
                f"episode_reward={self.last_mean_reward:.2f} +/- {np.std(rewards):.2f}\n"
                f"Episode length: {np.mean(lengths):.2f} +/- {np.std(lengths):.2f}"
            )
            if known:
                to_screen(f"Success rate: {100 * np.mean(known):.2f}%")
        if self.log_path is not None:
            self.evaluations_timesteps.append(self.num_timesteps)
            self.evaluations_results.append(rewards)
            self.evaluations_length.append(lengths)
            self.evaluations_successes.append(successes)
            self._write(Path(f"{self.log_path}.npz"))

    def _write(self, path: Path) -> None:
        """Replace the file in one piece: a crash while writing leaves the old one whole."""
        columns: dict[str, Any] = {
            "timesteps": self.evaluations_timesteps,
            "results": self.evaluations_results,
            "ep_lengths": self.evaluations_length,
        }
        if not np.isnan(self.evaluations_successes).all():
            columns["successes"] = self.evaluations_successes
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                np.savez(file, **columns)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


class StopTrainingOnRewardThreshold(BaseCallback):
    """Stop once the best mean reward reaches a threshold; for `EvalCallback(callback_on_new_best=)`.

    Args:
        reward_threshold: good enough.
        verbose: from 1 on, print when it stops training.
    """

    def __init__(self, reward_threshold: float, verbose: int = 0) -> None:
        super().__init__(verbose)
        self.reward_threshold = reward_threshold

    def _on_step(self) -> bool:
        best = _best_mean_reward(self)
        if self.verbose >= 1 and best >= self.reward_threshold:
            to_screen(f"Stopping training: mean reward {best:.2f} has reached the threshold {self.reward_threshold}")
        return best < self.reward_threshold


class StopTrainingOnNoModelImprovement(BaseCallback):
    """Stop after too many evaluations without a new best; for `EvalCallback(callback_after_eval=)`.

    Args:
        max_no_improvement_evals: how many in a row are borne.
        min_evals: evaluations before counting begins.
        verbose: from 1 on, print when it stops training.
    """

    def __init__(self, max_no_improvement_evals: int, min_evals: int = 0, verbose: int = 0) -> None:
        super().__init__(verbose)
        self.max_no_improvement_evals = max_no_improvement_evals
        self.min_evals = min_evals
        self.last_best_mean_reward = -math.inf
        self.no_improvement_evals = 0

    def _on_step(self) -> bool:
        best = _best_mean_reward(self)
        if self.n_calls > self.min_evals:
            improved = best > self.last_best_mean_reward
            self.no_improvement_evals = 0 if improved else self.no_improvement_evals + 1
        self.last_best_mean_reward = best
        on = self.no_improvement_evals <= self.max_no_improvement_evals
        if self.verbose >= 1 and not on:
            to_screen(f"Stopping training: no new best model in the last {self.no_improvement_evals} evaluations")
        return on


def _best_mean_reward(callback: BaseCallback) -> float:
    best = getattr(callback.parent, "best_mean_reward", None)
    if best is None:
        raise ValueError(
            f"{type(callback).__name__} reads the results of an EvalCallback; hand it to one as "
            "callback_on_new_best or callback_after_eval"
        )
    return float(best)
