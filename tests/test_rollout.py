import itertools
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from grpo_gym import rollout as rollout_module
from grpo_gym.env_slots import EnvSlots
from grpo_gym.episodes import concatenate, select_groups
from grpo_gym.groups import Plan
from grpo_gym.layout import Layout
from grpo_gym.rollout import Played, collect
from grpo_gym.sampling import collect_groups, warn_of_unequal_starts
from grpo_gym.types import DEFAULT_HORIZON, Compared, Rollout
from grpo_gym.vec import make_slots
from tests.toys import (
    UNIT_BOX,
    BadNumber,
    BareLastInfo,
    CopiesBuffer,
    CountingVectorEnv,
    Diary,
    Endless,
    IdentityBox,
    IdentityDiscrete,
    IgnoresSeed,
    MaskedByInfo,
    MaskedByMethod,
    NothingLegal,
    Raises,
    ReusesBuffer,
    Rewarding,
    Walk,
    a_plan,
    play,
    policy_for,
)

Make = Callable[[], gym.Env[Any, Any]]

ENVS: dict[str, Make] = {
    "discrete": Walk,
    "discrete from 5": lambda: Walk(Discrete(3, start=5)),
    "box": lambda: Walk(UNIT_BOX),
    "matrix box": lambda: Walk(Box(-0.5, 0.5, (2, 2), np.float32)),
    "masked by info": MaskedByInfo,
    "masked by method": MaskedByMethod,
    "discrete observations": IdentityDiscrete,
    "discrete observations from -1": lambda: IdentityDiscrete(start=-1),
    "box in and out": IdentityBox,
}
every_env = pytest.mark.parametrize("make", ENVS.values(), ids=ENVS)
every_autoreset = pytest.mark.parametrize("mode", [AutoresetMode.DISABLED, AutoresetMode.NEXT_STEP])


def sync(make: Make, n: int, mode: AutoresetMode = AutoresetMode.DISABLED, copy: bool = True) -> SyncVectorEnv:
    return SyncVectorEnv([make] * n, autoreset_mode=mode, copy=copy)


def numbered() -> Diary:
    return Diary(itertools.count(5))


