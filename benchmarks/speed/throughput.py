"""Speeds, all sides in one process: collecting, updating, and both together as `learn`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import SyncVectorEnv
from torch import Tensor

from benchmarks import learners, tasks
from benchmarks.learners import Predict
from benchmarks.speed.case import Round, Sizes, speed, spend
from grpo_gym import GRPO, evaluate_policy
from grpo_gym.groups import plan
from grpo_gym.optimizers import ADAM
from grpo_gym.policy import MlpPolicy
from grpo_gym.recipes import recipe
from grpo_gym.rollout import collect
from grpo_gym.types import Batch, BoolArray
from grpo_gym.update import UpdateSettings, update


def collect_once(agent: GRPO) -> int:
    """Play one iteration's plan and return the env steps taken. The one place that knows how this is done."""
    assert agent.env is not None
    drawn = plan(agent._plan_rng, agent.n_groups, agent.group_size)
    rollout = collect(agent.env, agent.policy.actor(), drawn, agent.max_episode_steps)
    assert rollout is not None
    return rollout.n_steps + rollout.idle_steps


@dataclasses.dataclass(frozen=True)
class SteppedAtRandom:
    """What `random_stepping` did.

    Attributes:
        terminated: of each vector step, `[n_envs]`.
        truncated: the same.
    """

    terminated: Sequence[BoolArray]
    truncated: Sequence[BoolArray]

    def __int__(self) -> int:
        """Count env steps: where an episode ended, the next vector step only resets."""
        ended = np.logical_or(self.terminated, self.truncated)
        return int(ended.size - ended.sum())


def random_stepping(env_id: str, n_envs: int) -> Callable[[], SteppedAtRandom]:
    """Return work that takes 128 vector steps of a `SyncVectorEnv` under random actions drawn beforehand.

    Its resets take time, as ours do, and are no env steps, as ours are none.
    """
    env = SyncVectorEnv([lambda: gym.make(env_id, disable_env_checker=True)] * n_envs)
    env.reset(seed=0)
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(128)]

    def work() -> SteppedAtRandom:
        _, _, terminated, truncated, _ = zip(*map(env.step, actions), strict=True)
        return SteppedAtRandom(terminated, truncated)

    return work


def collecting(env_id: str, trained: bool, n_slots: int, n_episodes: int, sizes: Sizes) -> Round:
    """Collect so many episodes with a [64, 64] policy, against random stepping of as many environments as slots."""
    agent = GRPO(
        "MlpPolicy",
        env_id,
        n_groups=n_episodes // 8,
        group_size=8,
        n_envs=n_slots,
        normalize_observations=trained and recipe(env_id)["normalize_observations"],
        seed=0,
        device="cpu",
    )
    if trained:
        teacher = GRPO("MlpPolicy", env_id, seed=0, device="cpu", **recipe(env_id))
        teacher.learn(sizes.train_steps)
        agent.policy.load_state_dict(teacher.policy.state_dict())
    step_randomly = random_stepping(env_id, n_slots)
    collect_once(agent)
    step_randomly()
    return lambda number: {
        "grpo": speed(lambda: collect_once(agent), sizes.seconds),
        "random stepping": speed(step_randomly, sizes.seconds),
    }


def bare_pass(weights: Sequence[Tensor], inputs: Tensor, output_gradient: Tensor) -> list[Tensor]:
    """Go forward and backward through a tanh network by matrix products alone: no autograd, biases, loss, optimiser.

      h₀ = x, hₖ = tanh(hₖ₋₁ Wₖᵀ) below the last layer, which is linear;   ∂Wₖ = δₖᵀ hₖ₋₁,   δₖ₋₁ = δₖ Wₖ (1 − h²ₖ₋₁)

    Args:
        weights: of each layer, `[n_out, n_in]`.
        inputs: x, `[B, n_in]`.
        output_gradient: of the last layer, `[B, n_out]`.

    Returns:
        The gradient of each of the weights.
    """
    hidden = [inputs]
    for weight in weights[:-1]:
        hidden.append((hidden[-1] @ weight.T).tanh_())
    hidden[-1] @ weights[-1].T  # the output, which the caller's gradient stands in for
    gradients = []
    delta = output_gradient
    for layer in range(len(weights) - 1, -1, -1):
        gradients.append(delta.T @ hidden[layer])
        if layer:
            delta = torch.ops.aten.tanh_backward(delta @ weights[layer], hidden[layer])
    return gradients[::-1]


