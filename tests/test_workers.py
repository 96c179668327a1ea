"""Collection in workers. The crew is one of this process; `test_processes` and `test_ray_actors` have real ones."""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from hypothesis import given
from hypothesis import strategies as st

from grpo_gym import GRPO, BaseCallback, CheckpointCallback, EvalCallback
from grpo_gym.groups import EndlessQueue, InPlay, Jobs, plan
from grpo_gym.rollout import Collector
from grpo_gym.types import Array, Rollout
from grpo_gym.vec import make_slots
from grpo_gym.workers import MAX_DEATHS, WorkerCollector, deal_slots, pack_work
from tests.agents import digest, small
from tests.crews import Here
from tests.toys import UNIT_BOX, IgnoresSeed, MaskedByInfo, MaskedByMethod, Raises, StepResult, Walk, policy_for

WHOLE: dict[str, Any] = {"n_groups": 3, "group_size": 2}
SEGMENTS: dict[str, Any] = {**WHOLE, "baseline": "soft_groups", "n_steps": 4}

CASES: list[tuple[Callable[[], gym.Env[Any, Any]], dict[str, Any]]] = [
    (Walk, WHOLE),
    (MaskedByInfo, WHOLE),
    (MaskedByMethod, WHOLE),
    (partial(Walk, UNIT_BOX), {**WHOLE, "normalize_observations": True}),
    (Walk, {**WHOLE, "baseline": "outcome", "scale_rewards": "group", "max_resamples": 3, "max_episode_steps": 2}),
    (Walk, {**WHOLE, "n_envs": 3, "baseline": "soft_groups"}),
    (Walk, {"n_groups": 8, "group_size": 8, "n_epochs": 1, "batch_size": None}),  # more tasks than workers
    (Walk, SEGMENTS),
    (MaskedByInfo, SEGMENTS),
    (partial(Walk, UNIT_BOX), {**SEGMENTS, "normalize_observations": True}),
]


def crew(env: Any, n_workers: int = 2, **kwargs: Any) -> GRPO:
    """An agent whose workers live in this process; one alone plays as agents do."""
    return small(env, n_workers=n_workers, collector=partial(Here, **kwargs.pop("crew", {})), **kwargs)


def same(ours: Rollout, theirs: Rollout) -> bool:
    def equal(a: Any, b: Any) -> bool:
        if isinstance(a, torch.Tensor):
            return torch.equal(a, b)
        return np.array_equal(a, b) if isinstance(a, np.ndarray) else bool(a == b)

    return all(equal(x, getattr(theirs, name)) for name, x in vars(ours).items())


