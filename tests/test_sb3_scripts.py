"""Scripts written for stable-baselines3's PPO: another class, no arguments of a critic, and nothing else changes."""

import re
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from grpo_gym import GRPO
from tests.agents import digest, small
from tests.toys import IdentityDiscrete, Walk

# written as stable-baselines3's own examples are, with budgets for a test
FIRST_STEPS = """
import gymnasium as gym
from stable_baselines3 import PPO

env = gym.make("CartPole-v1", render_mode="rgb_array")

model = PPO("MlpPolicy", env, verbose=1)
model.learn(total_timesteps=300)

vec_env = model.get_env()
obs = vec_env.reset()
for i in range(40):
    action, _states = model.predict(obs, deterministic=True)
    obs, reward, done, info = vec_env.step(action)
    assert vec_env.render().shape == (400, 600, 3)
env.close()
"""

SAVE_AND_LOAD = """
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env

vec_env = make_vec_env("CartPole-v1", n_envs=4)

model = PPO("MlpPolicy", vec_env, learning_rate=1e-3, batch_size=64, vf_coef=0.5, clip_range_vf=None, verbose=0)
model.learn(total_timesteps=300)
model.save("ppo_cartpole")

del model

model = PPO.load("ppo_cartpole", env=vec_env)
obs = vec_env.reset()
for _ in range(20):
    action, _states = model.predict(obs)
    obs, rewards, dones, info = vec_env.step(action)
model.learn(total_timesteps=300, reset_num_timesteps=False)
"""

LUNAR_LANDER = """
import gymnasium as gym
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import CallbackList, CheckpointCallback, EvalCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

env = Monitor(gym.make("LunarLander-v3"))
eval_env = Monitor(gym.make("LunarLander-v3"))
callback = CallbackList([
    CheckpointCallback(save_freq=100, save_path="./logs/"),
    EvalCallback(eval_env, best_model_save_path="./logs/", log_path="./logs/", eval_freq=100, n_eval_episodes=1),
])
model = PPO(
    "MlpPolicy",
    env,
    learning_rate=lambda progress: 3e-4 * progress,
    batch_size=64,
    n_epochs=4,
    gamma=0.999,
    ent_coef=0.01,
    vf_coef=0.5,
    max_grad_norm=0.5,
    policy_kwargs=dict(net_arch=[64, 64]),
    tensorboard_log="./tb/",
    seed=1,
)
model.learn(total_timesteps=1000, callback=callback, tb_log_name="first_run")
mean_reward, std_reward = evaluate_policy(model, eval_env, n_eval_episodes=2, deterministic=True)
model.save("lander")
params = model.get_parameters()
model.set_parameters(params)
best = PPO.load("./logs/best_model", custom_objects={"learning_rate": 3e-4})
obs, _ = env.reset()
action, _ = best.predict(obs)
env.step(action)
"""

DICT = """
from stable_baselines3 import PPO
from stable_baselines3.common.envs import SimpleMultiObsEnv

env = SimpleMultiObsEnv(random_start=False)

model = PPO("MultiInputPolicy", env, n_steps=128, batch_size=64, vf_coef=0.5, verbose=1)
model.learn(total_timesteps=300)
obs, info = env.reset()
action, _ = model.predict(obs, deterministic=True)
assert env.action_space.contains(int(action))
model.save("dicts")
model = PPO.load("dicts", env=env)
"""

IMAGES = """
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import FakeImageEnv
from stable_baselines3.common.vec_env import VecTransposeImage

env = make_vec_env(FakeImageEnv, n_envs=2, env_kwargs=dict(screen_height=40, screen_width=40, n_channels=3))

model = PPO(
    "CnnPolicy", env, n_epochs=1, vf_coef=0.5, policy_kwargs=dict(features_extractor_kwargs=dict(features_dim=32))
)
model.learn(total_timesteps=20)
obs = env.reset()
actions, _ = model.predict(obs)
env.step(actions)
model.save("images")
"""


def swapped(script: str) -> str:
    """The same script with our class, and without the critic's arguments."""
    script = script.replace("from stable_baselines3 import PPO", "from grpo_gym import GRPO").replace("PPO", "GRPO")
    return re.sub(r"\s*\b(vf_coef|clip_range_vf|gae_lambda)=[\w.]+,", "", script)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


