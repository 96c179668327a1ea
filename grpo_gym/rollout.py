"""Play the episodes of a plan. The only module that steps training environments."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from grpo_gym.episodes import EpisodeRecorder, concatenate, select_groups
from grpo_gym.groups import Plan, unequal_starts
from grpo_gym.types import Array, BoolArray, FloatArray, IntArray, Rollout, Slots, Step

DEFAULT_HORIZON = 10_000
"""Steps after which an episode is cut where neither the environment nor the user sets a limit."""


class Actor(Protocol):
    """What chooses the actions of a rollout; `policy.MlpPolicy` does.

    Attributes:
        noise_size: uniform numbers that one action takes.
    """

    @property
    def noise_size(self) -> int: ...  # noqa: D102

    def act(
        self, observations: Array, noise: FloatArray | None, action_masks: BoolArray | None = None
    ) -> tuple[Array, FloatArray]:
        """Return actions and their log-probabilities."""
        ...

    def to_env(self, actions: Array) -> Array:
        """Turn actions into the environment's."""
        ...


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


def collect(
    env: Slots,
    actor: Actor,
    plan: Plan,
    horizon: int | None = None,
    on_step: Callable[[Played], bool] = lambda played: True,
) -> Rollout | None:
    """Play every episode of the plan once, in as many slots as there are.

    A slot whose episode ends takes the next (group, seed) job of the plan; when no job is left it rests.

    Args:
        env: the slots.
        actor: chooses the actions, the same function from the first step to the last.
        plan: what is to be played.
        horizon: steps after which an episode is cut and marked as truncated; None for the environment's own
            limit, or `DEFAULT_HORIZON` where it has none.
        on_step: called after each vector step; False ends the rollout.

    Returns:
        The episodes, or None if `on_step` ended it: an unfinished rollout is not learned from.

    Raises:
        ValueError: if an observation or a reward is not finite, or no action is legal; the message names
            the environment, the seed and the step.
    """
    limit = horizon or (None if env.has_time_limit else DEFAULT_HORIZON)
    episodes = EpisodeRecorder(plan, actor.noise_size)
    slots = np.arange(min(env.num_envs, plan.n_episodes))
    playing = np.full(env.num_envs, -1)  # the episode in each slot
    playing[slots] = slots
    next_job = len(slots)
    observations, masks = env.start(slots, plan.episode_seeds[slots])
    idle_steps = 0
    while len(slots):
        rows = playing[slots]
        _refuse_non_finite("observation", observations, env.name, plan, rows, episodes.lengths)
        if masks is not None:
            _refuse_empty_masks(masks, env.name, plan, rows, episodes.lengths)
        actions, log_probs = actor.act(observations, episodes.noise(rows), masks)
        env_actions = actor.to_env(actions)
        step = env.step(slots, env_actions)
        _refuse_non_finite("reward", step.rewards, env.name, plan, rows, episodes.lengths + 1)
        episodes.add(rows, observations, actions, log_probs, masks, step)
        idle_steps += step.n_steps - len(slots)
        ended = step.terminated | step.truncated
        if limit is not None:
            ended |= episodes.lengths[rows] >= limit
        finished = ended.nonzero()[0]
        if len(finished):
            last = step.observations[finished]
            _refuse_non_finite("observation", last, env.name, plan, rows[finished], episodes.lengths)
            episodes.end(rows[finished], step.terminated[finished], last)
        infos = list(step.infos) or [{} for _ in rows]
        for row in finished.tolist():
            episode = {"r": float(episodes.returns[rows[row]]), "l": int(episodes.lengths[rows[row]])}
            infos[row] = {**infos[row], "episode": episode}
        if not on_step(Played(step, env_actions, ended, infos)):
            return None
        observations, masks = step.observations, step.action_masks
        if len(finished):
            n_started = min(len(finished), plan.n_episodes - next_job)
            restarted = finished[:n_started]
            if n_started:
                # copies: callbacks may have kept what they were shown
                observations, masks = observations.copy(), None if masks is None else masks.copy()
                jobs = np.arange(next_job, next_job + n_started)
                next_job += n_started
                playing[slots[restarted]] = jobs
                observations[restarted], first = env.start(slots[restarted], plan.episode_seeds[jobs])
                if masks is not None and first is not None:
                    masks[restarted] = first
                ended[restarted] = False
            observations, slots = observations[~ended], slots[~ended]
            masks = None if masks is None else masks[~ended]
    return episodes.rollout(plan, idle_steps)