class Told(BaseCallback):
    """Writes down all that it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[dict[str, Any]] = []
        self.counts: list[int] = []

    def _on_step(self) -> bool:
        names = ("rewards", "dones", "actions", "new_obs")
        told = {name: np.asarray(self.locals[name]).tolist() for name in names}
        ends = [info["episode"] for info in self.locals["infos"] if "episode" in info]
        self.steps.append({**told, "ends": ends, "n_steps": self.locals["n_steps"]})
        self.counts.append(self.num_timesteps)
        return True


# --- the number of workers changes nothing ---------------------------------------------------------------------


@pytest.mark.parametrize(("make", "settings"), CASES)
def test_the_number_of_workers_changes_no_bit_of_the_weights(make: Any, settings: dict[str, Any]) -> None:
    alone = small(make, **settings).learn(50)
    for n_workers in (2, 3):
        agent = crew(make, n_workers, **settings).learn(50)
        assert digest(agent) == digest(alone)
        assert agent.num_timesteps == alone.num_timesteps


@pytest.mark.parametrize("make", [Walk, MaskedByInfo, partial(Walk, UNIT_BOX)])
@pytest.mark.parametrize("n_steps", [None, 3])
def test_the_number_of_workers_changes_no_bit_of_a_rollout(make: Any, n_steps: int | None) -> None:
    slots = make_slots(make, 8)
    actor = policy_for(slots).actor()

    def rollouts(collector: Collector | WorkerCollector) -> list[Rollout]:
        rng, endless = np.random.default_rng(1), EndlessQueue(5, 4, 2)
        found = [
            collector.collect(actor, plan(rng, 4, 2).queue() if n_steps is None else endless, n_steps) for _ in range(3)
        ]
        return [rollout for rollout in found if rollout is not None]

    expected = rollouts(Collector(slots))
    assert len(expected) == 3
    for n_workers in (1, 3, 4):
        sizes = deal_slots(8, n_workers, 4, 2, pinned=n_steps is not None)
        found = rollouts(WorkerCollector(Here(pack_work(make, sizes, None)), sizes))
        assert all(map(same, found, expected))


@pytest.mark.parametrize("settings", [WHOLE, SEGMENTS])
def test_callbacks_are_told_the_same_for_any_number_of_workers(settings: dict[str, Any]) -> None:
    told = [Told() for _ in range(3)]
    agents = [small(Walk, **settings), *(crew(Walk, n_workers, **settings) for n_workers in (2, 3))]
    for agent, callback in zip(agents, told, strict=True):
        agent.learn(60, callback=callback)
    assert told[0].steps == told[1].steps == told[2].steps
    assert told[0].counts == told[1].counts == told[2].counts
    assert agents[0].ep_info_buffer == agents[1].ep_info_buffer == agents[2].ep_info_buffer


def test_with_fewer_slots_than_episodes_every_step_and_episode_is_told_all_the_same() -> None:
    alone, told = Told(), Told()
    agents = small(Walk, n_envs=2).learn(60, callback=alone), crew(Walk, n_envs=2).learn(60, callback=told)
    assert alone.counts[-1] == told.counts[-1] == agents[0].num_timesteps
    ended = [sorted((end["r"], end["l"]) for step in one.steps for end in step["ends"]) for one in (alone, told)]
    assert ended[0] == ended[1]


def test_callbacks_that_save_and_evaluate_do_so_at_the_same_steps(tmp_path: Path) -> None:
    for name, agent in (("alone", small(Walk, **SEGMENTS)), ("crew", crew(Walk, **SEGMENTS))):
        folder = tmp_path / name
        evaluate = EvalCallback(Walk, n_eval_episodes=2, eval_freq=3, log_path=folder, verbose=0)
        agent.learn(60, callback=[CheckpointCallback(5, str(folder)), evaluate])
    found = [sorted(path.name for path in (tmp_path / name).iterdir()) for name in ("alone", "crew")]
    assert found[0] == found[1]
    assert len(found[0]) == 3  # 12 vector steps: two checkpoints, and the evaluations
    ours, theirs = (np.load(tmp_path / name / "evaluations.npz") for name in ("alone", "crew"))
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours.files)
    for file in found[0][1:]:
        agents = [GRPO.load(tmp_path / name / file, env=Walk).learn(30) for name in ("alone", "crew")]
        assert digest(agents[0]) == digest(agents[1])


# --- workers die -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [WHOLE, SEGMENTS])
def test_the_death_of_a_worker_changes_nothing(settings: dict[str, Any]) -> None:
    alone = small(Walk, **settings).learn(100)
    made: list[Here] = []
    agent = crew(Walk, crew={"deaths": {0, 3, 4, 8}, "made": made}, **settings)
    callback = Told()
    agent.learn(100, callback=callback)
    assert made[0].n_sent > 8
    assert digest(agent) == digest(alone)
    assert callback.counts[-1] == alone.num_timesteps


class Everything:
    def __contains__(self, number: object) -> bool:
        return True


def test_a_task_of_which_workers_keep_dying_is_given_up() -> None:
    agent = crew(Walk, 2, crew={"deaths": Everything()})
    with pytest.raises(RuntimeError, match=r"worker \d died.*struck by lightning.*out of memory.*__main__"):
        agent.learn(10)


def test_deaths_of_different_tasks_are_not_added_up() -> None:
    made: list[Here] = []
    deaths = {0, 3, 6}  # what is sent after a death is the same task, and does not kill again
    assert len(deaths) == MAX_DEATHS
    agent = crew(Walk, 6, n_groups=6, crew={"deaths": deaths, "made": made}).learn(1)
    assert made[0].n_sent == 6 + 3
    assert digest(agent) == digest(small(Walk, n_groups=6).learn(1))


# --- what goes wrong in a worker -------------------------------------------------------------------------------


class TwoWords(Exception):
    """Packs, but does not unpack: it is made of two arguments and keeps one."""

    def __init__(self, one: str, two: str):
        super().__init__(f"{one} {two}")


class RaisesTwoWords(Walk):
    def step(self, action: Any) -> StepResult:
        raise TwoWords("no", "fuel")


@pytest.mark.parametrize("error", [ValueError("no more fuel"), KeyError("fuel")])
def test_what_an_environment_raises_comes_through(error: Exception) -> None:
    made: list[Here] = []
    agent = crew(partial(Raises, error, 2), crew={"made": made})
    with pytest.raises(type(error), match="fuel") as raised:
        agent.learn(10)
    notes = "".join(getattr(raised.value, "__notes__", ["step 2 of the episode with seed"]))
    assert "step 2 of the episode with seed" in notes
    assert "in step\n    raise self.error" in str(raised.value.__cause__)  # where it was raised
    assert made[0].n_closed == 1


def test_what_cannot_be_sent_back_is_told_in_words() -> None:
    with pytest.raises(RuntimeError, match="TwoWords: no fuel") as raised:
        crew(RaisesTwoWords).learn(10)
    assert "step 1 of" in "".join(getattr(raised.value, "__notes__", ["step 1 of"]))


class OnlyHere:
    """Makes environments where it was made; what arrives in a worker cannot."""

    def __call__(self) -> Walk:
        return Walk()

    def __reduce__(self) -> Any:
        return partial, (raise_no_display,)


def raise_no_display() -> Walk:
    raise OSError("no display")


def test_an_environment_that_cannot_be_made_in_a_worker_says_why() -> None:
    agent = crew(OnlyHere())
    with pytest.raises(OSError, match="no display"):
        agent.learn(10)


class Secretive(Walk):
    """Ends with an info that cannot be sent."""

    def step(self, action: Any) -> StepResult:
        *answer, _ = super().step(action)
        return (*answer, {"lock": threading.Lock()})


def test_infos_that_cannot_be_sent_are_an_error_of_the_worker_and_not_its_death() -> None:
    with pytest.raises(TypeError, match="cannot pickle"):
        crew(Secretive).learn(10)


class Grumbles(Walk):
    """Warns whenever it starts."""

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        warnings.warn("the fuel is low", RuntimeWarning, stacklevel=1)
        return super().reset(**kwargs)


def test_warnings_come_through() -> None:
    with pytest.warns(RuntimeWarning, match="the fuel is low"):
        crew(Grumbles).learn(1)


# --- stopping, and going on ------------------------------------------------------------------------------------


class Stop(BaseCallback):
    """Stops, or raises, at a vector step."""

    def __init__(self, at: int, error: BaseException | None = None):
        super().__init__()
        self.at, self.error = at, error

    def _on_step(self) -> bool:
        if self.n_calls == self.at and self.error is not None:
            raise self.error
        return self.n_calls != self.at


@pytest.mark.parametrize("settings", [WHOLE, SEGMENTS])
def test_after_a_stop_any_number_of_workers_goes_on_alike(settings: dict[str, Any]) -> None:
    agents = small(Walk, **settings), crew(Walk, **settings), crew(Walk, 3, **settings)
    for agent in agents:
        agent.learn(100, callback=Stop(6))
        agent.learn(50, reset_num_timesteps=False)
    assert len({(digest(agent), agent.num_timesteps) for agent in agents}) == 1


@pytest.mark.parametrize("callback", [Stop(6), Stop(6, KeyboardInterrupt())])
def test_a_rollout_that_was_stopped_leaves_nothing_in_play(callback: Stop) -> None:
    agents = small(Walk, **SEGMENTS), crew(Walk, **SEGMENTS)
    for agent in agents:
        try:
            agent.learn(100, callback=callback)
        except KeyboardInterrupt:
            assert callback.error
        in_play = agent.sampler.in_play()
        assert in_play is not None
        assert len(in_play.slots) == 0
        callback.n_calls = 0


@pytest.mark.parametrize("make", [Walk, MaskedByInfo, partial(Walk, UNIT_BOX)])
def test_a_checkpoint_goes_on_with_any_number_of_workers(make: Any, tmp_path: Path) -> None:
    agent = crew(make, **SEGMENTS).learn(48)  # after 60 all episodes of one of the three happen to be over
    agent.save(tmp_path / "agent")
    in_play = agent.sampler.in_play()
    assert in_play is not None
    assert in_play.lengths.any()
    crews = [{}, *({"n_workers": n, "collector": Here} for n in (2, 3))]
    others = [GRPO.load(tmp_path / "agent", env=make, **kwargs) for kwargs in crews]  # type: ignore[arg-type]
    assert [other.n_workers for other in others] == [1, 2, 3]
    for one in (agent, *others):
        one.learn(72, reset_num_timesteps=False)
    assert {digest(other) for other in others} == {digest(agent)}


@pytest.mark.filterwarnings("ignore:.*does not repeat the start")
def test_episodes_that_a_worker_cannot_replay_are_replaced_with_a_warning(tmp_path: Path) -> None:
    crew(IgnoresSeed, **SEGMENTS).learn(24).save(tmp_path / "agent")
    loaded = GRPO.load(tmp_path / "agent", env=IgnoresSeed, n_workers=2, collector=Here)
    with pytest.warns(UserWarning, match="does not come to where it stood"):
        loaded.learn(24, reset_num_timesteps=False)


def test_workers_belong_to_the_machine_and_are_not_stored(tmp_path: Path) -> None:
    crew(Walk).learn(10).save(tmp_path / "agent")
    loaded = GRPO.load(tmp_path / "agent")
    assert (loaded.n_workers, loaded.collector) == (1, "processes")


def test_another_environment_is_played_by_other_workers() -> None:
    made: list[Here] = []
    agent, alone = crew(Walk, crew={"made": made}), small(Walk)
    for one in (agent, alone):
        one.learn(20)
        one.set_env(partial(Walk, limit=3))
        one.learn(20, reset_num_timesteps=False)
    assert len(made) == 2
    assert digest(agent) == digest(alone)


# --- dealing ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_slots", "n_workers", "n_groups", "pinned", "expected"),
    [
        (32, 2, 4, True, [16, 16]),
        (56, 3, 7, True, [24, 16, 16]),
        (32, 2, 4, False, [16, 16]),  # two tasks of a block; four would be half empty
        (64, 2, 8, False, [16, 16]),  # four tasks of a block
        (80, 2, 10, False, [24, 24]),  # four tasks of at most three groups
        (24, 3, 3, False, [8, 8, 8]),  # no block is full, but everybody has something to do
        (24, 2, 3, False, [16, 16]),
        (20, 2, 10, False, [10, 10]),  # no more than n_envs
        (3, 2, 10, False, [1, 1]),
    ],
)
def test_slots_are_dealt_by_groups_of_eight(
    n_slots: int, n_workers: int, n_groups: int, pinned: bool, expected: list[int]
) -> None:
    assert deal_slots(n_slots, n_workers, n_groups, 8, pinned).tolist() == expected


@given(st.integers(1, 40), st.integers(1, 9), st.integers(2, 9), st.data())
def test_every_episode_of_a_task_has_a_slot(
    n_groups: int, n_workers: int, group_size: int, data: st.DataObject
) -> None:
    n_workers = min(n_workers, n_groups)
    sizes = deal_slots(n_groups * group_size, n_workers, n_groups, group_size, pinned=False)
    queue = plan(np.random.default_rng(0), data.draw(st.integers(1, n_groups)), group_size).queue()
    parts = queue.split(max(n_workers, -(-queue.n_episodes // int(sizes[0]))))
    assert all(part.n_episodes <= sizes[0] for part in parts)


@given(st.lists(st.integers(0, 3), min_size=6, max_size=6), st.sampled_from([[6], [2, 4], [2, 2, 2], [3, 0, 3]]))
def test_episodes_in_play_that_are_parted_and_joined_are_the_same(lengths: list[int], sizes: list[int]) -> None:
    slots = np.flatnonzero(lengths)  # the others rest
    n = np.array(lengths)[slots]
    jobs = Jobs(slots // 2, slots % 2, slots * 7, slots * 11)
    actions, seen = np.arange(2 * n.sum()).reshape(-1, 2), np.arange(3.0 * len(slots)).reshape(-1, 3)
    episodes = InPlay(slots, jobs, n, actions, seen, -seen.astype(np.float32))

    def numbers(episodes: InPlay) -> list[Array]:
        return [x for x in (*vars(episodes.jobs).values(), *vars(episodes).values()) if isinstance(x, np.ndarray)]

    again = InPlay.join(episodes.split(np.array(sizes)), np.array(sizes))
    assert [x.tolist() for x in numbers(again) if len(slots)] == [x.tolist() for x in numbers(episodes) if len(slots)]


# --- what is refused -------------------------------------------------------------------------------------------


def test_ray_that_is_not_installed_is_asked_for_by_the_name_of_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "grpo_gym.ray_actors", raising=False)
    with pytest.raises(ImportError, match=r"collector='ray' needs ray.*pip install 'grpo_gym\[ray\]'"):
        small(Walk, collector="ray")


class Unsent(Walk):
    """Has what can neither be copied nor sent."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