def assert_equal(one: Rollout, other: Rollout) -> None:
    """All of it is bit-equal but the log-probabilities, whose rounding may depend on how many go together."""
    for name in ("observations", "actions", "rewards", "mask", "terminated", "truncated", "final_observations"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    assert torch.allclose(one.log_probs, other.log_probs, atol=1e-5)
    assert (one.action_masks is None) == (other.action_masks is None)
    if one.action_masks is not None and other.action_masks is not None:
        assert torch.equal(one.action_masks, other.action_masks)
    assert one.seeds.tolist() == other.seeds.tolist()
    assert one.group_size == other.group_size


@every_env
@pytest.mark.parametrize("log_std", [0.0, -3.0, 2.0])
@pytest.mark.parametrize("normalize", [False, True])
def test_the_ratio_is_one_before_the_first_step(make: Make, log_std: float, normalize: bool) -> None:
    slots = make_slots(make, 12)
    policy = policy_for(slots, log_std_init=log_std, normalize_observations=normalize)
    first = collect(slots, policy, a_plan(2, 6))
    assert first is not None
    policy.observe(first.observations)
    rollout = collect(slots, policy, a_plan(4, 6, seed=1))
    assert rollout is not None
    log_probs, _ = policy.evaluate_actions(rollout.observations, rollout.actions, rollout.action_masks)
    # a few units in the last place, and float32 rounding of a mean counts in deviations
    unit = 2.0**-23 * max(2.0, float(log_probs.abs().max()))
    assert (log_probs - rollout.log_probs).abs().max() <= 4 * unit * max(1.0, np.exp(-log_std))


@every_env
@pytest.mark.parametrize("seed", [0, 1])
def test_members_share_their_start_and_nothing_else(make: Make, seed: int) -> None:
    rollout = play(make, 12, n_groups=3, group_size=4, seed=seed)
    starts = rollout.first_observations.reshape(3, 4, -1)
    assert torch.equal(starts, starts[:, :1].expand_as(starts))
    played = [actions.tolist() for actions in torch.split(rollout.actions, rollout.lengths.tolist())]
    for group in range(3):
        members = played[4 * group : 4 * group + 4]
        assert any(member != members[0] for member in members)
    if make is Walk:
        assert len({tuple(start) for start in starts[:, 0].tolist()}) == 3


@every_env
def test_the_rollout_is_what_the_environment_did(make: Make) -> None:
    rollout = play(make, 3)
    n_steps = int(rollout.lengths.sum())
    assert rollout.n_steps == n_steps == len(rollout.observations) == len(rollout.actions) == len(rollout.log_probs)
    assert rollout.rewards.shape == rollout.mask.shape == (int(rollout.lengths.max()), 6)
    assert rollout.rewards[~rollout.mask].count_nonzero() == 0
    assert torch.equal(rollout.mask.sort(dim=0, descending=True).values, rollout.mask)
    assert torch.equal(rollout.terminated, ~rollout.truncated)
    assert len(rollout.final_observations) == 6
    assert rollout.rewards.dtype == rollout.log_probs.dtype == torch.float32


def test_the_flat_order_is_episode_after_episode() -> None:
    for n_slots in (1, 2, 5, 9):
        numbers = itertools.count()
        rollout = play(partial(Diary, numbers), n_slots, n_groups=3, group_size=3)
        number, t = rollout.observations.T
        assert rollout.flat(rollout.rewards).tolist() == (1000 * number + t).tolist()
        assert torch.equal(number, number.sort().values)
        assert rollout.first_observations[:, 1].tolist() == [0] * 9
        assert rollout.final_observations.tolist() == [[n, 1 + n % 3] for n in range(9)]
        assert rollout.lengths.tolist() == [1, 2, 3] * 3


def test_each_job_of_the_plan_is_played_exactly_once() -> None:
    resets: list[int | None] = []

    class Noted(Walk):
        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            resets.append(seed)
            return super().reset(seed=seed)

    plan = a_plan(5, 3)
    slots = make_slots(Noted, 4)
    rollout = collect(slots, policy_for(slots), plan)
    assert rollout is not None
    assert resets == plan.episode_seeds.tolist()
    assert rollout.seeds.tolist() == plan.seeds.tolist()


def test_short_episodes_do_not_displace_long_ones() -> None:
    numbers = itertools.count()
    rollout = play(lambda: Diary(numbers, longest=50), 3, n_groups=10, group_size=5)
    assert rollout.lengths.tolist() == list(range(1, 51))
    assert next(numbers) == 50


@pytest.mark.parametrize("make", [Walk, lambda: Walk(Discrete(3, start=5)), MaskedByInfo, MaskedByMethod])
def test_the_episodes_are_the_same_whatever_the_number_of_slots(make: Make) -> None:
    everything = play(make, 15, n_groups=3, group_size=5)
    for n_slots in (1, 2, 4, 20):
        assert_equal(play(make, n_slots, n_groups=3, group_size=5), everything)


@every_autoreset
@pytest.mark.parametrize("make", [Walk, MaskedByInfo, MaskedByMethod])
@pytest.mark.parametrize("n_slots", [2, 4, 20])
def test_the_episodes_are_the_same_in_a_foreign_vector_environment(
    make: Make, mode: AutoresetMode, n_slots: int
) -> None:
    foreign = play(sync(make, n_slots, mode), n_slots, n_groups=3, group_size=5)
    assert_equal(foreign, play(make, n_slots, n_groups=3, group_size=5))


def test_an_episode_belongs_to_its_seeds_and_not_to_its_place_in_the_plan() -> None:
    plan = a_plan(3, 2)
    slots = make_slots(Walk, 6)
    policy = policy_for(slots)
    whole = collect(slots, policy, plan)
    last = collect(slots, policy, Plan(plan.seeds[2:], 2, plan.noise_seeds[4:]))
    assert whole is not None
    assert last is not None
    kept = select_groups(whole, torch.tensor([False, False, True]))
    assert torch.equal(kept.observations, last.observations)
    assert torch.equal(kept.actions, last.actions)


def test_more_than_one_block_of_noise_is_drawn_for_a_long_episode() -> None:
    class Blind(Endless):
        def _observation(self) -> Any:
            return np.zeros(2, np.float32)

    rollout = play(Blind, 2, n_groups=1, group_size=2, horizon=400)
    one, other = torch.split(rollout.actions, 400)
    assert one[:128].tolist() != one[128:256].tolist()
    assert one.tolist() != other.tolist()


@pytest.mark.parametrize("n_slots", [1, 4, 6, 9])
def test_every_step_of_single_environments_is_counted_and_none_is_idle(n_slots: int) -> None:
    counter: Counter[str] = Counter()
    told = [0]

    def on_step(played: Played) -> bool:
        told[0] += played.step.n_steps
        return True

    rollout = play(lambda: Walk(counter=counter), n_slots, on_step=on_step)
    assert told[0] == counter["steps"] == rollout.n_steps
    assert rollout.idle_steps == 0


@every_autoreset
@pytest.mark.parametrize("n_slots", [1, 4, 6, 9])
def test_every_step_of_a_foreign_vector_environment_is_counted_idle_ones_too(mode: AutoresetMode, n_slots: int) -> None:
    counter: Counter[str] = Counter()
    told = [0]

    def on_step(played: Played) -> bool:
        told[0] += played.step.n_steps
        return True

    rollout = play(sync(lambda: Walk(counter=counter), n_slots, mode), n_slots, seed=2, on_step=on_step)
    assert told[0] == counter["steps"] == rollout.n_steps + rollout.idle_steps
    assert (rollout.idle_steps == 0) == (n_slots == 1)


def test_cartpole_in_gymnasiums_own_vector_environment_is_counted_whole() -> None:
    told = [0]

    def on_step(played: Played) -> bool:
        told[0] += played.step.n_steps
        return True

    env = gym.make_vec("CartPole-v1", 3, vectorization_mode="sync", vector_kwargs={"autoreset_mode": "Disabled"})
    rollout = play(env, 3, n_groups=2, group_size=2, on_step=on_step)
    assert told[0] % 3 == 0
    assert told[0] == rollout.n_steps + rollout.idle_steps
    assert_equal(rollout, play("CartPole-v1", 4, n_groups=2, group_size=2))


def test_a_callback_that_returns_false_ends_the_rollout_at_once_and_the_slots_stay_usable() -> None:
    for env in (Walk, sync(Walk, 3)):
        slots = make_slots(env, 3)
        policy = policy_for(slots)
        calls: list[Played] = []

        def twice(played: Played, calls: list[Played] = calls) -> bool:
            calls.append(played)
            return len(calls) < 2

        assert collect(slots, policy, a_plan(2, 3), on_step=twice) is None
        assert len(calls) == 2
        rollout = collect(slots, policy, a_plan(2, 3))
        assert rollout is not None
        assert_equal(rollout, play(Walk, 3))


@pytest.mark.parametrize("env", [lambda: numbered, lambda: sync(numbered, 1)], ids=["single", "vector"])
def test_callbacks_are_told_of_each_episodes_return_and_length(env: Callable[[], Any]) -> None:
    told: list[dict[str, float]] = []
    n_steps = [0]

    def on_step(played: Played) -> bool:
        named = played.as_locals(Layout(Walk.observation_space), Layout(Discrete(3), "action"))
        n_steps[0] += len(named["rewards"])
        assert type(named["infos"]) is list  # which callbacks may write to, as in stable-baselines3
        assert len(named["infos"]) == len(named["dones"]) == len(named["actions"]) == len(named["new_obs"]) == 1
        told.extend(info["episode"] for info, done in zip(named["infos"], named["dones"], strict=True) if done)
        assert ("episode" in named["infos"][0]) == named["dones"][0]
        return True

    rollout = play(env(), 1, n_groups=1, group_size=2, on_step=on_step)
    lengths = rollout.lengths.tolist()
    assert [episode["l"] for episode in told] == lengths
    assert [episode["r"] for episode in told] == rollout.rewards.sum(dim=0).tolist()
    assert n_steps[0] == sum(lengths)


def test_callbacks_see_what_the_environment_got_and_the_loss_what_the_policy_chose() -> None:
    sent: list[Any] = []

    def on_step(played: Played) -> bool:
        sent.extend(played.actions)
        return True

    slots = make_slots(IdentityBox, 1)
    rollout = collect(slots, policy_for(slots, log_std_init=1.0), a_plan(1, 2), on_step=on_step)
    assert rollout is not None
    assert torch.equal(torch.from_numpy(np.stack(sent)), rollout.actions.clamp(-1, 1))
    assert rollout.actions.abs().max() > 1


def test_a_callback_may_keep_what_it_was_shown() -> None:
    kept: list[tuple[Any, Any]] = []

    def on_step(played: Played) -> bool:
        kept.append((played.step.observations, played.step.observations.copy()))
        return True

    play(Walk, 2, on_step=on_step)
    assert all(np.array_equal(shown, copy) for shown, copy in kept)


def test_an_end_that_is_also_a_time_limit_is_an_end() -> None:
    class Both(Walk):
        def step(self, action: Any) -> Any:
            observation, reward, *_ = super().step(action)
            return observation, reward, True, True, {}

    rollout = play(Both, 6)
    assert rollout.terminated.all()
    assert not rollout.truncated.any()
    assert rollout.lengths.tolist() == [1] * 6


@pytest.mark.parametrize("env", [Endless, "sync"])
def test_an_endless_episode_is_cut_and_marked_as_truncated(env: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout_module, "DEFAULT_HORIZON", 9)
    given = sync(Endless, 3) if env == "sync" else env
    rollout = play(given, 3)
    assert rollout.lengths.tolist() == [9] * 6
    assert rollout.truncated.all()
    assert not rollout.terminated.any()
    cut = play(sync(Endless, 3) if env == "sync" else env, 3, horizon=4)
    assert cut.lengths.tolist() == [4] * 6
    assert cut.truncated.all()


def test_the_default_horizon_is_10_000_steps() -> None:
    assert DEFAULT_HORIZON == 10_000


def test_a_horizon_beyond_the_environments_own_limit_changes_nothing() -> None:
    assert_equal(play(Walk, 3, horizon=100), play(Walk, 3))


def test_a_time_limit_that_only_a_wrapper_knows_is_the_environments_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout_module, "DEFAULT_HORIZON", 5)
    rollout = play(lambda: gym.wrappers.TimeLimit(Endless(), 8), 3)
    assert rollout.lengths.tolist() == [8] * 6


