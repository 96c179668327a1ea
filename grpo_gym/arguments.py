"""Checks of what a user passes to the agent: each message says what was given, expected, and how to mend it."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import Any

import torch

from grpo_gym.acting import remembers
from grpo_gym.advantages import SCALES, TRUNCATED
from grpo_gym.baselines import BASELINES, BOOTSTRAPPING, OF_EPISODES
from grpo_gym.losses import AGGREGATIONS, OBJECTIVES
from grpo_gym.references import ESTIMATORS, PLACES, require_whole_episodes
from grpo_gym.rewards import check_reward_functions

NOT_HERE = {
    "vf_coef": "there is no value network, so no value loss to weigh",
    "clip_range_vf": "there is no value network to clip",
    "use_sde": "state-dependent exploration is not part of this agent",
    "sde_sample_freq": "state-dependent exploration is not part of this agent",
    "normalize_advantage": "use scale_rewards='group', 'batch' or 'none'",
    "rollout_buffer_class": "episodes are kept in a Rollout, there is no buffer to replace",
    "rollout_buffer_kwargs": "episodes are kept in a Rollout, there is no buffer to replace",
}
"""Arguments of stable-baselines3's PPO that have no place here, and why."""


def check(values: Mapping[str, Any]) -> None:
    """Check the constructor's arguments, as far as they can be wrong by themselves.

    Raises:
        ValueError: for the first that cannot work.
    """
    whole("group_size", values["group_size"], 2, "one episode has nothing to be compared with")
    for name in (
        "n_groups",
        "n_epochs",
        "n_workers",
        "stats_window_size",
        "value_window",
        "vine_states",
        "vine_continuations",
    ):
        whole(name, values[name], 1)
    whole("max_resamples", values["max_resamples"], 0)
    for name in ("batch_size", "n_envs", "n_steps", "max_episode_steps"):
        if values[name] is not None:
            whole(name, values[name], 1)
    number("gamma", values["gamma"], 0.0, 1.0)
    number("gae_lambda", values["gae_lambda"], 0.0, 1.0)
    number("ent_coef", values["ent_coef"])
    number("max_grad_norm", values["max_grad_norm"], above=True)
    if values["target_kl"] is not None:
        number("target_kl", values["target_kl"], above=True)
    one_of("baseline", values["baseline"], BASELINES)
    one_of("scale_rewards", values["scale_rewards"], SCALES)
    one_of("aggregation", values["aggregation"], AGGREGATIONS)
    _check_family(values)
    if values["n_steps"] is not None:
        _check_segments(values)
    if remembers(values["policy_class"]):
        _check_memory(values)


def _check_memory(values: Mapping[str, Any]) -> None:
    """Refuse what would ask a policy with a memory in the middle of an episode."""
    if values["baseline"] == "vine":
        raise ValueError(
            "baseline='vine' plays on from the middle of episodes, where a policy with a memory would remember "
            "nothing; use another baseline, or a policy without one"
        )
    if values["kl_coef"] > 0:
        require_whole_episodes(values["policy_class"], values["n_steps"])


def _check_family(values: Mapping[str, Any]) -> None:
    """Check what tells the members of the family apart."""
    one_of("objective", values["objective"], OBJECTIVES)
    one_of("truncated_episodes", values["truncated_episodes"], TRUNCATED)
    one_of("kl_estimator", values["kl_estimator"], ESTIMATORS)
    one_of("kl_in", values["kl_in"], PLACES)
    number("min_group_std", values["min_group_std"])
    number("kl_coef", values["kl_coef"])
    for name in ("ratio_cap", "reference_update", "reference_kl"):
        if values[name] is not None:
            number(name, values[name], above=True)
    if values["adapter_rank"] is not None:
        whole("adapter_rank", values["adapter_rank"], 1)
    if values["reward_functions"] is not None:
        check_reward_functions(values["reward_functions"])
    if values["scale_rewards"] in ("group_episodes", "batch_episodes") and values["baseline"] not in OF_EPISODES:
        raise ValueError(
            f"scale_rewards={values['scale_rewards']!r} takes one advantage of each episode, but "
            f"baseline={values['baseline']!r} gives each step its own; expected {', '.join(sorted(OF_EPISODES))}, or "
            "scale_rewards='batch'"
        )
    if values["ratio_cap"] is not None and values["objective"] == "clipped_weights":
        raise ValueError("ratio_cap is for what is clipped by a minimum; objective='clipped_weights' has its own limit")
    update = values["reference_update"]
    if update is not None and update >= 1 and update != int(update):
        raise ValueError(f"reference_update={update} must be whole iterations from 1 on, or a share below 1")
    if values["kl_coef"] == 0 and (update is not None or values["reference_kl"] is not None):
        raise ValueError("kl_coef=0: there is no reference to update or to keep near; set kl_coef above 0")


