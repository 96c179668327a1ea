"""Vector steps on their way from a worker: end to end in a few arrays, which travel sooner than thousands."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from grpo_gym.rollout import Played
from grpo_gym.types import Step


@dataclass(frozen=True)
class PackedSteps:
    """Vector steps end to end. Of their infos only those of ended episodes travel.

    Attributes:
        lengths: rows of each step.
        n_steps: environment steps that each took.
        joined: all of them; None if there are none.
        infos: by row of `joined`.
    """

    lengths: list[int]
    n_steps: list[int]
    joined: Played | None
    infos: dict[int, dict[str, Any]]

    @staticmethod
    def of(steps: Sequence[Played]) -> PackedSteps:
        """Pack these steps."""
        if not steps:
            return PackedSteps([], [], None, {})
        joined = Played.join(steps)
        infos = {row: joined.infos[row] for row in joined.ended.nonzero()[0].tolist()}
        lengths, n_steps = [len(played.ended) for played in steps], [played.step.n_steps for played in steps]
        return PackedSteps(lengths, n_steps, joined._replace(infos=()), infos)

    def __iter__(self) -> Iterator[Played]:
        end = 0
        for length, n_steps in zip(self.lengths, self.n_steps, strict=True):
            assert self.joined is not None
            step, rows = self.joined.step, slice(end, end + length)
            masks = None if step.action_masks is None else step.action_masks[rows]
            yield Played(
                Step(
                    step.observations[rows],
                    step.rewards[rows],
                    step.terminated[rows],
                    step.truncated[rows],
                    masks,
                    infos=(),
                    n_steps=n_steps,
                ),
                self.joined.actions[rows],
                self.joined.ended[rows],
                [self.infos.get(row, {}) for row in range(end, end + length)],
            )
            end += length


def side_by_side(parts: Sequence[PackedSteps]) -> Iterator[Played]:
    """Put the t-th vector steps of all parts together, for every t."""
    for together in itertools.zip_longest(*parts):
        yield Played.join([played for played in together if played is not None])