@pytest.mark.parametrize("n_slots", [1, 4, 6])
def test_a_reused_observation_buffer_is_copied_in_time(n_slots: int) -> None:
    copied = play(CopiesBuffer, n_slots)
    assert_equal(play(ReusesBuffer, n_slots), copied)
    assert_equal(play(sync(ReusesBuffer, n_slots, copy=False), n_slots), copied)


def test_a_reused_buffer_of_box_actions_is_copied_in_time() -> None:
    assert_equal(play(lambda: ReusesBuffer(UNIT_BOX), 6), play(lambda: CopiesBuffer(UNIT_BOX), 6))


@pytest.mark.parametrize("n_slots", [2, 4, 6])
def test_reused_buffers_of_a_native_vector_environment_are_copied_in_time(n_slots: int) -> None:
    reused = play(CountingVectorEnv(n_slots, copy=False), n_slots)
    assert_equal(reused, play(CountingVectorEnv(n_slots, copy=True), n_slots))
    assert reused.rewards.tolist() == [[1] * 6, [2] * 6, [3] * 6, [4] * 6]
    assert reused.observations[:, 0].tolist() == [0, 1, 2, 3] * 6


@pytest.mark.parametrize("kind", ["single", "vector"])
@pytest.mark.parametrize("n_slots", [2, 4])
def test_a_refilled_slot_is_masked_although_the_last_info_had_no_mask(kind: str, n_slots: int) -> None:
    rollout = play(BareLastInfo if kind == "single" else sync(BareLastInfo, n_slots), n_slots)
    assert rollout.action_masks is not None
    assert rollout.action_masks.tolist() == [[t % 3 != action for action in range(3)] for t in range(6)] * 6


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("step", [0, 1, 3])
@pytest.mark.parametrize("kind", ["single", "vector"])
def test_a_bad_observation_is_refused_with_environment_seed_and_step(value: float, step: int, kind: str) -> None:
    def make() -> BadNumber:
        return BadNumber("observation", value, step)

    with pytest.raises(ValueError, match="the observation is not finite") as caught:
        play(make if kind == "single" else sync(make, 4), 4)
    for words in (f"at step {step} ", "nan" if np.isnan(value) else "inf", "mend the environment"):
        assert words in str(caught.value)
    assert any(f"seed {seed};" in str(caught.value) for seed in a_plan(2, 3).seeds)
    assert ("BadNumber" if kind == "single" else "SyncVectorEnv") in str(caught.value)


