from __future__ import annotations

import dataclasses
import inspect
from types import FunctionType
from typing import cast

import numpy as np
import pytest

from benchmarks import tasks, zoo
from benchmarks.learners import Predict

CLASSIC = ("CartPole-v1", "Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Pendulum-v1", "LunarLander-v3")
CONTROL = ("BipedalWalker-v3", "HalfCheetah-v5", "Hopper-v5", "Walker2d-v5")


def test_every_task_of_the_zoo_has_its_settings() -> None:
    assert set(zoo.PPO) == {*CLASSIC, *CONTROL}
    assert set(zoo.A2C) == set(zoo.ARS) == set(CLASSIC)


def test_a_peer_counts_the_steps_of_all_copies_and_evaluates_with_frozen_statistics() -> None:
    pytest.importorskip("sb3_contrib")
    from benchmarks import peers

    task = dataclasses.replace(tasks.find("MountainCar-v0"), steps=300)
    progress: list[int] = []
    one = np.zeros((1, 2), dtype=np.float32)

    def on_progress(steps: int, predict: Predict, diagnostics: object = None) -> None:
        progress.append(steps)
        for _ in range(20):
            assert predict(one, None).shape == (1,)
        env = inspect.getclosurevars(cast(FunctionType, predict)).nonlocals["env"]
        counts.append(env.obs_rms.count)

    counts: list[float] = []
    trained = peers.PPO_PEER.train(task, 0, "zoo", on_progress)
    # 16 copies, 16 steps a rollout: two rollouts of 256 pass the budget of 300
    assert progress == list(range(16, 513, 16))
    assert trained.steps == 512
    # VecNormalize has seen the 16 first observations, then 16 a step; the 20 calls above added none
    np.testing.assert_allclose(counts, np.arange(32, 529, 16), atol=0.001)


def test_a_linear_schedule_ends_at_zero() -> None:
    pytest.importorskip("sb3_contrib")
    from benchmarks import peers

    schedule = peers.schedule(zoo.Linear(0.2))
    assert [schedule(1.0), schedule(0.5), schedule(0.0)] == [0.2, 0.1, 0.0]


def test_settings_a_peer_does_not_have_are_explained() -> None:
    pytest.importorskip("sb3_contrib")
    from benchmarks import peers

    with pytest.raises(ValueError, match="'zoo' and 'default', not 'recipe'"):
        peers.PPO_PEER.settings_for(tasks.find("CartPole-v1"), "recipe")
    with pytest.raises(ValueError, match="no zoo settings of A2C for Hopper-v5"):
        peers.A2C_PEER.settings_for(tasks.find("Hopper-v5"), "zoo")
    with pytest.raises(ValueError, match="Battleship-v0 needs action masks, which PPO does not take"):
        peers.PPO_PEER.settings_for(tasks.find("Battleship-v0"), "default")
