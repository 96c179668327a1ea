import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from grpo_gym import GRPO
from grpo_gym.export import exported
from grpo_gym.policy import MlpPolicy
from tests.agents import digest, small
from tests.toys import IdentityBox, MaskedByInfo, Walk

UNIT = spaces.Box(-1.0, 1.0, (3,))
OBSERVATIONS = [
    UNIT,
    spaces.Box(-np.inf, np.inf, (2, 3), np.float64),
    spaces.Box(0, 255, (4, 4, 3), np.uint8),
    spaces.Discrete(4, start=2),
    spaces.MultiDiscrete(np.array([[2, 3], [4, 2]])),
    spaces.MultiBinary(3),
]
ACTIONS = [
    spaces.Discrete(3),
    spaces.Discrete(3, start=-1),
    spaces.Box(-0.01, 0.02, (2, 2)),  # most of what the network says is clipped
    spaces.Box(np.array([-1.0, 0.0]), np.array([1.0, 0.5]), dtype=np.float64),
]


class Shows(gym.Env[Any, Any]):
    """Shows and takes whatever its spaces hold."""

    def __init__(self, observation_space: Any, action_space: Any):
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.t = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.t += 1
        return self.observation_space.sample(), float(np.sum(action)), self.t >= 4, False, {}


def loaded(path: Path) -> Any:
    return torch.export.load(path).module()


@pytest.mark.parametrize(
    ("observation_space", "action_space"),
    [*((space, ACTIONS[1]) for space in OBSERVATIONS), *((UNIT, space) for space in ACTIONS)],
    ids=str,
)
def test_an_exported_policy_acts_as_the_agent_does(observation_space: Any, action_space: Any, tmp_path: Path) -> None:
    agent = small(lambda: Shows(observation_space, action_space), normalize_observations=True).learn(48)
    agent.export(tmp_path / "agent.pt2")
    policy = loaded(tmp_path / "agent.pt2")
    observation_space.seed(7)
    for n in (1, 2, 300):
        observations = np.stack([observation_space.sample() for _ in range(n)])
        expected, _ = agent.predict(observations, deterministic=True)
        actions = policy(torch.from_numpy(observations)).numpy()
        assert (actions.shape, actions.dtype) == (expected.shape, expected.dtype)
        np.testing.assert_allclose(actions, expected, rtol=1e-5, atol=1e-6)
        assert all(action_space.contains(action) for action in actions)


def test_masks_are_obeyed_as_the_agent_obeys_them(tmp_path: Path) -> None:
    agent = small(MaskedByInfo, normalize_observations=True).learn(48)
    agent.export(tmp_path / "agent.pt2", action_masks=True)
    policy, rng = loaded(tmp_path / "agent.pt2"), np.random.default_rng(0)
    observations = rng.normal(size=(200, 2)).astype(np.float32)
    masks = rng.random((200, 3)) < 0.5
    masks[:, 1] |= ~masks.any(axis=1)
    actions = policy(torch.from_numpy(observations), torch.from_numpy(masks)).numpy()
    assert masks[np.arange(200), actions].all()
    assert (actions == agent.predict(observations, deterministic=True, action_masks=masks)[0]).all()


def test_exporting_changes_nothing(tmp_path: Path) -> None:
    agent, twin = (small(IdentityBox, normalize_observations=True).learn(24) for _ in range(2))
    agent.export(tmp_path / "agent.pt2")
    for one in (agent, twin):
        one.learn(24, reset_num_timesteps=False)
    assert digest(agent) == digest(twin)


def test_it_runs_without_this_package(tmp_path: Path) -> None:
    agent = small(Walk).learn(24)
    agent.export(tmp_path / "agent.pt2")
    program = """
import sys, torch
policy = torch.export.load(sys.argv[1]).module()
print(policy(torch.tensor([[0.25, 1.0], [-0.25, 2.0]])).tolist())
assert not any(name.startswith("grpo_gym") for name in sys.modules)
"""
    words = [sys.executable, "-c", program, str(tmp_path / "agent.pt2")]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=True)
    expected, _ = agent.predict(np.array([[0.25, 1.0], [-0.25, 2.0]], np.float32), deterministic=True)
    assert done.stdout == f"{expected.tolist()}\n"


class OwnPolicy(MlpPolicy):
    """Its `get_distribution` tells nothing of what it does."""

    def act(self, observations: Any, noise: Any, action_masks: Any = None) -> Any:
        actions, log_probs = super().act(observations, noise, action_masks)
        return (actions + 1) % 3, log_probs


def test_what_would_act_otherwise_is_not_written(tmp_path: Path) -> None:
    agent = GRPO(OwnPolicy, Walk, n_groups=2, group_size=2)
    with pytest.raises(ValueError, match="OwnPolicy does not act alike once it is exported"):
        agent.export(tmp_path / "agent.pt2")
    assert list(tmp_path.iterdir()) == []


def test_a_policy_with_a_memory_is_refused() -> None:
    policy = MlpPolicy(UNIT, ACTIONS[0])
    policy.memory_size = 4  # type: ignore[assignment]
    with pytest.raises(ValueError, match="has a memory and cannot be exported"):
        exported(policy)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        small(Walk).export(tmp_path / "file" / "agent.pt2")