@pytest.mark.parametrize("kind", ["single", "vector"])
def test_a_number_is_not_bad_because_its_square_is_too_large(kind: str) -> None:
    def make() -> BadNumber:
        return BadNumber("observation", 1e30, 2)

    rollout = play(make if kind == "single" else sync(make, 4), 4)
    assert (rollout.observations == 1e30).any()


def test_a_bad_last_observation_is_refused_too() -> None:
    with pytest.raises(ValueError, match=r"the observation is not finite.*at step 1 "):
        play(lambda: BadNumber("observation", np.nan, 1), 4, horizon=1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, None])
@pytest.mark.parametrize("kind", ["single", "vector"])
def test_a_bad_reward_is_refused_with_environment_seed_and_step(value: Any, kind: str) -> None:
    def make() -> Walk:
        return BadNumber("reward", value, 2)

    with pytest.raises((ValueError, TypeError)) as caught:
        play(make if kind == "single" else sync(make, 4), 4)
    told = f"{caught.value} {getattr(caught.value, '__notes__', '')}"
    for words in ("reward", "step 2 ", "BadNumber" if kind == "single" else "SyncVectorEnv"):
        assert words in told
    assert any(f"seed {seed}" in told for seed in a_plan(2, 3).seeds)


@pytest.mark.parametrize("reward", [1e12, -1e12, 1e-12])
def test_extreme_rewards_arrive(reward: float) -> None:
    rollout = play(lambda: Rewarding(reward), 4)
    assert rollout.rewards[rollout.mask].tolist() == pytest.approx([reward] * rollout.n_steps)


