import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from grpo_gym import EvalCallback
from grpo_gym.logger import configure
from tests.agents import Memory, small, watched
from tests.toys import IdentityBox, IdentityDiscrete, StepResult, Walk

LOG_KEYS = Path(__file__).parents[1] / "docs" / "log_keys.md"


class Succeeding(IdentityBox):
    """Ends with `is_success`, True if the last reward was above -1."""

    def step(self, action: Any) -> StepResult:
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated, truncated, {"is_success": np.bool_(reward > -1)} if truncated else info


def documented() -> tuple[set[str], set[str]]:
    """All keys of docs/log_keys.md, and those among them that TensorBoard does not get."""
    rows = re.findall(r"^\| `([^`]+)`(?: ‡|( †))? \|", LOG_KEYS.read_text(encoding="utf-8"), re.MULTILINE)
    return {key for key, _ in rows}, {key for key, dagger in rows if dagger}


@pytest.fixture(scope="module")
def recorded() -> Memory:
    """What runs of every kind record, all in one."""
    memory = Memory()
    runs: list[tuple[Any, dict[str, Any], Any]] = [
        (IdentityDiscrete, {}, None),
        (Succeeding, {"clip_range_high": 0.3}, EvalCallback(Succeeding, eval_freq=3, n_eval_episodes=2, verbose=0)),
        (SyncVectorEnv([Walk] * 4), {"normalize_observations": True, "target_kl": 0.1}, None),
        (Walk, {"kl_coef": 0.1, "reward_functions": [("<name>", len, 1.0)]}, None),
    ]
    for env, settings, callback in runs:
        one = small(env, **settings)
        seen = watched(one)
        one.learn(100, callback=callback)
        memory.dumps += seen.dumps
        memory.not_on_tensorboard |= seen.not_on_tensorboard
    return memory


def test_every_key_that_is_recorded_is_documented_and_every_documented_key_is_recorded(recorded: Memory) -> None:
    keys, _ = documented()
    assert recorded.keys == keys
    assert {key.partition("/")[0] for key in keys} == {"rollout", "reward", "train", "time", "eval"}


def test_the_keys_that_tensorboard_does_not_get_are_marked(recorded: Memory) -> None:
    assert recorded.not_on_tensorboard == documented()[1]


def test_what_is_logged_are_finite_numbers(recorded: Memory) -> None:
    bad = {
        key: value for dump in recorded.dumps for key, value in dump.items() if not np.isfinite(np.asarray(value)).all()
    }
    assert bad == {}


def test_shares_lie_between_0_and_1(recorded: Memory) -> None:
    shares = [key for key in documented()[0] if re.search("frac|fraction|rate$", key) and "learning" not in key]
    assert len(shares) == 8
    for key in shares:
        assert all(0 <= value <= 1 for value in recorded.of(key)), key


def test_a_discrete_run_records_neither_a_standard_deviation_nor_success() -> None:
    agent = small(IdentityDiscrete)
    memory = watched(agent)
    agent.learn(24)
    assert memory.keys & {"train/std", "rollout/success_rate", "train/clip_range_high"} == set()


def test_each_dump_tells_of_the_update_before_it() -> None:
    agent = small(IdentityDiscrete)
    memory = watched(agent)
    agent.learn(72)
    # 24 steps an iteration, and 4 epochs of 3 minibatches of 8
    assert memory.steps == [24, 48, 72]
    assert memory.of("time/iterations") == [1, 2, 3]
    assert memory.of("time/total_timesteps") == [24, 48, 72]
    assert memory.of("train/n_updates") == [12, 24, 36]
    assert memory.of("rollout/ep_len_mean") == [4.0, 4.0, 4.0]


def test_the_log_is_dumped_every_so_many_iterations() -> None:
    agent = small(IdentityDiscrete)
    memory = watched(agent)
    agent.learn(24 * 7, log_interval=3)
    assert memory.of("time/iterations") == [3, 6]


