"""One face for every kind of environment: slots that can each be started from a chosen seed and stepped.

A slot plays one episode at a time and is never stepped after its end: there is no autoreset, no ghost
transition and no idle step, except where a foreign vector environment insists on stepping all its slots.
"""

from __future__ import annotations

import copy
import importlib
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, VectorEnv

from grpo_gym.env_layers import has_time_limit
from grpo_gym.types import Array, BoolArray, IntArray, Slots, Step

EnvLike = str | EnvSpec | Callable[[], gym.Env[Any, Any]] | gym.Env[Any, Any] | VectorEnv[Any, Any, Any]

EXPECTED = (
    "expected an environment id ('CartPole-v1'), an EnvSpec, a function that makes an environment "
    "(lambda: MyEnv()), a gymnasium.Env with a spec, or a gymnasium VectorEnv that accepts a list of seeds"
)


class EnvSlots:
    """Slots made of single environments, stepped one after the other without copies in between.

    Args:
        make_env: makes one environment; called `n_slots` times.
        n_slots: episodes in play at the same time.
    """

    def __init__(self, make_env: Callable[[], gym.Env[Any, Any]], n_slots: int):
        self.envs = [make_env() for _ in range(n_slots)]
        for env in self.envs:
            if not isinstance(env, gym.Env):
                raise TypeError(f"{make_env} made a {type(env).__name__}, expected a gymnasium.Env")
        if len({id(env.unwrapped) for env in self.envs}) < n_slots:
            raise ValueError(f"{make_env} returned the same environment twice; expected a new one at each call")
        first = self.envs[0]
        self.num_envs = n_slots
        self.observation_space, self.action_space = first.observation_space, first.action_space
        self.has_time_limit = has_time_limit(first)
        self.name = first.spec.id if first.spec else type(first.unwrapped).__name__
        self._shape, self._dtype = self.observation_space.shape or (), self.observation_space.dtype
        self._mask_method = first.has_wrapper_attr("action_masks")
        self._n_actions = 0  # of a mask; 0 while there was none
        self._seeds = np.zeros(n_slots, dtype=np.int64)
        self._lengths = np.zeros(n_slots, dtype=np.int64)

    def start(self, slots: IntArray, seeds: IntArray) -> tuple[Array, BoolArray | None]:
        """See `Slots.start`."""
        observations = np.empty((len(slots), *self._shape), self._dtype)
        infos = []
        for row, (slot, seed) in enumerate(zip(slots.tolist(), seeds.tolist(), strict=True)):
            try:
                observation, info = self.envs[slot].reset(seed=seed)
            except Exception as error:
                _explain(error, f"{self.name}: reset(seed={seed}) of slot {slot} raised this")
                raise
            observations[row] = self._checked(observation, slot)
            infos.append(info)
            self._seeds[slot], self._lengths[slot] = seed, 0
        if "action_mask" in infos[0]:
            self._n_actions = len(infos[0]["action_mask"])
        return observations, self._masks(slots, infos, np.zeros(len(slots), np.bool_))

    def step(self, slots: IntArray, actions: Array) -> Step:
        """See `Slots.step`."""
        k = len(slots)
        observations = np.empty((k, *self._shape), self._dtype)
        rewards = np.empty(k)
        terminated, truncated = np.empty(k, np.bool_), np.empty(k, np.bool_)
        infos = []
        envs, shape = self.envs, self._shape
        for row, slot in enumerate(slots.tolist()):
            try:
                observation, reward, ended, cut, info = envs[slot].step(actions[row])
                rewards[row] = reward if isinstance(reward, float) else _number(reward)
            except Exception as error:
                _explain(
                    error,
                    f"{self.name}: step {self._lengths[slot] + 1} of the episode with seed {self._seeds[slot]} "
                    f"in slot {slot} raised this, for action {actions[row]!r}; step must return 5 values "
                    "(observation, reward, terminated, truncated, info), the reward a number",
                )
                raise
            if getattr(observation, "shape", None) != shape:
                observation = self._checked(observation, slot)
            observations[row] = observation
            terminated[row], truncated[row] = ended, cut
            infos.append(info)
        self._lengths[slots] += 1
        masks = self._masks(slots, infos, terminated | truncated)
        return Step(observations, rewards, terminated, truncated, masks, infos, k)

    def close(self) -> None:
        """Close every environment."""
        for env in self.envs:
            env.close()

    def _checked(self, observation: Any, slot: int) -> Array:
        array = np.asarray(observation)
        if array.shape != self._shape:
            raise ValueError(
                f"{self.name}: slot {slot} returned an observation of shape {array.shape}, "
                f"but observation_space says {self._shape}: {self.observation_space}"
            )
        return array

    def _masks(self, slots: IntArray, infos: Sequence[dict[str, Any]], ended: BoolArray) -> BoolArray | None:
        if self._mask_method:
            return np.array([self.envs[slot].get_wrapper_attr("action_masks")() for slot in slots.tolist()], np.bool_)
        if not self._n_actions:
            return None
        masks = np.zeros((len(slots), self._n_actions), np.bool_)
        for row, info in enumerate(infos):
            if "action_mask" in info:
                masks[row] = info["action_mask"]
            elif not ended[row]:
                raise ValueError(
                    f"{self.name}: slot {slots[row]} gave no info['action_mask'] in the middle of its episode, but did "
                    "before; expected one with every observation"
                )
        return masks


