from collections import Counter
from typing import Any, ClassVar

import grpo_envs  # noqa: F401 registers the environments
import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from grpo_gym import GRPO, BaseCallback
from grpo_gym.baselines import BASELINES, Comparison
from grpo_gym.groups import plan
from grpo_gym.rollout import Played, collect
from grpo_gym.types import Array, BoolArray, FloatArray, Rollout
from grpo_gym.vec import make_slots
from grpo_gym.vine import Vine, choose_states, compare_pieces
from tests.agents import digest, small
from tests.toys import IgnoresSeed, MaskedByInfo, Walk


class Sum(gym.Env[Any, Any]):
    """Four steps; pays 1 at the end if at least three of the four actions were 1."""

    observation_space = Box(0.0, 4.0, (2,), np.float32)
    action_space = Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = self.total = 0
        return self._see(), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        self.total += int(action)
        return self._see(), float(self.t == 4 and self.total >= 3), self.t == 4, False, {}

    def _see(self) -> Array:
        return np.array([self.t, self.total], np.float32)


class Coin:
    """Acts at random, 0 or 1 alike."""

    noise_size = 1

    def act(self, observations: Array, noise: FloatArray | None, action_masks: BoolArray | None = None) -> Any:
        assert noise is not None
        return (noise[:, 0] < 0.5).astype(np.int64), np.full(len(noise), np.log(0.5), np.float32)

    def to_env(self, actions: Array) -> Array:
        return actions


def rollout_of(make_env: Any, n_groups: int = 2, group_size: int = 4, seed: int = 0) -> Rollout:
    rng = np.random.default_rng(seed)
    rollout = collect(make_slots(make_env, 4), Coin(), plan(rng, n_groups, group_size))
    assert rollout is not None
    return rollout


def compare(vine: Vine, rollout: Rollout, steps: Counter[str] | None = None, gamma: float = 1.0) -> Any:
    """What the vine makes of a rollout."""
    counted = Counter[str]() if steps is None else steps

    def on_step(played: Played) -> bool:
        counted["steps"] += played.step.n_steps
        return True

    compared = BASELINES["leave_one_out"](rollout, Comparison(gamma))
    return vine.compare(rollout, compared, gamma, Coin(), np.random.default_rng(1), on_step)


# --- which states ---------------------------------------------------------------------------------------------


def test_states_go_where_the_groups_differ_most_at_equal_distances() -> None:
    lengths, spread = np.array([6, 6, 9, 3]), np.array([0.0, 2.0])
    chosen = choose_states(lengths, spread, 3)
    assert chosen.shape == (9, 4)
    assert np.argwhere(chosen.T).tolist() == [[2, 3], [2, 6], [3, 1]]  # thirds of the first, half of the second


def test_shares_follow_the_spread() -> None:
    lengths, spread = np.full(6, 100), np.array([1.0, 3.0, 0.0])
    assert choose_states(lengths, spread, 8).sum(axis=0).tolist() == [1, 1, 3, 3, 0, 0]


def test_without_spread_nothing_is_played() -> None:
    assert not choose_states(np.array([5, 5]), np.array([0.0]), 4).any()


@given(
    lengths=st.lists(st.integers(1, 12), min_size=4, max_size=4),
    spread=st.lists(st.floats(0, 5), min_size=2, max_size=2),
    n_states=st.integers(1, 30),
)
def test_never_the_first_state_nor_beyond_the_end_nor_more_than_asked(
    lengths: list[int], spread: list[float], n_states: int
) -> None:
    chosen = choose_states(np.array(lengths), np.array(spread), n_states)
    assert not chosen[0].any()
    assert not (chosen & (np.arange(len(chosen))[:, None] >= np.array(lengths))).any()
    assert chosen.sum() <= n_states


# --- what is made of their values -----------------------------------------------------------------------------


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def test_a_piece_is_compared_with_the_values_at_its_ends() -> None:
    rewards, mask = column(1, 0, 2, 4), torch.ones(4, 1, dtype=torch.bool)
    known = torch.tensor([[True], [False], [True], [False]])
    advantages, values = compare_pieces(rewards, mask, column(3, 0, 5, 0), known, 0.5)
    # 1 + 0/2 + 5/4 − 3, and 2 + 4/2 − 5
    assert advantages[:, 0].tolist() == [-0.75, -0.75, -1.0, -1.0]
    assert values[:, 0].tolist() == [3, 3, 5, 5]


