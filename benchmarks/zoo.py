"""The published settings of rl-baselines3-zoo, for the tasks of this suite.

From `hyperparams/ppo.yml`, `a2c.yml` and `ars.yml` of https://github.com/DLR-RM/rl-baselines3-zoo at commit
22e3ff2 (April 2026). Only `n_timesteps` is ours: every algorithm gets the task's own budget, and linear
schedules run to zero over it. The v5 MuJoCo tasks take the zoo's v4 entries. What is not named here is the
default of the algorithm, as in the zoo.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Linear:
    """A value that falls linearly from `initial` to 0 over the run; the zoo writes `lin_0.001`."""

    initial: float


@dataclass(frozen=True)
class PeerSettings:
    """Settings of one peer on one task.

    Attributes:
        policy: name of the peer's policy class.
        n_envs: copies stepped in one process.
        normalize: arguments of `VecNormalize` besides gamma; None leaves the environment as it is.
        arguments: arguments of the algorithm.
        policy_kwargs: arguments of the policy; "relu" under `activation_fn` stands for the torch class.
    """

    policy: str = "MlpPolicy"
    n_envs: int = 1
    normalize: Mapping[str, bool] | None = None
    arguments: Mapping[str, object] = field(default_factory=dict)
    policy_kwargs: Mapping[str, object] = field(default_factory=dict)


_BOTH = {"norm_obs": True, "norm_reward": True}
_OBSERVATIONS = {"norm_obs": True, "norm_reward": False}
_WIDE = {
    "log_std_init": -2,
    "ortho_init": False,
    "activation_fn": "relu",
    "net_arch": {"pi": [256, 256], "vf": [256, 256]},
}

PPO = {
    "CartPole-v1": PeerSettings(
        n_envs=8,
        arguments={
            "n_steps": 32,
            "batch_size": 256,
            "gae_lambda": 0.8,
            "gamma": 0.98,
            "n_epochs": 20,
            "ent_coef": 0.0,
            "learning_rate": Linear(0.001),
            "clip_range": Linear(0.2),
        },
    ),
    "Acrobot-v1": PeerSettings(
        n_envs=16,
        normalize=_BOTH,
        arguments={"n_steps": 256, "gae_lambda": 0.94, "gamma": 0.99, "n_epochs": 4, "ent_coef": 0.0},
    ),
    "MountainCar-v0": PeerSettings(
        n_envs=16,
        normalize=_BOTH,
        arguments={"n_steps": 16, "gae_lambda": 0.98, "gamma": 0.99, "n_epochs": 4, "ent_coef": 0.0},
    ),
    "MountainCarContinuous-v0": PeerSettings(
        normalize=_BOTH,
        arguments={
            "batch_size": 256,
            "n_steps": 8,
            "gamma": 0.9999,
            "learning_rate": 7.77e-05,
            "ent_coef": 0.00429,
            "clip_range": 0.1,
            "n_epochs": 10,
            "gae_lambda": 0.9,
            "max_grad_norm": 5,
            "vf_coef": 0.19,
            "use_sde": True,
        },
        policy_kwargs={"log_std_init": -3.29, "ortho_init": False},
    ),
    "Pendulum-v1": PeerSettings(
        n_envs=4,
        arguments={
            "n_steps": 1024,
            "gae_lambda": 0.95,
            "gamma": 0.9,
            "n_epochs": 10,
            "ent_coef": 0.0,
            "learning_rate": 1e-3,
            "clip_range": 0.2,
            "use_sde": True,
            "sde_sample_freq": 4,
        },
    ),
    "LunarLander-v3": PeerSettings(
        n_envs=16,
        arguments={
            "n_steps": 1024,
            "batch_size": 64,
            "gae_lambda": 0.98,
            "gamma": 0.999,
            "n_epochs": 4,
            "ent_coef": 0.01,
        },
    ),
    "BipedalWalker-v3": PeerSettings(
        n_envs=32,
        normalize=_BOTH,
        arguments={
            "n_steps": 2048,
            "batch_size": 64,
            "gae_lambda": 0.95,
            "gamma": 0.999,
            "n_epochs": 10,
            "ent_coef": 0.0,
            "learning_rate": 3e-4,
            "clip_range": 0.18,
        },
    ),
    "HalfCheetah-v5": PeerSettings(
        normalize=_BOTH,
        arguments={
            "batch_size": 64,
            "n_steps": 512,
            "gamma": 0.98,
            "learning_rate": 2.0633e-05,
            "ent_coef": 0.000401762,
            "clip_range": 0.1,
            "n_epochs": 20,
            "gae_lambda": 0.92,
            "max_grad_norm": 0.8,
            "vf_coef": 0.58096,
        },
        policy_kwargs=_WIDE,
    ),
    "Hopper-v5": PeerSettings(
        normalize=_BOTH,
        arguments={
            "batch_size": 32,
            "n_steps": 512,
            "gamma": 0.999,
            "learning_rate": 9.80828e-05,
            "ent_coef": 0.00229519,
            "clip_range": 0.2,
            "n_epochs": 5,
            "gae_lambda": 0.99,
            "max_grad_norm": 0.7,
            "vf_coef": 0.835671,
        },
        policy_kwargs=_WIDE,
    ),
    "Walker2d-v5": PeerSettings(
        normalize=_BOTH,
        arguments={
            "batch_size": 32,
            "n_steps": 512,
            "gamma": 0.99,
            "learning_rate": 5.05041e-05,
            "ent_coef": 0.000585045,
            "clip_range": 0.1,
            "n_epochs": 20,
            "gae_lambda": 0.95,
            "max_grad_norm": 1,
            "vf_coef": 0.871923,
        },
    ),
}

A2C = {
    "CartPole-v1": PeerSettings(n_envs=8, arguments={"ent_coef": 0.0}),
    "Acrobot-v1": PeerSettings(n_envs=16, normalize=_BOTH, arguments={"ent_coef": 0.0}),
    "MountainCar-v0": PeerSettings(n_envs=16, normalize=_BOTH, arguments={"ent_coef": 0.0}),
    "MountainCarContinuous-v0": PeerSettings(
        n_envs=4,
        normalize=_BOTH,
        arguments={"n_steps": 100, "ent_coef": 0.0, "use_sde": True, "sde_sample_freq": 16},
        policy_kwargs={"log_std_init": 0.0, "ortho_init": False},
    ),
    "Pendulum-v1": PeerSettings(
        n_envs=8,
        normalize=_BOTH,
        arguments={
            "ent_coef": 0.0,
            "max_grad_norm": 0.5,
            "n_steps": 8,
            "gae_lambda": 0.9,
            "vf_coef": 0.4,
            "gamma": 0.9,
            "use_rms_prop": True,
            "normalize_advantage": False,
            "learning_rate": Linear(7e-4),
            "use_sde": True,
        },
        policy_kwargs={"log_std_init": -2, "ortho_init": False},
    ),
    "LunarLander-v3": PeerSettings(
        n_envs=8, arguments={"gamma": 0.995, "n_steps": 5, "learning_rate": Linear(0.00083), "ent_coef": 0.00001}
    ),
}


def _random_search(n_delta: int, delta_std: float) -> PeerSettings:
    """Return the entry that most of the zoo's ARS settings share."""
    return PeerSettings(
        normalize=_OBSERVATIONS,
        arguments={
            "learning_rate": 0.018,
            "n_delta": n_delta,
            "n_top": 1,
            "delta_std": delta_std,
            "zero_policy": False,
        },
        policy_kwargs={"net_arch": [16]},
    )


ARS = {
    "CartPole-v1": PeerSettings("LinearPolicy", arguments={"n_delta": 2}),
    "Acrobot-v1": _random_search(n_delta=4, delta_std=0.1),
    "MountainCar-v0": _random_search(n_delta=8, delta_std=0.1),
    "MountainCarContinuous-v0": _random_search(n_delta=4, delta_std=0.2),
    "Pendulum-v1": _random_search(n_delta=4, delta_std=0.1),
    "LunarLander-v3": _random_search(n_delta=6, delta_std=0.1),
}
