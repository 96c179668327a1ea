"""Play episodes. The only module that steps training environments."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from grpo_gym.acting import Actor, remembers
from grpo_gym.action_code import ActionCode
from grpo_gym.env_layers import recorded
from grpo_gym.episodes import TrajectoryRecorder
from grpo_gym.faults import explain, is_explained
from grpo_gym.groups import InPlay, Jobs, Plan, Queue
from grpo_gym.layout import Layout
from grpo_gym.noise import SlotNoise
from grpo_gym.types import DEFAULT_HORIZON, Array, BoolArray, IntArray, Rollout, Slots, Step


class Played(NamedTuple):
    """What happened in one vector step, as the agent and its callbacks are told.

    Attributes:
        step: the environment's answer for the k slots that played.
        actions: sent to the environment, `[k, ...]`.
        ended: the episode is over, by itself or cut, `[k]`.
        infos: a dictionary a slot; that of an ended episode has `"episode": {"r": return, "l": steps}`.
    """

    step: Step
    actions: Array
    ended: BoolArray
    infos: Sequence[dict[str, Any]]

    def as_locals(self, observations: Layout, actions: Layout) -> dict[str, Any]:
        """Name these things as stable-baselines3's callbacks expect them, unpacked from their layouts."""
        return {
            "infos": list(self.infos),
            "dones": self.ended,
            "rewards": self.step.rewards,
            "actions": actions.unpack(self.actions),
            "new_obs": observations.unpack(self.step.observations),
            "n_steps": self.step.n_steps,
        }

    @staticmethod
    def join(parts: Sequence[Played]) -> Played:
        """Put steps that were taken at the same time side by side."""

        def joined(name: str) -> Array:
            return np.concatenate([getattr(played.step, name) for played in parts])

        step = Step(
            observations=joined("observations"),
            rewards=joined("rewards"),
            terminated=joined("terminated"),
            truncated=joined("truncated"),
            action_masks=None if parts[0].step.action_masks is None else joined("action_masks"),
            infos=(),
            n_steps=sum(played.step.n_steps for played in parts),
        )
        actions, ended = (np.concatenate([getattr(played, name) for played in parts]) for name in ("actions", "ended"))
        return Played(step, actions, ended, [info for played in parts for info in played.infos])