@pytest.mark.filterwarnings("ignore:.*not of the same type")  # stable-baselines3's word on training and evaluation
@pytest.mark.parametrize(
    ("script", "needs", "files"),
    [
        (FIRST_STEPS, "pygame", []),
        (SAVE_AND_LOAD, "stable_baselines3", ["ppo_cartpole.zip"]),
        (LUNAR_LANDER, "Box2D", ["lander.zip", "logs/best_model.zip", "logs/evaluations.npz", "tb/first_run_1"]),
        (DICT, "stable_baselines3", ["dicts.zip"]),
        (IMAGES, "stable_baselines3", ["images.zip"]),
    ],
    ids=["first steps", "save and load", "lunar lander", "dict", "images"],
)
def test_a_script_runs_with_another_class_and_without_the_critics_arguments(
    script: str, needs: str, files: list[str]
) -> None:
    pytest.importorskip("stable_baselines3")
    pytest.importorskip(needs)
    script = swapped(script)
    assert "vf" not in script
    names: dict[str, Any] = {}
    exec(compile(script, "script.py", "exec"), names)
    assert isinstance(names["model"], GRPO)
    assert [name for name in files if not Path(name).exists()] == []


# --- the environment that scripts play in ----------------------------------------------------------------------


def test_what_get_env_returns_resets_itself_and_tells_of_the_end() -> None:
    agent = small(Walk)
    env = agent.get_env()
    assert env is not None
    assert env is agent.get_env()
    env.seed(5)
    first = env.reset()
    assert first.shape == (6, 2)
    lengths = np.zeros(6, int)
    ended = 0
    for _ in range(12):
        observations, _, dones, infos = env.step(np.ones(6, int))
        lengths += 1
        assert (observations[dones, 1] == 0).all()  # a new episode
        assert (observations[~dones, 1] == lengths[~dones]).all()
        for slot in dones.nonzero()[0]:
            x, t = infos[slot]["terminal_observation"]
            assert t == lengths[slot]
            assert infos[slot]["TimeLimit.truncated"] == (abs(x) <= 1.8)
            ended += 1
        assert all("terminal_observation" not in infos[slot] for slot in (~dones).nonzero()[0])
        lengths[dones] = 0
    assert ended >= 6
    env.seed(5)
    assert (env.reset() == first).all()
    env.step_async(np.ones(6, int))
    assert env.step_wait()[0].shape == (6, 2)
    assert env.get_attr("t") == [1] * 6
    assert env.get_attr("limit", indices=0) == [6]
    assert env.num_envs == 6


@pytest.mark.parametrize("settings", [{}, {"baseline": "soft_groups", "n_steps": 3}], ids=["whole", "segments"])
def test_playing_in_it_does_not_disturb_training(settings: dict[str, Any]) -> None:
    disturbed, twin = small(Walk, **settings), small(Walk, **settings)
    for agent in (disturbed, twin):
        agent.learn(60)
        if agent is disturbed:
            env: Any = agent.get_env()
            env.reset()
            for _ in range(5):
                env.step(np.ones(6, int))
        agent.learn(60, reset_num_timesteps=False)
    assert digest(disturbed) == digest(twin)


def test_environments_in_a_dummy_vec_env_are_trained_in_as_they_are() -> None:
    vec_env = pytest.importorskip("stable_baselines3.common.vec_env")
    inside = vec_env.DummyVecEnv([IdentityDiscrete] * 3)
    agent, twin = small(inside), small(IdentityDiscrete, n_envs=3)
    for one in (agent, twin):
        one.learn(48)
    assert digest(agent) == digest(twin)
    assert agent.n_envs == 3


def test_a_monitor_around_an_environment_is_left_out_and_its_empty_file_is_warned_of(tmp_path: Path) -> None:
    monitor = pytest.importorskip("stable_baselines3.common.monitor")
    env = monitor.Monitor(gym.make("CartPole-v1"), str(tmp_path / "mine"))
    with pytest.warns(UserWarning, match="the file of the Monitor .* stays empty") as caught:
        agent = small(env)
    assert caught[0].filename.endswith("agents.py")  # where `GRPO` was called
    env.close()
    assert digest(agent.learn(20)) == digest(small("CartPole-v1").learn(20))


def test_a_wrapper_that_cannot_be_made_again_is_refused_with_what_to_do() -> None:
    class Doubled(gym.Wrapper[Any, Any, Any, Any]):
        pass

    with pytest.raises(ValueError, match=r"lambda: Doubled\(gymnasium\.make\('CartPole-v1'\)\)"):
        small(Doubled(gym.make("CartPole-v1")))


def test_a_vec_env_that_changes_what_is_shown_is_refused_with_what_to_do() -> None:
    vec_env = pytest.importorskip("stable_baselines3.common.vec_env")
    with pytest.raises(ValueError, match=r"VecNormalize of stable-baselines3 .*normalize_observations=True"):
        small(vec_env.VecNormalize(vec_env.DummyVecEnv([Walk])))
