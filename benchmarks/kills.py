"""Kill a process that trains and saves, again and again, and look at what it left.

    python -m benchmarks.kills               # 100 kills, some five minutes of one core

Each time a process goes on from the newest checkpoint, saves the agent after every iteration, twice, and is killed
(signal 9) at a random moment. After each kill every checkpoint there has ever been must be as it was and be readable,
and the newest must be no older than before. In the end the weights must be, bit by bit, those of a run that nobody
disturbed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from grpo_gym import GRPO, BaseCallback, CheckpointCallback
from grpo_gym.agent import ARGUMENTS
from grpo_gym.checkpoint import read_checkpoint
from grpo_gym.state import checkpoint_of
from grpo_gym.unfinished import Keeper, newest

ENV_ID = "Pendulum-v1"
MOST_ITERATIONS = 6
"""That a process may live to begin."""


class Announce(BaseCallback):
    """Writes a byte at the start of each iteration, for the killer to count."""

    def __init__(self, pipe: int):
        super().__init__()
        self.pipe = pipe

    def _on_rollout_start(self) -> None:
        os.write(self.pipe, b".")

    def _on_step(self) -> bool:
        return True


def make() -> GRPO:
    """An agent with small iterations, everything that a checkpoint holds included."""
    return GRPO(
        "MlpPolicy", ENV_ID, n_groups=2, group_size=2, max_episode_steps=20, normalize_observations=True, seed=0
    )


def go_on(folder: Path, total_timesteps: float, *callbacks: BaseCallback) -> GRPO:
    """Train from the newest checkpoint on, or from the start."""
    start = newest(folder)
    agent = make() if start is None else GRPO.load(start, ENV_ID)
    keeper = Keeper(folder, 0, lambda: checkpoint_of(agent, ARGUMENTS, ()))
    every = CheckpointCallback(16, folder / "all")
    more = total_timesteps - agent.num_timesteps
    return agent.learn(more, [*callbacks, keeper, every], reset_num_timesteps=start is None)


def fork(work: Callable[[], object]) -> int:
    """Do something in a child process, and return its id."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(1)
    return pid


def steps_of(folder: Path) -> int:
    """Environment steps of the newest checkpoint; −1 before the first."""
    path = newest(folder)
    return -1 if path is None else int(read_checkpoint(path).data["counters"]["num_timesteps"])


def weights_of(agent: GRPO) -> str:
    """A checksum of all bits of the weights."""
    tensors = agent.policy.state_dict().values()
    return hashlib.sha256(b"".join(x.numpy().tobytes() for x in tensors)).hexdigest()


def run(folder: Path, n_kills: int) -> dict[str, int]:
    """Kill so many times.

    Returns:
        What there was to see: checkpoints, unfinished files that kills left, steps.

    Raises:
        ValueError: if a checkpoint cannot be read.
        AssertionError: if one was lost or changed, or the run did not come to the same weights.
    """
    lives = random.Random(0)
    seen: dict[Path, str] = {}
    n_unfinished = reached = 0
    for _ in range(n_kills):
        ours, theirs = os.pipe()
        pid = fork(lambda pipe=theirs: go_on(folder, 1e9, Announce(pipe)))  # type: ignore[misc]
        os.close(theirs)
        begun = [time.perf_counter()]
        for _ in range(lives.randint(1, MOST_ITERATIONS)):
            assert os.read(ours, 1) == b".", "the process ended before it was killed"
            begun.append(time.perf_counter())
        time.sleep(lives.uniform(0, begun[-1] - begun[-2]))  # as long as the last iteration took, at most
        os.kill(pid, signal.SIGKILL)
        assert os.waitpid(pid, 0)[1] == signal.SIGKILL, "the process ended before it was killed"
        os.close(ours)
        for path, checksum in seen.items():
            assert hashlib.sha256(path.read_bytes()).hexdigest() == checksum, f"{path} is not what it was"
        for path in folder.rglob("*.zip"):
            read_checkpoint(path)
            if path.parent != folder and path not in seen:
                seen[path] = hashlib.sha256(path.read_bytes()).hexdigest()
        n_unfinished += len(list(folder.rglob(".*.tmp")))
        for left in folder.rglob(".*.tmp"):
            left.unlink()
        assert steps_of(folder) >= reached, "the newest checkpoint is older than before"
        reached = max(reached, steps_of(folder))
    total = reached + 500
    disturbed = go_on(folder, total)
    assert weights_of(disturbed) == weights_of(make().learn(total)), "the weights are not those of an undisturbed run"
    return {"kills": n_kills, "checkpoints": len(seen), "unfinished files": n_unfinished, "steps": reached}


def main() -> None:
    """Read the options, kill, and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        seen = run(Path(folder), parser.parse_args().kills)
    print(", ".join(f"{number:,} {what}" for what, number in seen.items()))
    print("no checkpoint was lost, none is unreadable, and the weights are those of an undisturbed run")


if __name__ == "__main__":
    main()
