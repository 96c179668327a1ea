"""The parts of GRPO as plain functions of tensors, for a training loop of your own. Seconds.

python examples/losses_as_functions.py [iterations]

The task: three situations, four actions, a reward that is known only by trying. The loop below is all there is to it.
"""

import sys

import torch

from grpo_gym.advantages import scale
from grpo_gym.baselines import leave_one_out
from grpo_gym.distributions import Categorical
from grpo_gym.losses import aggregation_weights, grpo_loss, kl_k1, kl_k2, kl_k3

iterations = int(sys.argv[1]) if len(sys.argv) > 1 else 200
P, G = 3, 8  # situations, and actions tried in each

# advantages: a group of returns compared with itself
returns = torch.tensor([[1.0, 0.0, 0.0, 1.0]])
print("returns      ", returns[0].tolist())
print("leave one out", [round(a, 3) for a in leave_one_out(returns)[0].tolist()])

# entropy and KL of distributions that are given by logits, exactly
p, q = Categorical(torch.tensor([[2.0, 0.0, 0.0]])), Categorical(torch.tensor([[0.0, 1.0, 0.0]]))
print(f"entropy {p.entropy().item():.4f}   KL(p‖q) {p.kl(q).item():.4f}")
legal = Categorical(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([[False, True, True]]))
print("masked probabilities", legal.log_probs.exp()[0].tolist())

# KL estimated from drawn actions: k1 and k3 are unbiased, k2 is not
actions = p.sample(torch.rand(100_000, 1, generator=torch.Generator().manual_seed(0)))
of_p, of_q = p.log_probs[0][actions], q.log_probs[0][actions]
print("estimated     ", {f.__name__: round(f(of_p, of_q).mean().item(), 4) for f in (kl_k1, kl_k2, kl_k3)})

# a training loop
pays = torch.tensor([[0.1, 0.9, 0.2, 0.0], [0.5, 0.4, 0.6, 0.1], [0.8, 0.0, 0.3, 0.7]])
logits = torch.zeros(P, 4, requires_grad=True)
optimizer = torch.optim.Adam([logits], lr=0.1)
generator = torch.Generator().manual_seed(0)
states = torch.arange(P).repeat_interleave(G)
for iteration in range(iterations):
    with torch.no_grad():
        old = Categorical(logits[states])
        actions = old.sample(torch.rand(P * G, 1, generator=generator))
        rewards = (torch.rand(P * G, generator=generator) < pays[states, actions]).float()
    advantages = leave_one_out(rewards.view(P, G)).view(1, -1)
    mask = torch.ones(1, P * G, dtype=torch.bool)
    weights, scaled = aggregation_weights(mask, "trajectory")[0], scale(advantages, mask, G, "batch")[0]
    for _ in range(2):
        now = Categorical(logits[states])
        loss, metrics = grpo_loss(
            now.log_prob(actions), now.entropy(), old.log_prob(actions), scaled, weights, 0.2, 0.28, ent_coef=0.01
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if iteration % 50 == 0 or iteration == iterations - 1:
        print(f"iteration {iteration:3}   reward {rewards.mean():.2f}   clipped {metrics['clip_fraction']:.2f}")
print("preferred actions", logits.argmax(dim=1).tolist(), "best", pays.argmax(dim=1).tolist())
