"""Small agents for the tests of what joins the parts, and ways of comparing and watching them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from grpo_gym import GRPO, BaseCallback, evaluate_policy
from grpo_gym.logger import Logger

FLAT_OUT = 1e-2
"""A learning rate at which even one iteration changes every weight."""


def small(env: Any, **kwargs: Any) -> GRPO:
    """An agent with a small network that plays 2 groups of 3 episodes an iteration, and learns fast.

    Live peers, so that groups tie or not by themselves, and no normaliser, so that equal weights mean equal bits.
    """
    settings: dict[str, Any] = {"n_groups": 2, "group_size": 3, "batch_size": 8, "n_epochs": 4, "seed": 0}
    settings |= {"learning_rate": FLAT_OUT, "normalize_observations": False}
    if "variant" not in kwargs:
        settings["baseline"] = "live_peers"
    return GRPO(**{"policy": "MlpPolicy", "env": env, **settings, "policy_kwargs": {"net_arch": [8]}, **kwargs})


def digest(agent: GRPO) -> str:
    """A checksum of all bits of the weights and of the optimiser's state."""
    found = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            found.update(value.detach().cpu().contiguous().numpy().tobytes())
        elif isinstance(value, dict):
            for key in sorted(value, key=str):
                found.update(str(key).encode())
                add(value[key])
        elif isinstance(value, list | tuple):
            for item in value:
                add(item)
        else:
            found.update(repr(value).encode())

    add(agent.get_parameters())
    return found.hexdigest()


def weights_digest(agent: GRPO) -> str:
    """A checksum of all bits of the weights and of the normaliser, if there is one."""
    tensors = agent.policy.state_dict()
    return hashlib.sha256(b"".join(tensors[name].cpu().numpy().tobytes() for name in sorted(tensors))).hexdigest()


def all_finite(agent: GRPO) -> bool:
    return all(bool(torch.isfinite(tensor).all()) for tensor in agent.policy.state_dict().values())


class Memory:
    """A log format that remembers what was dumped, when, and which keys TensorBoard does not get."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.dumps: list[dict[str, Any]] = []
        self.not_on_tensorboard: set[str] = set()

    def write(self, key_values: Mapping[str, Any], key_excluded: Mapping[str, tuple[str, ...]], step: int = 0) -> None:
        self.steps.append(step)
        self.dumps.append(dict(key_values))
        self.not_on_tensorboard |= {key for key, formats in key_excluded.items() if "tensorboard" in formats}

    def close(self) -> None: ...

    @property
    def keys(self) -> set[str]:
        return {key for dump in self.dumps for key in dump}

    def of(self, key: str) -> list[Any]:
        return [dump[key] for dump in self.dumps if key in dump]


def watched(agent: GRPO) -> Memory:
    """Let the agent log into a memory, and return it."""
    memory = Memory()
    agent.set_logger(Logger(None, [memory]))
    return memory


class Hooks(BaseCallback):
    """Notes the hooks that were called, and asks to stop at vector step `stop_at`."""

    def __init__(self, stop_at: int | None = None) -> None:
        super().__init__()
        self.stop_at = stop_at
        self.seen: list[str] = []
        self.steps: list[int] = []

    def _on_training_start(self) -> None:
        self.seen.append("training_start")

    def _on_rollout_start(self) -> None:
        self.seen.append("rollout_start")

    def _on_step(self) -> bool:
        self.steps.append(self.locals["n_steps"])
        return self.n_calls != self.stop_at

    def _on_rollout_end(self) -> None:
        self.seen.append("rollout_end")

    def _on_training_end(self) -> None:
        self.seen.append("training_end")


def mean_return(agent: GRPO, env: Any) -> float:
    """The mean return of greedy play over 50 episodes with seeds that training never uses."""
    returns, _ = evaluate_policy(agent, env, return_episode_rewards=True, seeds=range(50))
    return float(np.mean(returns))
