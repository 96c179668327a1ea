"""The loop of an evaluation: a batch of environments, a player, and the episodes that come of them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from grpo_gym.env_layers import is_true_end, recorded
from grpo_gym.eval_envs import EvalBatch, Moment, each_action
from grpo_gym.types import BoolArray, Predictor

EvalHook = Callable[[dict[str, Any], dict[str, Any]], Any]


@dataclass(frozen=True)
class Episode:
    """What an evaluation episode came to.

    Attributes:
        reward: the sum of its rewards, not discounted.
        length: in steps.
        success: `info["is_success"]` at its end; NaN where the environment does not say.
        cut: it was ended by us, after `max_episode_steps`.
    """

    reward: float
    length: int
    success: float = math.nan
    cut: bool = False


@dataclass(frozen=True)
class Player:
    """Who plays, where, and how; the fields are arguments of `evaluation.play_episodes`.

    Attributes:
        env: what the caller handed in, for the callback.
        batch: the same, as a batch.
    """

    model: Predictor
    env: Any
    batch: EvalBatch
    deterministic: bool
    render: bool
    callback: EvalHook | None
    max_episode_steps: int | None

    def play(self, targets: Sequence[int]) -> list[Episode]:
        """Play `targets[slot]` episodes in each environment; return all first ones, then all second ones, ..."""
        n = self.batch.n_envs
        played: list[list[Episode]] = [[] for _ in range(n)]
        rewards, lengths = np.zeros(n), np.zeros(n, np.int64)
        state: Any = None
        moment = self.batch.reset()
        masks = _masks_for(self.model, self.batch, moment)
        while True:
            wanted = np.array([len(done) < target for done, target in zip(played, targets, strict=True)])
            if not wanted.any():
                break
            live = wanted & ~moment.idle
            observations = moment.observations
            actions, state = self.model.predict(
                observations,
                state=state,
                episode_start=moment.starts,
                deterministic=self.deterministic,
                **({} if masks is None else {"action_masks": masks.read(moment)}),
            )
            each = each_action(actions, self.batch.action_space)
            shape = (len(each),) if each is not actions else np.shape(actions)
            if shape[:1] != (n,):
                raise ValueError(
                    f"predict returned actions of shape {shape} for a batch of {n} observations; expected [{n}, ...]"
                )
            moment = self.batch.step(actions)
            rewards[live] += moment.rewards[live]
            lengths[live] += 1
            for slot in map(int, np.flatnonzero(live)):
                if self.callback is not None:
                    self.callback(self._locals(slot, observations, actions, moment), globals())
                episode = self._ended(slot, float(rewards[slot]), int(lengths[slot]), moment)
                if episode is not None:
                    played[slot].append(episode)
                    rewards[slot], lengths[slot] = 0.0, 0
            if self.render:
                self.batch.render()
        return [done[k] for k in range(max(targets)) for done in played if k < len(done)]

    def _ended(self, slot: int, reward: float, length: int, moment: Moment) -> Episode | None:
        """Return the episode of an environment if it has come to its end."""
        info, cut = moment.step_infos[slot], bool(moment.cut[slot])
        if cut or (moment.dones[slot] and is_true_end(info, self.batch.monitored)):
            if not cut:
                reward, length = recorded(info) or (reward, length)
            success = info.get("is_success")
            return Episode(reward, length, math.nan if success is None else float(success), cut)
        if self.max_episode_steps is not None and length >= self.max_episode_steps:
            raise RuntimeError(
                f"the episode of sub-environment {slot} has run for {length} steps without an end. Give its "
                "environments a time limit (gymnasium.wrappers.TimeLimit), or raise max_episode_steps"
            )
        return None

    def _locals(self, slot: int, observations: Any, actions: Any, moment: Moment) -> dict[str, Any]:
        return {
            "i": slot,
            "reward": float(moment.rewards[slot]),
            "done": bool(moment.dones[slot]),
            "info": moment.step_infos[slot],
            "observations": observations,
            "actions": actions,
            "new_observations": moment.observations,
            "model": self.model,
            "env": self.env,
        }


def _masks_for(model: Predictor, batch: EvalBatch, opening: Moment) -> _Masks | None:
    """Find out once how to read masks; None if the player takes none or the environments have none."""
    if "action_masks" not in inspect.signature(model.predict).parameters:
        return None
    method = batch.find_mask_method()
    if method is not None:
        return _Masks(method)
    return _Masks(None) if any("action_mask" in info for info in opening.infos) else None


class _Masks:
    """The masks of a batch, read through a method or, without one, from the infos."""

    def __init__(self, method: Callable[[], Sequence[Any]] | None) -> None:
        self._method = method
        self._width = 0

    def read(self, moment: Moment) -> BoolArray:
        """Return masks `[n, n_actions]`; all True where no action will be played."""
        rows = self._rows_in_infos(moment) if self._method is None else self._method()
        live = [int(slot) for slot in np.flatnonzero(~moment.idle)]
        if live:
            self._width = np.size(rows[live[0]])
        masks = np.ones((len(rows), self._width), np.bool_)
        for slot in live:
            masks[slot] = np.ravel(rows[slot])
        return masks

    @staticmethod
    def _rows_in_infos(moment: Moment) -> list[Any]:
        for slot, info in enumerate(moment.infos):
            if "action_mask" not in info and not moment.idle[slot]:
                raise ValueError(
                    f'sub-environment {slot} gave no info["action_mask"]; where masks are used, the info of every '
                    "reset and step must hold one"
                )
        return [info.get("action_mask") for info in moment.infos]
