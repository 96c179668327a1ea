import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers import NormalizeReward, RecordEpisodeStatistics, TimeLimit, TransformReward

from grpo_gym.evaluation import evaluate_policy, play_episodes
from grpo_gym.types import DEFAULT_HORIZON


class Counting(gym.Env[Any, Any]):
    """Counts its own steps; the observation is (seed, step), and an action `a` earns `a`.

    An episode from seed s takes s steps; one without a seed takes `lengths[k]` for the k-th of them.
    """

    observation_space = spaces.Box(-1.0, 1e6, (2,), np.float64)
    action_space = spaces.Discrete(10)

    def __init__(self, lengths: Sequence[int] = (3,)) -> None:
        self.lengths, self.resets, self.closed = lengths, 0, False
        self.seeds: list[int | None] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.seeds.append(seed)
        self.seed = -1 if seed is None else seed
        self.length = self.lengths[self.resets % len(self.lengths)] if seed is None else seed
        self.resets += seed is None
        self.step_number = 0
        return np.array([self.seed, 0.0]), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.step_number < self.length, "stepped after the end"
        self.step_number += 1
        ended = self.step_number == self.length
        info = {"is_success": self.length % 2 == 0} if ended else {}
        return np.array([self.seed, self.step_number]), float(action), ended, False, info

    def close(self) -> None:
        self.closed = True


class Player:
    """Plays `action` and remembers what it was shown."""

    def __init__(self, action: int = 1) -> None:
        self.action = action
        self.observations: list[Any] = []
        self.starts: list[list[bool]] = []
        self.states: list[Any] = []

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        first = next(iter(observation.values())) if isinstance(observation, dict) else observation
        self.observations.append(observation)
        self.starts.append(np.asarray(episode_start).tolist())
        self.states.append(state)
        return np.full(len(first), self.action), (0 if state is None else state + 1)


class MaskedPlayer:
    """Plays the first legal action and remembers the masks."""

    def __init__(self) -> None:
        self.masks: list[Any] = []

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
        action_masks: Any = None,
    ) -> tuple[Any, Any]:
        self.masks.append(action_masks)
        return np.zeros(len(observation), int) if action_masks is None else action_masks.argmax(axis=1), state


class MaskInInfo(Counting):
    """Only the action that is the number of the step is legal; at the end nothing is."""

    def _mask(self) -> Any:
        return np.arange(10) == (self.step_number if self.step_number < self.length else -1)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        observation, info = super().reset(seed=seed)
        return observation, {**info, "action_mask": self._mask().astype(np.int8)}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self._mask()[action], "illegal"
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated, truncated, {**info, "action_mask": self._mask().astype(np.int8)}


class MaskByMethod(Counting):
    def action_masks(self) -> Any:
        assert self.step_number < self.length, "asked after the end"
        return np.arange(10) == self.step_number

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_masks()[action], "illegal"
        return super().step(action)


def vector(lengths: Sequence[Sequence[int]], mode: AutoresetMode, kind: type = Counting) -> SyncVectorEnv:
    makers: list[Callable[[], gym.Env[Any, Any]]] = [lambda one=one: kind(one) for one in lengths]  # type: ignore[misc]
    return SyncVectorEnv(makers, autoreset_mode=mode)


ALL_MODES = pytest.mark.parametrize("mode", list(AutoresetMode))


def test_the_mean_and_population_deviation_of_the_returns_are_returned() -> None:
    assert evaluate_policy(Player(2), Counting([1, 3]), 2) == (4.0, 2.0)


def test_returns_and_lengths_of_each_episode_are_returned_on_request() -> None:
    result = evaluate_policy(Player(2), Counting([1, 3, 2]), 4, return_episode_rewards=True)
    assert result == ([2.0, 6.0, 4.0, 2.0], [1, 3, 2, 1])


@ALL_MODES
def test_episodes_are_divided_beforehand_whatever_the_autoreset_mode(mode: AutoresetMode) -> None:
    envs = vector([[2, 2, 2, 2, 2, 2, 2, 2], [9, 5], [1]], mode)
    result = evaluate_policy(Player(), envs, 5, return_episode_rewards=True)
    assert result == ([2.0, 9.0, 1.0, 2.0, 5.0], [2, 9, 1, 2, 5])
    envs.close()


@ALL_MODES
def test_a_vector_environment_may_have_more_places_than_there_are_episodes(mode: AutoresetMode) -> None:
    envs = vector([[1], [4], [2]], mode)
    assert evaluate_policy(Player(), envs, 2, return_episode_rewards=True) == ([1.0, 4.0], [1, 4])
    envs.close()


