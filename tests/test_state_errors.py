import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch
from gymnasium.spaces import Discrete

from grpo_gym import GRPO
from grpo_gym.policy import MlpPolicy
from tests.agents import digest, small, weights_digest
from tests.toys import IdentityBox, IdentityDiscrete, Walk


def half(progress_remaining: float) -> float:
    return 0.005 * progress_remaining


class OwnActivation(torch.nn.Tanh):
    pass


class OwnPolicy(MlpPolicy):
    pass


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agent"


# --- what a file cannot keep -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["learning_rate", "clip_range", "clip_range_high"])
def test_a_function_is_asked_for_by_name(name: str, path: Path) -> None:
    agent = small(IdentityDiscrete, **{name: half}).learn(24)
    agent.save(path)
    with pytest.raises(ValueError, match=f"{name} was, or held, <function half.*pass {name}=... or custom_objects"):
        GRPO.load(path)
    for given in ({name: half}, {"custom_objects": {name: half}}):
        loaded = GRPO.load(path, env=IdentityDiscrete, **given)
        assert getattr(loaded, name) is half
    # load anew: the agents above are still at 24 steps
    assert digest(loaded.learn(24, reset_num_timesteps=False)) == digest(agent.learn(24, reset_num_timesteps=False))


def test_a_class_of_ones_own_is_asked_for_by_name(path: Path) -> None:
    kwargs = {"net_arch": [8], "activation_fn": OwnActivation}
    agent = small(IdentityDiscrete, policy_kwargs=kwargs)
    agent.save(path)
    with pytest.raises(ValueError, match=r"policy_kwargs was, or held, .*OwnActivation"):
        GRPO.load(path)
    assert digest(GRPO.load(path, policy_kwargs=kwargs)) == digest(agent)


def test_a_policy_of_ones_own_is_asked_for(path: Path) -> None:
    agent = GRPO(OwnPolicy, IdentityDiscrete, seed=0)
    agent.save(path)
    with pytest.raises(ValueError, match=r"policy was, or held, .*OwnPolicy"):
        GRPO.load(path)
    loaded = GRPO.load(path, policy=OwnPolicy)
    assert type(loaded.policy) is OwnPolicy
    assert digest(loaded) == digest(agent)


def test_a_logger_folder_belongs_to_the_machine_and_is_not_stored(tmp_path: Path, path: Path) -> None:
    small(IdentityDiscrete, tensorboard_log=tmp_path / "runs").save(path)
    assert GRPO.load(path).tensorboard_log is None
    assert GRPO.load(path, tensorboard_log=tmp_path / "other").tensorboard_log == tmp_path / "other"


# --- arguments given to load and save --------------------------------------------------------------------------


def test_arguments_given_to_load_replace_the_stored_ones(path: Path) -> None:
    small(IdentityDiscrete).save(path)
    loaded = GRPO.load(path, env=IdentityDiscrete, n_epochs=7, learning_rate=0.0, group_size=5, n_envs=2)
    assert (loaded.n_epochs, loaded.group_size, loaded.n_envs, loaded.n_groups) == (7, 5, 2, 2)
    before = weights_digest(loaded)
    assert weights_digest(loaded.learn(24)) == before


def test_a_seed_given_to_load_starts_the_streams_anew(path: Path) -> None:
    small(IdentityDiscrete).learn(24).save(path)
    loaded, same, reseeded = GRPO.load(path, seed=5), GRPO.load(path), GRPO.load(path)
    reseeded.set_random_seed(5)
    for agent in (loaded, same, reseeded):
        agent.set_env(IdentityDiscrete)
        agent.learn(24, reset_num_timesteps=False)
    assert digest(loaded) == digest(reseeded) != digest(same)


def test_a_misspelt_argument_of_load_is_refused(path: Path) -> None:
    small(IdentityDiscrete).save(path)
    with pytest.raises(TypeError, match="did you mean 'n_epochs'"):
        GRPO.load(path, n_epoch=3)


def test_what_save_excludes_has_to_be_given_or_is_the_default(path: Path) -> None:
    small(IdentityDiscrete, gamma=0.5).save(path, exclude=["gamma", "group_size"])
    assert GRPO.load(path, gamma=0.25).gamma == 0.25
    default = GRPO("MlpPolicy", IdentityDiscrete)
    assert (GRPO.load(path).gamma, GRPO.load(path).group_size) == (default.gamma, default.group_size)


def test_other_policy_arguments_than_the_stored_ones_are_refused(path: Path) -> None:
    small(IdentityDiscrete).save(path)
    with pytest.raises(ValueError, match=r"\{'net_arch': \[9\]\} differ from the stored \{'net_arch': \[8\]\}"):
        GRPO.load(path, policy_kwargs={"net_arch": [9]})
    assert GRPO.load(path, policy_kwargs={"net_arch": [8]}).policy_kwargs == {"net_arch": [8]}


# --- environments and broken files -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "theirs"),
    [(lambda: Walk(Discrete(4)), r"action_space of Walk is Discrete\(4\)"), (IdentityBox, "observation_space")],
)
def test_an_environment_with_other_spaces_is_refused_naming_both(
    make: Callable[[], Any], theirs: str, path: Path
) -> None:
    small(Walk).save(path)
    with pytest.raises(ValueError, match=rf"{theirs}.*agent\b.*was trained with (Discrete\(3\)|Box)"):
        GRPO.load(path, env=make)


def test_without_an_environment_a_loaded_agent_predicts_and_learns_once_it_has_one(path: Path) -> None:
    agent = small(IdentityDiscrete).learn(24)
    agent.save(path)
    loaded = GRPO.load(path)
    assert loaded.get_env() is None
    assert loaded.predict(1, deterministic=True) == agent.predict(1, deterministic=True)
    with pytest.raises(ValueError, match="no environment"):
        loaded.learn(24)
    loaded.set_env(IdentityDiscrete)
    loaded.learn(24, reset_num_timesteps=False)
    assert digest(loaded) == digest(agent.learn(24, reset_num_timesteps=False))


def test_another_number_of_slots_may_be_loaded_into(path: Path) -> None:
    small("CartPole-v1").save(path)
    vector: Any = gym.make_vec("CartPole-v1", 3, vectorization_mode="sync")
    loaded = GRPO.load(path, env=vector)
    assert loaded.n_envs == 3
    assert loaded.learn(50).num_timesteps >= 50


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_cut_off_file_is_refused_by_name(share: float, path: Path) -> None:
    small(IdentityDiscrete).save(path)
    file = path.with_suffix(".zip")
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match=r"agent\.zip.*truncated or corrupt"):
        GRPO.load(path)


@pytest.mark.parametrize("key", ["policy", "arguments", "observation_space", "counters", "generators", "episodes"])
def test_a_file_that_lacks_a_part_is_refused_by_name(key: str, path: Path) -> None:
    small(IdentityDiscrete).save(path)
    file = path.with_suffix(".zip")
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["data"] = members["data"].replace(f'"{key}":'.encode(), b'"xyzzy":')
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(ValueError, match=f"{key}"):
        GRPO.load(path, env=IdentityDiscrete)


def test_a_missing_file_is_named(path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"agent\.zip"):
        GRPO.load(path)
