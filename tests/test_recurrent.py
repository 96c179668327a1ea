"""Policies with a memory: that it is kept, carried, learned through, and needed."""

from __future__ import annotations

from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import gymnasium as gym
import hypothesis
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from hypothesis import given
from hypothesis import strategies as st

from grpo_gym import GRPO, EvalCallback, evaluate_policy
from grpo_gym.acting import remembers
from grpo_gym.cli import main
from grpo_gym.groups import EndlessQueue
from grpo_gym.noise import uniform_noise
from grpo_gym.recurrent import BlockGruActor, GruActor, MlpGruPolicy
from grpo_gym.rollout import Collector, collect
from grpo_gym.state import _stored_in_play, checkpoint_of
from grpo_gym.types import Batch, Rollout, Slots
from grpo_gym.update import UpdateSettings, make_batch, update
from grpo_gym.vec import make_slots
from tests.agents import FLAT_OUT, digest, mean_return, small
from tests.crews import Here
from tests.toys import UNIT_BOX, MaskedByInfo, Recall, Walk, a_plan, policy_for

UNIT = Box(-1.0, 1.0, (3,), np.float32)
SEGMENTS: dict[str, Any] = {"baseline": "soft_groups", "n_groups": 2, "group_size": 2, "n_steps": 5}
LEARNING: dict[str, Any] = {"n_groups": 8, "group_size": 8, "batch_size": 256, "n_epochs": 4, "baseline": "live_peers"}
LEARNING |= {"learning_rate": 3e-3, "normalize_observations": False, "seed": 100}
ENVS = [Walk, MaskedByInfo, partial(Walk, UNIT_BOX)]