def test_successes_are_averaged() -> None:
    agent = small(Succeeding)
    memory = watched(agent)
    agent.learn(24)
    assert memory.of("rollout/success_rate") == [sum(agent.ep_success_buffer) / 6]
    assert len(agent.ep_success_buffer) == 6


def test_a_table_is_printed_if_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    small(IdentityDiscrete, verbose=0).learn(48)
    assert capsys.readouterr().out == ""
    agent = small(IdentityDiscrete, verbose=1).learn(48)
    printed = capsys.readouterr().out
    assert f"Using {agent.device} device" in printed
    assert printed.count("ep_rew_mean") == 2


def test_a_progress_bar_shows_the_steps(capsys: pytest.CaptureFixture[str]) -> None:
    small(IdentityDiscrete).learn(48, progress_bar=True)
    assert "48.0/48.0" in capsys.readouterr().err


# --- TensorBoard -----------------------------------------------------------------------------------------------


def events(folder: Path) -> dict[str, list[int]]:
    """Return the steps at which each tag was written."""
    run = EventAccumulator(str(folder))
    run.Reload()
    scalars = {tag: [event.step for event in run.Scalars(tag)] for tag in run.Tags()["scalars"]}
    return scalars | {tag: [event.step for event in run.Histograms(tag)] for tag in run.Tags()["histograms"]}


def test_tensorboard_gets_the_documented_keys_over_environment_steps(tmp_path: Path) -> None:
    small(IdentityDiscrete, tensorboard_log=tmp_path).learn(72, tb_log_name="mine")
    found = events(tmp_path / "mine_1")
    keys, left_out = documented()
    only_elsewhere = {"train/std", "train/clip_range_high", "rollout/success_rate"}
    only_elsewhere |= {"train/kl_coef", "train/reference_kl", "reward/<name>"}
    assert set(found) == {key for key in keys - left_out - only_elsewhere if not key.startswith("eval/")}
    assert found["rollout/ep_rew_mean"] == [24, 48, 72]


def test_going_on_continues_the_run_and_starting_anew_makes_another(tmp_path: Path) -> None:
    agent = small(IdentityDiscrete, tensorboard_log=tmp_path).learn(48)
    agent.learn(48, reset_num_timesteps=False)
    assert [path.name for path in tmp_path.iterdir()] == ["GRPO_1"]
    assert events(tmp_path / "GRPO_1")["train/loss"] == [24, 48, 72, 96]
    agent.learn(24)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["GRPO_1", "GRPO_2"]
    assert events(tmp_path / "GRPO_2")["train/loss"] == [24]


def test_a_logger_of_ones_own_is_used_and_left_open(tmp_path: Path) -> None:
    agent = small(IdentityDiscrete, tensorboard_log=tmp_path / "unused")
    logger = configure(tmp_path / "mine", ["csv", "json"])
    agent.set_logger(logger)
    agent.learn(24).learn(24)
    assert agent.logger is logger
    assert len((tmp_path / "mine" / "progress.json").read_text().splitlines()) == 2
    assert not (tmp_path / "unused").exists()
    logger.close()


def test_before_learning_there_is_a_logger_that_writes_nowhere() -> None:
    agent = small(IdentityDiscrete)
    agent.logger.record("mine", 1)
    agent.dump_logs()
    assert agent.logger.get_dir() is None


def test_no_thread_is_left_behind_by_tensorboard(tmp_path: Path) -> None:
    agent = small(IdentityDiscrete, tensorboard_log=tmp_path)
    before = threading.active_count()
    for _ in range(3):
        agent.learn(24)
    assert threading.active_count() == before


def test_a_folder_that_cannot_be_made_is_an_error_before_the_first_episode(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    agent = small(IdentityDiscrete, tensorboard_log=tmp_path / "file" / "runs")
    with pytest.raises(OSError, match="runs"):
        agent.learn(24)
    assert agent.num_timesteps == 0
