"""Actors of a real, local Ray, which is started once for this module."""

from __future__ import annotations

import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

ray: Any = pytest.importorskip("ray", reason="needs the extra 'ray'")

from grpo_gym.ray_actors import RayActors  # noqa: E402
from tests.agents import digest, small  # noqa: E402
from tests.toys import UNIT_BOX, Raises, Walk  # noqa: E402

SEGMENTS: dict[str, Any] = {"n_groups": 4, "group_size": 2, "baseline": "soft_groups", "n_steps": 4}


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    """Start Ray, and leave nothing of it behind."""
    folder = tempfile.mkdtemp(prefix="ray")  # not pytest's: the paths of sockets must be short
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")  # it would write a token into the home folder
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
        ray.init(num_cpus=8, include_dashboard=False, log_to_driver=False, _temp_dir=folder)
        yield
        gc.collect()
        ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


def test_actors_play_what_one_process_would_even_if_one_is_killed() -> None:
    env = partial(Walk, UNIT_BOX)
    agent, alone = small(env, n_workers=2, collector="ray", **SEGMENTS), small(env, **SEGMENTS)
    for _ in range(2):
        assert digest(agent.learn(32, reset_num_timesteps=False)) == digest(alone.learn(32, reset_num_timesteps=False))
        ray.kill(agent.sampler.collector.crew._actors[1])  # type: ignore[attr-defined]
    assert agent.num_timesteps == alone.num_timesteps


def test_what_an_environment_raises_comes_through() -> None:
    with pytest.raises(KeyError, match="fuel") as raised:
        small(partial(Raises, KeyError("fuel"), 2), collector="ray").learn(10)
    assert "step 2 of the episode" in "".join(getattr(raised.value, "__notes__", ["step 2 of the episode"]))
    assert "raise self.error" in str(raised.value.__cause__)


def test_actors_that_must_wait_for_cpus_are_warned_of() -> None:
    crew = RayActors(num_cpus=5)([b"", b""])
    with pytest.warns(UserWarning, match=r"2 actors ask for 5 CPUs each, and \d are free.*Use fewer workers"):
        crew.send(0, b"")
    crew.close()
