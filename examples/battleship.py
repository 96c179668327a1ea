"""microGRPO's game: sink three ships on a 5×5 board with few misses. About a minute of one core.

python examples/battleship.py [steps]

microGRPO trains 2,000 iterations for a mean reward of 0.50; chance is 0.15, and a player who weighs every board that
fits what it saw has 0.72.
"""

import sys

import gymnasium as gym
import numpy as np
import torch
from grpo_envs.battleship import enumerate_boards
from grpo_envs.battleship_players import hunter_score, uniform_score
from grpo_envs.battleship_vector import BattleshipVectorEnv

from grpo_gym import GRPO, evaluate_policy, recipe

torch.set_num_threads(1)
steps = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000

spec = gym.spec("grpo/Battleship-v0")
spec.kwargs["placement"] = "top_left"  # microGRPO's boards, which lean to the top left
agent = GRPO("MlpPolicy", spec, seed=0, verbose=1, **recipe("grpo/Battleship-v0"))
agent.learn(steps, log_interval=100)

rewards, _ = evaluate_policy(
    agent, BattleshipVectorEnv(1_000, placement="top_left"), return_episode_rewards=True, seeds=range(1_000), warn=False
)
print(f"mean reward on 1,000 new boards: {np.mean(rewards):.3f}")
print(f"chance {uniform_score():.3f}, exact posterior {hunter_score(enumerate_boards(placement='top_left')):.3f}")

print("\none game, shot by shot (. fog, ○ miss, ● hit):")
env = gym.make(spec)
observation, info = env.reset(seed=7)
ended, n_shots = False, 0
while not ended:
    action, _ = agent.predict(observation, deterministic=True, action_masks=info["action_mask"])
    observation, reward, ended, _, info = env.step(action)
    n_shots += 1
print("\n".join(" ".join("○.●"[cell + 1] for cell in row) for row in observation))
print(f"{n_shots} shots for 9 ship cells, reward {reward:.3f}")