def test_a_mask_that_allows_nothing_is_refused_with_environment_seed_and_step() -> None:
    with pytest.raises(ValueError, match=r"NothingLegal: the action mask allows nothing at step 2 .*at least one"):
        play(NothingLegal, 4)


@pytest.mark.parametrize("error", [RuntimeError("mine"), ValueError("mine"), KeyboardInterrupt("mine")])
@pytest.mark.parametrize("step", [1, 3])
def test_after_an_exception_the_same_slots_play_again(error: BaseException, step: int) -> None:
    slots = make_slots(lambda: Raises(error, step), 4)
    assert isinstance(slots, EnvSlots)
    with pytest.raises(type(error), match="mine") as caught:
        collect(slots, policy_for(slots), a_plan(2, 3))
    assert caught.value is error
    for env in slots.envs:
        assert isinstance(env, Raises)
        env.bad_step = 0
    rollout = collect(slots, policy_for(slots), a_plan(2, 3))
    assert rollout is not None
    assert_equal(rollout, play(Walk, 4))


def test_an_environment_that_ignores_its_seed_is_warned_of() -> None:
    rollout = play(IgnoresSeed, 6)
    with pytest.warns(UserWarning, match=r"IgnoresSeed: reset\(seed=...\) does not repeat.*2 of 2 groups"):
        assert warn_of_unequal_starts(rollout, "IgnoresSeed")


@every_env
def test_a_healthy_environment_is_not_warned_of(make: Make) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not warn_of_unequal_starts(play(make, 6), "healthy")


def trimmed(rollout: Rollout) -> list[Any]:
    """All its contents, without padding below the longest episode."""
    longest = int(rollout.lengths.max())
    names = ("observations", "actions", "log_probs", "action_masks", "terminated", "truncated", "final_observations")
    contents = [getattr(rollout, name).tolist() for name in names]
    return [
        *contents,
        rollout.rewards[:longest].tolist(),
        rollout.mask[:longest].tolist(),
        rollout.seeds.tolist(),
        rollout.group_size,
    ]


def test_selecting_what_was_concatenated_gives_the_parts_back() -> None:
    short, long = play(MaskedByInfo, 6, seed=0, horizon=2), play(MaskedByInfo, 6, n_groups=3, seed=1)
    for parts in ([short, long], [long, short], [short, long, short]):
        joined = concatenate(parts)
        start = 0
        for part in parts:
            n_groups = len(part.seeds)
            kept = torch.zeros(len(joined.seeds), dtype=torch.bool)
            kept[start : start + n_groups] = True
            assert trimmed(select_groups(joined, kept)) == trimmed(part)
            start += n_groups


def test_concatenating_complementary_selections_gives_the_whole_back() -> None:
    whole = play(MaskedByInfo, 6, n_groups=4)
    first = torch.tensor([True, True, False, False])
    assert trimmed(concatenate([select_groups(whole, first), select_groups(whole, ~first)])) == trimmed(whole)


def test_selecting_every_group_changes_nothing() -> None:
    whole = play(Walk, 6)
    assert_equal(select_groups(whole, torch.ones(2, dtype=torch.bool)), whole)


