import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from grpo_gym.env_slots import EnvSlots
from grpo_gym.types import Slots
from grpo_gym.vec import make_slots
from grpo_gym.vector_slots import VectorSlots
from tests.toys import (
    UNIT_BOX,
    BareLastInfo,
    CountingVectorEnv,
    Endless,
    MaskedByInfo,
    MaskedByMethod,
    Raises,
    Rewarding,
    Walk,
    WrongShape,
)

FIRST, BOTH = np.array([0]), np.array([0, 1])
SEEDS = np.array([5, 5])
DISABLED, NEXT_STEP = AutoresetMode.DISABLED, AutoresetMode.NEXT_STEP


def sync(make: Callable[[], gym.Env[Any, Any]], n: int = 2, mode: AutoresetMode = DISABLED) -> SyncVectorEnv:
    return SyncVectorEnv([make] * n, autoreset_mode=mode)


def vector(**kwargs: Any) -> Any:
    return gym.make_vec("CartPole-v1", 2, vectorization_mode="sync", vector_kwargs=kwargs)


@pytest.mark.parametrize(
    "make",
    [
        lambda: "CartPole-v1",
        lambda: gym.spec("CartPole-v1"),
        lambda: lambda: gym.make("CartPole-v1"),
        lambda: gym.make("CartPole-v1"),
        lambda: vector(autoreset_mode="Disabled"),
        lambda: vector(autoreset_mode="NextStep"),
        vector,
    ],
    ids=["id", "spec", "factory", "env", "disabled", "next step", "default vector env"],
)
def test_whatever_describes_an_environment_becomes_the_same_slots(make: Callable[[], Any]) -> None:
    slots = make_slots(make(), 2)
    expected, _ = gym.make("CartPole-v1").reset(seed=5)
    observations, masks = slots.start(BOTH, SEEDS)
    assert observations.tolist() == [expected.tolist()] * 2
    assert masks is None
    assert (slots.num_envs, slots.name, slots.has_time_limit) == (2, "CartPole-v1", True)
    assert slots.observation_space.shape == (4,)
    assert slots.action_space == gym.spaces.Discrete(2)
    step = slots.step(BOTH, np.array([0, 1]))
    assert step.rewards.tolist() == [1, 1]
    assert not np.array_equal(step.observations[0], step.observations[1])
    slots.close()


def test_a_class_is_a_factory_too_and_is_named() -> None:
    slots = make_slots(Walk, 2)
    assert (slots.name, slots.has_time_limit) == ("Walk", False)


def test_a_vector_environment_keeps_its_own_number_of_slots() -> None:
    assert make_slots(sync(Walk, 3), 7).num_envs == 3


def test_an_environment_without_a_spec_is_copied() -> None:
    given = Walk()
    slots = make_slots(given, 2)
    assert isinstance(slots, EnvSlots)
    assert len({id(given), *map(id, slots.envs)}) == 3
    assert [type(env) for env in slots.envs] == [Walk, Walk]


