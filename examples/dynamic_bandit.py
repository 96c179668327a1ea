"""A bandit whose best arm changes unannounced, without noise and with it. Half a minute of one core.

python examples/dynamic_bandit.py [steps]

Five arms pay 0.4 each; from step 20 on arm 3 pays 0.8, from 40 all pay 0.4 again, from 60 on arm 0 pays 0.7, and so on.
"""

import sys

import gymnasium as gym
import numpy as np
import torch
from grpo_envs.bandit_players import DiscountedThompsonSampling
from grpo_envs.bandits_vector import DynamicBanditVectorEnv
from grpo_envs.players import bandit_regret

from grpo_gym import GRPO, recipe

torch.set_num_threads(1)
steps = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000

for noise in (None, "gaussian"):
    spec = gym.spec("grpo/DynamicBandit-v0")
    spec.kwargs["noise"] = noise
    agent = GRPO("MlpPolicy", spec, seed=0, **recipe("grpo/DynamicBandit-v0")).learn(steps)

    games = DynamicBanditVectorEnv(256, noise=noise)
    observations, _ = games.reset(seed=list(range(256)))
    print(f"\nnoise: {noise}. Mean probability of each arm, by step")
    for t in range(games.horizon):
        with torch.no_grad():
            distribution = agent.policy.get_distribution(torch.as_tensor(observations))
        probabilities = distribution.log_probs.exp().mean(dim=0)
        observations, _, _, _, info = games.step(agent.predict(observations)[0])
        if t % 5 == 0:
            best = int(info["best_arm"][0])
            shown = " ".join(f"{p:.2f}" for p in probabilities.tolist())
            print(f"  step {t:2}   {shown}   best arm: {'any' if best < 0 else best}")

    thompson = DiscountedThompsonSampling(5, "bernoulli" if noise is None else noise, 0.1, discount=0.9, seed=0)
    for name, player in (("GRPO", agent), ("Thompson sampling with discount", thompson)):
        regret = bandit_regret(player, DynamicBanditVectorEnv(256, noise=noise)).sum(axis=1)
        print(f"  regret a game, {name}: {np.mean(regret):.2f}")