class VectorSlots:
    """Slots of a Gymnasium vector environment.

    One whose `step` takes `env_id` (as EnvPool's does) steps just the slots that play. Any other is stepped
    whole; its idle slots start over where they must, take any legal action, and are counted.

    Args:
        env: accepts a list of seeds and `options={"reset_mask": ...}`; its autoreset is disabled or happens
            at the next step (a slot is always started again before that).

    Raises:
        ValueError: if it does not; the message says how to make one that does.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any]):
        self.env: Any = env  # Gymnasium's own annotations know neither seed lists nor env_id
        self.num_envs = env.num_envs
        self.observation_space, self.action_space = env.single_observation_space, env.single_action_space
        self.has_time_limit = has_time_limit(env)
        self.name = env.spec.id if env.spec else type(env).__name__
        self.takes_env_id = "env_id" in inspect.signature(env.step).parameters
        self._seeds = [0] * self.num_envs
        self._check()
        self._ended = np.ones(self.num_envs, np.bool_)
        self._n_actions = 0  # of a mask; 0 while there was none
        self._first_action = np.asarray(getattr(self.action_space, "low", getattr(self.action_space, "start", 0)))
        self._idle_actions: Array = np.stack([self._first_action] * self.num_envs)
        single: Sequence[gym.Env[Any, Any]] = getattr(self.env, "envs", ())
        masked = len(single) > 0 and single[0].has_wrapper_attr("action_masks")
        self._mask_methods = [one.get_wrapper_attr("action_masks") for one in single] if masked else []

    def _check(self) -> None:
        advice = (
            "pass the environment's id, or gymnasium.make_vec(id, n, vectorization_mode='sync', "
            "vector_kwargs={'autoreset_mode': 'Disabled'})"
        )
        mode = self.env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)
        if mode not in (AutoresetMode.DISABLED, AutoresetMode.NEXT_STEP):
            raise ValueError(f"{self.name} resets itself in the same step (autoreset_mode={mode}); {advice}")
        try:
            self.env.reset(seed=self._seeds)
            self.env.reset(seed=self._seeds, options={"reset_mask": np.ones(self.num_envs, np.bool_)})
        except Exception as error:
            raise ValueError(
                f"{self.name} ({type(self.env).__name__}) cannot form groups: it does not accept a list of seeds "
                f"with options={{'reset_mask': ...}} ({type(error).__name__}: {error}); {advice}"
            ) from error

    def start(self, slots: IntArray, seeds: IntArray) -> tuple[Array, BoolArray | None]:
        """See `Slots.start`."""
        for slot, seed in zip(slots.tolist(), seeds.tolist(), strict=True):
            self._seeds[slot] = seed
        mask = np.zeros(self.num_envs, np.bool_)
        mask[slots] = True
        self._ended[slots] = False
        # a fresh dictionary each time: vector environments pop the mask out of it
        observations, info = self.env.reset(seed=list(self._seeds), options={"reset_mask": mask})
        masks = self._masks(info, self.num_envs)
        if masks is not None:
            self._idle_actions[slots] = self._first_action + masks[slots].argmax(axis=1)
        return observations[slots], None if masks is None else masks[slots]

    def step(self, slots: IntArray, actions: Array) -> Step:
        """See `Slots.step`."""
        if self.takes_env_id:
            # copies: the environment may write the next step into the same arrays
            observations, rewards, ended, cut = map(np.array, (answer := self.env.step(actions, slots))[:4])
            masks = self._masks(answer[4], len(slots))
            return Step(observations, rewards, ended, cut, masks, (), len(slots))
        idle = self._ended.nonzero()[0]
        idle = idle[~np.isin(idle, slots)]
        if len(idle):
            self.start(idle, np.array([self._seeds[slot] for slot in idle.tolist()]))
        everyone = self._idle_actions.copy()  # a legal action of every slot
        everyone[slots] = actions
        observations, rewards, ended, cut, info = self.env.step(everyone)
        self._ended = ended | cut
        masks = self._masks(info, self.num_envs)
        if masks is not None:
            self._idle_actions = self._first_action + masks.argmax(axis=1)
            masks = masks[slots]
        return Step(observations[slots], rewards[slots], ended[slots], cut[slots], masks, (), self.num_envs)

    def _masks(self, info: dict[str, Any], n_rows: int) -> BoolArray | None:
        """Read the masks `[n_rows, n_actions]`; nothing is legal where none was given, as after an episode's end."""
        if self._mask_methods:
            return np.array([method() for method in self._mask_methods], np.bool_)
        if "action_mask" in info:
            masks = np.asarray(info["action_mask"]).astype(np.bool_)
            self._n_actions = masks.shape[1]
            return masks
        return np.zeros((n_rows, self._n_actions), np.bool_) if self._n_actions else None

    def close(self) -> None:
        """Close the vector environment."""
        self.env.close()


