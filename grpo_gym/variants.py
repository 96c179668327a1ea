"""The GRPO family by name: each variant is a set of constructor arguments, as published."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec

import torch

P = ParamSpec("P")

OUTCOME: dict[str, Any] = {"baseline": "outcome", "scale_rewards": "group_episodes", "gamma": 1.0}
"""(R − mean) / std over the episodes of the group, the same for all steps of one; nothing is discounted."""

VARIANTS: dict[str, dict[str, Any]] = {
    # Shao et al. 2024, arXiv 2402.03300
    "grpo": {**OUTCOME, "aggregation": "trajectory", "kl_coef": 0.04, "kl_estimator": "k3"},
    "grpo_process": {
        "baseline": "process",
        "scale_rewards": "none",
        "gamma": 1.0,
        "aggregation": "trajectory",
        "kl_coef": 0.04,
        "kl_estimator": "k3",
    },
    # Liu et al. 2025, arXiv 2503.20783
    "dr_grpo": {**OUTCOME, "scale_rewards": "none", "aggregation": "constant"},
    # Ahmadian et al. 2024, arXiv 2402.14740: one step of the score function, which the clip does not touch
    "rloo": {
        "baseline": "leave_one_out",
        "scale_rewards": "none",
        "gamma": 1.0,
        "aggregation": "constant",
        "n_epochs": 1,
        "batch_size": None,
    },
    # Chen et al. 2025, arXiv 2502.01600
    "loop": {"baseline": "leave_one_out", "scale_rewards": "none", "gamma": 1.0, "aggregation": "step"},
    # Rastogi et al. 2025, arXiv 2506.10910
    "magistral": {
        **OUTCOME,
        "scale_rewards": "batch_episodes",
        "aggregation": "step",
        "clip_range": 0.2,
        "clip_range_high": 0.28,
    },
    # Liu et al. 2025, arXiv 2508.08221
    "lite_ppo": {**OUTCOME, "scale_rewards": "batch_returns", "aggregation": "step"},
    # Yu et al. 2025, arXiv 2503.14476
    "dapo": {
        **OUTCOME,
        "group_size": 16,
        "aggregation": "step",
        "clip_range": 0.2,
        "clip_range_high": 0.28,
        "max_resamples": 4,
        "truncated_episodes": "drop",
    },
    # Hu 2025, arXiv 2501.03262
    "reinforce_pp": {"baseline": "every_step", "scale_rewards": "batch", "gamma": 1.0, "aggregation": "step"},
    "reinforce_pp_baseline": {**OUTCOME, "scale_rewards": "batch", "aggregation": "step"},
    # Zheng et al. 2025, arXiv 2507.18071
    "gspo": {
        **OUTCOME,
        "aggregation": "trajectory",
        "objective": "sequence",
        "clip_range": 3e-4,
        "clip_range_high": 4e-4,
    },
    # MiniMax 2025, arXiv 2506.13585: no lower limit; the upper one as in arXiv 2510.13786
    "cispo": {
        **OUTCOME,
        "aggregation": "step",
        "objective": "clipped_weights",
        "clip_range": 1.0,
        "clip_range_high": 4.0,
    },
    # INTELLECT-2, arXiv 2505.07291
    "dual_clip": {**OUTCOME, "aggregation": "step", "ratio_cap": 4.0},
    # Chen et al. 2025, arXiv 2510.03679
    "gpg": {"baseline": "bins", "scale_rewards": "none", "aggregation": "step"},
    # arXiv 2609.19850
    "gr2po": {"baseline": "time_index", "scale_rewards": "none", "aggregation": "step", "target_kl": 0.02},
    # Feng et al. 2025, arXiv 2505.10978, with ω = 1 and without division by a deviation
    "gigpo": {"baseline": "anchor_states", "scale_rewards": "none", "aggregation": "trajectory"},
    # github.com/superlinear-ai/microGRPO
    "microgrpo": {
        "baseline": "leave_one_out",
        "scale_rewards": "batch_episodes",
        "gamma": 1.0,
        "aggregation": "group",
        "clip_range": 0.9,
        "clip_range_high": 0.3,
        "learning_rate": 4e-4,
        "n_groups": 4,
        "group_size": 16,
        "n_epochs": 10,
        "batch_size": None,
        "min_group_std": 3.5e-4,
        "policy_kwargs": {"optimizer_class": torch.optim.AdamW},
    },
}
"""Constructor arguments by the name that `GRPO(variant=...)` takes; what is not among them has `GRPO`'s default."""


def variant(name: str) -> dict[str, Any]:
    """Return the constructor arguments that a variant is.

    Raises:
        ValueError: if there is none of that name; the message lists those there are.
    """
    if name not in VARIANTS:
        raise ValueError(f"variant={name!r} is not known; choose from {', '.join(VARIANTS)}")
    return copy.deepcopy(VARIANTS[name])


def with_preset(given: Mapping[str, Any]) -> dict[str, Any]:
    """Put the arguments of `given["variant"]`, if there is one, under those that are given themselves.

    An argument counts as given even where it equals the default. `policy_kwargs` are joined key by key.
    """
    name = given.get("variant")
    preset = {} if name is None else variant(name)
    merged = {**preset, **given}
    if "policy_kwargs" in preset:
        merged["policy_kwargs"] = {**preset["policy_kwargs"], **(given.get("policy_kwargs") or {})}
    return merged


def takes_variant(init: Callable[P, None]) -> Callable[P, None]:
    """Let a constructor with an argument `variant` take the arguments of that variant for all it is not given."""
    signature = inspect.signature(init)

    @functools.wraps(init)
    def constructor(*args: P.args, **kwargs: P.kwargs) -> None:
        given = {**dict(zip(signature.parameters, args, strict=False)), **kwargs}
        init(**with_preset(given))  # type: ignore[call-arg]

    return constructor
