"""A crew of Ray actors, on this machine or a cluster. Needs the extra "ray"; imported only when asked for."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from grpo_gym.extras import need
from grpo_gym.workers import Crew, Worker, WorkerDied

ray: Any = need("ray", "ray", "collector='ray'")

DEATHS = (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError, ray.exceptions.OutOfMemoryError)
"""What Ray raises where an actor is gone, or its node with the answer."""


class RayActors:
    """Makes crews on a Ray cluster: `GRPO(..., n_workers=8, collector=RayActors("auto"))`.

    Nothing of Ray itself is set here: who wants more than `address` says calls `ray.init(...)` before training, and
    that is joined.

    Args:
        address: of a running cluster, "auto" for the one that this machine belongs to; None to start one here.
        **actor_options: of each actor, as `num_cpus` (1), `resources` or `scheduling_strategy`.
    """

    def __init__(self, address: str | None = None, **actor_options: Any):
        self.address, self.actor_options = address, {"num_cpus": 1, **actor_options}

    def __call__(self, work: Sequence[bytes]) -> Crew:
        """Make a crew of as many actors; see `workers.pack_work`."""
        return _RayCrew(self, work)


class _RayCrew:
    def __init__(self, settings: RayActors, work: Sequence[bytes]):
        self.n_workers, self._settings, self._work = len(work), settings, work
        self._actors: dict[int, Any] = {}
        self._answers: dict[int, Any] = {}

    def send(self, worker: int, task: bytes) -> None:
        """See `Crew.send`."""
        if not self._actors:
            self._join_cluster()
        for missing in set(range(self.n_workers)) - set(self._actors):
            remote = ray.remote(**self._settings.actor_options)(Worker)
            self._actors[missing] = remote.remote(self._work[missing])
        self._answers[worker] = self._actors[worker].answer.remote(task)

    def _join_cluster(self) -> None:
        if not ray.is_initialized():
            ray.init(address=self._settings.address, include_dashboard=False)
        n_free, each = ray.available_resources().get("CPU", 0.0), self._settings.actor_options["num_cpus"]
        if self.n_workers * each > n_free:
            warnings.warn(
                f"{self.n_workers} actors ask for {each:g} CPUs each, and {n_free:g} are free in the Ray cluster: "
                "actors that do not fit wait, and with them the training. Use fewer workers, or less for each, as "
                "RayActors(num_cpus=0.5)",
                stacklevel=2,
            )

    def wait(self, busy: Sequence[int]) -> int:
        """See `Crew.wait`."""
        by_answer = {self._answers[worker]: worker for worker in busy}
        ready, _ = ray.wait(list(by_answer), num_returns=1)
        return by_answer[ready[0]]

    def receive(self, worker: int) -> bytes:
        """See `Crew.receive`."""
        try:
            answer: bytes = ray.get(self._answers.pop(worker))
        except DEATHS as death:
            ray.kill(self._actors.pop(worker))
            raise WorkerDied(str(death).splitlines()[0]) from None
        return answer

    def close(self) -> None:
        """See `Crew.close`."""
        for actor in self._actors.values():
            ray.kill(actor)
        self._actors.clear()
        self._answers.clear()
