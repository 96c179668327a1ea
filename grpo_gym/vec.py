"""One face for every kind of environment: slots that can each be started from a chosen seed and stepped.

A slot plays one episode at a time and is never stepped after its end: there is no autoreset, no ghost
transition and no idle step, except where a foreign vector environment insists on stepping all its slots.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import importlib
import inspect
import warnings
from collections.abc import Callable
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import VectorEnv

from grpo_gym.env_layers import layers_of
from grpo_gym.env_slots import EnvSlots
from grpo_gym.types import ENVPOOL, Slots
from grpo_gym.vector_slots import VectorSlots

EnvLike = str | EnvSpec | Callable[[], gym.Env[Any, Any]] | gym.Env[Any, Any] | VectorEnv[Any, Any, Any]

EXPECTED = (
    "expected an environment id ('CartPole-v1', or 'envpool:CartPole-v1'), an EnvSpec, a function that makes an "
    "environment (lambda: MyEnv()), a gymnasium.Env, or a gymnasium VectorEnv that accepts a list of seeds"
)


def make_slots(env: EnvLike, n_slots: int) -> Slots:
    """Make slots of whatever describes an environment; a stable-baselines3 `DummyVecEnv` is its environments.

    A spec whose vector entry point takes `env_id` and lists of seeds is used natively; any other becomes
    single environments. An `Env` is only read for its spec and made anew, as often as there are slots.

    Args:
        env: an id, a spec, a factory, an environment with a spec, or a vector environment.
        n_slots: how many episodes may be in play at once; a vector environment has its own number.

    Raises:
        ValueError: if the environment cannot be found or rebuilt.
        TypeError: if `env` is none of these.
    """
    if isinstance(env, VectorEnv):
        return VectorSlots(env)
    if hasattr(env, "env_method"):
        return _from_sb3(env)
    if isinstance(env, gym.Env):
        env = copies_of(env) if env.spec is None else _spec_of(env, env.spec)
    if isinstance(env, str) and env.startswith(ENVPOOL):
        from grpo_gym.envpool_slots import EnvPoolSlots

        return EnvPoolSlots(env.removeprefix(ENVPOOL), n_slots)
    if isinstance(env, str):
        env = find_spec(env)
    if isinstance(env, EnvSpec):
        return _from_spec(env, n_slots)
    if callable(env):
        return EnvSlots(env, n_slots)
    raise TypeError(f"env={env!r} is a {type(env).__name__}; {EXPECTED}")


def find_spec(env_id: str) -> EnvSpec:
    """Look an id up, importing the module that registers it if one is named: `module:namespace/Name-v0`.

    Raises:
        ValueError: if there is no such environment, or no such module; the message says how to name one.
    """
    if env_id.startswith(ENVPOOL):
        raise ValueError(
            f"EnvPool's environments can be trained in, GRPO(policy, {env_id!r}), but not be made one by one; expected "
            f"an id of Gymnasium, perhaps {env_id.removeprefix(ENVPOOL)!r}"
        )
    module, _, name = env_id.rpartition(":")
    try:
        if module:
            importlib.import_module(module)
        return copy.deepcopy(gym.spec(name))
    except (gym.error.Error, ImportError) as error:
        raise ValueError(
            f"there is no environment {env_id!r} ({error}); {EXPECTED}. Environments of a package are known once it "
            f"is imported: 'import grpo_envs' before 'grpo/Battleship-v0', or write 'grpo_envs:grpo/Battleship-v0'"
        ) from error


def single_maker(env: EnvLike) -> Callable[[], gym.Env[Any, Any]] | None:
    """Return what makes single environments of a description that `make_slots` takes; None for a vector environment."""
    if isinstance(env, VectorEnv):
        return None
    if isinstance(env, str):
        env = find_spec(env)
    if isinstance(env, gym.Env):
        env = copies_of(env) if env.spec is None else env.spec
    if isinstance(env, EnvSpec):
        spec = env
        return lambda: gym.make(spec, disable_env_checker=True)
    return env


def copies_of(env: gym.Env[Any, Any]) -> Callable[[], gym.Env[Any, Any]]:
    """Return what makes an environment again that nothing tells how to make: by copying it, as it is now.

    Raises:
        ValueError: if it cannot be copied.
    """
    try:
        first = copy.deepcopy(env)
    except Exception as error:
        raise ValueError(
            f"{env} has no spec, so it cannot be made again for every member of a group, nor can it be copied "
            f"({type(error).__name__}: {error}); pass a function that makes it: GRPO(policy, lambda: MyEnv())"
        ) from error
    return functools.partial(copy.deepcopy, first)


def _spec_of(env: gym.Env[Any, Any], spec: EnvSpec) -> EnvSpec:
    """Return a spec that an environment can be made of again. stable-baselines3's Monitor is left out of it.

    Raises:
        ValueError: if there is a wrapper that cannot be made again.
    """
    kept = tuple(wrapper for wrapper in spec.additional_wrappers if wrapper.name != "Monitor")
    lost = [wrapper.name for wrapper in kept if wrapper.kwargs is None]
    if lost:
        raise ValueError(
            f"the wrapper {lost[0]} of {env} does not say what it was made with, so it cannot be made again for every "
            f"member of a group; pass a function: GRPO(policy, lambda: {lost[0]}(gymnasium.make({spec.id!r})))"
        )
    if any(getattr(layer, "results_writer", None) is not None for layer in layers_of(env)):
        warnings.warn(
            f"the file of the Monitor around {env} stays empty: the environment is made again for every member of a "
            "group, and it once alone; pass a function that puts a Monitor with a file of its own around each",
            stacklevel=6,
        )
    return dataclasses.replace(spec, additional_wrappers=kept)


def _from_sb3(env: Any) -> Slots:
    """Take the environments out of a stable-baselines3 `DummyVecEnv`, as `make_vec_env` makes it.

    Raises:
        ValueError: if it is another `VecEnv`, which changes what they show, or has them in other processes.
    """
    if not hasattr(env, "envs") or hasattr(env, "venv"):
        raise ValueError(
            f"{type(env).__name__} of stable-baselines3 cannot form groups; expected a DummyVecEnv, as "
            "make_vec_env(id, n) makes it, or the environment's id or a function. normalize_observations=True does "
            "what VecNormalize does to observations, and n_workers=4 plays in processes, as SubprocVecEnv does"
        )
    made = iter(env.envs)
    return EnvSlots(lambda: next(made), len(env.envs))


def _from_spec(spec: EnvSpec, n_slots: int) -> Slots:
    if spec.vector_entry_point is not None and not spec.additional_wrappers:
        native = gym.make_vec(spec, n_slots, vectorization_mode="vector_entry_point")
        if "env_id" in inspect.signature(native.step).parameters:
            return VectorSlots(native)
        native.close()
    return EnvSlots(lambda: gym.make(spec, disable_env_checker=True), n_slots)