def test_an_environment_without_a_spec_is_copied_to_workers() -> None:
    assert digest(crew(Walk()).learn(30)) == digest(crew(Walk).learn(30))


def test_what_workers_cannot_do_is_refused_when_the_agent_is_made() -> None:
    vector = SyncVectorEnv([Walk] * 6, autoreset_mode=AutoresetMode.DISABLED)
    lock = threading.Lock()
    refused: list[tuple[Any, dict[str, Any], str]] = [
        (vector, {}, "lives in this process and cannot be sent to workers: pass its id, or use n_workers=1"),
        (Unsent(), {}, r"has no spec.*pass a function"),
        (Walk, {"n_workers": 3}, r"n_workers=3, but only 2 groups are played.*expected no more workers"),
        (Walk, {"n_workers": 3, **SEGMENTS, "n_groups": 2}, r"n_workers=3, but only 2 groups"),
        (Walk, {"n_envs": 1}, r"n_workers=2, but only 1 slots play \(n_envs\)"),
        (Walk, {"collector": "threads"}, "collector='threads' is not known; choose from processes, ray"),
    ]
    for env, settings, message in refused:
        with pytest.raises(ValueError, match=message):
            small(env, **{"n_workers": 2, "collector": Here, **settings})
    with pytest.raises(TypeError, match=r"cannot be sent to workers \(TypeError: cannot pickle '_thread.lock'"):
        crew(lambda: Walk(limit=6 if lock else 7))
