"""What changes the weights, made for a policy."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch

from grpo_gym.policy_model import PolicyModel

ADAM: dict[str, Any] = {"eps": 1e-5, "fused": True}
"""Arguments of the optimiser: all its arithmetic in one call, a fifth of a small network's whole update."""


class Adam(torch.optim.Adam):
    """`torch.optim.Adam`, made and saved without `torch._dynamo`, whose import takes about as long as torch's own.

    Torch imports it for methods that it keeps out of compiled code; these never are in any. Its `step` and `zero_grad`
    are torch's as they are: where `mlp_learner.MlpLearner` stands in for them nothing is imported.
    """

    add_param_group = inspect.unwrap(torch.optim.Adam.add_param_group)
    state_dict = inspect.unwrap(torch.optim.Adam.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Adam.load_state_dict)


ADAMS = (Adam, torch.optim.Adam)
"""Plain Adam, by either class; what is derived from them may do something else."""


def make_optimizer(
    policy: PolicyModel,
    learning_rate: float,
    optimizer_class: Callable[..., torch.optim.Optimizer] = Adam,
    optimizer_kwargs: Mapping[str, Any] | None = None,
) -> torch.optim.Optimizer:
    """Make an optimiser of all the policy's parameters that are trained; Adam has `ADAM`'s arguments unless given."""
    if optimizer_kwargs is None:
        optimizer_kwargs = ADAM if optimizer_class in ADAMS else {}
    return optimizer_class([p for p in policy.parameters() if p.requires_grad], lr=learning_rate, **optimizer_kwargs)