def made(space: gym.Space[Any] | None = None, seed: int = 0, **kwargs: Any) -> MlpGruPolicy:
    """A policy with repeatable weights that differ enough for actions to depend on what was seen."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MlpGruPolicy(UNIT, space or Discrete(3), **{"hidden_size": 5, "ortho_init": False, **kwargs})


def small_gru(env: Any, **kwargs: Any) -> GRPO:
    """As `agents.small`, with a memory of six numbers."""
    settings: dict[str, Any] = {"n_groups": 2, "group_size": 3, "batch_size": 8, "n_epochs": 4, "seed": 0}
    settings |= {"learning_rate": FLAT_OUT, "baseline": "live_peers", "normalize_observations": False}
    settings |= {"policy": "MlpGruPolicy", "policy_kwargs": {"hidden_size": 6, "net_arch": [8]}}
    return GRPO(env=env, **{**settings, **kwargs})


def made_for(slots: Slots) -> MlpGruPolicy:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MlpGruPolicy(slots.observation_space, slots.action_space, 5, (8,), ortho_init=False)


def segments(env: Any, n_rollouts: int) -> tuple[MlpGruPolicy, list[Rollout]]:
    """Rollouts one after the other, of two groups of two slots, and who played them."""
    slots = make_slots(env, 4)
    collector, queue, policy = Collector(slots), EndlessQueue(7, 2, 2), made_for(slots)
    rollouts = [collector.collect(policy.actor(), queue, 4) for _ in range(n_rollouts)]
    return policy, [rollout for rollout in rollouts if rollout is not None]


def whole(env: Any) -> tuple[MlpGruPolicy, list[Rollout]]:
    slots = make_slots(env, 4)
    policy = made_for(slots)
    rollout = collect(slots, policy.actor(), a_plan(3, 2))
    assert rollout is not None
    return policy, [rollout]


def observations(n: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).uniform(-1, 1, (n, 3)).astype(np.float32)


# --- the unit --------------------------------------------------------------------------------------------------


def test_without_weights_half_of_the_memory_is_replaced_at_each_step() -> None:
    policy = made(hidden_size=1)
    for parameter in policy.gru.parameters():
        torch.nn.init.zeros_(parameter)
    dict(policy.gru.named_parameters())["bias_ih_l0"].data[2] = float(np.arctanh(0.5))
    features = torch.zeros(5, 3)
    after = policy.remember(features, torch.tensor([[0.0], [1.0]]), torch.tensor([2, 3]))
    assert torch.allclose(after[:, 0], torch.tensor([0.25, 0.375, 0.75, 0.625, 0.5625]))


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(0, 100))
def test_steps_one_by_one_are_the_trajectory_at_once(lengths: list[int], seed: int) -> None:
    policy, starts = made(seed=seed), torch.randn(len(lengths), 5, generator=torch.Generator().manual_seed(seed))
    features = torch.from_numpy(observations(sum(lengths), seed))
    at_once = torch.split(policy.remember(features, starts, torch.tensor(lengths)), lengths)
    for n, piece in enumerate(torch.split(features, lengths)):
        memory = starts[n : n + 1]
        for t, step in enumerate(piece):
            memory = policy.remember(step[None], memory)
            assert torch.allclose(at_once[n][t], memory[0], atol=1e-6)


def test_a_step_alone_is_the_first_of_its_episode() -> None:
    policy, seen = made(), torch.from_numpy(observations(4))
    alone = policy.get_distribution(seen).entropy()
    one_each = policy.forward(policy.preprocess(seen), lengths=torch.ones(4, dtype=torch.int64)).entropy()
    assert torch.allclose(alone, one_each, atol=1e-6)
    noise = uniform_noise(np.random.default_rng(0), (4, 1))
    for actor in (policy, GruActor(policy), BlockGruActor(policy)):
        with_nothing = actor.act_from(np.zeros((4, 5), np.float32), seen.numpy(), noise)
        assert np.allclose(actor.act(seen.numpy(), noise)[1], with_nothing[1], atol=1e-6)


def test_a_gradient_goes_back_through_every_step_to_the_first_and_to_no_other_trajectory() -> None:
    policy, seen = made(), torch.from_numpy(observations(7)).requires_grad_()
    entropies = policy.forward(seen, lengths=torch.tensor([3, 4])).entropy()
    (gradient,) = torch.autograd.grad(entropies[2], seen)
    assert (gradient != 0).any(dim=1).tolist() == [True, True, True, False, False, False, False]


def test_the_unit_alone_is_in_training_mode_without_which_a_gpu_gives_no_gradient() -> None:
    policy = made()
    assert policy.gru.training
    assert not policy.body.training


def test_nothing_to_remember_is_refused() -> None:
    with pytest.raises(ValueError, match="hidden_size=0, expected at least 1; 'MlpPolicy' has no memory"):
        made(hidden_size=0)


# --- acting ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", [Discrete(3), UNIT_BOX], ids=["choice", "box"])
@pytest.mark.parametrize("masked", [False, True])
def test_every_actor_acts_as_the_policy_does(space: gym.Space[Any], masked: bool) -> None:
    policy = made(space, normalize_observations=True, activation_fn=torch.nn.ReLU)
    policy.observe(torch.from_numpy(observations(50, seed=3)))
    rng, seen = np.random.default_rng(1), observations(37)
    masks = np.arange(3) != np.arange(37)[:, None] % 3 if masked and isinstance(space, Discrete) else None
    memories = rng.uniform(-1, 1, (37, 5)).astype(np.float32)
    noise = uniform_noise(rng, (37, policy.noise_size))
    expected = policy.act_from(memories, seen, noise, masks)
    for actor in (GruActor(policy), BlockGruActor(policy)):
        for ours, theirs in zip(actor.act_from(memories, seen, noise, masks), expected, strict=True):
            assert np.allclose(ours, theirs, atol=1e-5)
        assert np.allclose(
            actor.act_from(memories, seen, None, masks)[0], policy.act_from(memories, seen, None, masks)[0]
        )


@pytest.mark.parametrize("actor_class", [GruActor, BlockGruActor])
def test_an_action_does_not_depend_on_how_many_are_chosen_beside_it(actor_class: Any) -> None:
    actor, rng = actor_class(made(hidden_size=64)), np.random.default_rng(1)
    seen, memories = observations(40), rng.uniform(-1, 1, (40, 64)).astype(np.float32)
    noise = uniform_noise(rng, (40, 1))
    together = actor.act_from(memories, seen, noise)
    for rows in (slice(0, 1), slice(7, 24), slice(39, 40)):
        alone = actor.act_from(memories[rows], seen[rows], noise[rows])
        for ours, theirs in zip(alone, together, strict=True):
            assert (ours == theirs[rows]).all()


def test_who_acts_depends_on_what_numpy_can_do() -> None:
    assert isinstance(made().actor(), GruActor)
    assert isinstance(made(activation_fn=torch.nn.ELU).actor(), BlockGruActor)


@pytest.mark.parametrize("make", ENVS)
@pytest.mark.parametrize("play", [partial(segments, n_rollouts=5), whole], ids=["segments", "whole"])
def test_what_learns_is_what_acted(make: Any, play: Any) -> None:
    policy, rollouts = play(make)
    for rollout in rollouts:
        batch = make_batch(policy, rollout, torch.zeros_like(rollout.rewards), "step")
        log_probs = policy(*batch.inputs).log_prob(batch.actions)
        assert torch.allclose(log_probs, batch.old_log_probs, atol=1e-5)


def test_an_episode_begins_with_nothing_and_a_piece_of_one_with_what_was_remembered_at_the_cut() -> None:
    policy, rollouts = segments(Walk, 5)
    seen: dict[tuple[int, int], list[torch.Tensor]] = {}
    n_continued = 0
    for rollout in rollouts:
        assert rollout.memories is not None
        assert (rollout.memories == 0).all(dim=1).tolist() == rollout.starts.tolist()
        seeds = rollout.seeds[rollout.groups.numpy()].tolist()
        pieces = torch.split(rollout.observations, rollout.lengths.tolist())
        for n, name in enumerate(zip(seeds, rollout.members.tolist(), strict=True)):
            if not rollout.starts[n]:
                before = policy.preprocess(torch.cat(seen[name]))
                remembered = policy.remember(before, torch.zeros(1, 5), torch.tensor([len(before)]))[-1]
                assert torch.allclose(rollout.memories[n], remembered, atol=1e-5)
                n_continued += 1
            seen.setdefault(name, []).append(pieces[n])
    assert n_continued >= 4


def test_a_policy_without_a_memory_is_asked_for_none() -> None:
    slots = make_slots(Walk, 2)
    rollout = collect(slots, policy_for(slots), a_plan(1, 2))
    assert not remembers(policy_for(slots))
    assert rollout is not None
    assert rollout.memories is None


# --- learning --------------------------------------------------------------------------------------------------


def test_whole_trajectories_are_selected() -> None:
    numbers = torch.arange(6.0)
    memories = torch.tensor([[10.0], [20.0], [30.0]])
    batch = Batch(
        numbers[:, None], numbers, numbers, numbers, numbers, None, torch.tensor([0, 1, 1, 1, 2, 2]), None, memories
    )
    part = batch.select(torch.tensor([0, 4, 5]))
    assert part.advantages.tolist() == part.observations[:, 0].tolist() == [0, 4, 5]
    assert part.inputs[2].tolist() == [[10], [30]]
    assert part.inputs[3].tolist() == [1, 2]


class Notes(MlpGruPolicy):
    """Notes the lengths of the trajectories that it is shown."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.shown: list[list[int]] = []

    def forward(self, features: Any, action_masks: Any = None, memories: Any = None, lengths: Any = None) -> Any:
        self.shown.append(lengths.tolist())
        return super().forward(features, action_masks, memories, lengths)


