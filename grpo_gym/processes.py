"""A crew of processes on this machine."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
import weakref
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from grpo_gym.workers import Worker, WorkerDied

GRACE = 1.0
"""Seconds that a worker has to close its environments before it is killed."""

Running = dict[int, tuple[BaseProcess, "Connection[Any, Any]"]]


class Processes:
    """Workers in processes of their own, started when they are first needed.

    They are spawned: a script that trains needs its `if __name__ == "__main__":`. Each has one torch thread. They
    ignore Ctrl-C, which is for this process to answer, and end when this process does, however that comes.

    Args:
        work: of each worker, see `workers.pack_work`.
    """

    def __init__(self, work: Sequence[bytes]):
        self.n_workers = len(work)
        self._work = work
        self._running: Running = {}
        weakref.finalize(self, _end, self._running)

    def send(self, worker: int, task: bytes) -> None:
        """See `Crew.send`."""
        for missing in set(range(self.n_workers)) - set(self._running):  # all at once: each takes seconds to come up
            self._running[missing] = _start(self._work[missing])
        with contextlib.suppress(OSError):  # it is dead, as `receive` will find
            self._running[worker][1].send_bytes(task)

    def wait(self, busy: Sequence[int]) -> int:
        """See `Crew.wait`."""
        # a process too, not its connection alone: what it started may outlive it and hold that open
        signs = {worker: (self._running[worker][1], self._running[worker][0].sentinel) for worker in busy}
        shown = multiprocessing.connection.wait([sign for both in signs.values() for sign in both])
        return next(worker for worker, both in signs.items() if any(sign in shown for sign in both))

    def receive(self, worker: int) -> bytes:
        """See `Crew.receive`."""
        process, connection = self._running[worker]
        with contextlib.suppress(EOFError, OSError):
            if connection.poll():
                return connection.recv_bytes()
        del self._running[worker]
        connection.close()
        process.join(GRACE)
        process.kill()
        process.join()
        raise WorkerDied(f"exit code {process.exitcode}")

    def close(self) -> None:
        """See `Crew.close`."""
        _end(self._running)


def _start(work: bytes) -> tuple[BaseProcess, Connection[Any, Any]]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_live, args=(theirs, work), daemon=True)
    process.start()
    theirs.close()  # so that its death closes the pipe
    return process, ours


def _end(running: Running) -> None:
    ending = list(running.values())
    running.clear()
    for _, connection in ending:
        connection.close()  # who waits for a task ends now
    deadline = time.monotonic() + GRACE
    for process, _ in ending:
        process.join(max(0.0, deadline - time.monotonic()))
        process.kill()
        process.join()


def _live(connection: Connection[Any, Any], work: bytes) -> None:
    """Answer until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    worker = Worker(work)
    with contextlib.suppress(EOFError, OSError):
        while True:
            connection.send_bytes(worker.answer(connection.recv_bytes()))
    worker.close()


def _end_with_parent() -> None:
    """End this process soon after its parent's, even in the middle of a step that never returns."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    time.sleep(GRACE)
    os._exit(1)