def make_slots(env: EnvLike, n_slots: int) -> Slots:
    """Make slots of whatever describes an environment.

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
    if isinstance(env, gym.Env):
        if env.spec is None:
            raise ValueError(
                f"{env} has no spec, so it cannot be made again for every member of a group; "
                "pass a function that makes it: GRPO(policy, lambda: MyEnv())"
            )
        env = env.spec
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


def _from_spec(spec: EnvSpec, n_slots: int) -> Slots:
    if spec.vector_entry_point is not None and not spec.additional_wrappers:
        native = gym.make_vec(spec, n_slots, vectorization_mode="vector_entry_point")
        if "env_id" in inspect.signature(native.step).parameters:
            return VectorSlots(native)
        native.close()
    return EnvSlots(lambda: gym.make(spec, disable_env_checker=True), n_slots)


def _number(reward: Any) -> float:
    """Accept what NumPy and Python call a number, and nothing that merely reads like one.

    Raises:
        TypeError: if it is none.
    """
    array = np.asarray(reward)
    if array.shape != () or array.dtype.kind not in "biuf":
        raise TypeError(f"the reward is {reward!r}, a {type(reward).__name__}; expected a single number")
    return float(array)


def _explain(error: BaseException, note: str) -> None:
    if hasattr(error, "add_note"):  # Python 3.11 on
        error.add_note(note)
