"""The whole agent on every space: it learns, predicts, evaluates, stops and goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete, Tuple
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from grpo_gym import GRPO, EvalCallback, evaluate_policy
from grpo_gym.vec import make_slots
from tests.agents import Hooks, all_finite, digest, small
from tests.crews import Here
from tests.identities import HYBRID, SPACES, Identity, MaskedIdentity, Pictures, PicturesAndWords
from tests.toys import Info, Walk

HAVE_NUMBERS = {"box", "dict", "boxes"}

MakeEnv = Callable[[], gym.Env[Any, Any]]
SMALL_IMAGES = {"features_extractor_kwargs": {"features_dim": 8}}
SMALL_PARTS = {"features_extractor_kwargs": {"image_features_dim": 8}, "net_arch": [8]}
KINDS: dict[str, tuple[str, MakeEnv, dict[str, Any]]] = {
    "mlp": ("MlpPolicy", lambda: Identity(HYBRID), {"policy_kwargs": {"net_arch": [8]}}),
    "squashed": (
        "MlpPolicy",
        lambda: Identity(HYBRID),
        {"policy_kwargs": {"net_arch": [8], "squash_output": True, "state_dependent_std": True}},
    ),
    "masked": ("MlpPolicy", MaskedIdentity, {}),
    "cnn": ("CnnPolicy", Pictures, {"policy_kwargs": SMALL_IMAGES}),
    "multi": ("MultiInputPolicy", PicturesAndWords, {"policy_kwargs": SMALL_PARTS, "normalize_observations": True}),
}
every_kind = pytest.mark.parametrize("kind", KINDS)
every_space = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)


def small_one(kind: str, env: Any = None, **kwargs: Any) -> GRPO:
    policy, make, given = KINDS[kind]
    return small(env or make, policy=policy, **{"batch_size": 32, "n_epochs": 2, **given, **kwargs})


def bandit(policy: str, env: Any, **kwargs: Any) -> GRPO:
    """An agent for environments whose states do not depend on what was done."""
    settings: dict[str, Any] = {
        "n_groups": 4,
        "group_size": 8,
        "gamma": 0.0,
        "learning_rate": 5e-3,
        "n_epochs": 8,
        "batch_size": 160,
    }
    settings |= {"baseline": "live_peers", "normalize_observations": False}
    return GRPO(**{"policy": policy, "env": env, **settings, "seed": 0, **kwargs})


def score(agent: GRPO, env: Any) -> float:
    """Mean reward a step of greedy play."""
    mean, _ = evaluate_policy(agent, env, seeds=range(20))
    return float(mean) / 5  # type: ignore[arg-type]


# --- learning --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPACES)
def test_every_action_space_is_learned_within_5000_steps(name: str) -> None:
    numbers = name in HAVE_NUMBERS
    agent = bandit(
        "MlpPolicy", lambda: Identity(SPACES[name]), policy_kwargs={"log_std_init": -1.0 if numbers else 0.0}
    )
    agent.learn(4800 if numbers else 2000)
    assert agent.num_timesteps <= 5000
    assert score(agent, lambda: Identity(SPACES[name])) > (0.94 if numbers else 0.99)


def test_squashed_numbers_with_a_std_of_their_own_are_learned_too() -> None:
    agent = bandit(
        "MlpPolicy",
        lambda: Identity(SPACES["box"]),
        policy_kwargs={"squash_output": True, "state_dependent_std": True, "log_std_init": -0.5},
    )
    assert score(agent.learn(3200), lambda: Identity(SPACES["box"])) > 0.94


def test_masked_choices_are_learned_and_no_illegal_one_is_ever_sent() -> None:
    assert (
        score(bandit("MlpPolicy", MaskedIdentity).learn(1400), MaskedIdentity) > 0.99
    )  # it asserts that all are legal


@pytest.mark.parametrize("channels_first", [False, True])
def test_images_are_learned_in_either_order(channels_first: bool) -> None:
    def make() -> Pictures:
        return Pictures(channels_first=channels_first)

    kwargs = {"features_extractor_kwargs": {"features_dim": 32}}
    assert score(bandit("CnnPolicy", make, policy_kwargs=kwargs, learning_rate=1e-3).learn(2000), make) > 0.99


def test_images_and_numbers_together_are_learned() -> None:
    agent = bandit(
        "MultiInputPolicy",
        PicturesAndWords,
        policy_kwargs={"features_extractor_kwargs": {"image_features_dim": 16}},
        normalize_observations=True,
    )
    assert score(agent.learn(3200), PicturesAndWords) > 0.99


# --- predicting ------------------------------------------------------------------------------------------------


@every_space
@pytest.mark.parametrize("deterministic", [False, True])
def test_one_observation_gets_an_action_of_the_space_and_a_batch_one_for_each(
    space: gym.Space[Any], deterministic: bool
) -> None:
    agent = small(lambda: Identity(space))
    space.seed(0)
    observations = [space.sample() for _ in range(3)]
    for observation in observations:
        assert space.contains(agent.predict(observation, deterministic=deterministic)[0])
    batch = agent.policy._prediction._layout.unpack(  # type: ignore[attr-defined]
        np.stack([agent.policy._prediction._layout.pack_one(one) for one in observations])  # type: ignore[attr-defined]
    )
    actions: Any = agent.predict(batch, deterministic=True)[0]
    batched = gym.vector.utils.batch_space(space, 3)
    for one, action in zip(observations, gym.vector.utils.iterate(batched, actions), strict=True):
        assert gym.spaces.flatten(space, action) == pytest.approx(
            gym.spaces.flatten(space, agent.predict(one, deterministic=True)[0]), abs=1e-5
        )


@pytest.mark.parametrize("channels_first", [False, True])
@pytest.mark.parametrize("policy", ["CnnPolicy", "MlpPolicy"])
def test_an_image_may_come_in_either_order(policy: str, channels_first: bool) -> None:
    agent = small(lambda: Pictures(channels_first=channels_first), policy=policy, policy_kwargs=None).learn(30)
    image = Pictures(channels_first=channels_first).reset(seed=0)[0]
    other = np.moveaxis(image, 0, -1) if channels_first else np.moveaxis(image, -1, 0)
    assert agent.predict(other, deterministic=True) == agent.predict(image, deterministic=True)
    batch, _ = agent.predict(np.stack([other] * 2), deterministic=True)
    assert batch.tolist() == [agent.predict(image, deterministic=True)[0]] * 2


PARTS = Dict({"x": Box(-1.0, 1.0, (2,)), "n": Discrete(3)})


@pytest.mark.parametrize(
    ("observation", "said"),
    [
        ({"x": [0, 0]}, "a value without 'n'"),
        ({"x": [0, 0, 0], "n": 1}, r"with 'x' of shape \(3,\), expected \(2,\) for one or \('n', 2\) for a batch"),
        ({"x": [[0, 0]], "n": 1}, "not all single or all batches of one length"),
        ({"x": [[0, 0]] * 2, "n": [1, 2, 0]}, "not all single or all batches of one length"),
        ({"x": [np.nan, 0], "n": 1}, "not finite"),
        (({"x": [0, 0], "n": 1}, {}), r"\(observation, info\), pass only the observation"),
    ],
)
def test_an_observation_that_does_not_fit_is_refused_naming_the_part(observation: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        small(lambda: Identity(PARTS)).predict(observation, deterministic=True)


def test_a_tuple_is_an_observation_where_the_space_is_one_and_what_reset_returns_is_not() -> None:
    agent = small(lambda: Identity(SPACES["tuple"]))
    env = Identity(SPACES["tuple"])
    observation, info = env.reset(seed=0)
    assert SPACES["tuple"].contains(agent.predict(observation)[0])
    with pytest.raises(ValueError, match=r"\(observation, info\)"):
        agent.predict((observation, info))


def test_masks_of_several_choices_lie_one_after_the_other() -> None:
    agent = small(lambda: Identity(MultiDiscrete([2, 3])))
    mask = [0, 1, 0, 0, 1]
    assert agent.predict([0, 0], deterministic=True, action_masks=mask)[0].tolist() == [1, 2]
    assert agent.predict([[0, 0]] * 2, action_masks=[mask] * 2)[0].tolist() == [[1, 2]] * 2
    with pytest.raises(ValueError, match="allow nothing"):
        agent.predict([0, 0], action_masks=[1, 1, 0, 0, 0])
    with pytest.raises(ValueError, match=r"expected 5 = 2 \+ 3 entries"):
        agent.predict([0, 0], action_masks=[1, 1, 1])


# --- stopping and going on -------------------------------------------------------------------------------------


@every_kind
def test_stopping_saving_and_loading_in_the_middle_changes_no_bit(kind: str, tmp_path: Path) -> None:
    whole = small_one(kind).learn(60).learn(60, reset_num_timesteps=False)
    small_one(kind).learn(60).save(tmp_path / "agent")
    loaded = GRPO.load(tmp_path / "agent", env=KINDS[kind][1])
    assert digest(loaded.learn(60, reset_num_timesteps=False)) == digest(whole)
    assert loaded.observation_space == whole.observation_space
    assert loaded.action_space == whole.action_space


@pytest.mark.parametrize("kind", ["mlp", "multi"])
def test_cut_episodes_go_on_where_they_stood(kind: str, tmp_path: Path) -> None:
    make = KINDS[kind][1] if kind == "mlp" else lambda: PicturesAndWords(side=2)
    cut: dict[str, Any] = {"env": make, "n_steps": 4, "baseline": "soft_groups"}
    whole = small_one(kind, **cut).learn(24).learn(24, reset_num_timesteps=False)
    small_one(kind, **cut).learn(24).save(tmp_path / "agent")
    loaded = GRPO.load(tmp_path / "agent", env=make)
    assert digest(loaded.learn(24, reset_num_timesteps=False)) == digest(whole)


@every_kind
def test_a_loaded_agent_predicts_what_the_saved_one_did(kind: str, tmp_path: Path) -> None:
    agent = small_one(kind).learn(60)
    agent.save(tmp_path / "agent")
    loaded = GRPO.load(tmp_path / "agent")
    env = KINDS[kind][1]()
    for seed in range(3):
        observation, _ = env.reset(seed=seed)
        one, other = (
            np.asarray(gym.spaces.flatten(env.action_space, each.predict(observation)[0])) for each in (agent, loaded)
        )
        assert one.tolist() == other.tolist()


class Mode(torch.nn.Module):
    """From rows of observations to the most probable actions."""

    def __init__(self, policy: Any):
        super().__init__()
        self.policy = policy

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        mode: torch.Tensor = self.policy(self.policy.preprocess(rows)).mode()
        return mode


def test_torch_can_export_a_policy_for_any_number_of_observations() -> None:
    agent = small_one("multi").learn(30)
    slots = make_slots(KINDS["multi"][1], 6)
    rows = torch.from_numpy(slots.start(np.arange(6), np.arange(6))[0])
    batch = torch.export.Dim("batch")
    exported = torch.export.export(Mode(agent.policy), (rows[:4],), dynamic_shapes=({0: batch},)).module()
    assert torch.equal(exported(rows), Mode(agent.policy)(rows))


def test_a_features_extractor_of_ours_may_be_named_in_a_file(tmp_path: Path) -> None:
    from grpo_gym.features import ImageFeatures

    kwargs = {"features_extractor_class": ImageFeatures, "features_extractor_kwargs": {"features_dim": 4}}
    small(Pictures, policy_kwargs=kwargs).save(tmp_path / "agent")
    assert GRPO.load(tmp_path / "agent").policy_kwargs == kwargs


@every_kind
def test_the_number_of_workers_changes_no_bit(kind: str) -> None:
    one, three = small_one(kind, n_groups=3), small_one(kind, n_groups=3, n_workers=3, collector=Here)
    assert digest(one.learn(50)) == digest(three.learn(50))


@every_kind
@pytest.mark.parametrize("baseline", ["bins", "anchor_states"])
def test_every_baseline_takes_every_observation(kind: str, baseline: str) -> None:
    assert all_finite(small_one(kind, baseline=baseline).learn(60))


# --- environments of other kinds -------------------------------------------------------------------------------


def vector(make: MakeEnv, n: int) -> SyncVectorEnv:
    return SyncVectorEnv([make] * n, autoreset_mode=AutoresetMode.DISABLED)


@every_kind
def test_a_vector_environment_trains_to_the_same_bits(kind: str) -> None:
    single, vectored = small_one(kind), small_one(kind, vector(KINDS[kind][1], 6))
    assert digest(single.learn(60)) == digest(vectored.learn(60))


@every_kind
def test_an_agent_goes_on_in_another_environment_of_the_same_spaces(kind: str) -> None:
    agent = small_one(kind).learn(30)
    agent.set_env(vector(KINDS[kind][1], 4))
    assert agent.learn(30, reset_num_timesteps=False).num_timesteps >= 60


@every_kind
def test_every_kind_can_be_evaluated_in_environments_of_every_kind(kind: str, tmp_path: Path) -> None:
    make = KINDS[kind][1]
    callback = EvalCallback(
        make(), n_eval_episodes=2, eval_freq=5, best_model_save_path=tmp_path, verbose=0, warn=False
    )
    agent = small_one(kind).learn(30, callback=callback)
    assert np.isfinite(callback.best_mean_reward)
    one, two = (
        evaluate_policy(agent, env, return_episode_rewards=True, seeds=range(4), warn=False)[0]
        for env in (make, vector(make, 2))
    )
    assert one == pytest.approx(two)


class Native(VectorEnv[Any, Any, Any]):
    """Hybrid in and out; steps the slots `env_id` only."""

    metadata = {"autoreset_mode": AutoresetMode.DISABLED}  # noqa: RUF012 Gymnasium's own way

    def __init__(self, num_envs: int):
        self.num_envs = num_envs
        self.single_observation_space = self.single_action_space = HYBRID
        self.envs_here = [Identity(HYBRID) for _ in range(num_envs)]
        self.shown: list[Any] = [None] * num_envs

    def _batch(self, rows: list[Any]) -> Any:
        empty: Any = gym.vector.utils.create_empty_array(HYBRID, len(rows))
        return gym.vector.utils.concatenate(HYBRID, rows, empty)

    def reset(self, *, seed: Any = None, options: Info | None = None) -> tuple[Any, Info]:
        chosen = (options or {}).get("reset_mask", np.ones(self.num_envs, np.bool_))
        for slot in chosen.nonzero()[0]:
            self.shown[slot] = self.envs_here[slot].reset(seed=seed[slot])[0]
        return self._batch(self.shown), {}

    def step(self, actions: Any, env_id: Any = None) -> tuple[Any, Any, Any, Any, Info]:
        each = gym.vector.utils.iterate(gym.vector.utils.batch_space(HYBRID, len(env_id)), actions)
        rows = []
        for slot, action in zip(env_id, each, strict=True):
            rows.append(self.envs_here[slot].step(action))
            self.shown[slot] = rows[-1][0]
        seen, rewards, ended, cut, _ = zip(*rows, strict=True)
        return self._batch(list(seen)), np.array(rewards), np.array(ended), np.array(cut), {}


def test_a_native_vector_environment_of_dicts_trains_to_the_same_bits() -> None:
    assert digest(small_one("mlp").learn(60)) == digest(small_one("mlp", Native(6)).learn(60))


def test_callbacks_see_observations_and_actions_as_the_environment_does() -> None:
    class Watch(Hooks):
        def _on_step(self) -> bool:
            for name in ("new_obs", "actions"):
                assert self.locals[name]["gear"].shape == self.locals["rewards"].shape
                assert self.locals[name]["panel"][1].shape[1:] == (2,)
            return super()._on_step()

    watch = Watch()
    small_one("mlp").learn(30, callback=watch)
    assert watch.steps


class BadPart(Walk):
    """Its observation has a part that is not a number at the second step, or is not there."""

    observation_space = Dict({"x": Box(-9.0, 9.0, (2,)), "deep": Tuple([Box(-9.0, 9.0, (1,))])})  # type: ignore[assignment]

    def __init__(self, missing: bool = False):
        super().__init__()
        self.missing = missing

    def _observation(self) -> Any:
        if self.missing and self.t == 2:
            return {"x": np.zeros(2, np.float32)}
        bad = np.nan if self.t == 2 else 0.0
        return {"x": np.zeros(2, np.float32), "deep": (np.array([bad], np.float32),)}


def test_a_part_that_is_no_number_stops_training_by_its_name() -> None:
    with pytest.raises(
        ValueError, match=r"BadPart: the observation 'deep/0' is not finite .* at step 2 of the episode"
    ):
        small(BadPart).learn(50)


def test_a_part_that_is_missing_stops_training_by_its_name() -> None:
    with pytest.raises(ValueError, match=r"BadPart: slot \d returned a value without 'deep'"):
        small(lambda: BadPart(missing=True)).learn(50)


class BadMask(MaskedIdentity):
    """Tells a mask for each choice by itself."""

    def _info(self) -> Info:
        return {"action_mask": tuple(self.legal())}


@pytest.mark.parametrize("env", [lambda: BadMask, lambda: vector(BadMask, 6)], ids=["single", "vector"])
def test_masks_that_are_not_one_after_the_other_are_refused(env: Callable[[], Any]) -> None:
    with pytest.raises(
        ValueError, match=r"(?s)the action mask is .*expected 9 = 2 \+ 3 \+ 4 entries .* one after the other"
    ):
        small(env()).learn(30)


def test_a_row_of_slots_holds_every_observation_in_bytes() -> None:
    slots = make_slots(PicturesAndWords, 2)
    rows, _ = slots.start(np.array([0, 1]), np.array([5, 5]))
    assert rows.dtype == np.uint8
    assert rows.shape == (2, 192 + 16 + 8)  # the image, two float64, an int64
    assert rows[0].tobytes() == rows[1].tobytes()
    torch.testing.assert_close(torch.from_numpy(rows[0, :192]).sum(), torch.tensor(16 * (250 + 120 + 60)))