class Collector:
    """Plays episodes in slots, and keeps those that are still in play from one rollout to the next.

    Args:
        env: the slots.
        horizon: steps after which an episode is ended and marked as truncated; None for the environment's own
            limit, or `DEFAULT_HORIZON` where it has none.
    """

    def __init__(self, env: Slots, horizon: int | None = None):
        self.env = env
        self.limit = horizon or (None if env.has_time_limit else DEFAULT_HORIZON)
        n_slots = env.num_envs
        self._free = np.ones(n_slots, np.bool_)
        self._lengths = np.zeros(n_slots, np.int64)
        self._returns = np.zeros(n_slots)
        zeros = np.zeros(n_slots, np.int64)
        self._jobs = Jobs(zeros, zeros.copy(), zeros.copy(), zeros.copy())  # the episode in each slot
        self._layout, self._code = Layout(env.observation_space), ActionCode(env.action_space)
        self._observations: Array = np.zeros((n_slots, *self._layout.shape), self._layout.dtype)
        self._masks: BoolArray | None = None
        self._latest: tuple[IntArray, Array] = zeros[:0], zeros[:0]  # slots and actions of the last vector step
        self._memories = np.zeros((n_slots, 0), np.float32)
        self._noise = SlotNoise(n_slots, 0)
        self._sent: list[Array] = []  # actions of the vector steps that episodes in play go back to

    def collect(
        self,
        actor: Actor,
        queue: Queue,
        n_steps: int | None = None,
        on_step: Callable[[Played], bool] = lambda played: True,
    ) -> Rollout | None:
        """Play until the queue is empty, or for `n_steps` steps of each slot.

        A slot whose episode ends takes the next from the queue; when there is none it rests.

        Args:
            actor: chooses the actions, the same function from the first step to the last.
            queue: the episodes to be played.
            n_steps: cut the episodes here and go on with them in the next rollout; None for whole episodes.
            on_step: called after each vector step; False ends the rollout.

        Returns:
            The trajectories, or None if `on_step` ended it: an unfinished rollout is not learned from, and what
            was in play is dropped.

        Raises:
            ValueError: if an observation or a reward is not finite, or no action is legal; the message names
                the environment, the seed and the step.
        """
        record = TrajectoryRecorder()
        free, self._free = self._free, np.ones_like(self._free)  # until this rollout is complete nothing is in play
        rows = np.full(len(free), -1)
        slots = (~free).nonzero()[0]
        memory_size = actor.memory_size if remembers(actor) else 0
        if self._memories.shape[1] != memory_size:
            self._memories = np.zeros((len(free), memory_size), np.float32)
        rows[slots] = record.begin(self._jobs.select(slots), False, self._memories[slots])
        if self._noise.size != actor.noise_size:
            self._noise = SlotNoise(len(free), actor.noise_size)
        step_count = 0
        changed, has_more = True, True  # which slots play; the queue
        while n_steps is None or step_count < n_steps:
            if changed:
                has_more = has_more and self._begin(free, queue, record, rows)
                slots = (~free).nonzero()[0]
                if not len(slots):
                    break
            ended = self._step(actor, slots, rows, record, on_step, keep=n_steps is not None)
            if ended is None:
                return None
            free[slots[ended]] = True
            changed = len(ended) > 0
            step_count += 1
        slots = (~free).nonzero()[0]
        neither = np.zeros(len(slots), np.bool_)
        record.end(rows[slots], neither, neither, self._observations[slots])
        self._free = free
        self._sent = self._sent[len(self._sent) - int(self._lengths[slots].max(initial=0)) :]
        return record.rollout(queue.group_size)

    def in_play(self) -> InPlay:
        """Return the episodes that the last rollout cut."""
        slots = (~self._free).nonzero()[0]
        lengths = self._lengths[slots]
        latest = {int(n): self._sent[len(self._sent) - n :] for n in lengths}
        actions = [sent[slot] for slot, n in zip(slots, lengths, strict=True) for sent in latest[int(n)]]
        jobs, observations, memories = self._jobs.select(slots), self._observations[slots], self._memories[slots]
        return InPlay(slots, jobs, lengths, np.array(actions), observations, memories)

    def resume(self, episodes: InPlay) -> None:
        """Play these episodes and no others, brought back by taking their actions again from their seeds.

        If that does not lead to where they stood it warns, and new ones are begun in their place.
        """
        slots, lengths = episodes.slots, episodes.lengths
        self._free[:] = True
        self._noise = SlotNoise(len(self._free), 0)
        if not len(slots):
            return
        self._put(slots, episodes.jobs)
        self._memories = np.zeros((len(self._free), episodes.memories.shape[1]), np.float32)
        self._memories[slots] = episodes.memories
        first, longest = np.cumsum(lengths) - lengths, int(lengths.max(initial=0))
        shape = (len(self._free), *episodes.actions.shape[1:])
        self._sent = [np.zeros(shape, episodes.actions.dtype) for _ in range(longest)]
        for step_count, sent in enumerate(self._sent):
            t = lengths - longest + step_count  # so that all end together
            playing = slots[t >= 0]
            sent[playing] = episodes.actions[(first + t)[t >= 0]]
            step = self.env.step(playing, sent[playing])
            self._lengths[playing] += 1
            self._returns[playing] += step.rewards
            self._see(playing, step.observations, step.action_masks)
        differ = (self._observations[slots] != episodes.observations).reshape(len(slots), -1).any(axis=1)
        if differ.any():
            warnings.warn(
                f"{self.env.name}: the episode with seed {episodes.jobs.seeds[differ.argmax()]} does not come to where "
                f"it stood when its {lengths[differ.argmax()]} actions are taken again: the environment draws from "
                "something besides its seed. New episodes are begun: training goes on, but not bit for bit",
                stacklevel=2,
            )
            return
        self._free[slots] = False

    def _begin(self, free: BoolArray, queue: Queue, record: TrajectoryRecorder, rows: IntArray) -> bool:
        """Start episodes in the free slots, as many as the queue has; tell whether it had one for each."""
        slots = free.nonzero()[0]
        jobs = queue.take(slots)
        had_enough = len(jobs.seeds) == len(slots)
        slots = slots[: len(jobs.seeds)]
        if len(slots):
            free[slots] = False
            self._put(slots, jobs)
            rows[slots] = record.begin(jobs, True, self._memories[slots])
        return had_enough

    def _put(self, slots: IntArray, jobs: Jobs) -> None:
        """Start these episodes in these slots."""
        for name in ("groups", "members", "seeds", "noise_seeds"):
            getattr(self._jobs, name)[slots] = getattr(jobs, name)
        self._lengths[slots], self._returns[slots], self._memories[slots] = 0, 0.0, 0.0
        observations, masks = self._started(slots, jobs.seeds)
        self._see(slots, observations, masks)

    def _started(self, slots: IntArray, seeds: IntArray) -> tuple[Array, BoolArray | None]:
        """Start these slots; if that raises, tell from which seeds."""
        try:
            return self.env.start(slots, seeds)
        except Exception as error:
            if not is_explained(error):  # single environments know which of them it was
                explain(error, f"{self.env.name}: reset of slots {slots} raised this; seed={seeds}")
            raise

    def _stepped(self, slots: IntArray, actions: Array) -> Step:
        """Step these slots; if that raises, tell what each was doing."""
        self._latest = slots, actions
        try:
            return self.env.step(slots, actions)
        except Exception as error:
            if not is_explained(error):
                explain(
                    error,
                    f"{self.env.name}: a step of slots {slots} raised this: steps {self._lengths[slots] + 1} of the "
                    f"episodes with seeds {self._jobs.seeds[slots]}, for actions {actions.tolist()}",
                )
            raise

    def _see(self, slots: IntArray, observations: Array, masks: BoolArray | None) -> None:
        where = slice(None) if len(slots) == len(self._free) else slots  # all of them, in one piece
        self._observations[where] = observations
        if masks is not None:
            if self._masks is None:
                self._masks = np.zeros((len(self._free), masks.shape[1]), np.bool_)
            self._masks[where] = masks

    def _step(
        self,
        actor: Actor,
        slots: IntArray,
        rows: IntArray,
        record: TrajectoryRecorder,
        on_step: Callable[[Played], bool],
        keep: bool,
    ) -> IntArray | None:
        """Play one step of these slots, and tell in which of them an episode ended; None if `on_step` stopped it.

        To `keep` the actions, all slots must play.
        """
        observations = self._observations.take(slots, axis=0)
        masks = None if self._masks is None else self._masks[slots]
        self._refuse_bad_observations(observations, slots)
        if masks is not None:
            self._refuse_empty_masks(masks, slots)
        lengths = self._lengths[slots]
        noise = self._noise.of(slots, self._jobs.noise_seeds[slots], lengths)
        if remembers(actor):
            memories = self._memories[slots]
            actions, log_probs, self._memories[slots] = actor.act_from(memories, observations, noise, masks)
        else:
            actions, log_probs = actor.act(observations, noise, masks)
        env_actions = actor.to_env(actions)
        step = self._stepped(slots, env_actions)
        if keep:
            self._sent.append(env_actions)
        self._lengths[slots] = lengths + 1
        if not surely_finite(step.rewards):
            self._refuse_non_finite("reward", step.rewards, slots)
        self._returns[slots] += step.rewards
        record.add(rows[slots], observations, actions, log_probs, masks, step)
        ended = step.terminated | step.truncated
        if self.limit is not None:
            ended |= lengths + 1 >= self.limit
        infos: Sequence[dict[str, Any]] = step.infos or [{} for _ in range(len(slots))]
        over = ended.nonzero()[0]
        if len(over):
            last = slots[over]
            seen = step.observations[over]
            self._refuse_bad_observations(seen, last)
            record.end(rows[last], step.terminated[over], ~step.terminated[over], seen)
            infos = list(infos)
            for row in over.tolist():
                if recorded(infos[row]) is None:  # else a wrapper knows the rewards before others changed them
                    episode = {"r": float(self._returns[slots[row]]), "l": int(self._lengths[slots[row]])}
                    infos[row] = {**infos[row], "episode": episode}
        self._see(slots, step.observations, step.action_masks)
        return over if on_step(Played(step, env_actions, ended, infos)) else None

    def _refuse_bad_observations(self, rows: Array, slots: IntArray) -> None:
        if self._layout.is_plain and surely_finite(rows):
            return
        for leaf, part in zip(self._layout.leaves, self._layout.parts(rows), strict=True):
            if not surely_finite(part):
                self._refuse_non_finite(f"observation{leaf.name and f' {leaf.name!r}'}", part, slots)

    def _refuse_non_finite(self, what: str, values: Array, slots: IntArray) -> None:
        """Stop bad numbers where they enter: later they are a network full of nan."""
        finite = np.isfinite(values)
        if not finite.all():
            bad = int((~finite).reshape(len(values), -1).any(axis=1).argmax())
            raise ValueError(
                f"{self.env.name}: the {what} is not finite ({values[bad]}) at {self._where(slots[bad])}; expected "
                "finite numbers: mend the environment, or replace them in a wrapper"
            )

    def _refuse_empty_masks(self, masks: BoolArray, slots: IntArray) -> None:
        possible = self._code.possible(masks)
        if not possible.all():
            raise ValueError(
                f"{self.env.name}: the action mask allows nothing at {self._where(slots[possible.argmin()])}; expected "
                "at least one legal action: end the episode instead"
            )

    def _where(self, slot: int) -> str:
        n_steps, (slots, actions) = self._lengths[slot], self._latest
        after = "".join(f" after action {action}" for action in actions[slots == slot]) if n_steps else ""
        return f"step {n_steps} of the episode with seed {self._jobs.seeds[slot]}; slot {slot}{after}"


def surely_finite(values: Array) -> bool:
    """Tell whether their sum of squares is finite, for then all are: half of the time that it takes to ask each.

    It is not where they are so large that their squares overflow.
    """
    return values.dtype.kind in "biu" or math.isfinite(np.vdot(values, values))


def collect(
    env: Slots,
    actor: Actor,
    plan: Plan,
    horizon: int | None = None,
    on_step: Callable[[Played], bool] = lambda played: True,
) -> Rollout | None:
    """Play every episode of the plan once, in as many slots as there are; see `Collector`."""
    return Collector(env, horizon).collect(actor, plan.queue(), on_step=on_step)
