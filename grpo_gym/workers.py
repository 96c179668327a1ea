"""Collection in several workers: weights and jobs go out, trajectories come back.

A group never splits, its episodes never depend on who plays them, and trajectories come back in the order of the
plan: so the result is the same, bit by bit, for any number of workers, and a worker that dies costs nothing but the
time in which its groups are played again by another.
"""

from __future__ import annotations

import itertools
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import cloudpickle
import numpy as np
from threadpoolctl import threadpool_limits

from grpo_gym.acting import BLOCK, Actor
from grpo_gym.episodes import concatenate
from grpo_gym.groups import EndlessQueue, InPlay, PlanQueue, Queue
from grpo_gym.packed_steps import PackedSteps, side_by_side
from grpo_gym.rollout import Collector, Played
from grpo_gym.types import IntArray, Rollout, Slots
from grpo_gym.vec import EnvLike, make_slots

N_TASKS = 2
"""Parts of a plan for each worker, if they are not too small: the second goes to whoever is free first."""

MAX_DEATHS = 3
"""Workers that may die of one task before it is given up: what kills the third would kill the fourth."""


@dataclass(frozen=True)
class Task:
    """What a worker is asked to play.

    Attributes:
        actor: chooses the actions; packed, once for all workers.
        queue: the episodes.
        n_steps: see `Collector.collect`.
        in_play: episodes to go on with; None for those that this worker cut before.
    """

    actor: bytes
    queue: Queue
    n_steps: int | None
    in_play: InPlay | None


@dataclass(frozen=True)
class Part:
    """What a worker played.

    Attributes:
        rollout: its trajectories.
        steps: its vector steps.
        queue: the task's, as it is now.
        in_play: episodes that were cut.
        warnings: what the worker was warned of.
    """

    rollout: Rollout
    steps: PackedSteps
    queue: Queue
    in_play: InPlay
    warnings: Sequence[Warning | str]


@dataclass(frozen=True)
class Failure:
    """What was raised in a worker, and where, for exceptions leave their tracebacks behind."""

    error: Exception
    where: str


class Worker:
    """Slots of its own, wherever it lives: in a process, or an actor on another machine.

    It is told and it answers in bytes, which any crew can carry. The slots are made with the first task, so that an
    environment that cannot be made says so in the answer.

    Args:
        work: see `pack_work`.
    """

    def __init__(self, work: bytes):
        self._work = work
        self._slots: Slots | None = None

    def answer(self, task: bytes) -> bytes:
        """Play a packed `Task`, and pack the `Part` or the `Failure` that came of it."""
        try:
            with threadpool_limits(1, "blas"):  # as in `GRPO.learn`, wherever this is: two threads round differently
                packed: bytes = cloudpickle.dumps(self._play(cloudpickle.loads(task)))
        except Exception as error:
            packed = _pack_failure(error)
        return packed

    def _play(self, task: Task) -> Part:
        if self._slots is None:
            env, n_slots, horizon = cloudpickle.loads(self._work)
            self._slots = make_slots(env, n_slots)
            self._collector = Collector(self._slots, horizon)
        steps: list[Played] = []

        def on_step(played: Played) -> bool:
            steps.append(played)
            return True

        with warnings.catch_warnings(record=True) as caught:
            if task.in_play is not None:
                self._collector.resume(task.in_play)
            rollout = self._collector.collect(cloudpickle.loads(task.actor), task.queue, task.n_steps, on_step)
        assert rollout is not None
        messages = [warning.message for warning in caught]
        return Part(rollout, PackedSteps.of(steps), task.queue, self._collector.in_play(), messages)

    def close(self) -> None:
        """Release the environments."""
        if self._slots is not None:
            self._slots.close()


def pack_work(env: EnvLike, sizes: IntArray, horizon: int | None) -> list[bytes]:
    """Pack what each worker is made of.

    Args:
        env: what `make_slots` takes, if it can be sent.
        sizes: slots of each worker.
        horizon: see `Collector`.

    Raises:
        TypeError: if the environment cannot be packed.
    """
    try:
        return [cloudpickle.dumps((env, int(size), horizon)) for size in sizes]
    except Exception as error:
        raise TypeError(
            f"{env} cannot be sent to workers ({type(error).__name__}: {error}); pass its id, or a function that makes "
            "in itself what cannot travel (files, locks, connections)"
        ) from error


def _pack_failure(error: Exception) -> bytes:
    where = "".join(traceback.format_exception(error))
    try:
        packed: bytes = cloudpickle.dumps(Failure(error, where))
        cloudpickle.loads(packed)  # some exceptions go in but not out again
    except Exception:
        stand_in = RuntimeError(f"{type(error).__name__}: {error}")
        stand_in.__dict__.update({name: x for name, x in vars(error).items() if name == "__notes__"})
        packed = cloudpickle.dumps(Failure(stand_in, where))
    return packed