@ALL_MODES
def test_seeds_are_played_exactly_and_in_order(mode: AutoresetMode) -> None:
    seeds = [4, 1, 6, 2, 3]
    expected = ([4.0, 1.0, 6.0, 2.0, 3.0], [4, 1, 6, 2, 3])
    envs = vector([[1], [1]], mode)
    for env in (Counting(), [Counting(), Counting(), Counting()], Counting, envs):
        assert evaluate_policy(Player(), env, seeds=seeds, return_episode_rewards=True) == expected
    envs.close()


def test_numpy_seeds_and_ranges_are_seeds_too() -> None:
    assert evaluate_policy(Player(), Counting(), seeds=np.arange(1, 4)) == (2.0, math.sqrt(2 / 3))  # type: ignore[arg-type]
    assert evaluate_policy(Player(), Counting(), seeds=range(2, 3)) == (2.0, 0.0)


def test_a_function_makes_at_most_one_environment_an_episode_and_all_are_closed() -> None:
    made: list[Counting] = []

    def make() -> Counting:
        made.append(Counting())
        return made[-1]

    evaluate_policy(Player(), make, seeds=[3, 2])
    assert [env.seeds for env in made] == [[3], [2]]
    evaluate_policy(Player(), make, 40)
    assert len(made) == 2 + 16
    assert all(env.closed for env in made)


def test_environments_made_here_are_closed_after_an_error() -> None:
    made: list[Counting] = []

    def make() -> Counting:
        if len(made) == 2:
            raise OSError("no third one")
        made.append(Counting())
        return made[-1]

    with pytest.raises(OSError, match="no third one"):
        evaluate_policy(Player(), make, 3)
    assert [env.closed for env in made] == [True, True]


def test_an_environment_of_the_callers_is_left_open() -> None:
    env = Counting()
    evaluate_policy(Player(), env, 1)
    assert not env.closed


@pytest.mark.parametrize("env", ["CartPole-v1", gym.spec("CartPole-v1")])
def test_an_id_or_a_spec_is_made(env: Any) -> None:
    rewards, lengths = evaluate_policy(Player(1), env, seeds=[0, 1], return_episode_rewards=True)
    assert rewards == [float(length) for length in lengths]  # type: ignore[union-attr]
    assert all(8 <= length <= 11 for length in lengths)  # type: ignore[union-attr]


def test_a_player_is_shown_batches_and_told_where_episodes_start() -> None:
    player = Player()
    evaluate_policy(player, [Counting([1, 2]), Counting([3])], 3)
    assert [observation.tolist() for observation in player.observations] == [
        [[-1, 0], [-1, 0]],
        [[-1, 0], [-1, 1]],
        [[-1, 1], [-1, 2]],
    ]
    assert player.starts == [[True, True], [True, False], [False, False]]
    assert player.states == [None, 0, 1]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (AutoresetMode.SAME_STEP, [True, False, True, False]),
        (AutoresetMode.DISABLED, [True, False, True, False]),
        # the third action answers the ended episode's last observation and is not played
        (AutoresetMode.NEXT_STEP, [True, False, False, True, False]),
    ],
)
def test_a_start_is_announced_with_the_first_observation(mode: AutoresetMode, expected: list[bool]) -> None:
    player = Player()
    envs = vector([[2]], mode)
    evaluate_policy(player, envs, 2)
    assert [starts[0] for starts in player.starts] == expected
    envs.close()


def test_dict_observations_are_stacked_key_by_key() -> None:
    class Dicts(Counting):
        observation_space: Any = spaces.Dict({"a": spaces.Box(-1, 9, (2,)), "b": spaces.Discrete(9)})

        def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
            observation, info = super().reset(seed=seed)
            return {"a": observation, "b": 4}, info

        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            observation, *rest = super().step(action)
            return ({"a": observation, "b": 5}, *rest)  # type: ignore[return-value]

    player = Player()
    evaluate_policy(player, [Dicts([1]), Dicts([2])], 2)
    assert player.observations[1]["a"].tolist() == [[-1, 1], [-1, 1]]
    assert player.observations[1]["b"].tolist() == [5, 5]


def test_an_environment_that_reuses_its_buffer_is_seen_rightly() -> None:
    class Reusing(Counting):
        buffer = np.zeros(2)

        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            observation, *rest = super().step(action)
            self.buffer[:] = observation
            return (self.buffer, *rest)  # type: ignore[return-value]

    player = Player()
    evaluate_policy(player, Reusing([4]), 1)
    assert [observation[0, 1] for observation in player.observations] == [0, 1, 2, 3]


