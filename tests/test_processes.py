"""Real worker processes; few, for each takes seconds to come up."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from grpo_gym.processes import Processes
from tests.agents import digest, small
from tests.toys import Raises, Walk

LONG = 120.0
"""Seconds after which something that should happen is held not to: no matter how busy the machine is."""


def soon(happens: Callable[[], bool]) -> bool:
    """Wait until it does, and tell whether it did."""
    deadline = time.monotonic() + LONG
    while not happens() and time.monotonic() < deadline:
        time.sleep(0.02)
    return happens()


def lives(pid: int) -> bool:
    """Tell whether there is a process, not counting one that nobody has buried."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_processes_play_what_this_one_would_even_if_one_is_killed_and_end_with_the_agent() -> None:
    settings = {"n_groups": 4, "group_size": 2, "baseline": "soft_groups", "n_steps": 4}
    agent, alone = small(Walk, n_workers=2, **settings), small(Walk, **settings)
    assert multiprocessing.active_children() == []  # nobody is needed yet
    for _ in range(2):
        assert digest(agent.learn(64, reset_num_timesteps=False)) == digest(alone.learn(64, reset_num_timesteps=False))
        first, second = multiprocessing.active_children()
        assert first.pid is not None
        os.kill(first.pid, signal.SIGKILL)
    assert agent.num_timesteps == alone.num_timesteps == 128
    del agent
    gc.collect()
    assert multiprocessing.active_children() == []
    assert not first.is_alive()
    assert not second.is_alive()


def test_what_an_environment_raises_comes_through_and_ends_the_workers() -> None:
    agent = small(partial(Raises, KeyError("fuel"), 2), n_workers=1, collector=Processes)
    with pytest.raises(KeyError, match="fuel") as raised:
        agent.learn(10)
    assert "step 2 of the episode" in "".join(getattr(raised.value, "__notes__", ["step 2 of the episode"]))
    assert "raise self.error" in str(raised.value.__cause__)
    assert multiprocessing.active_children() == []


SCRIPT = """
import os, signal, time
from grpo_gym import GRPO
from grpo_gym.processes import Processes
from tests.toys import Walk

class Stuck(Walk):
    def step(self, action):
        print("step", os.getpid(), flush=True)
        time.sleep(10_000)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # who starts tests in the background has it ignored
    GRPO("MlpPolicy", Stuck, n_groups=2, group_size=2, n_workers=1, collector=Processes).learn(10)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked for in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_worker_ends_with_its_parent_even_in_a_step_that_does_not(number: signal.Signals, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    command = [sys.executable, str(script)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stderr is not None
        worker = int(parent.stdout.readline().split()[1])
        assert lives(worker)
        parent.send_signal(number)
        assert soon(lambda: not lives(worker))
        assert soon(lambda: parent.poll() is not None)
        errors = parent.stderr.read()
    assert ("KeyboardInterrupt" in errors) == (number == signal.SIGINT)
