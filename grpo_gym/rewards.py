"""Rewards composed of parts that are computed from finished episodes: functions, and models that learned to judge."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from grpo_gym.types import Array, Rollout


@dataclass(frozen=True)
class Episode:
    """A finished episode of T steps, as reward functions see it.

    Attributes:
        observations: what was seen before each step, `[T, ...]`.
        actions: as the environment got them, `[T, ...]`.
        rewards: the environment's own, `[T]`.
        final_observation: what was seen after the last step.
        terminated: it ended by itself.
        truncated: it was ended by a time limit.
        seed: it was reset to.
    """

    observations: Array
    actions: Array
    rewards: Array
    final_observation: Array
    terminated: bool
    truncated: bool
    seed: int

    def __len__(self) -> int:
        return len(self.rewards)


RewardFunction = Callable[[Episode], Any]
"""Judges an episode: one number for its outcome, or an array `[T]`, one for each of its steps."""


@runtime_checkable
class RewardModel(Protocol):
    """Judges many episodes at once, as a learned model does."""

    def compute_rewards(self, episodes: Sequence[Episode]) -> Any:
        """Return for each episode one number, or an array `[T]`."""
        ...


RewardPart = tuple[str, RewardFunction | RewardModel, float]
"""The name of a part, what computes it, and its weight."""


def environment_reward(episode: Episode) -> Array:
    """Return the environment's own rewards, `[T]`: the part to name if they shall count too."""
    return episode.rewards


def check_reward_functions(parts: Any) -> None:
    """Require a list of `RewardPart`.

    Raises:
        ValueError: for the first that is none, or a name that comes twice.
    """
    expected = "expected a list such as [('correct', function, 1.0), ('format', model, 0.1)]"
    if not isinstance(parts, Sequence) or not parts:
        raise ValueError(f"reward_functions={parts!r}: {expected}")
    for part in parts:
        if not isinstance(part, Sequence) or len(part) != 3 or not isinstance(part[0], str):
            raise ValueError(f"reward_functions has {part!r}: {expected}")
        name, judge, weight = part
        if not isinstance(judge, RewardModel) and not callable(judge):
            raise ValueError(f"reward_functions: {name!r} is {judge!r}: no function, no compute_rewards(...)")
        if not isinstance(weight, Real) or isinstance(weight, bool) or not math.isfinite(weight):
            raise ValueError(f"reward_functions: the weight of {name!r} is {weight!r}, expected a finite number")
    names = [name for name, _, _ in parts]
    if len(set(names)) < len(names):
        raise ValueError(f"reward_functions has names {names}: each must be a name of its own, it is logged by it")


def compose(
    rollout: Rollout, parts: Sequence[RewardPart], to_env: Callable[[Array], Array] = lambda actions: actions
) -> tuple[Rollout, dict[str, list[float]]]:
    """Replace the rewards of a rollout by the weighted sum of the parts.

      rₙ,ₜ = Σ_parts weight · partₙ,ₜ; a part that is one number for the episode is earned at its last step

    Args:
        rollout: of whole episodes.
        parts: see `RewardPart`.
        to_env: turns the network's actions into the environment's.

    Returns:
        The rollout with its new rewards, and by name the sum of each part over each episode, `[N]`, unweighted.

    Raises:
        ValueError: if a part is neither a number nor one a step, or not finite.
    """
    episodes = list(episodes_of(rollout, to_env))
    total = torch.zeros(rollout.mask.shape, dtype=torch.float64)
    sums = {}
    for name, judge, weight in parts:
        if isinstance(judge, RewardModel):
            judged = list(judge.compute_rewards(episodes))
            if len(judged) != len(episodes):
                raise ValueError(f"reward part {name!r} judged {len(judged)} of {len(episodes)} episodes")
        else:
            judged = [judge(episode) for episode in episodes]
        steps = [_by_step(name, one, episode) for one, episode in zip(judged, episodes, strict=True)]
        total += weight * rollout.padded(torch.from_numpy(np.concatenate(steps)))
        sums[name] = [float(of_steps.sum()) for of_steps in steps]
    return replace(rollout, rewards=total.float()), sums


def episodes_of(rollout: Rollout, to_env: Callable[[Array], Array] = lambda actions: actions) -> Iterator[Episode]:
    """Take a rollout of whole episodes apart."""
    lengths = rollout.lengths.tolist()
    observations, rewards = rollout.observations.numpy(), rollout.flat(rollout.rewards).numpy()
    actions = to_env(rollout.actions.numpy())
    start = 0
    for n, length in enumerate(lengths):
        rows = slice(start, start + length)
        yield Episode(
            observations[rows],
            actions[rows],
            rewards[rows],
            rollout.final_observations[n].numpy(),
            bool(rollout.terminated[n]),
            bool(rollout.truncated[n]),
            int(rollout.seeds[rollout.groups[n]]),
        )
        start += length


def _by_step(name: str, judged: Any, episode: Episode) -> Array:
    values = np.asarray(judged.detach().cpu() if isinstance(judged, torch.Tensor) else judged)
    numeric = values.dtype.kind in "biuf"
    if not numeric or values.shape not in ((), (len(episode),)) or not np.isfinite(values).all():
        raise ValueError(
            f"reward part {name!r} gave {judged!r} for an episode of {len(episode)} steps (seed {episode.seed}), "
            "expected a finite number for its outcome, or an array with one for each step"
        )
    if values.shape:
        return values.astype(np.float64)
    outcome = np.zeros(len(episode))
    outcome[-1] = values
    return outcome