@ALL_MODES
@pytest.mark.parametrize("kind", [MaskInInfo, MaskByMethod])
def test_masks_reach_a_player_that_takes_them(mode: AutoresetMode, kind: type) -> None:
    if kind is MaskByMethod and mode is AutoresetMode.NEXT_STEP:
        kind = type("Lenient", (MaskByMethod,), {"action_masks": lambda self: np.arange(10) == self.step_number})
    envs = vector([[2, 1], [3]], mode, kind)
    player = MaskedPlayer()
    assert evaluate_policy(player, envs, 3, return_episode_rewards=True) == ([1.0, 3.0, 0.0], [2, 3, 1])
    assert player.masks[0].dtype == np.bool_
    assert player.masks[1].tolist() == [[False, True] + [False] * 8] * 2
    envs.close()


@pytest.mark.parametrize("kind", [MaskInInfo, MaskByMethod])
def test_masks_of_single_environments_are_found_through_wrappers(kind: type) -> None:
    player = MaskedPlayer()
    envs = [TimeLimit(kind([2, 1]), 9), TimeLimit(kind([3]), 9)]
    assert evaluate_policy(player, envs, 3, return_episode_rewards=True) == ([1.0, 3.0, 0.0], [2, 3, 1])
    assert all(masks.shape == (2, 10) for masks in player.masks)


def test_masks_of_workers_are_found_without_ending_them() -> None:
    for kind, expected in ((MaskByMethod, [1.0, 3.0]), (Counting, [0.0, 0.0])):
        envs = AsyncVectorEnv(
            [lambda kind=kind: kind([2]), lambda kind=kind: kind([3])],  # type: ignore[misc]
            autoreset_mode=AutoresetMode.SAME_STEP,
        )
        assert evaluate_policy(MaskedPlayer(), envs, 2, return_episode_rewards=True)[0] == expected
        envs.close()


def test_a_player_without_the_keyword_gets_no_masks_and_one_with_it_none_where_there_are_none() -> None:
    evaluate_policy(Player(0), MaskInInfo([1]), 1)
    player = MaskedPlayer()
    evaluate_policy(player, Counting([1]), 1)
    assert player.masks == [None]


def test_masks_that_stop_coming_are_missed() -> None:
    class Forgetful(MaskInInfo):
        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            return (*super().step(action)[:4], {})

    with pytest.raises(ValueError, match="sub-environment 0 gave no info"):
        evaluate_policy(MaskedPlayer(), Forgetful([2]), 1)


def test_the_callback_sees_every_step_that_counts() -> None:
    seen: list[tuple[Any, ...]] = []

    def callback(locals_: dict[str, Any], globals_: dict[str, Any]) -> None:
        seen.append((locals_["i"], locals_["reward"], locals_["done"], locals_["info"]))

    envs = vector([[1, 2], [2]], AutoresetMode.NEXT_STEP)
    evaluate_policy(Player(3), envs, 3, callback=callback)
    assert seen == [
        (0, 3.0, True, {"is_success": False}),
        (1, 3.0, False, {}),
        (1, 3.0, True, {"is_success": True}),
        (0, 3.0, False, {}),
        (0, 3.0, True, {"is_success": True}),
    ]
    envs.close()


@ALL_MODES
def test_success_is_read_at_the_end_of_an_episode(mode: AutoresetMode) -> None:
    envs = vector([[1, 2], [2]], mode)
    assert [episode.success for episode in play_episodes(Player(), envs, 3)] == [0.0, 1.0, 1.0]
    envs.close()


def test_success_is_nan_where_the_environment_does_not_say() -> None:
    assert np.isnan(play_episodes(Player(), "CartPole-v1", 1)[0].success)


@ALL_MODES
def test_a_recorder_below_a_reward_wrapper_tells_the_true_returns(mode: AutoresetMode) -> None:
    def make() -> gym.Env[Any, Any]:
        return TransformReward(RecordEpisodeStatistics(Counting([2, 3])), lambda reward: 100 * float(reward))

    envs = SyncVectorEnv([make], autoreset_mode=mode)
    for env in (make(), envs):
        assert evaluate_policy(Player(), env, 2, return_episode_rewards=True) == ([2.0, 3.0], [2, 3])
    envs.close()


@ALL_MODES
def test_a_vector_recorder_tells_the_true_returns(mode: AutoresetMode) -> None:
    envs = gym.wrappers.vector.RecordEpisodeStatistics(vector([[2, 3], [5, 1]], mode))
    assert evaluate_policy(Player(), envs, 4, return_episode_rewards=True) == ([2.0, 5.0, 3.0, 1.0], [2, 5, 3, 1])
    envs.close()


@pytest.mark.filterwarnings("error")
def test_rewards_counted_above_a_wrapper_that_changes_them_are_warned_of() -> None:
    changed = TransformReward(Counting(), lambda reward: 100 * float(reward))
    for env in (changed, NormalizeReward(Counting()), SyncVectorEnv([lambda: changed])):
        with pytest.warns(UserWarning, match="rewards that (TransformReward|NormalizeReward) has changed"):
            evaluate_policy(Player(), env, 1)
    evaluate_policy(Player(), changed, 1, warn=False)
    evaluate_policy(Player(), Counting(), 1)


