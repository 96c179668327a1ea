"""One action for each state, a reward from a function, and no environment: a step of learning in ten lines. Seconds.

python examples/contextual_bandit.py [steps]

A state is a point of the plane, an action one of four. It earns 1 in the quadrant that it names, which is learned.
"""

import sys

import torch

from grpo_gym import core

policy = torch.nn.Sequential(torch.nn.Linear(2, 32), torch.nn.Tanh(), torch.nn.Linear(32, 4))
optimizer = torch.optim.Adam(policy.parameters(), lr=0.01)
generator = torch.Generator().manual_seed(0)


def reward(states: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
    """Return 1 where the action names the quadrant of the state, else 0: `[M, 2]`, `[M]` → `[M]`."""
    return (actions == 2 * (states[:, 0] > 0) + (states[:, 1] > 0)).float()


def step(states: torch.Tensor, group_size: int = 8) -> float:
    """Try `group_size` actions in each state `[P, 2]`, learn from how they compare, and return the mean reward."""
    states = states.repeat_interleave(group_size, dim=0)
    old = core.Categorical(policy(states).detach())
    actions = old.sample(torch.rand(len(states), 1, generator=generator))
    rewards = reward(states, actions)
    advantages = core.leave_one_out(rewards.view(-1, group_size)).flatten()
    for _ in range(4):
        new, ones = core.Categorical(policy(states)), torch.ones_like(rewards)
        args = (new.log_prob(actions), new.entropy(), old.log_prob(actions), advantages, ones)
        loss, _ = core.grpo_loss(*args, clip_low=0.2, clip_high=0.28, ent_coef=0.001)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return rewards.mean().item()


n_steps = int(sys.argv[1]) if len(sys.argv) > 1 else 100
for number in range(n_steps):
    mean = step(2 * torch.rand(32, 2, generator=generator) - 1)
    if number % 20 == 0 or number == n_steps - 1:
        print(f"step {number:3}   mean reward {mean:.2f}")

unseen = 2 * torch.rand(2_000, 2, generator=generator) - 1
print(f"most probable actions on new states earn {reward(unseen, policy(unseen).argmax(dim=1)).mean():.2f} of 1")
