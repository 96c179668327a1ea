"""Memory together with images, Dict observations, actions of several parts, and masks."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from grpo_gym import GRPO
from grpo_gym.recurrent import BlockGruActor, CnnGruPolicy, MultiInputGruPolicy
from tests.agents import FLAT_OUT, digest, mean_return
from tests.crews import Here
from tests.toys import Recall

SMALL: dict[str, Any] = {"n_groups": 2, "group_size": 4, "batch_size": 8, "n_epochs": 4, "seed": 0}
SMALL |= {"learning_rate": FLAT_OUT, "baseline": "live_peers", "normalize_observations": False}


class Pictures(Recall):
    """Shows the cues, and the question, as bright stripes of an image."""

    observation_space: Any = spaces.Box(0, 255, (8, 8, 1), np.uint8)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        shown, info = super().reset(seed=seed, options=options)
        return self.seen(shown), {**info, **self.more()}

    def step(self, action: Any) -> Any:
        shown, reward, terminated, truncated, info = super().step(self.answer(action))
        return self.seen(shown), reward, terminated, truncated, {**info, **self.more()}

    def seen(self, shown: Any) -> Any:
        image = np.zeros((8, 8, 1), np.uint8)
        image[[1, 4, 6]] = (255 * shown[:, None, None]).astype(np.uint8)
        return image

    def answer(self, action: Any) -> Any:
        return action

    def more(self) -> dict[str, Any]:
        return {}


class Everything(Pictures):
    """The image is one part of the observation, the answer one part of the action, and one answer is illegal."""

    observation_space = spaces.Dict({"picture": Pictures.observation_space, "t": spaces.Discrete(9)})
    action_space: Any = spaces.Dict({"answer": spaces.Discrete(3), "force": spaces.Box(-1.0, 1.0, (2,))})

    def seen(self, shown: Any) -> Any:
        return {"picture": super().seen(shown), "t": self.t}

    def answer(self, action: Any) -> Any:
        assert action["answer"] < 2
        return action["answer"]

    def more(self) -> dict[str, Any]:
        return {"action_mask": np.array([1, 1, 0], np.int8)}


def test_a_picture_of_long_ago_is_remembered() -> None:
    kwargs = {"features_extractor_kwargs": {"features_dim": 16}, "hidden_size": 16}
    settings = {**SMALL, "n_groups": 8, "group_size": 8, "batch_size": 256, "learning_rate": 3e-3, "seed": 100}
    settings["policy_kwargs"] = kwargs
    assert mean_return(GRPO("CnnGruPolicy", Pictures, **settings).learn(1_500), Pictures) == 1.0
    assert mean_return(GRPO("CnnPolicy", Pictures, **{**settings, "policy_kwargs": None}).learn(1_000), Pictures) < 0.7


@pytest.mark.parametrize(
    ("policy", "make"),
    [("CnnGruPolicy", Pictures), ("MultiInputGruPolicy", Everything), ("MlpGruPolicy", Everything)],
)
@pytest.mark.parametrize("n_steps", [None, 4])
def test_runs_go_on_to_the_last_bit_whoever_plays(policy: str, make: Any, n_steps: int | None, tmp_path: Path) -> None:
    settings = {**SMALL, "n_steps": n_steps, "baseline": "live_peers" if n_steps is None else "soft_groups"}
    agent = GRPO(policy, make, **settings, policy_kwargs={"hidden_size": 5}).learn(60)
    crew = partial(Here, deaths={0, 4})
    others = GRPO(policy, make, **settings, policy_kwargs={"hidden_size": 5}, n_workers=2, collector=crew).learn(60)
    agent.save(tmp_path / "agent")
    loaded = GRPO.load(tmp_path / "agent", env=make)
    for one in (agent, loaded, others):
        one.learn(30, reset_num_timesteps=False)
    assert agent._n_updates > 0
    assert digest(loaded) == digest(others) == digest(agent)


def test_an_image_goes_through_the_network_then_the_unit_then_the_layers() -> None:
    extractor = {"features_dim": 7}
    policy = CnnGruPolicy(Pictures.observation_space, spaces.Discrete(2), 5, features_extractor_kwargs=extractor)
    assert policy.gru.input_size == 7
    assert [tuple(x.shape) for x in policy.body.parameters()] == [(64, 5), (64,)]


def test_images_and_the_rest_go_to_the_unit_side_by_side() -> None:
    spaces_of_both = Everything.observation_space, Everything.action_space
    policy = MultiInputGruPolicy(*spaces_of_both, 5, features_extractor_kwargs={"image_features_dim": 7})
    assert policy.gru.input_size == 7 + 9


@pytest.mark.parametrize(
    ("policy", "env", "said"),
    [
        ("CnnGruPolicy", Recall, "CnnGruPolicy expects images.*use policy='MlpGruPolicy'"),
        ("CnnGruPolicy", Everything, "CnnGruPolicy is for images alone.*use policy='MultiInputGruPolicy'"),
        ("MultiInputGruPolicy", Pictures, "MultiInputGruPolicy expects a Dict or Tuple.*use policy='CnnGruPolicy'"),
        ("MultiInputGruPolicy", Recall, "MultiInputGruPolicy expects a Dict or Tuple.*use policy='MlpGruPolicy'"),
    ],
)
def test_other_observations_are_sent_to_the_policy_for_them(policy: str, env: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        GRPO(policy, env)


@pytest.mark.parametrize(
    ("name", "said"), [("hiden_size", "mean 'hidden_size'"), ("net_arc", "mean 'net_arch'"), ("use_sde", "not part")]
)
@pytest.mark.parametrize("policy", ["MlpGruPolicy", "CnnGruPolicy"])
def test_an_unknown_policy_argument_is_explained(policy: str, name: str, said: str) -> None:
    with pytest.raises(TypeError, match=f"policy_kwargs has no '{name}'.*{said}"):
        GRPO(policy, Pictures, policy_kwargs={name: 1})


def test_a_policy_with_images_acts_in_blocks() -> None:
    actor: Any = GRPO("CnnGruPolicy", Pictures, **SMALL).policy.actor()
    assert isinstance(actor, BlockGruActor)
    rng = np.random.default_rng(0)
    seen, memories = rng.integers(0, 255, (20, 8, 8, 1), np.uint8), rng.uniform(-1, 1, (20, 64)).astype(np.float32)
    together = actor.act_from(memories, seen, None)
    for rows in (slice(0, 1), slice(3, 17)):
        for ours, theirs in zip(actor.act_from(memories[rows], seen[rows], None), together, strict=True):
            assert (ours == theirs[rows]).all()


def test_what_is_predicted_for_parts_remembers_too() -> None:
    agent = GRPO("MultiInputGruPolicy", Everything, **SMALL).learn(20)
    env = Everything()
    seen = env.reset(seed=0)[0]
    state: Any = None
    for _ in range(3):
        action, state = agent.predict(seen, state, action_masks=[1, 1, 0])
        assert env.action_space.contains(action)
        seen = env.step(action)[0]
    assert state.shape == (1, 64)
    assert state.any()
