"""Which policy an agent has: a name, a class or an object, made and checked."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from typing import Any

import gymnasium as gym

from grpo_gym.board_policy import BoardPolicy
from grpo_gym.policy import CnnPolicy, MlpPolicy, MultiInputPolicy
from grpo_gym.policy_model import PolicyModel
from grpo_gym.recurrent import CnnGruPolicy, MlpGruPolicy, MultiInputGruPolicy

POLICIES: dict[str, type[MlpPolicy]] = {
    "MlpPolicy": MlpPolicy,
    "CnnPolicy": CnnPolicy,
    "MultiInputPolicy": MultiInputPolicy,
    "BoardPolicy": BoardPolicy,
    "MlpGruPolicy": MlpGruPolicy,
    "CnnGruPolicy": CnnGruPolicy,
    "MultiInputGruPolicy": MultiInputGruPolicy,
}
"""Policies by the name that `GRPO(policy=...)` takes."""

METHODS = ("act", "to_env", "actor", "preprocess", "__call__", "flatten", "observe")
STATE_METHODS = ("parameters", "state_dict", "load_state_dict", "to")
ATTRIBUTES = ("noise_size", "device")
"""What a `PolicyModel` has; attributes may be set when it is made."""

NOT_HERE = {
    "use_sde": "state-dependent exploration is not part of this agent",
    "full_std": "state-dependent exploration is not part of this agent",
    "use_expln": "state-dependent exploration is not part of this agent",
    "share_features_extractor": "there is no value network to share it with",
    "lr_schedule": "the agent has the schedule: GRPO(learning_rate=...)",
}
"""Arguments of stable-baselines3's policies that have no place here, and why."""


def find_policy(policy: Any) -> type[PolicyModel] | PolicyModel:
    """Return the class, or the object, that `GRPO(policy=...)` means.

    Raises:
        ValueError: if it is no known name, and no `PolicyModel`; the message says what is missing.
    """
    if isinstance(policy, str) and policy in POLICIES:
        found: type[PolicyModel] = POLICIES[policy]
        return found
    is_class = isinstance(policy, type)
    needed = METHODS + STATE_METHODS + (() if is_class else ATTRIBUTES)
    missing = [name for name in needed if not hasattr(policy, name) or (is_class and name not in _names(policy))]
    if isinstance(policy, str) or missing:
        lacking = "" if isinstance(policy, str) else f" It lacks {', '.join(missing)}"
        raise ValueError(
            f"policy={policy!r} is not known; expected {', '.join(POLICIES)}, or a class or object with the methods of "
            f"grpo_gym.policy_model.PolicyModel.{lacking}"
        )
    model: type[PolicyModel] | PolicyModel = policy
    return model


def _names(cls: type) -> set[str]:
    """Names that a class defines for its objects: `__call__` of its metaclass, which makes them, is none."""
    return {name for base in cls.__mro__ for name in vars(base)}


def make_policy(
    policy: type[PolicyModel] | PolicyModel,
    observation_space: gym.Space[Any],
    action_space: gym.Space[Any],
    normalize_observations: bool,
    kwargs: Mapping[str, Any],
) -> PolicyModel:
    """Make the policy of its class; an object is taken as it is.

    Args:
        policy: see `find_policy`.
        observation_space: of a single environment.
        action_space: of a single environment.
        normalize_observations: passed on to ours, and to any class that takes it; what others do is their own matter.
        kwargs: the class's further arguments.

    Raises:
        TypeError: if one of `kwargs` is unknown; the message has the reason or the closest known name.
        ValueError: if an object is given arguments, or a class lacks something once it is made.
    """
    if not isinstance(policy, type):
        if kwargs:
            raise ValueError(
                f"policy={type(policy).__name__} is an object already, so {', '.join(kwargs)} cannot be passed on; "
                "give the class, or make the object with them"
            )
        return policy
    given = dict(kwargs)
    if issubclass(policy, MlpPolicy) or "normalize_observations" in inspect.signature(policy).parameters:
        given.setdefault("normalize_observations", normalize_observations)
    if issubclass(policy, MlpPolicy):
        _refuse_unknown(policy, given)
    model: PolicyModel = policy(observation_space, action_space, **given)  # type: ignore[call-arg]
    lacking = [name for name in ATTRIBUTES if not hasattr(model, name)]
    if lacking:
        raise ValueError(f"policy={policy.__name__} lacks {', '.join(lacking)}: see grpo_gym.policy_model.PolicyModel")
    return model


def _refuse_unknown(policy: type[MlpPolicy], given: Mapping[str, Any]) -> None:
    parameters = dict(inspect.signature(policy).parameters)
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        if policy not in POLICIES.values():
            return
        del parameters["kwargs"]
        parameters.update(inspect.signature(MlpPolicy).parameters)
    for name in given:
        if name in NOT_HERE:
            raise TypeError(f"policy_kwargs has no {name!r}: {NOT_HERE[name]}")
        if name not in parameters:
            close = difflib.get_close_matches(name, parameters, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(parameters)}"
            raise TypeError(f"policy_kwargs has no {name!r}; {hint}")
