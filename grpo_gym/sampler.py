"""What an agent plays with: its environments, who steps them, and which episodes come next."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np

from grpo_gym.acting import Actor
from grpo_gym.collectors import AnyCollector, MakeCrew, find_crew, sendable
from grpo_gym.groups import LARGEST_NOISE_SEED, EndlessQueue, InPlay, Queue, plan
from grpo_gym.rollout import Collector, Played
from grpo_gym.types import Rollout, Slots
from grpo_gym.vec import EnvLike, make_slots
from grpo_gym.workers import WorkerCollector, deal_slots, pack_work


class Sampler:
    """Plays groups of episodes, here or in workers.

    Args:
        n_groups: groups P of an iteration.
        group_size: members G of a group.
        n_steps: cut episodes after so many steps of each environment; None for whole ones.
        n_envs: episodes in play at once; a vector environment has its own number.
        n_workers: processes that play; 1 for this one alone.
        collector: see `collectors.find_crew`.
        max_episode_steps: cut episodes here, if earlier than the environment does.

    Attributes:
        env: the environments, or the one by which their spaces are known if workers play; None before `use`.
        queue: where episodes are cut, which ones come next; None before the first.
    """

    def __init__(
        self,
        n_groups: int,
        group_size: int,
        n_steps: int | None,
        n_envs: int,
        n_workers: int,
        collector: str | MakeCrew,
        max_episode_steps: int | None,
    ):
        self.n_groups, self.group_size, self.n_steps = n_groups, group_size, n_steps
        self.n_envs, self.n_workers, self.max_episode_steps = n_envs, n_workers, max_episode_steps
        self._crew = collector
        self._plays_here = n_workers == 1 and collector == "processes"
        self.env: Slots | None = None
        self.queue: EndlessQueue | None = None
        self._to_resume: InPlay | None = None
        self.collector: AnyCollector

    def make_slots(self, env: EnvLike) -> Slots:
        """Make the slots of this process: all, or one to know the spaces by if workers play.

        Raises:
            ValueError: if a vector environment has too many or too few for segments.
        """
        slots = make_slots(env, self.n_envs if self._plays_here else 1)
        if self._plays_here and self.n_steps is not None and slots.num_envs != self.n_groups * self.group_size:
            raise ValueError(
                f"{slots.name} has {slots.num_envs} environments, but with n_steps each plays all the time and is one "
                f"member of one group: expected n_groups * group_size = {self.n_groups * self.group_size} of them, or "
                "n_steps=None for whole episodes"
            )
        return slots

    def use(self, slots: Slots, env: EnvLike) -> None:
        """Play in these slots from now on, or in workers' that are made of the same."""
        self.env = slots
        if self._plays_here:
            self.n_envs = slots.num_envs
            self.collector = Collector(slots, self.max_episode_steps)
        else:
            pinned = self.n_steps is not None
            sizes = deal_slots(self.n_envs, self.n_workers, self.n_groups, self.group_size, pinned)
            crew = find_crew(self._crew)
            self.collector = WorkerCollector(crew(pack_work(sendable(env), sizes, self.max_episode_steps)), sizes)

    def play(
        self, actor: Actor, n_groups: int, rng: np.random.Generator, on_step: Callable[[Played], bool]
    ) -> Rollout | None:
        """Play so many new groups, or where episodes are cut the next piece of all that are in play.

        Args:
            actor: chooses the actions.
            n_groups: groups wanted.
            rng: seeds of the groups are drawn from it.
            on_step: see `rollout.Collector.collect`.

        Returns:
            None if `on_step` ended it.
        """
        queue = self._next_queue(n_groups, rng)
        rollout = self.collector.collect(actor, queue, self.n_steps, on_step)
        if rollout is not None and isinstance(queue, EndlessQueue):
            self.queue = queue  # the episodes of a rollout that was stopped were never begun
        return rollout

    def _next_queue(self, n_groups: int, rng: np.random.Generator) -> Queue:
        if self.n_steps is None:
            return plan(rng, n_groups, self.group_size).queue()
        if self.queue is None:
            return EndlessQueue(int(rng.integers(LARGEST_NOISE_SEED)), n_groups, self.group_size)
        return copy.deepcopy(self.queue)

    def in_play(self) -> InPlay | None:
        """Return the episodes that were cut and will go on, if there are any."""
        if self._to_resume is not None or self.env is None or self.n_steps is None:
            return self._to_resume
        return self.collector.in_play()

    def restore(self, key: int, n_begun: list[int], in_play: InPlay | None) -> None:
        """Take over the queue and the cut episodes of a checkpoint; `resume` goes on with them."""
        self.queue = EndlessQueue(key, self.n_groups, self.group_size)
        self.queue.n_begun[:] = n_begun
        self._to_resume = in_play

    def set_aside(self) -> None:
        """Leave the slots to others; what was in play goes on after `resume`."""
        if self._plays_here:
            self._to_resume = self.in_play()

    def resume(self) -> None:
        """Go on with the episodes that `restore` was given."""
        episodes, self._to_resume = self._to_resume, None
        if episodes is not None:
            self.collector.resume(episodes)
