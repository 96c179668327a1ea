"""Countdown: make a number of 3 or 4 others, token by token, learned from right and wrong alone. Within two minutes.

python examples/countdown.py [steps]

Scored on problems that are never dealt in training; `python -m benchmarks.countdown` has the table.
"""

import sys

import gymnasium as gym
import torch
from grpo_envs.countdown_vector import CountdownVectorEnv

from grpo_gym import GRPO, evaluate_policy, recipe

torch.set_num_threads(1)
steps = int(sys.argv[1]) if len(sys.argv) > 1 else 5_000_000
held_out = {"split": "test", "correct_weight": 1.0, "format_weight": 0.0}  # the reward is 1 if it is right, else 0


def accuracy(numbers: int, deterministic: bool) -> float:
    """Share of 500 held-out problems solved."""
    env = CountdownVectorEnv(500, numbers=numbers, n_max=4, **held_out)
    rewards, _ = evaluate_policy(
        agent, env, deterministic=deterministic, return_episode_rewards=True, seeds=range(500), warn=False
    )
    return sum(rewards) / 500


agent = GRPO("MlpPolicy", "grpo/Countdown-v0", seed=0, verbose=1, **recipe("grpo/Countdown-v0"))
agent.learn(steps, log_interval=100)
for numbers in (3, 4):
    print(f"{numbers} numbers: {accuracy(numbers, True):.2f} greedy, {accuracy(numbers, False):.2f} sampled")

print("\nsome held-out problems:")
env = gym.make("grpo/Countdown-v0", render_mode="ansi", **held_out)
for seed in range(6):
    observation, info = env.reset(seed=seed)
    ended = False
    while not ended:
        action, _ = agent.predict(observation, deterministic=True, action_masks=info["action_mask"])
        observation, reward, ended, _, info = env.step(action)
    print(f"  {env.render()}{'' if info['is_success'] else '   wrong'}")