def _unpack(answer: bytes) -> Part:
    """Return what a worker answered, or raise what it raised."""
    unpacked = cloudpickle.loads(answer)
    if isinstance(unpacked, Failure):
        raise unpacked.error from RuntimeError(f"in a worker:\n{unpacked.where}")
    assert isinstance(unpacked, Part)
    return unpacked


class WorkerDied(Exception):
    """A worker is gone, and what it was doing with it."""


class Crew(Protocol):
    """Workers, each a `Worker` of its share of `pack_work`, and the way to them.

    Attributes:
        n_workers: how many.
    """

    n_workers: int

    def send(self, worker: int, task: bytes) -> None:
        """Give a worker something to answer; starts it if it is not there."""
        ...

    def wait(self, busy: Sequence[int]) -> int:
        """Return one of the busy workers that has answered or died."""
        ...

    def receive(self, worker: int) -> bytes:
        """Return its answer.

        Raises:
            WorkerDied: if it did not live to give one.
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
        """See `Collector.collect`.

        `on_step` is told of the steps when all have come back, the t-th of every part at once: what one process
        would have told, if each of its slots plays one episode.
        """
        in_play, self._in_play = self._in_play, [InPlay.none()] * self.crew.n_workers
        stale, self._stale = self._stale, [True] * self.crew.n_workers
        packed = cloudpickle.dumps(actor)
        if isinstance(queue, EndlessQueue):
            given = [e if s else None for e, s in zip(in_play, stale, strict=True)]
            tasks = [Task(packed, part, n_steps, e) for part, e in zip(queue.split(self.sizes), given, strict=True)]
        else:
            assert isinstance(queue, PlanQueue)
            n_tasks = max(self.crew.n_workers, -(-queue.n_episodes // int(self.sizes[0])))  # a slot for each episode
            tasks = [Task(packed, part, n_steps, None) for part in queue.split(n_tasks)]
        try:
            parts = self._play(tasks, in_play, pinned=isinstance(queue, EndlessQueue))
        except BaseException:
            self.crew.close()  # nobody shall answer later what was asked now
            raise
        for warning in itertools.chain(*(part.warnings for part in parts)):
            warnings.warn(warning, stacklevel=2)
        if not all(map(on_step, side_by_side([part.steps for part in parts]))):
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
        deaths = Counter[int]()
        while len(parts) < len(tasks):
            for worker in range(self.crew.n_workers):
                ready = [task for task in waiting if task == worker or not pinned]
                if worker not in doing and ready:
                    waiting.remove(ready[0])
                    doing[worker] = ready[0]
                    self.crew.send(worker, cloudpickle.dumps(tasks[ready[0]]))
            worker = self.crew.wait(list(doing))
            task = doing.pop(worker)
            try:
                parts[task] = _unpack(self.crew.receive(worker))
            except WorkerDied as death:
                deaths[task] += 1
                if deaths[task] == MAX_DEATHS:
                    raise RuntimeError(
                        f"worker {worker} died, as {MAX_DEATHS - 1} before it of the same task ({death}): perhaps the "
                        "machine ran out of memory (fewer workers, smaller environments), the environment crashed (run "
                        "it with n_workers=1), or the script that starts training lacks its "
                        "`if __name__ == '__main__':`"
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


def deal_slots(n_slots: int, n_workers: int, n_groups: int, group_size: int, pinned: bool) -> IntArray:
    """Deal slots to workers: whole groups if they stay there (`pinned`), else one for each episode of a task.

    A task is at least a block of the network's if that leaves one for every worker: a vector step costs nearly the same
    for fewer episodes.

    Raises:
        ValueError: if there are too few groups, or slots, for each worker to have one.
    """
    for n, what in ((n_groups, "groups are played, and a group is one worker's"), (n_slots, "slots play (n_envs)")):
        if n < n_workers:
            raise ValueError(f"n_workers={n_workers}, but only {n} {what}: expected no more workers")
    if pinned:
        return np.array([len(part) * group_size for part in np.array_split(np.arange(n_groups), n_workers)])
    n_episodes = n_groups * group_size
    n_tasks = max(n_workers, min(N_TASKS * n_workers, n_groups, n_episodes // BLOCK))
    largest = -(-n_groups // n_tasks) * group_size
    return np.full(n_workers, largest if n_slots >= n_episodes else min(largest, n_slots // n_workers))