def _check_segments(values: Mapping[str, Any]) -> None:
    """Refuse what needs whole episodes when they are cut after `n_steps`."""
    given = f"n_steps={values['n_steps']} cuts episodes before they end"
    if values["baseline"] not in BOOTSTRAPPING:
        raise ValueError(
            f"{given}, and baseline={values['baseline']!r} cannot tell what comes after; expected "
            f"{' or '.join(sorted(BOOTSTRAPPING))}, or n_steps=None for whole episodes"
        )
    whole_episodes: dict[str, tuple[Any, ...]] = {
        "scale_rewards": ("batch", "none"),
        "aggregation": ("step",),
        "max_resamples": (0,),
        "min_group_std": (0,),
        "objective": ("clipped", "clipped_weights"),
        "reward_functions": (None,),
    }
    for name, expected in whole_episodes.items():
        if values[name] not in expected:
            wanted = " or ".join(map(repr, expected))
            raise ValueError(
                f"{given}, and {name}={values[name]!r} needs whole ones; expected {wanted}, or n_steps=None"
            )
    slots = values["n_groups"] * values["group_size"]
    if values["n_envs"] not in (None, slots):
        raise ValueError(f"{given}, and then n_envs is n_groups * group_size = {slots}, not {values['n_envs']}")


def refuse_unknown(given: Iterable[str], known: Iterable[str]) -> None:
    """Explain arguments that the constructor does not have.

    Raises:
        TypeError: for the first of `given`, with the reason or the closest known name.
    """
    for name in given:
        if name in NOT_HERE:
            raise TypeError(f"GRPO has no argument {name!r}: {NOT_HERE[name]}")
        close = difflib.get_close_matches(name, list(known), n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
        raise TypeError(f"GRPO has no argument {name!r}; {hint}")


def whole(name: str, value: Any, at_least: int, why: str = "") -> None:
    """Require a whole number.

    Raises:
        ValueError: if it is none, or too small.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < at_least:
        raise ValueError(f"{name}={value!r} must be a whole number, at least {at_least}{why and f': {why}'}")


def number(name: str, value: Any, low: float = 0.0, high: float = math.inf, above: bool = False) -> None:
    """Require a finite number in [low, high], or in (low, high] if `above`.

    Raises:
        ValueError: if it is none, or outside.
    """
    good = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not good or not low <= value <= high or (above and value == low):
        bounds = f"{'above' if above else 'at least'} {low}" + (f", at most {high}" if high < math.inf else "")
        raise ValueError(f"{name}={value!r} must be a finite number, {bounds}")


def one_of(name: str, value: Any, known: Iterable[str]) -> None:
    """Require one of some names.

    Raises:
        ValueError: if it is none of them; the message lists them.
    """
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{name}={value!r} is not known; choose from {', '.join(known)}")


def total_timesteps(value: Any) -> int:
    """Require a positive number of environment steps; 2e4 is one.

    Raises:
        ValueError: if it is not.
    """
    number("total_timesteps", value, above=True)
    steps: int = math.ceil(value)
    return steps


def device(name: str | torch.device) -> torch.device:
    """Resolve "auto" to a GPU where there is one; a GPU that is not there becomes the CPU, as in SB3.

    Raises:
        ValueError: if torch knows no such device.
    """
    try:
        wanted = torch.device("cuda" if name == "auto" else name)
    except RuntimeError as error:
        raise ValueError(f"device={name!r} is not known; expected 'auto', 'cpu' or 'cuda' ({error})") from error
    return wanted if wanted.type != "cuda" or torch.cuda.is_available() else torch.device("cpu")
