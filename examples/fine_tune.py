"""A trained CartPole is moved to other physics by small matrices beside its layers. Half a minute of one core.

python examples/fine_tune.py [steps of training] [steps of fine-tuning]

Gravity is four times as strong and the pole eight times as long. Three ways to adapt: all weights; adapters of rank 2,
which leave the network as it is; the same kept near it by a KL penalty, for which the network itself is the reference.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from gymnasium.envs.classic_control import CartPoleEnv

from grpo_gym import GRPO, evaluate_policy, recipe

torch.set_num_threads(1)
steps, steps_after = (int(sys.argv[i]) if len(sys.argv) > i else n for i, n in ((1, 50_000), (2, 20_000)))


def changed() -> gym.Env[Any, Any]:
    """Make a CartPole with other physics."""
    env = CartPoleEnv()
    env.gravity, env.length = 4 * env.gravity, 8 * env.length
    env.polemass_length = env.masspole * env.length
    return gym.wrappers.TimeLimit(env, 500)


def score(agent: GRPO, env: Any) -> float:
    """Return the mean greedy return over 20 episodes that training never saw; at most 500."""
    return float(evaluate_policy(agent, env, n_eval_episodes=20, seeds=range(20))[0])


def show(name: str, agent: GRPO) -> None:
    """Print what an agent earns here and there, and how many weights learned."""
    n_learned = sum(p.numel() for p in agent.policy.parameters() if p.requires_grad)
    old, new = score(agent, "CartPole-v1"), score(agent, changed)
    print(f"{name:34} {old:12.0f} {new:16.0f} {n_learned:16,}")


print(f"{'':34} {'CartPole-v1':>12} {'changed physics':>16} {'weights learned':>16}")
with tempfile.TemporaryDirectory() as folder:
    trained = Path(folder) / "cartpole.zip"
    base = GRPO("MlpPolicy", "CartPole-v1", seed=0, **recipe("CartPole-v1")).learn(steps)
    base.save(trained)
    show("trained on CartPole-v1", base)
    for name, kwargs in {
        "fine-tuned, all weights": {},
        "adapters of rank 2": {"adapter_rank": 2},
        "adapters of rank 2, KL to the base": {"adapter_rank": 2, "kl_coef": 0.05, "kl_estimator": "exact"},
    }.items():
        agent = GRPO.load(trained, changed, seed=1, learning_rate=3e-3, **kwargs).learn(steps_after)
        show(name, agent)
    agent.merge_adapters()
    show("the last, adapters merged", agent)