def updating(n_inputs: int, n_actions: int, net_arch: Sequence[int], batch_size: int, sizes: Sizes) -> Round:
    """Pass 4 times over 16 minibatches, against `bare_pass` on as many rows.

    The learning rate is 0, so that every repetition works on the same numbers.
    """
    n_rows, n_epochs = 16 * batch_size, 4
    observation_space = gym.spaces.Box(-1.0, 1.0, (n_inputs,))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        policy = MlpPolicy(observation_space, gym.spaces.Discrete(n_actions), net_arch)
        observations, advantages = torch.rand(n_rows, n_inputs), torch.randn(n_rows)
        actions, output_gradient = torch.randint(n_actions, (n_rows,)), torch.rand(n_rows, n_actions)
    with torch.no_grad():
        log_probs = policy(observations).log_prob(actions)
    batch = Batch(observations, actions, log_probs, advantages, torch.ones(n_rows))
    optimizer = torch.optim.Adam(policy.parameters(), **ADAM)
    settings = UpdateSettings(0.0, n_epochs, batch_size, clip_low=0.2, clip_high=0.2, ent_coef=0.01, max_grad_norm=0.5)
    generator = torch.Generator().manual_seed(0)
    weights = [p.detach().clone() for p in policy.parameters() if p.dim() == 2]
    parts = list(zip(observations.tensor_split(16), output_gradient.tensor_split(16), strict=True))

    def ours() -> int:
        return int(update(policy, optimizer, batch, settings, generator)["n_updates"])

    def bare() -> int:
        for _ in range(n_epochs):
            for part, gradient in parts:
                bare_pass(weights, part, gradient)
        return n_epochs * len(parts)

    ours()
    bare()
    return lambda number: {
        "grpo": spend(ours, sizes.seconds).each("minibatch"),
        "bare products": spend(bare, sizes.seconds).each("minibatch"),
    }


def learning_beside_ppo(settings: str, arguments: dict[str, Any], sizes: Sizes) -> Round:
    """Construct and `learn` on CartPole, ours with the arguments given, against stable-baselines3's PPO.

    Args:
        settings: of the peer, "zoo" or "default".
        arguments: of our agent.
        sizes: `learn_steps` is used.
    """
    ppo = learners.load("ppo")

    def ours(seed: int, steps: int) -> int:
        agent = GRPO("MlpPolicy", "CartPole-v1", seed=seed, device="cpu", **arguments)
        return agent.learn(steps).num_timesteps

    def theirs(seed: int, steps: int) -> int:
        task = dataclasses.replace(tasks.find("CartPole-v1"), steps=steps)
        return ppo.train(task, seed, settings, _unwatched).steps

    ours(0, 1)
    theirs(0, 1)
    return lambda number: {
        "grpo": speed(lambda: ours(number, sizes.learn_steps)),
        "sb3 ppo": speed(lambda: theirs(number, sizes.learn_steps)),
    }


FAST: Mapping[str, Any] = MappingProxyType(
    {
        "baseline": "batch",
        "normalize_observations": True,
        "n_groups": 32,
        "group_size": 4,
        "learning_rate": "lin_0.003",
        "batch_size": 512,
        "n_epochs": 4,
        "gamma": 0.98,
    }
)
"""CartPole for the clock: many slots, few passes in large minibatches, and a baseline that costs next to nothing."""


def learned(env_id: str, arguments: Mapping[str, Any], seed: int, steps: int) -> tuple[GRPO, dict[str, float], float]:
    """Construct an agent and let it `learn`: the agent, its speed, and its score over the benchmark's 20 episodes.

    Args:
        env_id: CartPole, here or in EnvPool.
        arguments: of `GRPO`.
        seed: of training.
        steps: env steps of `learn`.
    """
    agents = []

    def learn() -> int:
        agents.append(GRPO("MlpPolicy", env_id, seed=seed, device="cpu", **arguments))
        return agents[0].learn(steps).num_timesteps

    values = speed(learn)
    score, _ = evaluate_policy(agents[0], "CartPole-v1", seeds=tasks.EVALUATION_SEEDS, warn=False)
    return agents[0], values, float(np.mean(score))


def learning_beside_random(arguments: Mapping[str, Any], multiple: int, sizes: Sizes) -> Round:
    """Construct and `learn` CartPole, against random stepping of as many environments; the round is the seed.

    Args:
        arguments: of `GRPO`.
        multiple: env steps of a `learn`, in units of `sizes.train_steps`.
        sizes: `train_steps` and `seconds` are used.
    """
    step_randomly = random_stepping("CartPole-v1", arguments["n_groups"] * arguments["group_size"])

    def one_round(number: int) -> dict[str, dict[str, float]]:
        _, values, score = learned("CartPole-v1", arguments, number, multiple * sizes.train_steps)
        stepped = speed(step_randomly, sizes.seconds)
        return {"grpo": values, "random stepping": stepped, "grpo afterwards": {"score": score}}

    GRPO("MlpPolicy", "CartPole-v1", seed=0, device="cpu", **arguments).learn(1)
    step_randomly()
    return one_round


def learning_in_envpool(arguments: Mapping[str, Any], multiple: int, sizes: Sizes) -> Round:
    """Construct and `learn` CartPole in EnvPool, against the same in our own slots; the round is the seed.

    `mean return` is that of the last hundred training episodes, whose actions are drawn; `score` that of the agent when
    it is done, in Gymnasium's CartPole.

    Args:
        arguments: of `GRPO`.
        multiple: env steps of a `learn`, in units of `sizes.train_steps`.
        sizes: `train_steps` is used.
    """

    def one(env_id: str, seed: int) -> dict[str, float]:
        agent, values, score = learned(env_id, arguments, seed, multiple * sizes.train_steps)
        returns = [episode["r"] for episode in agent.ep_info_buffer]
        return {**values, "mean return": sum(returns) / len(returns), "score": score}

    one("envpool:CartPole-v1", 0)
    one("CartPole-v1", 0)
    return lambda number: {"envpool": one("envpool:CartPole-v1", number), "slots": one("CartPole-v1", number)}


def _unwatched(steps: int, predict: Predict, diagnostics: object = None) -> None:
    """Let a learner train without evaluations."""
