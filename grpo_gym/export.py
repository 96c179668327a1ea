"""Trained policies for deployment: one file that torch alone can load and run, without this package.

policy = torch.export.load("agent.pt2").module()
actions = policy(observations)
actions, state = policy(observations, state, episode_start)  # with a memory
"""

from __future__ import annotations

import copy
import io
import warnings
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from grpo_gym.acting import remembers
from grpo_gym.action_code import ActionCode
from grpo_gym.deployed import Deployed, DeployedGru
from grpo_gym.policy import MlpPolicy
from grpo_gym.policy_model import PolicyModel
from grpo_gym.prediction import Prediction
from grpo_gym.recurrent import MlpGruPolicy, Recollection
from grpo_gym.types import Array, BoolArray, FloatArray

N_SAMPLES = 64
"""Observations on which an exported policy is compared with the one it came from, at each step."""

N_STEPS = 4
"""Steps in a row for which it is compared, if it has a memory."""

N_TRACED = 2
"""Observations that torch.export follows, and keeps in the file: the fewest from which it sees that n may be any."""


@dataclass(frozen=True)
class Shown:
    """What a policy is shown at a step.

    Attributes:
        rows: observations, as `layout.Layout` has them, `[n, ...]`.
        begins: where an episode begins, `[n]`; None for a policy without a memory.
        masks: legal actions, `[n, mask_size]`; None if all are.
    """

    rows: Array
    begins: BoolArray | None
    masks: BoolArray | None

    def first(self, n: int) -> Shown:
        """Return the first n of the observations."""
        begins, masks = (None if x is None else x[:n] for x in (self.begins, self.masks))
        return Shown(self.rows[:n], begins, masks)


def exported(policy: PolicyModel, action_masks: bool = False) -> bytes:
    """Pack a policy as `torch.export.save` does.

    Args:
        policy: is left as it is.
        action_masks: the exported policy takes masks.

    Returns:
        A `.pt2` file of a `deployed.Deployed` or, with a memory, of a `deployed.DeployedGru`.

    Raises:
        ValueError: if it cannot be exported, has nothing to be masked, or would not act as it does here.
    """
    if not isinstance(policy, MlpPolicy):
        raise ValueError(f"{type(policy).__name__} cannot be exported; expected MlpPolicy, or a subclass of it")
    if remembers(policy) and not isinstance(policy, MlpGruPolicy):
        raise ValueError(
            f"{type(policy).__name__} has a memory of its own and cannot be exported; expected MlpGruPolicy, or a "
            "subclass of it"
        )
    if action_masks and not ActionCode(policy.action_space).mask_size:
        raise ValueError(
            f"action_masks=True, but {policy.action_space} has no choices; only discrete actions have masks"
        )
    policy = copy.deepcopy(policy).cpu().eval().requires_grad_(False)
    steps = _samples(policy, action_masks)
    file = _traced(policy, steps[0].first(N_TRACED))
    loaded = torch.export.load(file).module()
    for n in (1, N_SAMPLES):
        _compare(policy, loaded, [step.first(n) for step in steps])
    return file.getvalue()


def _traced(policy: MlpPolicy, shown: Shown) -> io.BytesIO:
    """Write down what a policy does, for any number of observations."""
    module = DeployedGru(policy) if isinstance(policy, MlpGruPolicy) else Deployed(policy)
    inputs = _inputs(policy, shown, _nothing(policy, N_TRACED))
    layout, batch = policy.preprocessor.layout, {0: torch.export.Dim.DYNAMIC}
    shapes = (layout.nest([batch] * len(layout.leaves)), *[batch] * (len(inputs) - 1))
    file = io.BytesIO()
    with warnings.catch_warnings():
        # torch's own unit keeps a list of its weights, which tracing replaces for a while
        warnings.filterwarnings("ignore", "The tensor attributes? .*_flat_weights")
        try:
            torch.export.save(torch.export.export(module, inputs, dynamic_shapes=shapes), file)
        except Exception as error:  # of many kinds, and also from what is the user's own
            raise ValueError(
                f"{type(policy).__name__} cannot be exported: torch.export does not follow all that it does. {error}"
            ) from error
    file.seek(0)
    return file


def _compare(policy: MlpPolicy, loaded: Any, steps: list[Shown]) -> None:
    """Let an exported policy act beside the one it came from.

    Raises:
        ValueError: with the first actions, or memories, that differ.
    """
    prediction = Prediction(policy.observation_space, policy.action_space)
    layout = ActionCode(policy.action_space).layout
    state = _nothing(policy, len(steps[0].rows))
    for shown in steps:
        memory = Recollection(policy, state, shown.begins) if remembers(policy) else None
        observations = policy.preprocessor.layout.unpack(shown.rows)
        ours = prediction.predict(memory or policy, observations, deterministic=True, action_masks=shown.masks)
        theirs = loaded(*_inputs(policy, shown, state))
        after = []
        if memory is not None:
            theirs, their_state = theirs
            state = memory.state
            after = [(state, their_state)]
        for one, other in [*zip(layout.split(ours), layout.split(theirs), strict=True), *after]:
            if one.shape != other.shape or not np.allclose(one, other, rtol=1e-5, atol=1e-5):
                method = "get_distribution" if memory is None else "get_distribution_from"
                raise ValueError(
                    f"{type(policy).__name__} does not act alike once it is exported, {other.numpy()[:3]} and not "
                    f"{one[:3]}, so no file was written; its {method}(...) must be what predict makes actions of"
                )


def _nothing(policy: MlpPolicy, n: int) -> FloatArray | None:
    """Return what is remembered before the first of n observations, `[n, memory_size]`."""
    return np.zeros((n, policy.memory_size), np.float32) if isinstance(policy, MlpGruPolicy) else None


def _inputs(policy: MlpPolicy, shown: Shown, state: FloatArray | None) -> tuple[Any, ...]:
    """Make what the exported policy takes."""
    layout = policy.preprocessor.layout
    observations = layout.nest(torch.from_numpy(np.array(part)) for part in layout.parts(shown.rows))
    return observations, *(torch.from_numpy(x) for x in (state, shown.begins, shown.masks) if x is not None)


def _samples(policy: MlpPolicy, action_masks: bool) -> list[Shown]:
    """Draw what to compare by, for as many steps as it takes."""
    space: gym.Space[Any] = copy.deepcopy(policy.observation_space)
    space.seed(0)
    rng, code, steps = np.random.default_rng(0), ActionCode(policy.action_space), []
    for _ in range(N_STEPS if remembers(policy) else 1):
        rows = np.stack([policy.preprocessor.layout.pack_one(space.sample()) for _ in range(N_SAMPLES)])
        masks = rng.random((N_SAMPLES, code.mask_size)) < 0.5 if action_masks else None
        for choice in [] if masks is None else code.by_choice(masks):
            choice[:, 0] |= ~choice.any(axis=1)
        begins = rng.random(N_SAMPLES) < 0.25 if remembers(policy) else None
        steps.append(Shown(rows, begins, masks))
    return steps
