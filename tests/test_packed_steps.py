import numpy as np

from grpo_gym.packed_steps import PackedSteps, side_by_side
from grpo_gym.rollout import Played
from grpo_gym.types import Step


def played(rewards: list[float], ended: list[bool], n_steps: int) -> Played:
    k = len(rewards)
    over = np.array(ended)
    step = Step(np.arange(k)[:, None] * 1.0, np.array(rewards), over, ~over & False, None, (), n_steps)
    infos = [
        {"episode": {"r": reward, "l": 1}} if end else {"not": "sent"}
        for reward, end in zip(rewards, ended, strict=True)
    ]
    return Played(step, np.array(rewards) + 0.5, over, infos)


def test_what_is_unpacked_is_what_was_packed_but_for_infos_of_episodes_that_go_on() -> None:
    steps = [played([1.0, 2.0, 3.0], [False, True, False], n_steps=5), played([4.0, 5.0], [True, False], n_steps=2)]
    first, second = PackedSteps.of(steps)
    assert first.step.rewards.tolist() == [1.0, 2.0, 3.0]
    assert second.step.rewards.tolist() == [4.0, 5.0]
    assert first.actions.tolist() == [1.5, 2.5, 3.5]
    assert [first.step.n_steps, second.step.n_steps] == [5, 2]
    assert first.ended.tolist() == [False, True, False]
    assert list(first.infos) == [{}, {"episode": {"r": 2.0, "l": 1}}, {}]
    assert list(second.infos) == [{"episode": {"r": 4.0, "l": 1}}, {}]


def test_masks_travel_too() -> None:
    one = played([1.0], [False], n_steps=1)
    masked = one._replace(step=one.step._replace(action_masks=np.array([[True, False]])))
    (only,) = PackedSteps.of([masked])
    assert only.step.action_masks is not None
    assert only.step.action_masks.tolist() == [[True, False]]


def test_no_steps_are_packed_to_none() -> None:
    assert list(PackedSteps.of([])) == []


def test_a_longer_part_goes_on_alone() -> None:
    long = PackedSteps.of([played([1.0], [False], 1), played([2.0], [True], 1)])
    short = PackedSteps.of([played([3.0], [True], 4)])
    together = list(side_by_side([long, short]))
    assert [step.step.rewards.tolist() for step in together] == [[1.0, 3.0], [2.0]]
    assert [step.step.n_steps for step in together] == [5, 1]
