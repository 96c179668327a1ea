"""Collection in several workers: weights and jobs go out, trajectories come back.

A group never splits, its episodes never depend on who plays them, and trajectories come back in the order of the
plan: so the result is the same, bit by bit, for any number of workers, and a worker that dies costs nothing but the
time in which its groups are played again by another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from grpo_gym.acting import Actor
from grpo_gym.episodes import concatenate
from grpo_gym.groups import EndlessQueue, InPlay, PlanQueue, Queue
from grpo_gym.rollout import Collector, Played
from grpo_gym.types import IntArray, Rollout
from grpo_gym.vec import EnvLike, make_slots

N_TASKS = 2
"""Parts of a plan for each worker: the second goes to whoever is free first."""

MAX_DEATHS = 3
"""Workers that may die in one rollout before it is given up: what kills the third would kill the fourth."""


@dataclass(frozen=True)
class Task:
    """What a worker is asked to play.

    Attributes:
        actor: chooses the actions.
        queue: the episodes.
        n_steps: see `Collector.collect`.
        in_play: episodes to go on with; None for those that this worker cut before.
    """

    actor: Actor
    queue: Queue
    n_steps: int | None
    in_play: InPlay | None


@dataclass(frozen=True)
class Part:
    """What a worker played.

    Attributes:
        rollout: its trajectories.
        steps: its vector steps; of their infos only those of ended episodes.
        queue: the task's, as it is now.
        in_play: episodes that were cut.
    """

    rollout: Rollout
    steps: Sequence[Played]
    queue: Queue
    in_play: InPlay


class Worker:
    """Slots of its own, wherever it lives: in a process, or an actor on another machine.

    Args:
        env: what `make_slots` takes and what can be sent.
        n_slots: episodes in play at once.
        horizon: see `Collector`.
    """

    def __init__(self, env: EnvLike, n_slots: int, horizon: int | None):
        self._collector = Collector(make_slots(env, n_slots), horizon)

    def play(self, task: Task) -> Part:
        """Play a task."""
        steps: list[Played] = []

        def on_step(played: Played) -> bool:
            kept = [info if over else {} for info, over in zip(played.infos, played.ended, strict=True)]
            steps.append(replace(played, step=replace(played.step, infos=()), infos=kept))
            return True

        if task.in_play is not None:
            self._collector.resume(task.in_play)
        rollout = self._collector.collect(task.actor, task.queue, task.n_steps, on_step)
        assert rollout is not None
        return Part(rollout, steps, task.queue, self._collector.in_play())


class WorkerDied(Exception):
    """A worker is gone, and what it was doing with it."""


class Crew(Protocol):
    """Workers, and the way to them.

    Attributes:
        n_workers: how many.
    """

    n_workers: int

    def send(self, worker: int, task: Task) -> None:
        """Give a worker something to do; starts it if it is not there."""
        ...

    def wait(self, busy: Sequence[int]) -> int:
        """Return one of the busy workers that has finished or died."""
        ...

    def receive(self, worker: int) -> Part:
        """Return what it played.

        Raises:
            WorkerDied: if it did not live to tell.
            Exception: what the environment raised there.
        """
        ...

    def close(self) -> None:
        """End all workers, whatever they are doing; `send` starts new ones."""
        ...


class WorkerCollector:
    """Collects with a crew; the counterpart of `rollout.Collector`.

    Whole groups of a plan go to whoever is free. Segments stay with the worker whose slots they are played in; if
    it dies, another brings its episodes back by replay.

    Args:
        crew: the workers.
        sizes: slots of each worker, multiples of the group size where episodes are cut.
    """

    def __init__(self, crew: Crew, sizes: IntArray):
        self.crew, self.sizes = crew, sizes
        self._in_play: list[InPlay | None] = [None] * crew.n_workers
        self._stale = [False] * crew.n_workers  # has another idea of what is in play

    def collect(
        self,
        actor: Actor,
        queue: Queue,
        n_steps: int | None = None,
        on_step: Callable[[Played], bool] = lambda played: True,
    ) -> Rollout | None:
        """See `Collector.collect`; `on_step` is told of the steps when they come back, part after part."""
        in_play, self._in_play = self._in_play, [InPlay.none()] * self.crew.n_workers
        stale, self._stale = self._stale, [True] * self.crew.n_workers
        if isinstance(queue, EndlessQueue):
            given = [e if s else None for e, s in zip(in_play, stale, strict=True)]
            tasks = [Task(actor, part, n_steps, e) for part, e in zip(queue.split(self.sizes), given, strict=True)]
        else:
            assert isinstance(queue, PlanQueue)
            tasks = [Task(actor, part, n_steps, None) for part in queue.split(N_TASKS * self.crew.n_workers)]
        try:
            parts = self._play(tasks, in_play, pinned=isinstance(queue, EndlessQueue))
        except BaseException:
            self.crew.close()  # nobody shall answer later what was asked now
            raise
        for part in parts:
            for played in part.steps:
                if not on_step(played):
                    return None
        if isinstance(queue, EndlessQueue):
            played_queues = [part.queue for part in parts]
            queue.n_begun[:] = np.concatenate([q.n_begun for q in played_queues if isinstance(q, EndlessQueue)])
            self._in_play, self._stale = [part.in_play for part in parts], [False] * len(parts)
        return concatenate([part.rollout for part in parts])

    def _play(self, tasks: list[Task], in_play: Sequence[InPlay | None], pinned: bool) -> list[Part]:
        """Have all tasks played, again where a worker died; task i by worker i if `pinned`."""
        waiting = list(range(len(tasks)))
        doing: dict[int, int] = {}
        parts: dict[int, Part] = {}
        n_died = 0
        while len(parts) < len(tasks):
            for worker in range(self.crew.n_workers):
                ready = [task for task in waiting if task == worker or not pinned]
                if worker not in doing and ready:
                    waiting.remove(ready[0])
                    doing[worker] = ready[0]
                    self.crew.send(worker, tasks[ready[0]])
            worker = self.crew.wait(list(doing))
            task = doing.pop(worker)
            try:
                parts[task] = self.crew.receive(worker)
            except WorkerDied as death:
                n_died += 1
                if n_died == MAX_DEATHS:
                    raise RuntimeError(
                        f"worker {worker} died, the {n_died}. death in this rollout ({death}): perhaps the machine ran "
                        "out of memory (fewer workers, smaller environments), the environment crashed (run it with "
                        "n_workers=1), or the script that starts training lacks its `if __name__ == '__main__':`"
                    ) from death
                waiting.insert(0, task)
                if pinned:
                    tasks[task] = replace(tasks[task], in_play=in_play[task] or InPlay.none())
        return [parts[task] for task in range(len(tasks))]

    def in_play(self) -> InPlay:
        """Return the episodes that the last rollout cut, in all workers."""
        return InPlay.join([episodes or InPlay.none() for episodes in self._in_play], self.sizes)

    def resume(self, episodes: InPlay) -> None:
        """Play these episodes and no others; see `Collector.resume`, which the workers do in the next rollout."""
        self._in_play = [*episodes.split(self.sizes)]
        self._stale = [True] * self.crew.n_workers

    def close(self) -> None:
        """End the workers."""
        self.crew.close()


def deal_slots(n_slots: int, n_workers: int, unit: int = 1) -> IntArray:
    """Deal slots to workers as evenly as units that must not split allow.

    Raises:
        ValueError: if there are fewer units than workers.
    """
    n_units = n_slots // unit
    if n_units < n_workers:
        kind = "groups" if unit > 1 else "episodes"
        raise ValueError(
            f"n_workers={n_workers}, but only {n_units} {kind} are played at a time: expected no more workers"
        )
    return np.array([len(part) * unit for part in np.array_split(np.arange(n_units), n_workers)])
