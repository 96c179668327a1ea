"""A crew without processes."""

from __future__ import annotations

from collections.abc import Container, Sequence

from grpo_gym.workers import Worker, WorkerDied


class Here:
    """Workers in this process, asked and answering in bytes as others are; they answer in no particular order.

    Args:
        work: see `pack_work`.
        deaths: tasks that their workers take to the grave, counted from 0 as they are sent.
        made: every crew is added to it, so that a test can look at the one an agent has.
    """

    def __init__(self, work: Sequence[bytes], deaths: Container[int] = (), made: list[Here] | None = None):
        self.n_workers, self.work, self.deaths = len(work), work, deaths
        self.workers: dict[int, Worker] = {}
        self.tasks: dict[int, bytes] = {}
        self.n_sent = self.n_closed = 0
        self.doomed: set[int] = set()
        if made is not None:
            made.append(self)

    def send(self, worker: int, task: bytes) -> None:
        assert worker not in self.tasks
        self.workers.setdefault(worker, Worker(self.work[worker]))
        self.tasks[worker] = task
        if self.n_sent in self.deaths:
            self.doomed.add(worker)
        self.n_sent += 1

    def wait(self, busy: Sequence[int]) -> int:
        assert set(busy) == set(self.tasks)
        return busy[self.n_sent % len(busy)]

    def receive(self, worker: int) -> bytes:
        answer = self.workers[worker].answer(self.tasks.pop(worker))
        if worker in self.doomed:
            self.doomed.remove(worker)
            del self.workers[worker]
            raise WorkerDied("struck by lightning")
        return answer

    def close(self) -> None:
        self.n_closed += 1
        self.workers.clear()
        self.tasks.clear()
        self.doomed.clear()
