"""Draw what a group is: lunar landers that start alike, their paths coloured by how they compare with each other.

OMP_NUM_THREADS=1 python -m benchmarks.picture docs/group.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.collections import LineCollection

from grpo_gym import GRPO, recipe
from grpo_gym.advantages import scale
from grpo_gym.baselines import BASELINES, Comparison
from grpo_gym.groups import plan
from grpo_gym.rollout import Collector

mpl.use("Agg")
import matplotlib.pyplot as plt

ENV, TRAINED_FOR, GROUP_SIZE, SEED = "LunarLander-v3", 150_000, 8, 7


def main() -> None:
    """Train a little, play one group, and draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("path", type=Path, help="where the picture goes")
    path = parser.parse_args().path
    torch.set_num_threads(1)
    agent = GRPO("MlpPolicy", ENV, seed=SEED, **recipe(ENV)).learn(TRAINED_FOR)
    assert agent.env is not None
    rollout = Collector(agent.env).collect(
        agent.policy.actor(), plan(np.random.default_rng(SEED), 1, GROUP_SIZE).queue()
    )
    assert rollout is not None
    compared = BASELINES["live_peers"](rollout, Comparison(gamma=0.99))
    advantages = rollout.flat(scale(compared.advantages, rollout.mask, GROUP_SIZE, "batch")).numpy()
    ends = np.cumsum(rollout.lengths.numpy())[:-1]
    paths = np.split(rollout.observations[:, :2].numpy(), ends)
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    axes.plot([-0.2, 0.2], [0, 0], color="black", linewidth=4, solid_capstyle="butt")
    for points, judged in zip(paths, np.split(advantages, ends), strict=True):
        pieces = np.stack([points[:-1], points[1:]], axis=1)
        lines = LineCollection(list(pieces), cmap="RdYlGn", norm=plt.Normalize(-2, 2), linewidths=2.2)
        lines.set_array(judged[:-1])
        axes.add_collection(lines)
    axes.plot(*paths[0][0], marker="o", color="black")
    axes.annotate(f"one start, {GROUP_SIZE} members", paths[0][0], textcoords="offset points", xytext=(8, 2))
    figure.colorbar(
        lines, ax=axes, label="advantage: a step's return-to-go against\nits peers' at the same step (deviations)"
    )
    axes.set(
        xlabel="x", ylabel="height", title="A group: the same start, other actions, and each step against its peers"
    )
    axes.autoscale()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
