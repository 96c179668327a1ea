"""Runs that are stopped before they are done: kept on disk, so that they go on as if nothing had been."""

from __future__ import annotations

import contextlib
import copy
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from grpo_gym.callback_base import BaseCallback
from grpo_gym.checkpoint import Checkpoint, write_checkpoint
from grpo_gym.faults import explain

N_KEPT = 2
"""Files of a run that are kept, the newest ones."""

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""What Ctrl-C and a batch system send."""


class Stopped(BaseException):
    """A signal asked this process to end. No `except Exception` of an environment shall swallow it.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int):
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Raise `Stopped` at the next signal that asks to end; outside of the main thread, do nothing.

    Raises:
        Stopped: from wherever the program is.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Keeper(BaseCallback):
    """Keeps a run on disk, as `{folder}/agent_{steps}_steps.zip`.

    What is saved is always the agent as it was between two iterations: from there, training repeats itself bit by
    bit, whatever stopped it and wherever that found it.

    Args:
        folder: of this run alone.
        save_every: environment steps from one file to the next.
        checkpoint: returns the agent's whole state.
    """

    def __init__(self, folder: Path, save_every: float, checkpoint: Callable[[], Checkpoint]):
        super().__init__()
        self.folder, self.save_every = folder, save_every
        self._checkpoint = checkpoint
        self._latest: Checkpoint | None = None
        self._saved_at = 0

    def _on_training_start(self) -> None:
        self._saved_at = self.model.num_timesteps

    def _on_rollout_start(self) -> None:
        self._latest = copy.deepcopy(self._checkpoint())  # weights and moments change in place
        if self.model.num_timesteps - self._saved_at >= self.save_every:
            self.save()

    def _on_step(self) -> bool:
        return True

    def save(self) -> Path | None:
        """Write the agent as of its last complete iteration, and return where; None if nothing was begun."""
        if self._latest is None:
            return None
        self._saved_at = self._latest.data["counters"]["num_timesteps"]
        path = self.folder / f"agent_{self._saved_at}_steps.zip"
        write_checkpoint(path, self._latest)
        for left in [*_saved(self.folder)[:-N_KEPT], *self.folder.glob(".agent_*.tmp")]:
            left.unlink(missing_ok=True)
        return path

    @contextlib.contextmanager
    def until_done(self, command: str) -> Iterator[None]:
        """Save the run if anything stops it, and say how to go on; remove what was kept when it is done.

        Args:
            command: resumes the run.

        Raises:
            SystemExit: at a signal, with the status that shells give a process that died of it.
        """
        try:
            with stoppable():
                yield
        except Stopped as stop:
            path = self.save()
            saved = "nothing was begun" if path is None else f"saved {path}"
            print(f"{stop}: {saved}; go on with:  {command}", flush=True)
            sys.exit(128 + stop.number)
        except Exception as error:
            path = self.save()
            if path is not None:
                explain(error, f"the run is saved as {path}; go on with:  {command}")
            raise
        self.remove()

    def remove(self) -> None:
        """Remove all that was kept, and the folder if there is nothing else in it."""
        for left in [*_saved(self.folder), *self.folder.glob(".agent_*.tmp")]:
            left.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()


def newest(folder: Path) -> Path | None:
    """Return the file of a run that went furthest; None if it had not come to its first."""
    return next(reversed(_saved(folder)), None)


def _saved(folder: Path) -> list[Path]:
    """Return a run's files, in the order of their steps."""
    found = [(re.fullmatch(r"agent_([0-9]+)_steps\.zip", path.name), path) for path in folder.iterdir()]
    return [path for _, path in sorted((int(match[1]), path) for match, path in found if match)]
