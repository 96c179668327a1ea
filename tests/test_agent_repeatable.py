import inspect
import multiprocessing
import os
import random
import signal
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Discrete
from threadpoolctl import threadpool_info, threadpool_limits

from grpo_gym import GRPO
from grpo_gym.agent import ARGUMENTS
from tests.agents import digest, small, weights_digest
from tests.toys import (
    UNIT_BOX,
    IdentityDiscrete,
    Walk,
)

EPISODES = range(50)
"""Seeds of evaluation; training uses none below 2**24."""


# --- the same seed, the same bits ------------------------------------------------------------------------------

SETTINGS: list[dict[str, Any]] = [
    {},
    {"batch_size": None, "baseline": "outcome", "scale_rewards": "group", "aggregation": "trajectory"},
    {"normalize_observations": True, "learning_rate": "lin_0.01", "clip_range_high": 0.3, "target_kl": 0.01},
    {"n_envs": 2, "max_resamples": 2, "ent_coef": 0.01},
]


def three_actions_or_a_box(box: bool) -> Callable[[], Walk]:
    return lambda: Walk(UNIT_BOX if box else Discrete(3))


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("box", [False, True])
def test_two_runs_with_one_seed_are_equal_to_the_last_bit_and_other_seeds_differ(
    settings: dict[str, Any], box: bool
) -> None:
    first, second, other = (small(three_actions_or_a_box(box), **settings, seed=seed) for seed in (7, 7, 8))
    assert digest(first) == digest(second)
    digests = []
    for agent in (first, second, other):
        np.random.seed(None)  # noqa: NPY002 what happens to the global generator must not matter
        torch.seed()
        digests.append(digest(agent.learn(100)))
    assert digests[0] == digests[1] != digests[2]
    assert first.num_timesteps == second.num_timesteps


def test_without_a_seed_every_agent_is_another() -> None:
    first, second = (small(IdentityDiscrete, seed=None) for _ in range(2))
    assert weights_digest(first) != weights_digest(second)


def test_seed_0_is_a_seed() -> None:
    first, second = (small(IdentityDiscrete, seed=0).learn(50) for _ in range(2))
    assert digest(first) == digest(second)


def test_set_random_seed_starts_the_streams_anew() -> None:
    agent = small(IdentityDiscrete, seed=None)
    drawn = []
    for _ in range(2):
        agent.set_random_seed(3)
        drawn.append(agent.predict(np.zeros(50, np.int64))[0].tolist())
    assert drawn[0] == drawn[1]


# --- what is not ours stays as it is ---------------------------------------------------------------------------


def surroundings() -> dict[str, Any]:
    state = np.random.get_state(legacy=False)  # noqa: NPY002
    return {
        "random": random.getstate(),
        "numpy": str(state),
        "torch": torch.get_rng_state().tolist(),
        "threads of torch": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "default dtype": torch.get_default_dtype(),
        "signals": [signal.getsignal(number) for number in sorted(signal.valid_signals())],
        "warnings": list(warnings.filters),
        "folder": Path.cwd(),
        "start method": multiprocessing.get_start_method(allow_none=True),
        "threads": threading.active_count(),
        "variables": dict(os.environ),
    }


def test_an_agent_leaves_its_surroundings_alone(tmp_path: Path) -> None:
    random.seed(1)
    before = surroundings()
    agent = small(IdentityDiscrete, tensorboard_log=tmp_path)
    agent.learn(50)
    agent.predict(np.int64(1))
    agent.save(tmp_path / "agent")
    GRPO.load(tmp_path / "agent", env=IdentityDiscrete).learn(50)
    after = surroundings()
    assert {name: after[name] for name in before if before[name] != after[name]} == {}


def test_every_constructor_argument_is_an_attribute_of_the_same_name() -> None:
    agent = small(IdentityDiscrete, target_kl=0.5, n_envs=3, max_episode_steps=9)
    public = [name for name in ARGUMENTS if not name.startswith("_")]
    assert [name for name in public if not hasattr(agent, name)] == []
    given = {"target_kl": 0.5, "n_envs": 3, "max_episode_steps": 9, "group_size": 3, "seed": 0, "batch_size": 8}
    assert {name: getattr(agent, name) for name in given} == given
    defaults = {name: p.default for name, p in inspect.signature(GRPO.__init__).parameters.items()}
    untouched = ("gamma", "gae_lambda", "ent_coef", "clip_range", "tensorboard_log", "verbose", "stats_window_size")
    assert {name: getattr(agent, name) for name in untouched} == {name: defaults[name] for name in untouched}


def test_numpy_takes_one_thread_while_it_learns_and_its_own_again_after() -> None:
    def numpys() -> set[int]:
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    seen: list[set[int]] = []

    def look(*_: Any) -> bool:
        seen.append(numpys())
        return True

    with threadpool_limits(2, "blas"):
        before = numpys()
        small(IdentityDiscrete).learn(1, look)
        assert seen
        assert all(found <= {1} for found in seen)
        assert numpys() == before
