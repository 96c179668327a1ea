"""Play episodes. The only module that steps training environments."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from grpo_gym.acting import Actor
from grpo_gym.advantages import groups_with_spread
from grpo_gym.episodes import TrajectoryRecorder, concatenate, select_groups
from grpo_gym.groups import Jobs, Plan, Queue, episode_noise, unequal_starts
from grpo_gym.types import DEFAULT_HORIZON, Array, BoolArray, IntArray, Rollout, Slots, Step


@dataclass(frozen=True)
class Played:
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

    def as_locals(self) -> dict[str, Any]:
        """Name these things as stable-baselines3's callbacks expect them."""
        return {
            "infos": self.infos,
            "dones": self.ended,
            "rewards": self.step.rewards,
            "actions": self.actions,
            "new_obs": self.step.observations,
            "n_steps": self.step.n_steps,
        }


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
        self._observations: Array = np.zeros(
            (n_slots, *(env.observation_space.shape or ())), env.observation_space.dtype
        )
        self._masks: BoolArray | None = None

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
        rows[slots] = record.begin(self._jobs.select(slots), starts=False)
        step_count = 0
        while n_steps is None or step_count < n_steps:
            if free.any():
                self._begin(free, queue, record, rows)
                slots = (~free).nonzero()[0]
                if not len(slots):
                    break
            ended = self._step(actor, slots, rows, record, on_step)
            if ended is None:
                return None
            free[slots[ended]] = True
            step_count += 1
        slots = (~free).nonzero()[0]
        neither = np.zeros(len(slots), np.bool_)
        record.end(rows[slots], neither, neither, self._observations[slots])
        self._free = free
        return record.rollout(queue.group_size)

    def _begin(self, free: BoolArray, queue: Queue, record: TrajectoryRecorder, rows: IntArray) -> None:
        """Start episodes in the free slots, as many as the queue has."""
        slots = free.nonzero()[0]
        jobs = queue.take(slots)
        slots = slots[: len(jobs.seeds)]
        if not len(slots):
            return
        free[slots] = False
        rows[slots] = record.begin(jobs, starts=True)
        for name in ("groups", "members", "seeds", "noise_seeds"):
            getattr(self._jobs, name)[slots] = getattr(jobs, name)
        self._lengths[slots], self._returns[slots] = 0, 0.0
        observations, masks = self.env.start(slots, jobs.seeds)
        self._see(slots, observations, masks)

    def _see(self, slots: IntArray, observations: Array, masks: BoolArray | None) -> None:
        self._observations[slots] = observations
        if masks is not None:
            if self._masks is None:
                self._masks = np.zeros((len(self._free), masks.shape[1]), np.bool_)
            self._masks[slots] = masks

    def _step(
        self,
        actor: Actor,
        slots: IntArray,
        rows: IntArray,
        record: TrajectoryRecorder,
        on_step: Callable[[Played], bool],
    ) -> BoolArray | None:
        """Play one step of these slots, and tell which episodes ended, `[k]`; None if `on_step` stopped it."""
        observations = self._observations[slots]
        masks = None if self._masks is None else self._masks[slots]
        self._refuse_non_finite("observation", observations, slots)
        if masks is not None:
            self._refuse_empty_masks(masks, slots)
        noise = episode_noise(self._jobs.noise_seeds[slots], self._lengths[slots], actor.noise_size)
        actions, log_probs = actor.act(observations, noise, masks)
        env_actions = actor.to_env(actions)
        step = self.env.step(slots, env_actions)
        self._lengths[slots] += 1
        self._refuse_non_finite("reward", step.rewards, slots)
        self._returns[slots] += step.rewards
        record.add(rows[slots], observations, actions, log_probs, masks, step)
        ended = step.terminated | step.truncated
        if self.limit is not None:
            ended |= self._lengths[slots] >= self.limit
        infos: Sequence[dict[str, Any]] = step.infos or [{} for _ in range(len(slots))]
        if ended.any():
            last = slots[ended]
            seen = step.observations[ended]
            self._refuse_non_finite("observation", seen, last)
            record.end(rows[last], step.terminated[ended], ~step.terminated[ended], seen)
            infos = list(infos)
            for row in ended.nonzero()[0].tolist():
                episode = {"r": float(self._returns[slots[row]]), "l": int(self._lengths[slots[row]])}
                infos[row] = {**infos[row], "episode": episode}
        self._see(slots, step.observations, step.action_masks)
        return ended if on_step(Played(step, env_actions, ended, infos)) else None

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
        possible = masks.any(axis=1)
        if not possible.all():
            raise ValueError(
                f"{self.env.name}: the action mask allows nothing at {self._where(slots[possible.argmin()])}; expected "
                "at least one legal action: end the episode instead"
            )

    def _where(self, slot: int) -> str:
        return f"step {self._lengths[slot]} of the episode with seed {self._jobs.seeds[slot]}"


def collect(
    env: Slots,
    actor: Actor,
    plan: Plan,
    horizon: int | None = None,
    on_step: Callable[[Played], bool] = lambda played: True,
) -> Rollout | None:
    """Play every episode of the plan once, in as many slots as there are; see `Collector`."""
    return Collector(env, horizon).collect(actor, plan.queue(), on_step=on_step)


def collect_groups(
    play: Callable[[int], Rollout | None],
    n_groups: int,
    compare: Callable[[Rollout], Tensor],
    max_resamples: int = 0,
) -> tuple[Rollout, Tensor, float] | None:
    """Play an iteration's groups, and new ones in place of those without spread, at most `max_resamples` times.

    Dynamic sampling as in DAPO (arXiv 2503.14476), bounded. Every step of a group that is replaced was
    taken, and counted.

    Args:
        play: plays so many groups of whole episodes; None if a callback ended it.
        n_groups: groups wanted, P.
        compare: the baseline: the advantages of a rollout, `[T, N]`.
        max_resamples: rounds of replacements; what ties in the last one is kept.

    Returns:
        P groups, their advantages, and the share of all groups played that tied; or None if `play` was ended.
    """
    wanted, n_played, n_tied = n_groups, 0, 0
    kept: list[Rollout] = []
    for resamples_left in range(max_resamples, -1, -1):
        played = play(wanted)
        if played is None:
            return None
        rollout = played
        advantages = compare(rollout)
        spread = groups_with_spread(advantages, rollout.groups)
        n_played += len(spread)
        wanted = int((~spread).sum())
        n_tied += wanted
        if wanted == 0 or resamples_left == 0:
            kept.append(rollout)
            break
        if bool(spread.any()):
            kept.append(select_groups(rollout, spread))
    if len(kept) > 1:
        rollout = concatenate(kept)
        advantages = compare(rollout)  # some baselines look beyond the group
    return rollout, advantages, n_tied / n_played


def warn_of_unequal_starts(rollout: Rollout, name: str) -> bool:
    """Warn if members of a group did not start alike, and tell whether that was so."""
    began = rollout.starts
    if not bool(began.any()):
        return False
    differ = unequal_starts(rollout.first_observations[began].numpy(), rollout.groups[began].numpy())
    if differ.any():
        warnings.warn(
            f"{name}: reset(seed=...) does not repeat the start: in {differ.sum()} of {len(differ)} groups the "
            "members began differently. They are compared all the same, which is noisier; make the environment draw "
            "its start from its own seeded generator",
            stacklevel=4,
        )
    return bool(differ.any())