def _refuse_non_finite(what: str, values: Array, name: str, plan: Plan, rows: IntArray, steps: IntArray) -> None:
    """Stop bad numbers where they enter: later they are a network full of nan."""
    finite = np.isfinite(values)
    if not finite.all():
        bad = int((~finite).reshape(len(values), -1).any(axis=1).argmax())
        raise ValueError(
            f"{name}: the {what} is not finite ({values[bad]}) at step {steps[rows[bad]]} of the episode with "
            f"seed {plan.episode_seeds[rows[bad]]}; expected finite numbers: mend the environment, or replace them "
            "in a wrapper"
        )


def _refuse_empty_masks(masks: BoolArray, name: str, plan: Plan, rows: IntArray, steps: IntArray) -> None:
    possible = masks.any(axis=1)
    if not possible.all():
        bad = int(possible.argmin())
        raise ValueError(
            f"{name}: the action mask allows nothing at step {steps[rows[bad]]} of the episode with seed "
            f"{plan.episode_seeds[rows[bad]]}; expected at least one legal action: end the episode instead"
        )


def collect_groups(
    env: Slots,
    actor: Actor,
    make_plan: Callable[[int], Plan],
    n_groups: int,
    has_spread: Callable[[Rollout], Tensor],
    max_resamples: int = 0,
    horizon: int | None = None,
    on_step: Callable[[Played], bool] = lambda played: True,
) -> tuple[Rollout | None, float]:
    """Play an iteration's groups, and new ones in place of those without spread, at most `max_resamples` times.

    Dynamic sampling as in DAPO (arXiv 2503.14476), bounded. Every step of a group that is replaced was
    taken, and `on_step` was told.

    Args:
        env: the slots.
        actor: chooses the actions.
        make_plan: draws the plan of so many groups.
        n_groups: groups wanted, P.
        has_spread: tells which groups of a rollout teach anything, `[P]`.
        max_resamples: rounds of replacements; what ties in the last one is kept.
        horizon: see `collect`.
        on_step: see `collect`.

    Returns:
        P groups, or None if `on_step` ended the rollout; and the share of all groups played that tied.
    """
    wanted, n_played, n_tied = n_groups, 0, 0
    kept: list[Rollout] = []
    for resamples_left in range(max_resamples, -1, -1):
        rollout = collect(env, actor, make_plan(wanted), horizon, on_step)
        if rollout is None:
            return None, 0.0
        spread = has_spread(rollout)
        n_played += wanted
        wanted = int((~spread).sum())
        n_tied += wanted
        if wanted == 0 or resamples_left == 0:
            kept.append(rollout)
            break
        if bool(spread.any()):
            kept.append(select_groups(rollout, spread))
    return concatenate(kept) if len(kept) > 1 else kept[0], n_tied / n_played


def warn_of_unequal_starts(rollout: Rollout, name: str) -> bool:
    """Warn if members of a group did not start alike, and tell whether that was so."""
    differ = unequal_starts(rollout.first_observations.numpy(), rollout.group_size)
    if differ.any():
        warnings.warn(
            f"{name}: reset(seed=...) does not repeat the start: in {differ.sum()} of {len(differ)} groups the "
            "members began differently. They are compared all the same, which is noisier; make the environment draw "
            "its start from its own seeded generator",
            stacklevel=4,
        )
    return bool(differ.any())
