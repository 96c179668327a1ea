import os
import subprocess
import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from grpo_gym.acting import MlpActor, in_blocks
from grpo_gym.distributions import Categorical, CategoricalHead
from grpo_gym.policy import MlpPolicy

SEEN = gym.spaces.Box(-1.0, 1.0, (5,), np.float64)
SPACES = {"discrete": gym.spaces.Discrete(11), "box": gym.spaces.Box(-1.0, 1.0, (9,), np.float32)}


class Cautious(Categorical):
    """Somebody's own."""


class OwnHead(CategoricalHead):
    """Makes what only torch can work with."""

    def distribution(self, outputs: torch.Tensor, action_mask: torch.Tensor | None = None) -> Categorical:
        return Cautious(outputs, action_mask)


def a_policy(kind: str) -> MlpPolicy:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        space = SPACES["box" if kind == "box" else "discrete"]
        policy = MlpPolicy(SEEN, space, (7,), ortho_init=False, normalize_observations=True)
        if kind == "own":
            policy.head = OwnHead(7, SPACES["discrete"])  # type: ignore[arg-type]
    return policy


def given(policy: MlpPolicy, n_rows: int, masked: bool) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(0)
    masks = rng.random((n_rows, 11)) < 0.3
    masks[np.arange(n_rows), rng.integers(11, size=n_rows)] = True
    noise = rng.uniform(0.01, 0.99, (n_rows, policy.noise_size)).astype(np.float32)
    return rng.uniform(-2, 2, (n_rows, 5)), noise, masks if masked else None


every_kind = pytest.mark.parametrize(
    ("kind", "masked"), [("discrete", False), ("discrete", True), ("box", False), ("own", False), ("own", True)]
)


@every_kind
@pytest.mark.parametrize("n_rows", [1, 2, 15, 16, 17, 40])
def test_an_action_does_not_depend_on_what_is_chosen_beside_it(kind: str, masked: bool, n_rows: int) -> None:
    policy = a_policy(kind)
    actor = MlpActor(policy)
    observations, noise, masks = given(policy, 40, masked)
    together = actor.act(observations, noise, masks)
    first = actor.act(observations[:n_rows], noise[:n_rows], None if masks is None else masks[:n_rows])
    for column, whole in zip(first, together, strict=True):
        assert column.tolist() == whole[:n_rows].tolist()


@pytest.mark.parametrize("kernels", ["Nehalem", "Sandybridge", "Haswell"])
def test_nor_on_its_place_whatever_processor_multiplies(kernels: str) -> None:
    # OpenBLAS chooses its kernels once, as NumPy is imported, and rounds by them
    subprocess.run([sys.executable, "-c", SAME_ROWS], env={**os.environ, "OPENBLAS_CORETYPE": kernels}, check=True)


SAME_ROWS = """
import gymnasium as gym
import numpy as np
from grpo_gym.policy import MlpPolicy

for size, width, n in ((1, 3, 2), (4, 64, 2), (8, 16, 1), (11, 25, 3), (17, 64, 6), (100, 128, 100), (300, 256, 18)):
    policy = MlpPolicy(gym.spaces.Box(-1.0, 1.0, (size,)), gym.spaces.Box(-1.0, 1.0, (n,)), (width, width))
    row = np.random.default_rng(size).uniform(-1, 1, size)
    actions, log_probs = policy.actor().act(np.tile(row, (40, 1)), np.full((40, n), 0.3, np.float32))
    assert (actions == actions[0]).all() and (log_probs == log_probs[0]).all(), (size, width, n)
    alone, log_prob = policy.actor().act(row[None], np.full((1, n), 0.3, np.float32))
    assert (alone[0] == actions[0]).all() and log_prob[0] == log_probs[0], (size, width, n)
"""


def test_it_keeps_acting_as_it_was_made() -> None:
    policy = a_policy("box")
    observations, noise, _ = given(policy, 3, masked=False)
    actor = MlpActor(policy)
    before, _ = actor.act(observations, noise)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(1)
    assert actor.act(observations, noise)[0].tolist() == before.tolist()


@every_kind
@pytest.mark.parametrize("deterministic", [False, True])
def test_it_acts_as_the_policy_does(kind: str, masked: bool, deterministic: bool) -> None:
    policy = a_policy(kind)
    observations, noise, masks = given(policy, 40, masked)
    drawn = None if deterministic else noise
    actions, log_probs = MlpActor(policy).act(observations, drawn, masks)
    expected, expected_log_probs = policy.act(observations, drawn, masks)
    assert actions == pytest.approx(expected, abs=1e-5)
    assert log_probs == pytest.approx(expected_log_probs, abs=1e-4)
    assert actions.dtype == expected.dtype
    assert log_probs.dtype == np.float32
    if masks is not None:
        assert masks[np.arange(40), actions].all()


def test_a_mask_for_a_box_is_refused() -> None:
    policy = a_policy("box")
    observations, noise, _ = given(policy, 3, masked=False)
    with pytest.raises(ValueError, match="an action mask was given for a Box"):
        MlpActor(policy).act(observations, noise, np.ones((3, 9), np.bool_))


@pytest.mark.parametrize("n_rows", [0, 1, 16, 17])
def test_blocks_lie_in_one_piece_filled_up_with_zeros(n_rows: int) -> None:
    rows = np.arange(1, 2 * n_rows + 1, dtype=np.float32).reshape(n_rows, 2)
    blocks = in_blocks(rows)
    assert blocks.flags.c_contiguous
    beside = blocks.swapaxes(1, 2).reshape(-1, 2)
    assert beside[:n_rows].tolist() == rows.tolist()
    assert not beside[n_rows:].any()