class Locked(Walk):
    """Has what cannot be copied."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


def test_an_environment_that_can_neither_be_made_again_nor_copied_is_refused_with_the_fix() -> None:
    with pytest.raises(ValueError, match=r"has no spec.*cannot pickle '_thread.lock'.*lambda: MyEnv\(\)"):
        make_slots(Locked(), 2)


@pytest.mark.parametrize("given", [3, None, [1], {"id": "CartPole-v1"}])
def test_what_is_no_environment_is_refused_and_the_choices_are_named(given: Any) -> None:
    with pytest.raises(TypeError, match=r"expected an environment id \('CartPole-v1'.*lambda: MyEnv\(\)"):
        make_slots(given, 2)


@pytest.mark.parametrize("made", [3, None, "CartPole-v1"])
def test_a_factory_of_something_else_is_refused(made: Any) -> None:
    with pytest.raises(TypeError, match=rf"made a {type(made).__name__}, expected a gymnasium.Env"):
        make_slots(lambda: made, 2)


def test_a_factory_that_makes_the_same_environment_twice_is_refused() -> None:
    the_only_one = Walk()
    with pytest.raises(ValueError, match="same environment"):
        make_slots(lambda: the_only_one, 2)


def test_an_unknown_id_is_refused_and_the_way_to_register_is_named() -> None:
    with pytest.raises(ValueError, match=r"Nowhere.*doesn't exist.*import grpo_envs"):
        make_slots("Nowhere-v0", 2)


def test_a_vector_environment_that_takes_no_list_of_seeds_is_refused_with_the_fix() -> None:
    with pytest.raises(ValueError, match=r"does not accept a list of seeds.*vectorization_mode='sync'"):
        make_slots(gym.make_vec("CartPole-v1", 2), 2)


def test_a_vector_environment_that_hides_its_last_observation_is_refused_with_the_fix() -> None:
    with pytest.raises(ValueError, match=r"resets itself in the same step.*'autoreset_mode': 'Disabled'"):
        make_slots(vector(autoreset_mode="SameStep"), 2)


def test_the_advice_in_these_messages_works() -> None:
    advised = gym.make_vec("CartPole-v1", 2, vectorization_mode="sync", vector_kwargs={"autoreset_mode": "Disabled"})
    assert isinstance(make_slots(advised, 2), VectorSlots)


@pytest.mark.parametrize("wrap", [lambda: EnvSlots(Walk, 3), lambda: VectorSlots(sync(Walk, 3))])
def test_slots_are_started_and_stepped_alone(wrap: Callable[[], EnvSlots | VectorSlots]) -> None:
    slots = wrap()
    everyone = np.arange(3)
    together, _ = slots.start(everyone, np.array([5, 6, 5]))
    assert together[0].tolist() == together[2].tolist() != together[1].tolist()
    alone, _ = slots.start(np.array([1]), np.array([5]))
    assert alone.tolist() == together[:1].tolist()
    moved = slots.step(np.array([2, 0]), np.array([2, 0]))
    assert moved.observations[:, 1].tolist() == [1, 1]
    assert moved.observations[0, 0] > moved.observations[1, 0]


def test_single_environments_take_only_the_steps_that_are_asked_for() -> None:
    counter: Counter[str] = Counter()
    slots = EnvSlots(lambda: Walk(counter=counter), 3)
    slots.start(np.arange(3), np.array([1, 2, 3]))
    assert slots.step(np.array([1]), np.array([1])).n_steps == 1
    assert counter["steps"] == 1


@pytest.mark.parametrize("mode", [DISABLED, NEXT_STEP])
def test_idle_slots_of_a_vector_environment_are_stepped_and_counted(mode: AutoresetMode) -> None:
    counter: Counter[str] = Counter()
    slots = VectorSlots(sync(lambda: Walk(limit=2, counter=counter), 3, mode))
    slots.start(FIRST, SEEDS[:1])
    n_steps = 0
    for _ in range(2):  # the idle slots come to their ends and start over
        n_steps += slots.step(FIRST, np.array([1])).n_steps
        slots.step(FIRST, np.array([1]))
        n_steps += 3
        slots.start(FIRST, SEEDS[:1])
    assert n_steps == counter["steps"] == 12


@pytest.mark.parametrize("mode", [DISABLED, NEXT_STEP])
@pytest.mark.parametrize("space", [gym.spaces.Discrete(3, start=7), UNIT_BOX])
def test_idle_slots_are_given_actions_of_the_space(mode: AutoresetMode, space: Any) -> None:
    slots = VectorSlots(sync(lambda: Walk(space), 3, mode))
    slots.start(FIRST, SEEDS[:1])
    for _ in range(20):
        ended = slots.step(FIRST, np.stack([space.sample()]))
        if ended.terminated[0] or ended.truncated[0]:
            slots.start(FIRST, SEEDS[:1])


def test_a_native_vector_environment_steps_only_the_slots_that_play() -> None:
    slots = make_slots(CountingVectorEnv(3, copy=True), 3)
    slots.start(np.arange(3), np.array([1, 2, 3]))
    step = slots.step(np.array([2, 0]), np.array([0, 0]))
    assert step.observations.tolist() == [[1], [1]]
    assert step.n_steps == 2
    assert slots.step(np.array([1, 2]), np.array([0, 0])).observations.tolist() == [[1], [2]]


def either_way(make: Callable[[], gym.Env[Any, Any]], kind: str) -> Slots:
    return EnvSlots(make, 2) if kind == "single" else VectorSlots(sync(make))


single_or_vector = pytest.mark.parametrize("kind", ["single", "vector"])


@single_or_vector
@pytest.mark.parametrize("env", [MaskedByInfo, MaskedByMethod])
def test_masks_are_found_in_the_info_and_in_the_method(env: type[Walk], kind: str) -> None:
    slots = either_way(env, kind)
    _, masks = slots.start(BOTH, SEEDS)
    assert masks is not None
    assert masks.dtype == np.bool_
    assert masks.tolist() == [[False, True, True]] * 2
    moved = slots.step(BOTH, np.array([1, 2])).action_masks
    assert moved is not None
    assert moved.tolist() == [[True, False, True]] * 2


@single_or_vector
@pytest.mark.parametrize("env", [MaskedByInfo, MaskedByMethod])
def test_idle_slots_are_given_legal_actions(env: type[Walk], kind: str) -> None:
    slots = either_way(env, kind)
    slots.start(FIRST, SEEDS[:1])
    for t in range(12):  # the environment itself refuses illegal ones
        step = slots.step(FIRST, np.array([(t % 6 + 1) % 3]))
        if step.truncated[0] or step.terminated[0]:
            slots.start(FIRST, SEEDS[:1])


def test_masks_through_wrappers_are_found() -> None:
    slots = make_slots(lambda: gym.wrappers.TimeLimit(MaskedByMethod(), 3), 2)
    assert slots.start(BOTH, SEEDS)[1] is not None


@single_or_vector
def test_the_last_info_of_an_episode_needs_no_mask(kind: str) -> None:
    slots = either_way(BareLastInfo, kind)
    slots.start(BOTH, SEEDS)
    for t in range(6):
        step = slots.step(BOTH, np.array([(t + 1) % 3] * 2))
    assert step.truncated.all()


def test_a_mask_that_is_missing_in_the_middle_of_an_episode_is_explained() -> None:
    class Forgets(MaskedByInfo):
        def _info(self) -> Any:
            return super()._info() if self.t == 0 else {}

    slots = make_slots(Forgets, 2)
    slots.start(BOTH, SEEDS)
    with pytest.raises(ValueError, match=r"Forgets: slot 0 .*action_mask"):
        slots.step(BOTH, np.array([1, 1]))


def test_an_exception_of_an_environment_comes_through_with_where_it_happened() -> None:
    error = KeyError("mine")
    slots = make_slots(lambda: Raises(error, step=2), 2)
    slots.start(BOTH, np.array([20, 30]))
    slots.step(np.array([1]), np.array([2]))
    slots.start(np.array([1]), np.array([40]))
    slots.step(np.array([1]), np.array([2]))
    with pytest.raises(KeyError, match="mine") as caught:
        slots.step(np.array([1]), np.array([0]))
    assert caught.value is error
    (note,) = getattr(error, "__notes__", [""])
    for word in ("Raises", "step 2", "seed 40", "slot 1", "action"):
        assert word in note
    assert "0" in note.partition("action")[2]


def test_an_environment_whose_reset_takes_no_seed_is_explained() -> None:
    class Old(Walk):
        def reset(self) -> Any:  # type: ignore[override]
            raise AssertionError

    slots = make_slots(Old, 2)
    with pytest.raises(TypeError, match="seed") as caught:
        slots.start(BOTH, SEEDS)
    assert "reset(seed=5) of slot 0" in caught.value.__notes__[0]


def test_a_reset_of_one_value_is_explained() -> None:
    class Old(Walk):
        def reset(self, **kwargs: Any) -> Any:
            return super().reset(**kwargs)[0]

    slots = make_slots(Old, 2)
    with pytest.raises(ValueError, match=r"shape \(\)") as caught:  # two numbers unpack as well as two values
        slots.start(BOTH, SEEDS)
    assert "reset(seed=5) of slot 0" in caught.value.__notes__[0]
    assert "reset must return 2 values" in caught.value.__notes__[0]


def test_a_step_of_four_values_is_explained() -> None:
    class Old(Walk):
        def step(self, action: Any) -> Any:
            return super().step(action)[:4]

    slots = make_slots(Old, 2)
    slots.start(BOTH, SEEDS)
    with pytest.raises(ValueError, match="expected 5") as caught:
        slots.step(BOTH, BOTH)
    assert "step must return 5 values" in caught.value.__notes__[0]


@pytest.mark.parametrize(
    "answer",
    [(None, 0.0, False, False, {}), (0, 0.0, np.array([True, False]), False, {}), (2**70, 0.0, False, False, {})],
    ids=["observation", "end", "too large"],
)
def test_of_several_slots_the_one_that_is_at_fault_is_named(answer: Any) -> None:
    class Faulty(gym.Env[Any, Any]):
        observation_space, action_space = spaces.Discrete(3), spaces.Discrete(2)

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            self.is_faulty = seed == 6
            return 0, {}

        def step(self, action: Any) -> Any:
            return answer if self.is_faulty else (0, 0.0, False, False, {})

    slots = make_slots(Faulty, 3)
    slots.start(np.arange(3), np.array([5, 6, 7]))
    with pytest.raises((TypeError, ValueError, OverflowError), match=r"\S") as caught:
        slots.step(np.arange(3), np.zeros(3, np.int64))
    assert "seed 6 in slot 1" in caught.value.__notes__[0]


@pytest.mark.parametrize("at", [0, 1])
def test_an_observation_of_another_shape_is_refused_and_both_are_named(at: int) -> None:
    slots = make_slots(lambda: WrongShape(at), 2)
    with pytest.raises(ValueError, match=r"slot 0.*shape \(3,\).*observation_space says \(2,\)") as caught:  # noqa: PT012
        slots.start(BOTH, SEEDS)
        slots.step(BOTH, BOTH)
    assert ("step 1 of the episode with seed 5" if at else "reset(seed=5)") in caught.value.__notes__[0]


@pytest.mark.parametrize("reward", ["1.5", "many", [1.0], np.array([1.0]), np.array([1.0, 2.0]), {}])
def test_a_reward_that_is_no_number_is_refused(reward: Any) -> None:
    slots = make_slots(lambda: Rewarding(reward), 2)
    slots.start(BOTH, SEEDS)
    with pytest.raises((TypeError, ValueError)) as caught:
        slots.step(BOTH, BOTH)
    assert "reward" in f"{caught.value} {getattr(caught.value, '__notes__', '')}"


@pytest.mark.parametrize("reward", [1, True, np.float32(1), np.int64(1), np.bool_(True), np.array(1.0)])
def test_any_kind_of_number_is_a_reward(reward: Any) -> None:
    slots = make_slots(lambda: Rewarding(reward), 2)
    slots.start(BOTH, SEEDS)
    assert slots.step(BOTH, BOTH).rewards.tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    "sloppy",
    [
        lambda o: o.astype(np.float64),
        lambda o: np.repeat(o, 2)[::2],
        lambda o: np.flip(np.flip(o).copy()),
        lambda o: o.tolist(),
        lambda o: np.frombuffer(o.tobytes(), np.float32),
    ],
    ids=["float64", "strided", "negative strides", "list", "read-only"],
)
def test_harmless_sloppiness_of_observations_is_accepted(sloppy: Callable[[Any], Any]) -> None:
    class Sloppy(Walk):
        def _observation(self) -> Any:
            return sloppy(super()._observation())

    (plain, rough) = (make_slots(env, 2) for env in (Walk, Sloppy))
    assert plain.start(BOTH, SEEDS)[0].tolist() == rough.start(BOTH, SEEDS)[0].tolist()
    one, other = plain.step(BOTH, BOTH), rough.step(BOTH, BOTH)
    assert one.observations.tolist() == other.observations.tolist()
    assert other.observations.dtype == np.float32


def test_closing_closes_every_environment() -> None:
    closed: list[int] = []

    class Closing(Endless):
        def close(self) -> None:
            closed.append(1)

    slots = make_slots(Closing, 3)
    closed.clear()
    slots.close()
    assert closed == [1, 1, 1]
