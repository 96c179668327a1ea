"""The agent under stable-baselines3's own callbacks, helpers and loggers; all skipped where that is not installed."""

import csv
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import wrappers
from gymnasium.spaces import Discrete

from grpo_gym import GRPO, EvalCallback
from grpo_gym.callbacks import HParamCallback
from tests.agents import digest, small
from tests.toys import IdentityBox, IdentityDiscrete, MaskedByMethod, Walk

callbacks = pytest.importorskip("stable_baselines3.common.callbacks")
env_util = pytest.importorskip("stable_baselines3.common.env_util")
evaluation = pytest.importorskip("stable_baselines3.common.evaluation")
sb3_logger = pytest.importorskip("stable_baselines3.common.logger")
monitor = pytest.importorskip("stable_baselines3.common.monitor")


def vec(make: Any, n_envs: int = 2) -> Any:
    return env_util.make_vec_env(make, n_envs=n_envs, seed=0)


# --- callbacks -------------------------------------------------------------------------------------------------


def test_its_evaluation_saves_the_best_and_writes_its_file(tmp_path: Path) -> None:
    evaluate = callbacks.EvalCallback(
        vec(IdentityDiscrete),
        n_eval_episodes=4,
        eval_freq=4,
        log_path=str(tmp_path),
        best_model_save_path=str(tmp_path),
        verbose=0,
    )
    agent = small(IdentityDiscrete)
    agent.set_logger(sb3_logger.configure(str(tmp_path), ["csv"]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that training and evaluation environment are of different types
        agent.learn(72, evaluate)
    written = np.load(tmp_path / "evaluations.npz")
    assert written["timesteps"].tolist() == [24, 48, 72]
    assert written["results"].shape == (3, 4)
    assert GRPO.load(tmp_path / "best_model").num_timesteps in (24, 48, 72)
    with (tmp_path / "progress.csv").open() as file:
        rows = [row["eval/mean_reward"] for row in csv.DictReader(file) if row["eval/mean_reward"]]
    assert [float(row) for row in rows] == written["results"].mean(axis=1).tolist()


def test_its_stops_stop(tmp_path: Path) -> None:
    good = callbacks.StopTrainingOnRewardThreshold(reward_threshold=-1.0, verbose=0)
    idle = callbacks.StopTrainingOnNoModelImprovement(max_no_improvement_evals=1, verbose=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one = callbacks.EvalCallback(vec(IdentityDiscrete), good, n_eval_episodes=1, eval_freq=2, verbose=0)
        agent = small(IdentityDiscrete).learn(1000, one)
        assert agent.num_timesteps == 12  # two vector steps of six
        same = vec(lambda: IdentityDiscrete(n=1))
        other = callbacks.EvalCallback(same, callback_after_eval=idle, n_eval_episodes=1, eval_freq=2, verbose=0)
        assert small(lambda: IdentityDiscrete(n=1)).learn(1000, other).num_timesteps == 36  # the third evaluation
    episodes = callbacks.StopTrainingOnMaxEpisodes(max_episodes=2, verbose=0)
    assert small(IdentityDiscrete).learn(1000, episodes).num_timesteps == 48  # two for each of six


def test_its_checkpoints_are_loaded_by_our_load(tmp_path: Path) -> None:
    agent = small(IdentityDiscrete)
    agent.learn(48, callbacks.CheckpointCallback(4, str(tmp_path), save_replay_buffer=True, save_vecnormalize=True))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rl_model_24_steps.zip", "rl_model_48_steps.zip"]
    assert GRPO.load(tmp_path / "rl_model_24_steps").num_timesteps == 24


def test_its_callbacks_take_turns_with_ours(tmp_path: Path) -> None:
    seen: list[int] = []

    def note(locals_: dict[str, Any], globals_: dict[str, Any]) -> bool:
        seen.append(locals_["self"].num_timesteps)
        return True

    listed = callbacks.CallbackList(
        [
            callbacks.EveryNTimesteps(24, callbacks.ConvertCallback(note)),
            callbacks.LogEveryNTimesteps(24),
            EvalCallback(IdentityDiscrete, n_eval_episodes=1, eval_freq=4, verbose=0),
        ]
    )
    small(IdentityDiscrete).learn(48, [listed, callbacks.CheckpointCallback(8, str(tmp_path))])
    assert seen == [24, 48]


def test_a_callback_of_its_class_reads_what_it_does_of_its_own_agents() -> None:
    class Reads(callbacks.BaseCallback):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.hooks: list[str] = []

        def _on_training_start(self) -> None:
            self.hooks.append(f"training of {self.training_env.num_envs}")

        def _on_rollout_start(self) -> None:
            self.hooks.append("rollout")

        def _on_step(self) -> bool:
            for name in ("infos", "dones", "rewards", "actions", "new_obs", "n_steps", "self", "total_timesteps"):
                assert name in self.locals
            assert len(self.locals["infos"]) == len(self.locals["dones"]) == 6
            for name in ("n_envs", "policy", "ep_info_buffer", "_total_timesteps", "_n_updates", "lr_schedule"):
                assert hasattr(self.model, name)
            self.logger.record("mine/steps", self.num_timesteps)
            return True

        def _on_rollout_end(self) -> None:
            self.hooks.append("rollout end")

        def _on_training_end(self) -> None:
            self.hooks.append("training end")

    reads = Reads()
    small(IdentityDiscrete).learn(48, reads)
    assert reads.hooks == ["training of 6", *["rollout", "rollout end"] * 2, "training end"]


def test_none_of_them_changes_training(tmp_path: Path) -> None:
    plain, watched = small(IdentityBox), small(IdentityBox)
    plain.learn(48)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluate = callbacks.EvalCallback(vec(IdentityBox), n_eval_episodes=2, eval_freq=3, verbose=0)
        watched.learn(48, [evaluate, callbacks.CheckpointCallback(3, str(tmp_path))])
    assert digest(plain) == digest(watched)


# --- helpers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [IdentityDiscrete, lambda: IdentityDiscrete(start=5), IdentityBox, Walk])
def test_its_evaluate_policy_plays_our_agent(make: Any) -> None:
    agent = small(make).learn(48)
    returns, lengths = evaluation.evaluate_policy(agent, vec(make), 6, return_episode_rewards=True)
    assert len(returns) == len(lengths) == 6
    mean, deviation = evaluation.evaluate_policy(agent, vec(make), 6)
    assert np.isfinite([mean, deviation]).all()


def test_masked_agents_are_played_by_sb3_contribs_evaluation() -> None:
    contrib = pytest.importorskip("sb3_contrib.common.maskable.evaluation")
    agent = small(MaskedByMethod).learn(24)
    mean, _ = contrib.evaluate_policy(agent, vec(MaskedByMethod), 4)  # illegal actions would raise
    assert np.isfinite(mean)


# --- loggers ---------------------------------------------------------------------------------------------------


def test_its_logger_takes_all_that_we_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
        EventAccumulator,
    )

    agent = small(IdentityDiscrete)
    logger = sb3_logger.configure(str(tmp_path), ["stdout", "log", "csv", "json", "tensorboard"])
    agent.set_logger(logger)
    agent.learn(48, HParamCallback())
    logger.close()
    with (tmp_path / "progress.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["time/total_timesteps"] for row in rows] == ["24", "48"]
    assert "rollout/advantages" not in rows[0]
    printed = capsys.readouterr().out
    assert printed.count("ep_rew_mean") == 2
    assert "advantages" not in printed
    run = EventAccumulator(str(tmp_path)).Reload()
    assert [event.step for event in run.Scalars("rollout/ep_rew_mean")] == [24, 48]
    assert run.Tags()["histograms"] == ["rollout/advantages"]


def test_its_table_has_the_same_rows_as_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def rows(agent: GRPO) -> list[str]:
        capsys.readouterr()
        agent.learn(24)
        lines = capsys.readouterr().out.splitlines()
        return [line.split("|")[1].strip() for line in lines if line.startswith("|")]

    theirs = small(IdentityDiscrete)
    theirs.set_logger(sb3_logger.configure(None, ["stdout"]))
    ours = rows(small(IdentityDiscrete, verbose=1))
    assert ours == rows(theirs)
    assert "rollout/" in ours


# --- wrappers around a training environment --------------------------------------------------------------------


def test_its_monitor_writes_every_episode_that_was_trained_on(tmp_path: Path) -> None:
    numbers = iter(range(100))
    agent = small(lambda: monitor.Monitor(Walk(), str(tmp_path / str(next(numbers)))))
    agent.learn(60)
    agent.env.close()  # type: ignore[union-attr]
    written = []
    for path in tmp_path.iterdir():
        first, *lines = path.read_text().splitlines()
        assert first.startswith('#{"t_start"')
        written += [(row["r"], row["l"]) for row in csv.DictReader(lines)]
    noted = [(str(episode["r"]), str(episode["l"])) for episode in agent.ep_info_buffer]
    assert len(written) >= 12
    assert sorted(written) == sorted(noted)


@pytest.mark.parametrize(
    "wrap", [monitor.Monitor, wrappers.RecordEpisodeStatistics, wrappers.PassiveEnvChecker, wrappers.OrderEnforcing]
)
def test_wrappers_that_only_watch_change_nothing(wrap: Any) -> None:
    bare, wrapped = small(Walk), small(lambda: wrap(Walk()))
    for agent in (bare, wrapped):
        agent.learn(60)
    assert digest(bare) == digest(wrapped)


def test_gymnasiums_video_recorder_records_training(tmp_path: Path) -> None:
    pytest.importorskip("moviepy")

    class Drawn(Walk):
        metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 Gymnasium's own way
        render_mode = "rgb_array"

        def render(self) -> Any:
            return np.full((16, 16, 3), 40 * self.t, np.uint8)

    numbers = iter(range(100))

    def make() -> gym.Env[Any, Any]:
        env = Drawn(Discrete(3))
        return env if (n := next(numbers)) else wrappers.RecordVideo(env, str(tmp_path / str(n)), lambda k: k == 1)

    agent = small(make)
    agent.learn(60)
    agent.env.close()  # type: ignore[union-attr]
    assert [path.name for path in (tmp_path / "0").iterdir()] == ["rl-video-episode-1.mp4"]
