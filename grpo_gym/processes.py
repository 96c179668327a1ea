"""A crew of processes on this machine."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import signal
import weakref
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import cloudpickle
import torch

from grpo_gym.types import IntArray
from grpo_gym.vec import EnvLike
from grpo_gym.workers import Part, Task, Worker, WorkerDied


class Processes:
    """Workers in processes of their own, started when they are first needed.

    They are spawned: a script that trains needs its `if __name__ == "__main__":`. Each has one torch thread. They
    ignore Ctrl-C, which is for this process to answer, and end when this process does, however that comes.

    Args:
        env: see `Worker`.
        sizes: slots of each worker.
        horizon: see `Worker`.
    """

    def __init__(self, env: EnvLike, sizes: IntArray, horizon: int | None):
        self.n_workers = len(sizes)
        self._work = [cloudpickle.dumps((env, int(size), horizon)) for size in sizes]
        self._running: dict[int, tuple[BaseProcess, Connection[Any, Any]]] = {}
        weakref.finalize(self, _end, self._running)

    def send(self, worker: int, task: Task) -> None:
        """See `Crew.send`."""
        if worker not in self._running:
            context = multiprocessing.get_context("spawn")
            ours, theirs = context.Pipe()
            process = context.Process(target=_live, args=(theirs, self._work[worker]), daemon=True)
            process.start()
            theirs.close()  # so that its death closes the pipe
            self._running[worker] = process, ours
        with contextlib.suppress(OSError):  # it is dead, as `receive` will find
            self._running[worker][1].send_bytes(cloudpickle.dumps(task))

    def wait(self, busy: Sequence[int]) -> int:
        """See `Crew.wait`."""
        by_connection = {self._running[worker][1]: worker for worker in busy}
        ready = multiprocessing.connection.wait(list(by_connection))
        return min(by_connection[connection] for connection in ready if isinstance(connection, Connection))

    def receive(self, worker: int) -> Part:
        """See `Crew.receive`."""
        process, connection = self._running[worker]
        try:
            answer = cloudpickle.loads(connection.recv_bytes())
        except (EOFError, OSError):
            del self._running[worker]
            process.join()
            connection.close()
            raise WorkerDied(f"exit code {process.exitcode}") from None
        if isinstance(answer, Part):
            return answer
        raise answer

    def close(self) -> None:
        """See `Crew.close`."""
        _end(self._running)


def _end(running: dict[int, tuple[BaseProcess, Connection[Any, Any]]]) -> None:
    while running:
        process, connection = running.popitem()[1]
        connection.close()
        process.terminate()
        process.join()


def _live(connection: Connection[Any, Any], work: bytes) -> None:
    """Play what is asked for until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    worker: Worker | None = None
    while True:
        try:
            task = cloudpickle.loads(connection.recv_bytes())
        except EOFError:
            return
        answer: Part | Exception
        try:
            worker = worker or Worker(*cloudpickle.loads(work))
            answer = worker.play(task)
        except Exception as error:
            answer = error
        try:
            connection.send_bytes(cloudpickle.dumps(answer))
        except OSError:
            return
