"""Which groups an iteration keeps: replacements for those that teach nothing, and a warning about unequal starts."""

from __future__ import annotations

import warnings
from collections.abc import Callable

from grpo_gym.advantages import groups_with_spread
from grpo_gym.episodes import concatenate, select_groups
from grpo_gym.groups import unequal_starts
from grpo_gym.types import Compared, Rollout


def collect_groups(
    play: Callable[[int], Rollout | None],
    n_groups: int,
    compare: Callable[[Rollout], Compared],
    max_resamples: int = 0,
) -> tuple[Rollout, Compared, float] | None:
    """Play an iteration's groups, and new ones in place of those without spread, at most `max_resamples` times.

    Dynamic sampling as in DAPO (arXiv 2503.14476), bounded. Every step of a group that is replaced was
    taken, and counted.

    Args:
        play: plays so many groups of whole episodes; None if a callback ended it.
        n_groups: groups wanted, P.
        compare: the baseline.
        max_resamples: rounds of replacements; what ties in the last one is kept.

    Returns:
        P groups, what the baseline makes of them, and the share of all groups played that tied; or None if `play`
        was ended.
    """
    wanted, n_played, n_tied = n_groups, 0, 0
    kept: list[Rollout] = []
    for resamples_left in range(max_resamples, -1, -1):
        played = play(wanted)
        if played is None:
            return None
        rollout = played
        compared = compare(rollout)
        spread = groups_with_spread(compared.advantages, rollout.groups)
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
        compared = compare(rollout)  # some baselines look beyond the group
    return rollout, compared, n_tied / n_played


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


LONG_EPISODE = 500
"""Steps. Where already random play lasts longer, to the limit, whole episodes are a long wait for each update."""

SEGMENT = 128
"""Steps of each environment that such tasks are advised to be cut after."""


def warn_of_rare_updates(rollout: Rollout, name: str) -> None:
    """Warn if all episodes of the first iteration, of whole ones, lasted long and to their limit."""
    n_steps = len(rollout.mask)
    if n_steps > LONG_EPISODE and bool((rollout.truncated & (rollout.lengths == n_steps)).all()):
        n_episodes = len(rollout.lengths)
        warnings.warn(
            f"{name}: all episodes lasted to their limit of {n_steps:,} steps, so that the policy learns but once in "
            f"{n_episodes * n_steps:,} steps. With n_steps={SEGMENT} episodes are cut, and go on: it learns every "
            f"{n_episodes * SEGMENT:,}. Or set max_episode_steps, if fewer steps tell enough",
            stacklevel=4,
        )