def test_a_selected_group_keeps_its_own_rows() -> None:
    numbers = itertools.count()
    rollout = play(lambda: Diary(numbers), 4, n_groups=3, group_size=3)
    kept = select_groups(rollout, torch.tensor([True, False, True]))
    number, t = kept.observations.T
    assert sorted(set(number.tolist())) == [0, 1, 2, 6, 7, 8]
    assert kept.flat(kept.rewards).tolist() == (1000 * number + t).tolist()
    assert kept.seeds.tolist() == rollout.seeds[[0, 2]].tolist()


def test_concatenating_adds_up_idle_steps() -> None:
    rollout = play(sync(Walk, 5), 5)
    assert rollout.idle_steps > 0
    assert concatenate([rollout, rollout]).idle_steps == 2 * rollout.idle_steps


def alike(rollout: Rollout, advantages: torch.Tensor) -> Compared:
    """The same advantage `[N]` at all steps of an episode."""
    spread = advantages.expand(rollout.mask.shape)
    return Compared(spread, spread, torch.zeros_like(spread))


class Groups:
    """Plays groups of two with `collect_groups`, and notes how many were asked for each time."""

    def __init__(self) -> None:
        self.counter: Counter[str] = Counter()
        self.slots = make_slots(lambda: Walk(counter=self.counter), 4)
        self.asked: list[int] = []
        self.told = 0
        self.rng = np.random.default_rng(0)

    def plan(self, n_groups: int) -> Plan:
        self.asked.append(n_groups)
        return a_plan(n_groups, 2, seed=len(self.asked))

    def on_step(self, played: Played) -> bool:
        self.told += played.step.n_steps
        return True

    def play(self, spreads: list[list[bool]], max_resamples: int) -> tuple[Rollout, float]:
        rounds = iter(spreads)

        def compare(rollout: Rollout) -> Compared:
            """One advantage for each episode: 1 in the groups that are said to have spread."""
            spread = torch.tensor(next(rounds, [True] * len(rollout.seeds)))
            return alike(rollout, spread[rollout.groups].float())

        played = collect_groups(self.play_groups, 3, compare, max_resamples)
        assert played is not None
        rollout, compared, tied = played
        assert compared.advantages.shape == rollout.mask.shape
        return rollout, tied

    def play_groups(self, n_groups: int) -> Rollout | None:
        return collect(self.slots, policy_for(self.slots), self.plan(n_groups), on_step=self.on_step)


def test_groups_that_all_teach_are_played_once() -> None:
    groups = Groups()
    rollout, tied = groups.play([[True, True, True]], max_resamples=5)
    assert rollout is not None
    assert (len(rollout.seeds), groups.asked, tied) == (3, [3], 0.0)


def test_groups_without_spread_are_replaced_one_for_one_and_their_steps_counted() -> None:
    groups = Groups()
    rollout, tied = groups.play([[True, False, False], [False, True], [True]], max_resamples=5)
    assert rollout is not None
    assert groups.asked == [3, 2, 1]
    assert tied == 3 / 6
    kept_seeds = [a_plan(3, 2, 1).seeds[0], a_plan(2, 2, 2).seeds[1], a_plan(1, 2, 3).seeds[0]]
    assert rollout.seeds.tolist() == kept_seeds
    assert groups.told == groups.counter["steps"] > rollout.n_steps


def test_replacing_is_bounded_and_what_ties_last_is_kept() -> None:
    groups = Groups()
    rollout, tied = groups.play([[False] * 3] * 3, max_resamples=2)
    assert rollout is not None
    assert (len(rollout.seeds), groups.asked, tied) == (3, [3, 3, 3], 1.0)


def test_without_resampling_ties_are_kept_and_told() -> None:
    groups = Groups()
    rollout, tied = groups.play([[True, False, False]], max_resamples=0)
    assert rollout is not None
    assert (len(rollout.seeds), groups.asked, tied) == (3, [3], 2 / 3)


def test_a_callback_ends_replacing_too() -> None:
    class Stopped(Groups):
        def on_step(self, played: Played) -> bool:
            return len(self.asked) < 2

    groups = Stopped()
    rollout = collect_groups(groups.play_groups, 3, lambda rollout: alike(rollout, torch.zeros(6)), 9)
    assert rollout is None
    assert groups.asked == [3, 3]
