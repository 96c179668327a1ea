import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Discrete

from grpo_gym import GRPO, CheckpointCallback, EvalCallback, LinearSchedule
from grpo_gym.agent import ARGUMENTS
from grpo_gym.state import NOT_STORED
from tests.agents import digest, small
from tests.toys import UNIT_BOX, IdentityBox, IdentityDiscrete, MaskedByInfo, Walk

ROOT = Path(__file__).parents[1]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agent"


# --- what comes back -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [IdentityDiscrete, IdentityBox, MaskedByInfo, lambda: IdentityDiscrete(start=5)])
@pytest.mark.parametrize("deterministic", [False, True])
def test_a_loaded_agent_acts_as_the_saved_one(make: Callable[[], Any], deterministic: bool, path: Path) -> None:
    agent = small(make, normalize_observations=True).learn(50)
    observations = np.array([agent.observation_space.sample() for _ in range(50)])
    agent.predict(observations)  # its generator goes on from here, not from its start
    agent.save(path)
    loaded = GRPO.load(path)
    expected, _ = agent.predict(observations, deterministic=deterministic)
    assert (loaded.predict(observations, deterministic=deterministic)[0] == expected).all()


def test_every_constructor_argument_comes_back(path: Path) -> None:
    given: dict[str, Any] = {
        "learning_rate": LinearSchedule(0.01, 0.001, 0.5),
        "n_groups": 3,
        "group_size": 4,
        "n_steps": None,
        "batch_size": None,
        "n_epochs": 2,
        "gamma": 0.9,
        "gae_lambda": 0.8,
        "value_window": 3,
        "baseline": "outcome",
        "vine_states": 5,
        "vine_continuations": 2,
        "scale_rewards": "group",
        "aggregation": "trajectory",
        "clip_range": "lin_0.1",
        "clip_range_high": 0.3,
        "ent_coef": 0.01,
        "max_grad_norm": 0.7,
        "n_envs": 5,
        "max_resamples": 2,
        "max_episode_steps": 50,
        "normalize_observations": True,
        "target_kl": 0.05,
        "variant": "grpo",
        "objective": "sequence",
        "ratio_cap": 3.0,
        "min_group_std": 0.1,
        "truncated_episodes": "drop",
        "kl_coef": 0.2,
        "kl_estimator": "exact",
        "kl_in": "reward",
        "reference": "initial",
        "reference_update": 0.5,
        "reference_kl": 0.1,
        "reward_functions": None,
        "adapter_rank": 2,
        "stats_window_size": 7,
        "policy_kwargs": {"net_arch": [8], "activation_fn": torch.nn.ReLU, "optimizer_class": torch.optim.SGD},
        "verbose": 0,
        "seed": 3,
    }
    assert set(given) == set(ARGUMENTS) - set(NOT_STORED)
    GRPO("MlpPolicy", IdentityDiscrete, **given).save(path)
    loaded = GRPO.load(path)
    assert {name: getattr(loaded, name) for name in given} == given
    assert loaded.ep_info_buffer.maxlen == 7
    assert type(loaded.optimizer) is torch.optim.SGD


def test_counters_and_recent_episodes_come_back(path: Path) -> None:
    agent = small(IdentityDiscrete).learn(60)
    agent.save(path)
    loaded = GRPO.load(path)
    # 24 steps an iteration, 12 optimiser steps each
    assert (loaded.num_timesteps, loaded._iterations, loaded._n_updates) == (72, 3, 36)
    assert loaded.ep_info_buffer == agent.ep_info_buffer


def test_a_file_object_will_do() -> None:
    agent, file = small(IdentityDiscrete).learn(24), io.BytesIO()
    agent.save(file)
    file.seek(0)
    assert digest(GRPO.load(file)) == digest(agent)


def test_loading_and_saving_again_makes_the_same_bytes(path: Path) -> None:
    small(IdentityDiscrete, normalize_observations=True).learn(24).save(path)
    GRPO.load(path).save(path.with_name("again"))
    assert path.with_name("again.zip").read_bytes() == path.with_suffix(".zip").read_bytes()


def test_the_versions_are_printed_if_asked_for(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small(IdentityDiscrete).save(path)
    GRPO.load(path, print_system_info=True)
    assert f"torch: {torch.__version__}" in capsys.readouterr().out


# --- going on exactly ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("box", [False, True])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"normalize_observations": True, "learning_rate": "lin_0.01", "max_resamples": 1},
        {"n_envs": 4, "batch_size": None, "policy_kwargs": {"net_arch": [8], "optimizer_class": torch.optim.RMSprop}},
    ],
    ids=["plain", "normalised", "other optimiser"],
)
def test_stopping_saving_and_loading_in_the_middle_changes_no_bit(
    settings: dict[str, Any], box: bool, path: Path
) -> None:
    def make() -> Walk:
        return Walk(UNIT_BOX if box else Discrete(3))

    agent = small(make, **settings).learn(60)
    agent.save(path)
    loaded = GRPO.load(path, env=make)
    for one in (agent, loaded):
        np.random.seed(None)  # noqa: NPY002 what happens to the global generators must not matter
        torch.seed()
        one.learn(60, reset_num_timesteps=False)
    assert digest(loaded) == digest(agent)
    assert loaded.num_timesteps == agent.num_timesteps
    observations = np.zeros((50, 2), np.float32)
    assert (loaded.predict(observations)[0] == agent.predict(observations)[0]).all()


CHILD = """
import random, sys
import numpy as np
import torch
torch.set_num_threads(1)
random.seed(99); np.random.seed(99); torch.manual_seed(99)
from grpo_gym import GRPO
from tests.agents import digest
agent = GRPO.load(sys.argv[1], env="CartPole-v1").learn(200, reset_num_timesteps=False)
print(digest(agent), agent.num_timesteps)
"""


def test_another_process_goes_on_to_the_same_bits(path: Path) -> None:
    agent = small("CartPole-v1", normalize_observations=True).learn(200)
    agent.save(path)
    agent.learn(200, reset_num_timesteps=False)
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(path)], cwd=ROOT, capture_output=True, text=True, check=True, timeout=300
    )
    assert child.stdout.split() == [digest(agent), str(agent.num_timesteps)]


def test_checkpoints_and_evaluations_on_the_way_do_not_change_training(tmp_path: Path) -> None:
    plain = small(IdentityDiscrete).learn(100)
    callbacks = [
        CheckpointCallback(3, tmp_path),
        EvalCallback(IdentityDiscrete, n_eval_episodes=2, eval_freq=2, deterministic=False, verbose=0),
    ]
    watched = small(IdentityDiscrete).learn(100, callback=callbacks)
    assert digest(watched) == digest(plain)
    # 6 steps a vector step, a file after every third
    assert (tmp_path / "rl_model_18_steps.zip").exists()
