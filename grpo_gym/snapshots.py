"""Ways to return to a moment in the middle of an episode, and the proof that one of them is exact.

A way is a function `take(env, seed, actions)` of an environment that was reset with `seed` and stepped with
`actions`. It returns the snapshot, a function `snapshot(spare)` that gives an environment in that moment, as often
as it is called. What comes back is everything: the simulation, the wrappers' counters, and the environment's random
generator, so that continuations from one snapshot share their transition noise.

None of the ways is right for every environment, and a wrong one need not complain: `copy.deepcopy` of a MuJoCo
environment silently makes a fresh one. So a way is used where it has proven itself, and nowhere else.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

Env = gym.Env[Any, Any]
MakeEnv = Callable[[], Env]

Snapshot = Callable[[Env], Env]
"""`snapshot(spare) -> env`: `spare` is made like the original, may be the original, and may be overwritten."""

Take = Callable[[Env, int, Sequence[Any]], Snapshot]
"""`take(env, seed, actions) -> snapshot`; `env` stays as it is."""

MOMENTS = (0, 1, 10, 100)
"""Numbers of steps after which a proof takes a snapshot."""


def by_deepcopy(env: Env, seed: int, actions: Sequence[Any]) -> Snapshot:
    """Copy the environment with its wrappers; `spare` is not needed, every call gives a new environment."""
    saved = copy.deepcopy(env)
    return lambda spare: copy.deepcopy(saved)


def by_mujoco(env: Env, seed: int, actions: Sequence[Any]) -> Snapshot:
    """Copy MuJoCo's simulation data into `spare`, and all that is Python's around it.

    The data is copied whole (`mj_copyData`). `mj_getState` and `mj_setState` leave out what the simulation derived in
    its last step, such as the centres of mass, from which Ant and Humanoid compute their next reward. Python's part
    is the wrappers (the time limit counts in one) and the attributes of the environment, its generator among them.
    The compiled model is `spare`'s own: this is not for environments that change theirs.

    Raises:
        TypeError: if there is no MuJoCo simulation in `env.unwrapped.model` and `env.unwrapped.data`.
    """
    mujoco: Any = sys.modules.get("mujoco")  # whoever has such an environment has imported it
    base: Any = env.unwrapped
    if mujoco is None or not isinstance(getattr(base, "data", None), mujoco.MjData):
        raise TypeError(f"{type(base).__name__} has no MuJoCo model and data")
    data = copy.copy(base.data)
    bound = [name for name in ("model", "data", "mujoco_renderer") if hasattr(base, name)]
    originals = [base, *(getattr(base, name) for name in bound)]
    # deepcopy takes what it finds in its memo for the copy: thus one environment's parts give way to another's
    saved = copy.deepcopy((env, vars(base)), {id(original): original for original in originals})

    def snapshot(spare: Env) -> Env:
        target: Any = spare.unwrapped
        own = [target, *(getattr(target, name) for name in bound)]
        memo = {id(original): part for original, part in zip(originals, own, strict=True)}
        restored, attributes = copy.deepcopy(saved, memo)
        vars(target).update(attributes)
        mujoco.mj_copyData(target.data, target.model, data)
        return restored

    return snapshot


def by_replay(env: Env, seed: int, actions: Sequence[Any]) -> Snapshot:
    """Reset `spare` to the same seed and play the same actions: as many steps as it took to get there."""
    played = copy.deepcopy(list(actions))

    def snapshot(spare: Env) -> Env:
        spare.reset(seed=seed)
        for action in played:
            spare.step(action)
        return spare

    return snapshot


METHODS: dict[str, Take] = {"deepcopy": by_deepcopy, "mujoco": by_mujoco, "replay": by_replay}
"""The ways by name, in the order in which they are tried: the one whose cost grows with the episode is the last."""


@dataclass(frozen=True)
class Proof:
    """What came of an attempt to return to several moments of an episode.

    Attributes:
        method: name in `METHODS`.
        exact: every continuation was, bit for bit, what the original had gone through.
        reason: why not; "" if exact.
    """

    method: str
    exact: bool
    reason: str = ""


def prove(method: str, make_env: MakeEnv, seed: int = 0, max_steps: int = 1000) -> Proof:
    """Try a way of taking snapshots on one episode of random actions.

    Snapshots are taken after each of `MOMENTS` while the original plays on to its end. Then each is restored twice,
    into environments that did something else before, and both restored ones are played to the end in turns: a
    snapshot must not be touched by the original's future, nor by another's.

    Args:
        method: name in `METHODS`.
        make_env: makes one environment; called three times.
        seed: of the episode and of its actions.
        max_steps: the original is played so far; through its time limit, if that is to be proven too.

    Returns:
        The verdict; whatever raises an exception is not exact.
    """
    made: list[Env] = []
    doing = "making an environment"
    try:
        for _ in range(3):
            made.append(make_env())
        original, *spares = made
        space = copy.deepcopy(original.action_space)
        space.seed(seed)
        doing = "resetting it"
        _, info = original.reset(seed=seed)
        actions: list[Any] = []
        course: list[dict[str, Any]] = []
        snapshots: dict[int, Snapshot] = {}
        ended = False
        while not ended and len(actions) < max_steps:
            if len(actions) in MOMENTS:
                doing = f"taking a snapshot after {len(actions)} steps"
                snapshots[len(actions)] = METHODS[method](original, seed, actions)
            doing = f"taking step {len(actions) + 1}"
            actions.append(space.sample(_mask(original, info)))
            result = original.step(actions[-1])
            course.append(_bits(result))
            ended, info = bool(result[2] or result[3]), result[4]
        for spare in spares:
            spare.reset(seed=seed + 1)
        for moment, snapshot in snapshots.items():
            doing = f"restoring the moment after {moment} steps"
            restored = [snapshot(spare) for spare in spares]
            for t in range(moment, len(actions)):
                doing = f"taking step {t + 1} in a restored environment"
                for env in restored:
                    bits = _bits(env.step(actions[t]))
                    if bits != course[t]:
                        differing = " and ".join(name for name, value in bits.items() if value != course[t][name])
                        return Proof(
                            method, False, f"restored after {moment} steps, step {t + 1} differs in {differing}"
                        )
        return Proof(method, True)
    except Exception as error:
        return Proof(method, False, f"{in_words(error)}, when {doing}")
    finally:
        for env in made:
            env.close()


def proven_method(make_env: MakeEnv, seed: int = 0, max_steps: int = 1000) -> str:
    """Return the first name in `METHODS` that is proven exact for this environment.

    Args:
        make_env: makes one environment.
        seed: see `prove`.
        max_steps: see `prove`.

    Raises:
        ValueError: if there is none; the message has the reason of each.
    """
    refused = []
    for method in METHODS:
        proof = prove(method, make_env, seed, max_steps)
        if proof.exact:
            return method
        refused.append(f"{method} ({proof.reason})")
    raise ValueError(
        f"no snapshot of this environment is exact: {', '.join(refused)}. Draw all randomness from self.np_random and "
        "set every attribute in reset, and 'replay' will be"
    )


def in_words(error: Exception) -> str:
    """Describe an exception in one line, with the notes that were added to it."""
    lines = " ".join(str(error).split())
    notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
    return f"{type(error).__name__}{lines and ': ' + lines}{notes}"


def _mask(env: Env, info: Mapping[str, Any]) -> Any:
    """Return the legal actions as `Space.sample` wants them, None if all are."""
    given = env.get_wrapper_attr("action_masks")() if env.has_wrapper_attr("action_masks") else info.get("action_mask")
    return None if given is None else np.asarray(given, np.int8)


def _bits(result: tuple[Any, ...]) -> dict[str, Any]:
    """Copy what a step returned into a form that `==` compares bit for bit; the info is not compared."""
    observation, reward, terminated, truncated, _ = result
    named = {"observation": observation, "reward": reward, "terminated": terminated, "truncated": truncated}
    return {name: _frozen(value) for name, value in named.items()}


def _frozen(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _frozen(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_frozen(item) for item in value)
    array = np.asarray(value)
    return array.dtype.str, array.shape, array.tobytes()
