"""The records that travel through one training step, and the Protocols the modules meet by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

DEFAULT_HORIZON = 10_000
"""Steps after which an episode is cut where neither the environment nor the user sets a limit."""

ENVPOOL = "envpool:"
"""How the ids of EnvPool's environments begin."""

Schedule = Callable[[float], float]
"""A function of the progress remaining, which falls from 1 at the start of `learn` to 0 at its end."""


FeatureMap = Callable[[Tensor], Tensor]
"""A fixed function of observations: `[m, ...]` → `[m, d]`."""


@runtime_checkable
class Predictor(Protocol):
    """Whatever can choose actions: our agent, a stable-baselines3 model, a scripted player."""

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[Any, Any]:
        """Return `(actions, next_state)` for one observation or a batch of them."""
        ...


class Rows(Protocol):
    """Something with M rows: a tensor, or a batch of distributions."""

    def __getitem__(self, rows: Tensor) -> Any:
        """Return these rows."""
        ...


class Logger(Protocol):
    """What the modules ask of a logger; `grpo_gym.logger.Logger` and stable-baselines3's both do."""

    def record(self, key: str, value: Any, exclude: Any = None) -> None:
        """Keep `value` under `key` until the next `dump`."""
        ...

    def dump(self, step: int = 0) -> None:
        """Write what was recorded, as of environment step `step`."""
        ...


class CallbackModel(Protocol):
    """What a callback may read of, and ask from, the agent that it watches."""

    num_timesteps: int
    _total_timesteps: int

    @property
    def n_envs(self) -> int:
        """Episodes in play at once."""
        ...

    @property
    def logger(self) -> Any:
        """The logger in use."""
        ...

    def get_env(self) -> Any:
        """Return the training environment."""
        ...

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        """Choose actions."""
        ...

    def save(self, path: Any) -> None:
        """Write a checkpoint."""
        ...


class Step(NamedTuple):
    """What k stepped slots returned; row i is slot `slots[i]`.

    Attributes:
        observations: `[k, ...]`.
        rewards: `[k]`, float64 as the environment gave them.
        terminated: `[k]`.
        truncated: `[k]`.
        action_masks: legal next actions, `[k, n_actions]`; None if the environment has no masks.
        infos: one dictionary a slot; from vector environments of `is_success` alone, or no dictionaries at all.
        n_steps: environment steps that this took; more than k if idle slots had to be stepped too.
    """

    observations: Array
    rewards: Array
    terminated: BoolArray
    truncated: BoolArray
    action_masks: BoolArray | None
    infos: Sequence[dict[str, Any]]
    n_steps: int


class Slots(Protocol):
    """What `rollout.collect` steps. Observations and actions are rows, as `layout.Layout` has them."""

    num_envs: int
    observation_space: gym.Space[Any]
    action_space: gym.Space[Any]
    has_time_limit: bool
    time_limit: int | None
    name: str

    def start(self, slots: IntArray, seeds: IntArray) -> tuple[Array, BoolArray | None]:
        """Reset `slots[i]` to `seeds[i]`; return first observations `[k, ...]` and action masks."""
        ...

    def step(self, slots: IntArray, actions: Array) -> Step:
        """Step these slots alone, with the environment's own actions `[k, ...]`."""
        ...

    def close(self) -> None:
        """Release the environments."""
        ...


