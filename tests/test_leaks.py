"""What a process holds does not grow with training: memory, threads, open files."""

import gc
import os
import resource
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from grpo_gym import GRPO, CheckpointCallback, soft_groups
from grpo_gym.soft_groups import random_fourier_features
from tests.toys import IdentityDiscrete

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")

MIB = 1024**2


def held() -> dict[str, float]:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "memory": pages * resource.getpagesize() / MIB,
        "threads": threading.active_count(),
        "threads of the system": len(os.listdir("/proc/self/task")),
        "files": len(os.listdir("/proc/self/fd")),
    }


def grown(before: dict[str, float]) -> dict[str, float]:
    return {name: value - before[name] for name, value in held().items()}


def tiny(**kwargs: Any) -> GRPO:
    settings = {"n_groups": 1, "group_size": 2, "n_epochs": 1, "batch_size": None, "policy_kwargs": {"net_arch": [8]}}
    return GRPO("MlpPolicy", lambda: IdentityDiscrete(length=2), seed=0, **{**settings, **kwargs})


def test_a_thousand_iterations_hold_no_more_than_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # 255 features would be most of the time, and hold nothing more: all are made anew for each iteration
    monkeypatch.setattr(soft_groups, "random_fourier_features", partial(random_fourier_features, n_features=15))
    agent = tiny(tensorboard_log=tmp_path)
    save = CheckpointCallback(100, tmp_path)
    agent.learn(4 * 200, save, log_interval=10)  # 4 steps are an iteration
    before = held()
    agent.learn(4 * 1000, save, log_interval=10, reset_num_timesteps=False)
    assert agent._iterations == 1200
    growth = grown(before)
    assert growth.pop("memory") < 8
    assert max(growth.values()) <= 0, growth


def test_twelve_agents_in_a_row_hold_no_more_than_the_first_two(tmp_path: Path) -> None:
    def one() -> None:
        agent = tiny(tensorboard_log=tmp_path, normalize_observations=True)
        agent.learn(40)
        agent.save(tmp_path / "agent")
        GRPO.load(tmp_path / "agent", env=lambda: IdentityDiscrete(length=2)).learn(40)

    for _ in range(2):
        one()
    before = held()
    for _ in range(10):
        one()
    growth = grown(before)
    assert growth.pop("memory") < 8
    assert max(growth.values()) <= 0, growth
