"""The peers: stable-baselines3's PPO and A2C, sb3-contrib's ARS and MaskablePPO, with settings not ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import sb3_contrib
import stable_baselines3
import torch
from numpy.typing import NDArray
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from benchmarks import zoo
from benchmarks.learners import OnProgress, Trained
from benchmarks.tasks import Task


def schedule(value: zoo.Linear) -> Callable[[float], float]:
    """Return the value as a function of the progress remaining: 1 at the start, 0 at the end."""
    return lambda progress_remaining: value.initial * progress_remaining


def _arguments(settings: zoo.PeerSettings) -> dict[str, Any]:
    """Return the settings as arguments of the algorithm's constructor."""
    arguments = {
        name: schedule(value) if isinstance(value, zoo.Linear) else value for name, value in settings.arguments.items()
    }
    policy_kwargs = dict(settings.policy_kwargs)
    if policy_kwargs.get("activation_fn") == "relu":
        policy_kwargs["activation_fn"] = torch.nn.ReLU
    return {**arguments, "policy_kwargs": policy_kwargs}


_BARE = zoo.PeerSettings()


@dataclass(frozen=True)
class Peer:
    """A learner over one algorithm of stable-baselines3.

    Attributes:
        algorithm: the class.
        published: the zoo's settings by task.
        default: what "default" means: the class's own defaults on one bare environment.
        takes_masks: whether the algorithm heeds which actions are legal.
    """

    algorithm: Any
    published: Mapping[str, zoo.PeerSettings]
    default: zoo.PeerSettings = _BARE
    takes_masks: bool = False

    def settings_for(self, task: Task, settings: str) -> zoo.PeerSettings:
        """Return the settings of that name for the task.

        Raises:
            ValueError: if the name is neither "zoo" nor "default", the zoo has no entry for the task, or one
                of task and algorithm works with action masks and the other does not.
        """
        if task.masked != self.takes_masks:
            needs = "needs" if task.masked else "has no"
            takes = "takes" if self.takes_masks else "does not take"
            raise ValueError(f"{task.name} {needs} action masks, which {self.algorithm.__name__} {takes}")
        if settings == "default":
            return self.default
        if settings != "zoo":
            raise ValueError(f"a peer has the settings 'zoo' and 'default', not {settings!r}")
        if task.name not in self.published:
            name, known = self.algorithm.__name__, ", ".join(self.published)
            raise ValueError(f"no zoo settings of {name} for {task.name}: there are some for {known}")
        return self.published[task.name]

    def train(self, task: Task, seed: int, settings: str, on_progress: OnProgress) -> Trained:
        """Train as `rl_zoo3.train` would: copies in one process, a Monitor around each, then `VecNormalize`.

        The policy that is evaluated sees observations normalised with the statistics of training up to
        then. The peer finishes its last rollout, so `steps` passes the budget by up to one rollout.
        """
        chosen = self.settings_for(task, settings)
        arguments = _arguments(chosen)
        env = make_vec_env(task.make_env, n_envs=chosen.n_envs, seed=seed)
        if chosen.normalize is not None:
            discount = {"gamma": arguments["gamma"]} if "gamma" in arguments else {}
            env = VecNormalize(env, **chosen.normalize, **discount)
        model = self.algorithm(chosen.policy, env, seed=seed, device="cpu", verbose=0, **arguments)

        def predict(observations: NDArray[Any], masks: NDArray[Any] | None) -> NDArray[Any]:
            normalized = env.normalize_obs(observations) if chosen.normalize is not None else observations
            legal = {"action_masks": masks} if self.takes_masks else {}
            actions: NDArray[Any] = model.predict(normalized, deterministic=True, **legal)[0]
            return actions

        def callback(_locals: dict[str, Any], _globals: dict[str, Any]) -> bool:
            on_progress(model.num_timesteps, predict)
            return True

        model.learn(task.steps, callback=callback)
        return Trained(int(model.num_timesteps), predict)


PPO_PEER = Peer(stable_baselines3.PPO, zoo.PPO)
A2C_PEER = Peer(stable_baselines3.A2C, zoo.A2C)
ARS_PEER = Peer(sb3_contrib.ARS, zoo.ARS, default=zoo.PeerSettings("LinearPolicy"))
MASKABLE_PPO_PEER = Peer(sb3_contrib.MaskablePPO, {}, takes_masks=True)