@dataclass(frozen=True)
class Rollout:
    """The trajectories of one iteration: N of them, longest T, M valid steps, from P groups of G members.

    A trajectory is a whole episode, or the piece of one that fell into this iteration. With whole episodes
    N = P·G, and trajectory `n` is member `n % G` of group `n // G`. Flat arrays `[M, ...]` hold one trajectory
    after the other, each in the order of time; `flat` brings a `[T, N]` array into that order, `padded` brings it
    back. Padding exists in `rewards` and `mask` alone.

    Attributes:
        observations: what the policy saw, `[M, ...]`, not normalised; rows as `layout.Layout` has them.
        actions: what the policy chose, `[M, ...]`, before it is brought into the bounds of the action space.
        log_probs: log-probability of each action when it was chosen, `[M]`.
        action_masks: True where an action was legal, `[M, n_actions]`; None without masks.
        rewards: `[T, N]`, zero after a trajectory's end.
        mask: True where a step was taken, `[T, N]`.
        terminated: the episode ended by itself, `[N]`.
        truncated: the episode was ended by a time limit, `[N]`. Where neither is true the trajectory was cut:
            its episode goes on in the next iteration.
        final_observations: what was seen after the last step of each trajectory, `[N, ...]`.
        starts: the trajectory begins with the start of an episode, `[N]`.
        groups: which group each trajectory belongs to, `[N]`, in 0…P−1.
        members: which member of its group it is, `[N]`, in 0…G−1.
        seeds: the reset seed of each group, `[P]`.
        group_size: members of a group, G.
        idle_steps: environment steps taken by slots without an episode; counted, never learned from.
        memories: what the policy remembered when each trajectory began, `[N, h]`; None if it has no memory.
    """

    observations: Tensor
    actions: Tensor
    log_probs: Tensor
    action_masks: Tensor | None
    rewards: Tensor
    mask: Tensor
    terminated: Tensor
    truncated: Tensor
    final_observations: Tensor
    starts: Tensor
    groups: Tensor
    members: Tensor
    seeds: IntArray
    group_size: int
    idle_steps: int = 0
    memories: Tensor | None = None

    @property
    def n_steps(self) -> int:
        """Valid steps M, idle ones not included."""
        return int(self.log_probs.shape[0])

    @property
    def lengths(self) -> Tensor:
        """Steps of each trajectory, `[N]`."""
        return self.mask.sum(dim=0)

    @property
    def first_observations(self) -> Tensor:
        """The first observation of each trajectory, `[N, ...]`."""
        lengths = self.lengths
        return self.observations[lengths.cumsum(0) - lengths]

    def flat(self, padded: Tensor) -> Tensor:
        """Bring `[T, N]` into the flat order `[M]`: trajectory after trajectory."""
        return padded.T[self.mask.T]

    def padded(self, flat: Tensor) -> Tensor:
        """Bring `[M]` back to `[T, N]`, zero where no step was taken."""
        padded = flat.new_zeros(self.mask.T.shape)
        padded[self.mask.T] = flat
        return padded.T


class Compared(NamedTuple):
    """What a baseline makes of a rollout: three arrays `[T, N]` in reward units, zero where no step was taken.

    Attributes:
        advantages: what is learned from, not scaled yet.
        returns: returns-to-go; with an estimate of what comes after a truncation or a cut if the baseline makes one.
        values: what a step's return-to-go is compared with.
    """

    advantages: Tensor
    returns: Tensor
    values: Tensor


@dataclass(frozen=True)
class Batch:
    """What the update sees: flat, detached, without padding; and without episodes, unless the policy has a memory.

    Attributes:
        observations: preprocessed and normalised observations, `[M, ...]`.
        actions: `[M, ...]`.
        old_log_probs: under the policy that acted, `[M]`.
        advantages: `[M]`.
        weights: share of each step in the loss, `[M]`, mean 1; this alone is the aggregation.
        action_masks: `[M, n_actions]` or None.
        trajectories: where whole ones are looked at, to which each row belongs, `[M]`, rising; else None.
        reference: what the reference policy says of each row, see `references.Reference.look_at`; None without one.
        memories: of all trajectories, see `Rollout`, `[N, h]`; None where each row can be learned from alone.
    """

    observations: Tensor
    actions: Tensor
    old_log_probs: Tensor
    advantages: Tensor
    weights: Tensor
    action_masks: Tensor | None = None
    trajectories: Tensor | None = None
    reference: Rows | None = None
    memories: Tensor | None = None

    def __len__(self) -> int:
        return int(self.old_log_probs.shape[0])

    @property
    def inputs(self) -> tuple[Any, ...]:
        """What the policy is called with; with memories, rows of whole trajectories."""
        if self.trajectories is None or self.memories is None:
            return self.observations, self.action_masks
        kept, lengths = torch.unique_consecutive(self.trajectories, return_counts=True)
        return self.observations, self.action_masks, self.memories[kept], lengths.cpu()

    def select(self, index: Tensor) -> Batch:
        """Return the rows of a minibatch."""
        return Batch(
            self.observations[index],
            self.actions[index],
            self.old_log_probs[index],
            self.advantages[index],
            self.weights[index],
            None if self.action_masks is None else self.action_masks[index],
            None if self.trajectories is None else self.trajectories[index],
            None if self.reference is None else self.reference[index],
            self.memories,
        )
