"""Values of states in the middle of an episode, by playing on from there several times: no critic, no guess."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from grpo_gym.acting import Actor
from grpo_gym.advantages import group_spread, returns_to_go
from grpo_gym.groups import LARGEST_NOISE_SEED, Plan
from grpo_gym.restored_slots import RestoredSlots
from grpo_gym.rollout import Played, collect
from grpo_gym.snapshots import MakeEnv, proven_method
from grpo_gym.types import ENVPOOL, BoolArray, Compared, FloatArray, IntArray, Rollout
from grpo_gym.vec import EnvLike, single_maker


class Vine:
    """Compares the pieces of an episode between states whose values were found by K continuations each.

    See VinePPO, Kazemnejad et al. 2024 (arXiv 2410.01679), and the vines of TRPO, Schulman et al. 2015
    (arXiv 1502.05477). A state is returned to by a snapshot; what was random in the environment goes on as it would
    have, so continuations differ by the actions alone. Its value is the mean of their returns. The first state's
    value needs no continuations: the other members of the group are that.

    Continuations are steps that are not learned from. At equal steps this lost to plain groups on CartPole,
    Battleship and Countdown (`benchmarks/results/vine.md`): it pays where steps are cheap and updates are dear.

    Args:
        make_env: makes one environment.
        n_states: states an iteration that are continued from.
        n_continuations: K, of each of them.
        n_slots: continuations in play at the same time, at most.
        horizon: see `RestoredSlots`.

    Raises:
        ValueError: if no way of returning to a state is proven exact; the message has the reasons.
    """

    def __init__(
        self, make_env: MakeEnv, n_states: int, n_continuations: int, n_slots: int, horizon: int | None = None
    ):
        self.n_states, self.n_continuations = n_states, n_continuations
        method = proven_method(make_env, max_steps=horizon or 1000)
        self.slots = RestoredSlots(make_env, min(n_slots, n_states * n_continuations), method, horizon)

    def compare(
        self,
        rollout: Rollout,
        compared: Compared,
        gamma: float,
        actor: Actor,
        rng: np.random.Generator,
        on_step: Callable[[Played], bool],
    ) -> Compared | None:
        """Find values of some states, and compare the pieces between them.

        Args:
            rollout: whole episodes.
            compared: what "leave_one_out" makes of them.
            gamma: discount in [0, 1].
            actor: acted in the rollout, and plays on.
            rng: seeds of the continuations' action noise are drawn from it.
            on_step: told of every step, with those it took to come to states in `n_steps`, and of no episode's end:
                continuations are nobody's episodes. False ends it.

        Returns:
            None if `on_step` ended it.
        """
        returns = compared.returns
        spread = group_spread(returns[0], rollout.group_size)
        chosen = choose_states(rollout.lengths.numpy(), spread.numpy(), self.n_states)
        if not chosen.any():
            return compared
        slots = self.slots
        slots.moments.clear()
        slots.n_visiting = 0
        ends = rollout.lengths.cumsum(0).tolist()
        for episode in np.flatnonzero(chosen.any(axis=0)).tolist():
            rows = slice(ends[episode] - int(rollout.lengths[episode]), ends[episode])
            actions = actor.to_env(rollout.actions[rows].numpy())
            seed = int(rollout.seeds[rollout.groups[episode]])
            slots.visit(seed, actions, rollout.observations[rows].numpy(), np.flatnonzero(chosen[:, episode]).tolist())
        n_states = len(slots.moments)

        def on_continued(played: Played) -> bool:
            step = played.step._replace(n_steps=played.step.n_steps + slots.n_visiting)
            slots.n_visiting = 0
            none = np.zeros_like(played.ended)
            return on_step(played._replace(step=step, ended=none, infos=[{} for _ in none]))

        noise = rng.integers(0, LARGEST_NOISE_SEED, size=n_states * self.n_continuations)
        continued = collect(slots, actor, Plan(np.arange(n_states), self.n_continuations, noise), on_step=on_continued)
        if continued is None:
            return None
        outcomes = returns_to_go(continued.rewards, continued.mask, gamma)[0].view(n_states, -1).mean(dim=1)
        values = torch.zeros_like(returns)
        known = torch.from_numpy(chosen)
        values.T[known.T] = outcomes  # moments were visited episode by episode
        values[0] = compared.values[0]
        known[0] = True
        advantages, values = compare_pieces(rollout.rewards, rollout.mask, values, known, gamma)
        return Compared(advantages, returns, values)


def make_vine(env: EnvLike, n_states: int, n_continuations: int, n_slots: int, horizon: int | None) -> Vine:
    """Make a vine for whatever describes an environment.

    Raises:
        ValueError: if no single environment can be had from it, or none of its snapshots is exact.
    """
    make_env = single_maker(env) if not (isinstance(env, str) and env.startswith(ENVPOOL)) else None
    if make_env is None:
        raise ValueError(
            f"baseline='vine' takes snapshots of single environments, and there is none to be had from {env}; pass an "
            "id, an EnvSpec or a function, or use another baseline"
        )
    return Vine(make_env, n_states, n_continuations, n_slots, horizon)


def choose_states(lengths: IntArray, spread: FloatArray, n_states: int) -> BoolArray:
    """Choose which states to continue from, most where the members of a group differ most.

    Groups have shares in proportion to the spread of their returns (Neyman 1934), members of a group equal ones up to
    a state, and those of one episode lie at equal distances, the first state left out. So which states are chosen
    depends on how the groups ended, as in every sampling that drops groups without spread.

    Args:
        lengths: steps of each episode, `[N]`.
        spread: standard deviation of the returns of each group, `[P]`.
        n_states: how many; fewer are chosen where episodes are too short, none where no group has spread.

    Returns:
        `[T, N]`, T the longest length.
    """
    chosen = np.zeros((int(lengths.max()), len(lengths)), np.bool_)
    if not spread.sum() > 0:
        return chosen
    quota = n_states * spread / spread.sum()
    shares = np.floor(quota).astype(np.int64)
    largest = np.argsort(shares - quota, kind="stable")
    shares[largest[: n_states - int(shares.sum())]] += 1
    group_size = len(lengths) // len(spread)
    for group, share in enumerate(shares.tolist()):
        for member in range(group_size):
            n_own = (share - member + group_size - 1) // group_size
            episode = group * group_size + member
            moments = np.arange(1, n_own + 1) * int(lengths[episode]) // (n_own + 1)
            chosen[moments[moments > 0], episode] = True
    return chosen


def compare_pieces(rewards: Tensor, mask: Tensor, values: Tensor, known: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """Compare what each piece of an episode earned and led to with what it began from.

      Âₜ = Σᵤ γᵘ⁻ˢ rᵤ + γᵉ⁻ˢ V(e) − V(s),  u in s…e−1

    s is the last state with a known value up to t, e the next after t, V of the end is 0: all steps of a piece have
    the same advantage, as the tokens of a step of reasoning in VinePPO.

    Args:
        rewards: `[T, N]`.
        mask: True where a step was taken, `[T, N]`.
        values: V, `[T, N]`, where it is known.
        known: `[T, N]`; True in the first row.
        gamma: discount in [0, 1].

    Returns:
        Advantages, and V(s) for each step; `[T, N]`, float64, zero where `mask` is False.
    """
    earned = torch.zeros_like(values)
    running = torch.zeros_like(values[0])
    for t in range(len(values) - 1, -1, -1):
        running = torch.where(mask[t], rewards[t] + gamma * running, 0.0)
        earned[t] = running
        running = torch.where(known[t], values[t], running)
    advantages, began = torch.zeros_like(values), torch.zeros_like(values)
    for t in range(len(values)):
        before = max(t - 1, 0)
        advantages[t] = torch.where(known[t], earned[t] - values[t], advantages[before])
        began[t] = torch.where(known[t], values[t], began[before])
    return torch.where(mask, advantages, 0.0), torch.where(mask, began, 0.0)