@pytest.mark.parametrize("as_vector", [False, True])
def test_a_lost_life_under_a_recorder_is_not_the_end(as_vector: bool) -> None:
    class Lives(gym.Wrapper[Any, Any, Any, Any]):
        """Ends each second step though the game goes on, as Atari's EpisodicLife does."""

        over = True

        def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
            return super().reset(**kwargs) if self.over else (np.zeros(2), {})

        def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
            observation, reward, self.over, truncated, info = super().step(action)
            counting: Any = self.unwrapped
            return observation, reward, self.over or counting.step_number % 2 == 0, truncated, info

    def make() -> gym.Env[Any, Any]:
        return Lives(RecordEpisodeStatistics(Counting([5, 3])))

    env = SyncVectorEnv([make], autoreset_mode=AutoresetMode.SAME_STEP) if as_vector else make()
    assert evaluate_policy(Player(), env, 2, return_episode_rewards=True) == ([5.0, 3.0], [5, 3])
    env.close()


def test_endless_episodes_are_cut_and_warned_of() -> None:
    with pytest.warns(UserWarning, match="1 of 2 evaluation episodes had no end and were cut after 10000 steps"):
        rewards, _ = evaluate_policy(Player(), Counting([10**9, 5]), 2, return_episode_rewards=True)
    assert rewards == [10_000.0, 5.0]
    assert DEFAULT_HORIZON == 10_000


@pytest.mark.filterwarnings("error")
def test_max_episode_steps_cuts_without_a_warning() -> None:
    episodes = play_episodes(Player(), [Counting([50, 3]), Counting([50])], 3, max_episode_steps=4)
    assert [(episode.length, episode.cut) for episode in episodes] == [(4, True), (4, True), (3, False)]


@pytest.mark.filterwarnings("error")
def test_a_limit_of_the_environments_own_is_not_shortened() -> None:
    env = TimeLimit(Counting([10**9]), DEFAULT_HORIZON + 1)
    assert play_episodes(Player(), env, 1)[0].length == 10_001


def test_an_endless_episode_of_a_vector_environment_is_an_error() -> None:
    envs = vector([[2], [50]], AutoresetMode.SAME_STEP)
    with pytest.raises(RuntimeError, match=r"sub-environment 1 has run for 6 steps.*TimeLimit"):
        evaluate_policy(Player(), envs, 2, max_episode_steps=6)
    envs.close()


def test_a_mean_not_above_the_threshold_is_an_error() -> None:
    evaluate_policy(Player(), Counting([3]), 1, reward_threshold=2.9)
    with pytest.raises(AssertionError, match=r"mean reward 3.00 is not above reward_threshold=3.00"):
        evaluate_policy(Player(), Counting([3]), 1, reward_threshold=3.0)


def test_render_draws_after_each_step() -> None:
    drawn: list[int] = []

    class Drawing(Counting):
        def render(self) -> None:
            drawn.append(self.step_number)

    evaluate_policy(Player(), Drawing([3]), 1, render=True)
    evaluate_policy(Player(), lambda: Drawing([2]), 1, render=True)
    assert drawn == [1, 2, 3, 1, 2]


@pytest.mark.parametrize("kwargs", [{"n_eval_episodes": 0}, {"seeds": []}, {"max_episode_steps": 0}])
def test_nothing_to_play_is_refused(kwargs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="at least one episode of at least one step is needed"):
        evaluate_policy(Player(), Counting(), **kwargs)


@pytest.mark.parametrize("env", [3, [], [3], object()])
def test_what_is_no_environment_is_refused(env: Any) -> None:
    with pytest.raises(TypeError, match="expected an id, a spec, a function"):
        evaluate_policy(Player(), env, 1)


def test_actions_that_are_no_batch_are_refused() -> None:
    class Single(Player):
        def predict(self, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
            return 1, None

    with pytest.raises(ValueError, match=r"shape \(\) for a batch of 2 observations; expected \[2, ...\]"):
        evaluate_policy(Single(), [Counting(), Counting()], 2)


def test_a_vector_environment_of_unknown_autoreset_is_refused() -> None:
    class Unknown(VectorEnv[Any, Any, Any]):
        num_envs = 1

    with pytest.raises(ValueError, match='metadata\\["autoreset_mode"\\]'):
        evaluate_policy(Player(), Unknown(), 1)


def test_no_global_random_stream_is_drawn_from() -> None:
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # type: ignore[index] # noqa: NPY002
    evaluate_policy(Player(), "CartPole-v1", 3)
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # type: ignore[index] # noqa: NPY002
    assert before == after
