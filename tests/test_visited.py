"""What is kept of earlier iterations, and put together again."""

from dataclasses import replace

import torch
from hypothesis import given
from hypothesis import strategies as st

from grpo_gym.visited import Visited, join
from tests.toys import rollout_of


def flat(observations: torch.Tensor) -> torch.Tensor:
    return observations.flatten(1).float()


def visited(
    keys: list[tuple[int, int]], states: list[list[float]], last: list[float], terminated: list[bool]
) -> Visited:
    """Trajectories of (seed, member) that saw these numbers, and earned ten times as much."""
    column = torch.tensor([number for trajectory in states for number in trajectory])[:, None]
    return Visited(
        states=column,
        rewards=10 * column[:, 0],
        lengths=torch.tensor([len(trajectory) for trajectory in states]),
        terminated=torch.tensor(terminated),
        last_states=torch.tensor(last)[:, None],
        seeds=torch.tensor([seed for seed, _ in keys]),
        members=torch.tensor([member for _, member in keys]),
    )


def test_it_has_what_the_rollout_has() -> None:
    rollout = replace(
        rollout_of([[1.0, 2.0], [3.0], [4.0], [5.0, 6.0]], 2),
        observations=torch.arange(12.0).view(6, 2, 1),
        final_observations=torch.arange(8.0).view(4, 2, 1),
    )
    found = Visited.of(rollout, flat)
    assert found.states.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10, 11]]
    assert found.rewards.tolist() == [1, 2, 3, 4, 5, 6]
    assert found.lengths.tolist() == [2, 1, 1, 2]
    assert found.owners.tolist() == [0, 0, 1, 2, 3, 3]
    assert found.padded_rewards.tolist() == [[1, 3, 4, 5], [2, 0, 0, 6]]
    assert found.last_states.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert found.seeds.tolist() == rollout.seeds[rollout.groups].tolist()
    assert found.members.tolist() == [0, 1, 0, 1]


def test_pieces_of_an_episode_become_one_trajectory() -> None:
    # (seed 7, member 0) goes on, (7, 1) ended; (5, 1) begins: episodes are sorted by seed and member
    first = visited([(7, 0), (7, 1)], [[1, 2], [3, 4]], [5, 6], [False, True])
    second = visited([(7, 0), (5, 1)], [[5, 7], [8]], [9, 10], [True, False])
    joined = join([first, second])
    assert joined.states[:, 0].tolist() == [8, 1, 2, 5, 7, 3, 4]
    assert joined.rewards.tolist() == [80, 10, 20, 50, 70, 30, 40]
    assert joined.lengths.tolist() == [1, 4, 2]
    assert joined.terminated.tolist() == [False, True, True]
    assert joined.last_states[:, 0].tolist() == [10, 9, 6]
    assert joined.seeds.tolist() == [5, 7, 7]
    assert joined.members.tolist() == [1, 0, 1]


def test_an_episode_in_three_pieces_keeps_their_order() -> None:
    joined = join([visited([(1, 0)], [[n, n + 1]], [n + 2], [n == 4]) for n in (0, 2, 4)])
    assert joined.states[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert joined.terminated.tolist() == [True]


@given(st.lists(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, unique=True), min_size=1))
def test_each_episode_has_its_steps_in_the_order_of_time(iterations: list[list[tuple[int, int]]]) -> None:
    steps: dict[tuple[int, int], list[float]] = {}
    made = []
    for i, keys in enumerate(iterations):
        states = [[100.0 * i + n] * (1 + n % 3) for n in range(len(keys))]
        for key, seen in zip(keys, states, strict=True):
            steps.setdefault(key, []).extend(seen)
        made.append(visited(keys, states, [i + 0.5] * len(keys), [False] * len(keys)))
    joined = join(made)
    episodes = list(zip(joined.seeds.tolist(), joined.members.tolist(), strict=True))
    assert episodes == sorted(steps)
    assert joined.states[:, 0].tolist() == [state for key in episodes for state in steps[key]]
    latest = [max(i for i, keys in enumerate(iterations) if key in keys) for key in episodes]
    assert joined.last_states[:, 0].tolist() == [i + 0.5 for i in latest]