@hypothesis.settings(max_examples=10)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(1, 40))
def test_minibatches_are_whole_trajectories_with_about_as_many_steps_as_asked_for(
    lengths: list[int], size: int
) -> None:
    policy, n_rows = Notes(UNIT, Discrete(3), 2), sum(lengths)
    memories, ones = torch.zeros(len(lengths), 2), torch.ones(n_rows)
    seen = torch.from_numpy(observations(n_rows))
    owners = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    batch = Batch(seen, ones.long(), -ones, ones, ones, None, owners, None, memories)
    settings = UpdateSettings(1e-3, 2, size, 0.2, 0.2, 0.0, 0.5)
    update(policy, torch.optim.SGD(policy.parameters()), batch, settings, torch.Generator().manual_seed(0))
    assert sorted(n for shown in policy.shown for n in shown) == sorted(lengths * 2)
    for shown in policy.shown:
        assert sum(shown) < n_rows / -(-n_rows // size) + max(lengths)


def test_a_whole_batch_gives_one_step_whatever_the_order() -> None:
    policy, (rollout,) = whole(Walk)
    batch = make_batch(policy, rollout, rollout.rewards, "step")
    for size in (None, batch.old_log_probs.numel(), 10**6):
        settings = UpdateSettings(1e-3, 1, size, 0.2, 0.2, 0.0, 0.5)
        metrics = update(policy, torch.optim.SGD(policy.parameters()), batch, settings, torch.Generator())
        assert metrics["n_updates"] == 1


def learned(env: Any, callback: Any = None) -> GRPO:
    """An agent that solves `Recall`."""
    return GRPO("MlpGruPolicy", env, **LEARNING).learn(6_000, callback)


def share_of_the_first_cue() -> float:
    env = Recall()
    return float(np.mean([env.reset(seed=seed)[0][0] == 1 for seed in range(50)]))


def test_what_was_shown_long_ago_is_learned_with_a_memory_and_cannot_be_without() -> None:
    make, share = partial(Recall, delay=8), share_of_the_first_cue()
    remembering = GRPO("MlpGruPolicy", make, **LEARNING).learn(10_000)
    assert mean_return(remembering, make) == 1.0
    assert 0.3 < share < 0.7
    for n_steps in (3_000, 10_000):
        guessing = GRPO("MlpPolicy", make, **LEARNING).learn(n_steps)
        assert min(abs(mean_return(guessing, make) - guess) for guess in (share, 1.0 - share)) < 1e-9


def test_a_memory_is_learned_in_pieces_of_episodes_too() -> None:
    settings = {**LEARNING, **SEGMENTS, "n_groups": 8, "group_size": 4, "n_steps": 9}
    agent = GRPO("MlpGruPolicy", Recall, **settings).learn(2_000)
    assert mean_return(agent, Recall) == 1.0


# --- predict ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def agent() -> GRPO:
    return small_gru(lambda: Walk(UNIT_BOX)).learn(50)


def test_predict_carries_the_state_and_forgets_it_where_an_episode_begins(agent: GRPO) -> None:
    first, second = np.random.default_rng(0).uniform(-1, 1, (2, 4, 2)).astype(np.float32)
    _, state = agent.predict(first, deterministic=True)
    assert state.shape == (4, 6)
    kept, after = agent.predict(second, state, np.zeros(4, np.bool_), deterministic=True)
    fresh, _ = agent.predict(second, deterministic=True)
    assert (kept != fresh).any(axis=1).all()
    some, mixed = agent.predict(second, state, np.array([False, True, False, True]), deterministic=True)
    assert (some == np.stack([kept[0], fresh[1], kept[2], fresh[3]])).all()
    assert (mixed[[0, 2]] == after[[0, 2]]).all()
    assert (agent.predict(second, state, [True] * 4, deterministic=True)[0] == fresh).all()


def test_predict_leaves_the_state_that_it_is_given_alone(agent: GRPO) -> None:
    state = np.ones((1, 6), np.float32)
    agent.predict(np.zeros(2, np.float32), state, np.array([True]))
    assert (state == 1).all()


def test_one_observation_has_one_state(agent: GRPO) -> None:
    one, many = np.zeros(2, np.float32), np.zeros((3, 2), np.float32)
    action, state = agent.predict(one, deterministic=True)
    assert action.shape == (2,)
    assert state.shape == (1, 6)
    action, state = agent.predict(one, state, False, deterministic=True)
    actions, states = agent.predict(many, np.zeros((3, 6)), deterministic=True)
    actions, states = agent.predict(many, states, deterministic=True)
    assert np.allclose(action, actions, atol=1e-6)
    assert np.allclose(state, states, atol=1e-6)


def test_states_and_starts_that_do_not_fit_are_refused(agent: GRPO) -> None:
    two = np.zeros((2, 2), np.float32)
    with pytest.raises(ValueError, match=r"state of shape \(3, 6\), expected \(2, 6\) for 2 observations"):
        agent.predict(two, np.zeros((3, 6)))
    with pytest.raises(ValueError, match="episode_start has 3 entries, expected one for each of 2 observations"):
        agent.predict(two, episode_start=[True, False, False])


def test_a_policy_without_a_memory_hands_the_state_back() -> None:
    state = object()
    assert small(Walk).predict(np.zeros(2, np.float32), state)[1] is state


def test_evaluation_carries_the_state() -> None:
    judge = EvalCallback(Recall, n_eval_episodes=9, eval_freq=90, verbose=0)
    agent = learned(Recall, judge)
    expected = []
    for seed in range(9):
        env, state, total, start = Recall(), None, 0.0, True
        seen, ended = env.reset(seed=seed)[0], False
        while not ended:
            action, state = agent.predict(seen, state, np.array([start]), deterministic=True)
            seen, reward, ended, _, _ = env.step(action)
            total, start = total + reward, False
        expected.append(total)
    at_once, _ = evaluate_policy(agent, Recall, seeds=range(9), return_episode_rewards=True)
    in_turn, _ = evaluate_policy(agent, Recall(), seeds=range(9), return_episode_rewards=True)
    assert at_once == in_turn == expected == [1.0] * 9
    assert judge.last_mean_reward == 1.0


def test_stable_baselines3_evaluates_what_has_a_memory() -> None:
    evaluation = pytest.importorskip("stable_baselines3.common.evaluation")
    vec_env = pytest.importorskip("stable_baselines3.common.vec_env")
    envs = vec_env.VecMonitor(vec_env.DummyVecEnv([Recall] * 3))
    assert evaluation.evaluate_policy(learned(Recall), envs, n_eval_episodes=12) == (1.0, 0.0)


class Shown(Recall):
    """Can be watched."""

    metadata = {"render_modes": ["ansi"], "render_fps": 1}  # noqa: RUF012 Gymnasium's own way

    def __init__(self, render_mode: str | None = None):
        super().__init__()
        self.render_mode = render_mode

    def render(self) -> Any:
        return f"t={self.t}"


def test_the_command_line_carries_the_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(gym.registry, "Shown-v0", gym.envs.registration.EnvSpec("Shown-v0", entry_point=Shown))  # type: ignore[arg-type]
    agent = learned("Shown-v0")
    agent.save(tmp_path / "agent.zip")
    main(["play", str(tmp_path / "agent.zip"), "Shown-v0", "--episodes", "4"])
    assert [line for line in capsys.readouterr().out.splitlines() if "seed" in line] == [
        f"seed {seed}: return 1" for seed in range(4)
    ]
    main(["evaluate", str(tmp_path / "agent.zip"), "Shown-v0", "--n-eval-episodes", "4"])
    assert "score 1.0" in capsys.readouterr().out


# --- saving, and going on exactly -------------------------------------------------------------------------------

SETTINGS: list[dict[str, Any]] = [
    {"normalize_observations": True, "max_resamples": 1, "n_envs": 2},
    {**SEGMENTS, "n_steps": 3, "normalize_observations": True},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=["whole", "segments"])
@pytest.mark.parametrize("make", ENVS)
def test_a_run_that_was_saved_goes_on_to_the_last_bit(make: Any, settings: dict[str, Any], tmp_path: Path) -> None:
    straight = small_gru(make, **settings).learn(36)
    straight.save(tmp_path / "agent")
    loaded = GRPO.load(tmp_path / "agent", env=make)
    loaded.save(tmp_path / "again")  # before anything is in play again
    again = GRPO.load(tmp_path / "again", env=make)
    for one in (straight, loaded, again):
        one.learn(36, reset_num_timesteps=False)
    assert digest(loaded) == digest(again) == digest(straight)


def test_what_is_saved_in_play_is_remembered(tmp_path: Path) -> None:
    agent = small_gru(Walk, **SETTINGS[1]).learn(36)
    agent.save(tmp_path / "agent")
    loaded = GRPO.load(tmp_path / "agent")
    (ours, theirs) = (one.sampler.in_play() for one in (agent, loaded))
    assert ours is not None
    assert theirs is not None
    assert ours.memories.any()
    assert (ours.memories == theirs.memories).all()


def test_a_checkpoint_from_before_there_were_memories_is_read() -> None:
    agent = small(Walk, **{**SEGMENTS, "n_steps": 3}).learn(36)
    tensors = checkpoint_of(agent, (), ()).streams
    stored, older = (
        _stored_in_play(one) for one in (tensors, {k: x for k, x in tensors.items() if k != "in_play.memories"})
    )
    assert stored is not None
    assert older is not None
    assert older.memories.shape == stored.memories.shape == (len(stored.slots), 0)


@pytest.mark.parametrize("settings", SETTINGS, ids=["whole", "segments"])
@pytest.mark.parametrize("make", ENVS[1:])
def test_neither_the_number_of_workers_nor_their_deaths_change_a_bit(make: Any, settings: dict[str, Any]) -> None:
    settings = {**settings, "n_envs": None, "n_groups": 3}
    alone = digest(small_gru(make, **settings).learn(60))
    crew = partial(Here, deaths={0, 4, 9})
    assert digest(small_gru(make, **settings, n_workers=3, collector=crew).learn(60)) == alone


def test_the_number_of_environments_changes_no_bit() -> None:
    digests = {digest(small_gru(Walk, n_envs=n_envs).learn(80)) for n_envs in (1, 4, 6)}
    assert len(digests) == 1


def test_arguments_of_the_memory_are_saved(tmp_path: Path) -> None:
    small_gru(Walk).save(tmp_path / "agent")
    loaded = GRPO.load(tmp_path / "agent")
    assert type(loaded.policy) is MlpGruPolicy
    assert loaded.policy.memory_size == 6


def test_a_stop_in_the_middle_forgets_what_was_in_play() -> None:
    slots = make_slots(Walk, 4)
    collector, queue, policy, steps = Collector(slots), EndlessQueue(7, 2, 2), made_for(slots), count()
    assert collector.collect(policy, queue, 4, lambda played: next(steps) < 2) is None
    rollout = collector.collect(policy, queue, 4)
    assert rollout is not None
    assert rollout.memories is not None
    assert not rollout.memories[rollout.starts].any()
    assert rollout.starts.all()
