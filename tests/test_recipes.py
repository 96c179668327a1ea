import grpo_envs  # noqa: F401 registers the environments
import pytest

from grpo_gym import GRPO, recipe
from grpo_gym.agent import ARGUMENTS
from grpo_gym.recipes import RECIPES, find


@pytest.mark.parametrize("env_id", RECIPES)
def test_a_recipe_makes_an_agent(env_id: str) -> None:
    if env_id.startswith(("LunarLander", "BipedalWalker")):
        pytest.importorskip("Box2D", reason="needs the extra box2d")
    if env_id.startswith(("HalfCheetah", "Hopper", "Walker2d")):
        pytest.importorskip("mujoco", reason="needs the extra mujoco")
    arguments = recipe(env_id)
    agent = GRPO("MlpPolicy", env_id, **arguments)
    assert {name: getattr(agent, name) for name in arguments} == arguments
    assert RECIPES[env_id].total_timesteps >= 10_000


@pytest.mark.parametrize("env_id", RECIPES)
def test_a_recipe_leaves_the_choice_of_environment_seed_and_device_to_the_user(env_id: str) -> None:
    assert set(recipe(env_id)) <= set(ARGUMENTS) - {"policy", "env", "seed", "device", "verbose", "tensorboard_log"}


def test_changing_what_was_returned_does_not_change_the_recipe() -> None:
    before = recipe("grpo/Battleship-v0")
    changed = recipe("grpo/Battleship-v0")
    changed["policy_kwargs"]["net_arch"].append(7)
    changed["gamma"] = -1.0
    assert recipe("grpo/Battleship-v0") == before != changed


def test_a_module_before_the_id_makes_no_difference() -> None:
    assert find("grpo_envs:grpo/Battleship-v0") is RECIPES["grpo/Battleship-v0"]
    assert recipe("grpo_envs:grpo/Battleship-v0") == recipe("grpo/Battleship-v0")


def test_an_environment_without_a_recipe_is_told_which_have_one() -> None:
    assert find("Taxi-v3") is None
    with pytest.raises(KeyError, match=r"no recipe for 'Taxi-v3', only for CartPole-v1, .*grpo/Battleship-v0"):
        recipe("Taxi-v3")
