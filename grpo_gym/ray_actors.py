"""A crew of Ray actors, on this machine or a cluster. Needs the extra "ray"; imported only when asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cloudpickle
import ray

from grpo_gym.types import IntArray
from grpo_gym.vec import EnvLike
from grpo_gym.workers import Crew, Part, Task, Worker, WorkerDied


class RayActors:
    """Makes crews on a Ray cluster: `GRPO(..., n_workers=8, collector=RayActors(address="auto"))`.

    Args:
        address: of a running cluster; None to join one that `ray.init` found before, or to start one here.
        **actor_options: of each actor, as `num_cpus`, `resources` or `scheduling_strategy`.
    """

    def __init__(self, address: str | None = None, **actor_options: Any):
        self.address, self.actor_options = address, {"num_cpus": 1, **actor_options}

    def __call__(self, env: EnvLike, sizes: IntArray, horizon: int | None) -> Crew:
        """Make a crew of `len(sizes)` actors."""
        return _RayCrew(self, env, sizes, horizon)


class _Remote:
    """A `Worker`, with what it is sent packed by ourselves: Ray's own arrays are read-only."""

    def __init__(self, work: bytes):
        import torch

        torch.set_num_threads(1)
        self._worker = Worker(*cloudpickle.loads(work))

    def play(self, task: bytes) -> bytes:
        try:
            answer: Part | Exception = self._worker.play(cloudpickle.loads(task))
        except Exception as error:
            answer = error
        packed: bytes = cloudpickle.dumps(answer)
        return packed


class _RayCrew:
    def __init__(self, settings: RayActors, env: EnvLike, sizes: IntArray, horizon: int | None):
        self.n_workers, self._settings = len(sizes), settings
        self._work = [cloudpickle.dumps((env, int(size), horizon)) for size in sizes]
        self._actors: dict[int, Any] = {}
        self._answers: dict[int, Any] = {}

    def send(self, worker: int, task: Task) -> None:
        """See `Crew.send`."""
        if not ray.is_initialized():
            ray.init(address=self._settings.address, include_dashboard=False, log_to_driver=False)
        if worker not in self._actors:
            remote = ray.remote(**self._settings.actor_options)(_Remote)
            self._actors[worker] = remote.remote(self._work[worker])
        self._answers[worker] = self._actors[worker].play.remote(cloudpickle.dumps(task))

    def wait(self, busy: Sequence[int]) -> int:
        """See `Crew.wait`."""
        by_answer = {self._answers[worker]: worker for worker in busy}
        ready, _ = ray.wait(list(by_answer), num_returns=1)
        return by_answer[ready[0]]

    def receive(self, worker: int) -> Part:
        """See `Crew.receive`."""
        try:
            answer = cloudpickle.loads(ray.get(self._answers.pop(worker)))
        except ray.exceptions.RayActorError as death:
            del self._actors[worker]
            raise WorkerDied(str(death).splitlines()[0]) from None
        if isinstance(answer, Part):
            return answer
        raise answer

    def close(self) -> None:
        """See `Crew.close`."""
        for actor in self._actors.values():
            ray.kill(actor)
        self._actors.clear()
        self._answers.clear()