@settings(max_examples=30)
@given(st.lists(st.integers(-5, 5), min_size=5, max_size=5), st.lists(st.booleans(), min_size=4, max_size=4))
def test_without_discount_the_pieces_add_up_to_the_whole(rewards: list[int], known: list[bool]) -> None:
    is_known = torch.tensor([True, *known])[:, None]
    values = column(7, 1, -2, 3, 4)
    advantages, _ = compare_pieces(column(*rewards), torch.ones(5, 1, dtype=torch.bool), values, is_known, 1.0)
    assert float(advantages[is_known].sum()) == sum(rewards) - 7


def test_without_chosen_states_it_is_leave_one_out() -> None:
    rollout = rollout_of(Walk)
    plain = BASELINES["leave_one_out"](rollout, Comparison(0.9))
    known = torch.zeros_like(rollout.mask)
    known[0] = True
    advantages, _ = compare_pieces(rollout.rewards, rollout.mask, plain.values, known, 0.9)
    assert torch.allclose(advantages, plain.advantages)


# --- values of known states -----------------------------------------------------------------------------------


def test_the_mean_of_many_continuations_is_the_value_of_the_state() -> None:
    rollout = rollout_of(Sum)
    vine = Vine(Sum, n_states=8, n_continuations=400, n_slots=32)
    _, _, values = compare(vine, rollout)
    exact = {0: 0.0, 1: 0.25, 2: 0.75}  # after two steps: both of two, at least one of two
    totals = rollout.padded(rollout.observations[:, 1])[2].tolist()
    spread = rollout.rewards.sum(dim=0).view(-1, 4).std(dim=1) > 0
    checked = [n for n in range(8) if spread[n // 4]]
    assert len(checked) >= 4
    for n in checked:
        assert float(values[2, n]) == pytest.approx(exact[int(totals[n])], abs=0.08)


def test_in_expectation_the_advantage_is_that_of_a_critic_who_knows() -> None:
    rollout = rollout_of(Sum)
    advantages, _, values = compare(Vine(Sum, n_states=8, n_continuations=400, n_slots=32), rollout)
    last = rollout.rewards.sum(dim=0) - values[2]
    spread = (rollout.rewards.sum(dim=0).view(-1, 4).std(dim=1) > 0).repeat_interleave(4)
    assert torch.allclose(advantages[3][spread], last[spread])


def test_groups_that_tie_stay_exactly_zero() -> None:
    class Same(Sum):
        def step(self, action: Any) -> Any:
            seen, _, terminated, truncated, info = super().step(action)
            return seen, 1.0, terminated, truncated, info

    steps = Counter[str]()
    advantages, _, _ = compare(Vine(Same, 8, 2, 4), rollout_of(Same), steps)
    assert not advantages.any()
    assert not steps


# --- exactness and counting -----------------------------------------------------------------------------------


class Uncopied(IgnoresSeed):
    """Can neither be copied nor replayed."""

    def __deepcopy__(self, memo: Any) -> Any:
        raise TypeError("no")


class Counts(Walk):
    """Counts the steps of all its copies."""

    taken: ClassVar[Counter[str]] = Counter()

    def step(self, action: Any) -> Any:
        self.taken["steps"] += 1
        return super().step(action)


@pytest.mark.parametrize("method", ["deepcopy", "replay"])
def test_every_step_is_counted(method: str) -> None:
    rollout = rollout_of(Walk)
    vine = Vine(Counts, n_states=5, n_continuations=3, n_slots=4)
    vine.slots.method = method
    Counts.taken.clear()
    steps = Counter[str]()
    compare(vine, rollout, steps)
    assert steps["steps"] == Counts.taken["steps"] > 0


def test_replaying_costs_more_steps_and_finds_the_same_values() -> None:
    rollout, steps, values = rollout_of(Walk), [], []
    for method in ("deepcopy", "replay"):
        vine = Vine(Walk, n_states=5, n_continuations=3, n_slots=4)
        vine.slots.method = method
        counted = Counter[str]()
        values.append(compare(vine, rollout, counted).values)
        steps.append(counted["steps"])
    assert torch.equal(*values)
    assert steps[0] < steps[1]


def test_the_number_of_slots_makes_no_difference() -> None:
    rollout = rollout_of(Walk)
    few, many = (compare(Vine(Walk, 5, 3, n_slots), rollout) for n_slots in (1, 15))
    assert torch.equal(few.advantages, many.advantages)


def test_a_time_limit_counts_from_the_beginning_of_the_episode() -> None:
    lengths = Counter[int]()

    class Endless(Walk):
        def step(self, action: Any) -> Any:
            observation, reward, _, _, info = super().step(action)
            lengths[self.t] += 1
            return observation, reward, False, False, info

    agent = small(Endless, baseline="vine", max_episode_steps=9, vine_states=4)
    lengths.clear()
    agent.learn(100)
    assert max(lengths) == 9


@pytest.mark.parametrize("env", ["grpo/Battleship-v0", "grpo/Countdown-v0", "CartPole-v1", "Pendulum-v1", MaskedByInfo])
def test_vector_environments_masks_and_continuous_actions_can_be_continued(env: Any) -> None:
    agent = small(env, baseline="vine", vine_states=3, vine_continuations=2, max_episode_steps=30)
    before = digest(agent)
    agent.learn(1)
    assert digest(agent) != before


def test_an_environment_that_cannot_be_returned_to_is_refused_with_the_reasons() -> None:
    with pytest.raises(
        ValueError, match=r"no snapshot of this environment is exact: deepcopy \(.*replay \(.*differs in"
    ):
        small(Uncopied, baseline="vine")


def test_an_episode_that_goes_otherwise_is_refused() -> None:
    agent = small(IgnoresSeed, baseline="vine", vine_states=3)
    with pytest.raises(ValueError, match="sees something else after 0 steps when its actions are taken again"):
        agent.learn(1)


def test_a_vector_environment_is_refused() -> None:
    envs = gym.make_vec("grpo/Battleship-v0", 6, vectorization_mode="vector_entry_point")
    with pytest.raises(ValueError, match="baseline='vine' takes snapshots of single environments"):
        small(envs, baseline="vine")


# --- in the agent ---------------------------------------------------------------------------------------------


class StopAt(BaseCallback):
    def __init__(self, steps: int) -> None:
        super().__init__()
        self.stop = steps

    def _on_step(self) -> bool:
        return self.num_timesteps < self.stop


def test_continuations_count_but_are_no_episodes_of_the_agent() -> None:
    plain, vine = small("grpo/Battleship-v0"), small("grpo/Battleship-v0", baseline="vine")
    endings = [0, 0]
    for number, agent in enumerate((plain, vine)):

        def count(local: dict[str, Any], _: Any, number: int = number) -> bool:
            endings[number] += int(local["dones"].sum())
            return True

        agent.learn(1, callback=count)
    assert len(vine.ep_info_buffer) == len(plain.ep_info_buffer) == 6
    assert endings == [6, 6]
    assert vine.num_timesteps > 2 * plain.num_timesteps


def test_a_callback_can_end_the_continuations() -> None:
    agent = small("grpo/Battleship-v0", baseline="vine")
    before = digest(agent)
    n_played = small("grpo/Battleship-v0").learn(1).num_timesteps
    agent.learn(1_000_000, callback=StopAt(n_played + 10))
    assert agent.num_timesteps < n_played + 200
    assert digest(agent) == before


def test_a_saved_agent_goes_on_bit_by_bit(tmp_path: Any) -> None:
    one = small("CartPole-v1", baseline="vine", vine_states=4).learn(500)
    one.save(tmp_path / "agent")
    other = GRPO.load(tmp_path / "agent", env="CartPole-v1")
    for agent in (one, other):
        agent.learn(500, reset_num_timesteps=False)
    assert digest(one) == digest(other)
