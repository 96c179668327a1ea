"""A policy that stays behind, how far the learner went from it, and what that costs."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from grpo_gym.acting import remembers
from grpo_gym.adapters import without_adapters
from grpo_gym.losses import kl_k1, kl_k2, kl_k3
from grpo_gym.policy_model import Likelihood, PolicyModel
from grpo_gym.types import Batch, Rollout, Rows

ESTIMATORS = ("k1", "k2", "k3", "exact")
PLACES = ("loss", "reward")

_OF_ACTIONS = {"k1": kl_k1, "k2": kl_k2, "k3": kl_k3}


def divergence(how: str, distribution: Likelihood, log_probs: Tensor, other: Rows) -> Tensor:
    """Estimate KL(π‖π_ref) for each row.

    Args:
        how: "k1", "k2", "k3" (see `losses`), which look at the action taken, or "exact", which looks at all.
        distribution: π, M rows.
        log_probs: log π(a|s), `[M]`.
        other: log π_ref(a|s), `[M]`; for "exact" the distributions π_ref, M rows.

    Returns:
        `[M]`, in nats.

    Raises:
        ValueError: if the distribution has no exact KL.
    """
    if how != "exact":
        estimate: Tensor = _OF_ACTIONS[how](log_probs, other)  # type: ignore[arg-type]
        return estimate
    if not hasattr(distribution, "kl"):
        raise ValueError(
            f"kl_estimator='exact' needs a method kl(other), which {type(distribution).__name__} has not; use 'k3'"
        )
    known: Any = distribution
    exact: Tensor = known.kl(other)
    return exact


def loss_to_reference(how: str, distribution: Likelihood, log_probs: Tensor, rows: Batch) -> Tensor | None:
    """Estimate KL(π_θ‖π_ref) of a minibatch, to be a part of its loss; None without a reference.

    As a loss on actions of the policy that acted, "k2" has the gradient of KL(π_θ‖π_ref), "exact" too, and "k3" that
    of KL(π_ref‖π_θ), as GRPO has it. The mean of "k1" has no gradient: here it is multiplied by the probability ratio
    ρ, which is 1 at first and gives it the gradient of KL(π_θ‖π_ref).

    Args:
        how: see `divergence`.
        distribution: π_θ with gradient, M rows.
        log_probs: log π_θ(a|s) with gradient, `[M]`.
        rows: the minibatch.
    """
    if rows.reference is None:
        return None
    estimate = divergence(how, distribution, log_probs, rows.reference)
    return (log_probs - rows.old_log_probs).exp() * estimate if how == "k1" else estimate


def adapted(kl_coef: float, kl: float, target: float) -> float:
    """Double the coefficient where the divergence is above 1.5 times its target, halve it where it is below 2/3.

    See Schulman et al. 2017 (arXiv 1707.06347), §4.
    """
    if kl > 1.5 * target:
        return 2.0 * kl_coef
    return kl_coef / 2.0 if kl < target / 1.5 else kl_coef


class Reference:
    """Keeps a reference policy, looks at each rollout with it once, and follows the learner if it shall.

    Args:
        policy: copied as it is now, normalisation included; with `shares_base` it is the learner itself, looked at
            without its adapters: no second network.
        kl_coef: weight of the divergence.
        estimator: one of `ESTIMATORS`.
        update: None to stay; k ≥ 1 to become the learner every k iterations; τ < 1 to move the share τ toward it after
            each.
        target: the divergence toward which `kl_coef` is moved after each iteration; None to leave it.
        shares_base: see `policy`.

    Attributes:
        kl_coef: as it is now.
    """

    def __init__(
        self,
        policy: PolicyModel,
        kl_coef: float,
        estimator: str,
        update: float | None = None,
        target: float | None = None,
        shares_base: bool = False,
    ):
        self.policy = policy if shares_base else copy.deepcopy(policy)
        self.kl_coef, self._estimator = kl_coef, estimator
        self._update, self._target, self._shares_base = update, target, shares_base

    @torch.no_grad()
    def look_at(self, rollout: Rollout) -> Rows:
        """Return log π_ref of the rollout's actions, `[M]`; for "exact" its M distributions."""
        base: AbstractContextManager[None] = without_adapters(self.policy) if self._shares_base else nullcontext()
        with base:
            distribution = _distribution(self.policy, rollout)
        rows: Rows = distribution  # type: ignore[assignment]
        return rows if self._estimator == "exact" else distribution.log_prob(rollout.actions.to(self.policy.device))

    @torch.no_grad()
    def penalise(self, rollout: Rollout, policy: PolicyModel) -> tuple[Rollout, float]:
        """Take kl_coef times the divergence from each step's reward.

        Of the four "k1" alone has the gradient of the expected divergence here. "exact" is the same for all actions of
        a state: it counts only for the steps that lead there. "k2" and "k3" punish deviating either way.

        Args:
            rollout: as played.
            policy: that played it.

        Returns:
            The rollout with rewards `r − kl_coef · KL(π_old‖π_ref)`, and the mean divergence.
        """
        device = policy.device
        distribution = _distribution(policy, rollout)
        kl = divergence(self._estimator, distribution, rollout.log_probs.to(device), self.look_at(rollout)).cpu()
        return replace(rollout, rewards=rollout.rewards - self.kl_coef * rollout.padded(kl.float())), float(kl.mean())

    def follow(self, policy: PolicyModel, iteration: int, kl: float) -> None:
        """Move after an iteration, the `iteration`th from 1 on, whose mean divergence was `kl`; nan if unknown."""
        if self._target is not None:
            self.kl_coef = adapted(self.kl_coef, kl, self._target)
        if self._update is None:
            return
        if self._update >= 1:
            if iteration % int(self._update) == 0:
                self.policy = copy.deepcopy(policy)
            return
        with torch.no_grad():
            for mine, theirs in zip(self.policy.state_dict().values(), policy.state_dict().values(), strict=True):
                mine.lerp_(theirs, self._update)

    def check_fits(self, policy: PolicyModel) -> None:
        """Require the learner's shapes, if the reference shall move toward it.

        Raises:
            ValueError: if they differ.
        """
        shapes, expected = ({k: x.shape for k, x in p.state_dict().items()} for p in (self.policy, policy))
        if self._update is not None and shapes != expected:
            raise ValueError(
                f"reference_update={self._update} moves the reference toward the policy, but their networks differ: "
                f"{_differences(shapes, expected)}; leave reference_update out"
            )

    def state(self) -> dict[str, Tensor]:
        """Return what a checkpoint keeps of it."""
        tensors = {} if self._shares_base else self.policy.state_dict()
        coefficient = torch.tensor(self.kl_coef, dtype=torch.float64)
        return {"kl_coef": coefficient, **{f"policy.{name}": tensor for name, tensor in tensors.items()}}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take back what `state` returned, or the part of it that there is."""
        if "kl_coef" in state:
            self.kl_coef = float(state["kl_coef"])
        tensors = {name.removeprefix("policy."): x for name, x in state.items() if name.startswith("policy.")}
        if tensors:
            self.policy.load_state_dict(tensors)


def _differences(shapes: Mapping[str, torch.Size], expected: Mapping[str, torch.Size]) -> str:
    names = [name for name in {**shapes, **expected} if shapes.get(name) != expected.get(name)]
    return ", ".join(f"{n} {tuple(shapes.get(n, ()))} and {tuple(expected.get(n, ()))}" for n in names)


def _distribution(policy: PolicyModel, rollout: Rollout) -> Likelihood:
    masks = rollout.action_masks
    features = policy.preprocess(rollout.observations.to(policy.device))
    inputs: tuple[Any, ...] = (features, None if masks is None else masks.to(policy.device))
    if remembers(policy):
        inputs = (*inputs, None, rollout.lengths)
    distribution: Likelihood = policy(*inputs)
    return distribution


def require_whole_episodes(policy: object, n_steps: int | None) -> None:
    """Refuse to compare a policy with a memory where episodes are cut: what is remembered at a cut is the learner's.

    Raises:
        ValueError: if it is one, and `n_steps` cuts them.
    """
    if n_steps is not None and remembers(policy):
        raise ValueError(
            f"n_steps={n_steps} cuts episodes, and kl_coef compares policies of which one has a memory, and was not "
            "there before the cut; expected n_steps=None for whole episodes, kl_coef=0, or policies without a memory"
        )
