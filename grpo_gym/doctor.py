"""Whether an environment suits groups, found out by trying.

All is random play, in the very slots that an agent would train in. How returns vary under random actions need not be
how they vary under a trained agent's; what repeats and what can be snapshotted is the same for both.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor

from grpo_gym.action_code import ActionCode
from grpo_gym.advantages import group_spread, returns_to_go
from grpo_gym.arguments import number, whole
from grpo_gym.baselines import BASELINES, Comparison
from grpo_gym.group_report import REASONS, GroupReport
from grpo_gym.groups import Plan, plan, unequal_starts
from grpo_gym.policy import MlpPolicy
from grpo_gym.rollout import Played, collect
from grpo_gym.snapshots import METHODS, in_words, prove
from grpo_gym.types import Array, BoolArray, FloatArray, Rollout
from grpo_gym.vec import EnvLike, make_slots, single_maker

N_SLOTS = 3
"""An odd number: twins meet in slots of different pasts, and what a reset leaves behind shows."""

LARGEST_OBSERVATION = 512
"""Numbers in an observation up to which soft groups are tried: their cost grows with the square."""


def check_group_env(
    env: EnvLike,
    n_groups: int = 8,
    group_size: int = 8,
    seed: int = 0,
    max_episode_steps: int = 1000,
    gamma: float = 0.99,
) -> GroupReport:
    """Try whether members of a group can be compared in an environment, and with what.

    Plays P pairs of twins (same seed, same actions), P groups of G episodes of random actions, and one episode for
    each way of taking snapshots.

    Args:
        env: whatever `GRPO` takes. A vector environment is left open, and no snapshots are tried: there is no single
            environment to be had from it.
        n_groups: P, at least 2.
        group_size: G, at least 2.
        seed: of the starts and the actions.
        max_episode_steps: episodes are cut here; a smaller number makes it faster.
        gamma: discount in the comparison of baselines.

    Returns:
        The report. A sick environment is a report with `problems`, not an exception.

    Raises:
        ValueError, TypeError: if an argument cannot work, or there is no such environment.
    """
    whole("n_groups", n_groups, 2, "starts could not be told from actions")
    whole("group_size", group_size, 2, "one episode has nothing to be compared with")
    whole("max_episode_steps", max_episode_steps, 1)
    whole("seed", seed, 0)
    number("gamma", gamma, 0.0, 1.0)
    slots = make_slots(env, N_SLOTS)
    report = GroupReport(slots.name, n_groups, group_size, max_episode_steps, gamma, slots.has_time_limit)
    n_cut = 0

    def count_cuts(played: Played) -> bool:
        nonlocal n_cut
        n_cut += int((played.ended & ~(played.step.terminated | played.step.truncated)).sum())
        return True

    try:
        with torch.random.fork_rng(devices=[]):
            policy = MlpPolicy(slots.observation_space, slots.action_space)  # refuses what GRPO refuses
        actor = RandomActor(slots.action_space)
        groups = plan(np.random.default_rng(seed), n_groups, group_size)
        pairs = Plan(groups.seeds, 2, np.repeat(groups.noise_seeds[:n_groups], 2))
        twins = collect(slots, actor, pairs, max_episode_steps)
        rollout = collect(slots, actor, groups, max_episode_steps, count_cuts)
        assert twins is not None
        assert rollout is not None
        report = _judge(report, twins, rollout, n_cut, Comparison(gamma, flatten=policy.flatten))
    except Exception as error:
        return replace(report, failure=in_words(error))
    finally:
        if not isinstance(env, VectorEnv):
            slots.close()
    make_env = single_maker(env)
    if make_env is None:
        return report
    return replace(report, snapshots=tuple(prove(name, make_env, seed, max_episode_steps) for name in METHODS))


class RandomActor:
    """Uniformly random legal actions; the same noise always gives the same ones, whoever plays beside.

    Args:
        space: any that `ActionCode` takes.
    """

    def __init__(self, space: gym.Space[Any]):
        self._code = ActionCode(space)
        self._n_choices = len(self._code.sizes)
        self.noise_size = self._n_choices + len(self._code.low)

    def act(
        self, observations: Array, noise: FloatArray | None, action_masks: BoolArray | None = None
    ) -> tuple[Array, FloatArray]:
        """See `acting.Actor`; the log-probabilities are all 0, nobody learns from them."""
        assert noise is not None
        actions = noise.astype(np.float64)
        masks = np.ones((len(noise), self._code.mask_size), np.bool_) if action_masks is None else action_masks
        for i, legal in enumerate(self._code.by_choice(masks)[: self._n_choices]):
            chosen = np.floor(noise[:, i] * legal.sum(axis=1))
            actions[:, i] = (legal.cumsum(axis=1) > chosen[:, None]).argmax(axis=1)
        return actions, np.zeros(len(noise), np.float32)

    def to_env(self, actions: Array) -> Array:
        """See `acting.Actor`."""
        code = self._code
        within = code.low + actions[:, self._n_choices :] * (code.high - code.low)
        return code.to_env(actions[:, : self._n_choices].astype(np.int64), within)


def random_effects(returns: Tensor) -> tuple[float, float]:
    """Take the variance of returns apart, with the group as the factor (one-way random effects).

      within = mean of the groups' variances,  between = max(0, variance of the groups' means − within / G)

    As baselines for returns, peers from the same start beat the whole batch where the start makes a share
    between / (between + within) > 1 / G of the variance.

    Args:
        returns: `[P, G]`, P ≥ 2, G ≥ 2.

    Returns:
        The two variances, both unbiased but for the bound.
    """
    within = float(returns.var(dim=1).mean())
    return within, max(0.0, float(returns.mean(dim=1).var()) - within / returns.shape[1])


def _judge(report: GroupReport, twins: Rollout, rollout: Rollout, n_cut: int, comparison: Comparison) -> GroupReport:
    """Write down what the two rollouts tell."""
    group_size, n_episodes = rollout.group_size, len(rollout.terminated)
    unequal = [unequal_starts(r.first_observations.numpy(), r.groups.numpy()).any() for r in (twins, rollout)]
    returns = returns_to_go(rollout.rewards, rollout.mask, 1.0)[0]
    within, between = random_effects(returns.view(-1, group_size))
    tied = group_spread(returns, group_size) == 0
    return replace(
        report,
        n_steps=sum(r.n_steps + r.idle_steps for r in (twins, rollout)),
        equal_starts=not any(unequal),
        equal_transitions=None if any(unequal) else _agree(twins),
        terminated=float(rollout.terminated.double().mean()),
        truncated=(int(rollout.truncated.sum()) - n_cut) / n_episodes,
        cut=n_cut / n_episodes,
        mean_length=rollout.n_steps / n_episodes,
        return_mean=float(returns.mean()),
        within_std=math.sqrt(within),
        between_std=math.sqrt(between),
        start_share=between / (between + within) if between + within > 0 else math.nan,
        tied_groups=float(tied.double().mean()),
        unexplained=_unexplained(rollout, comparison, equal_starts=not any(unequal)),
    )


def _agree(twins: Rollout) -> bool:
    """Tell whether the two of each pair went through the same."""
    ends = twins.lengths.cumsum(0)[:-1].numpy()
    columns = [np.split(x.numpy(), ends) for x in (twins.observations, twins.actions, twins.flat(twins.rewards))]
    columns += [list(twins.final_observations.numpy()), list(twins.terminated.numpy())]
    pairs = [pair for column in columns for pair in zip(column[::2], column[1::2], strict=True)]
    return all(np.array_equal(one, other) for one, other in pairs)


def _unexplained(rollout: Rollout, comparison: Comparison, equal_starts: bool) -> dict[str, float]:
    """Return what each baseline leaves; those by the start only where members share one."""
    returns = rollout.flat(returns_to_go(rollout.rewards, rollout.mask, comparison.gamma))
    total = float((returns - returns.mean()).square().mean())
    small = comparison.flatten(rollout.final_observations).shape[1] <= LARGEST_OBSERVATION
    usable = {"live_peers": equal_starts, "batch": True, "shrunk": equal_starts, "soft_groups": small}
    left = {
        name: float(rollout.flat(BASELINES[name](rollout, comparison).advantages).square().mean())
        for name in REASONS
        if usable[name]
    }
    return {name: square / total for name, square in left.items()} if total > 0 else {}
