from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from torch import Tensor
from torch.nn import Parameter

from grpo_gym import GRPO
from grpo_gym.distributions import Categorical
from grpo_gym.policies import POLICIES, find_policy, make_policy
from grpo_gym.policy import CnnPolicy, MlpPolicy
from grpo_gym.policy_model import PolicyModel
from grpo_gym.types import Array, BoolArray, FloatArray
from tests.agents import digest, mean_return, small
from tests.crews import Here
from tests.names import shown
from tests.toys import IdentityDiscrete, Walk


class Table:
    """One number for each observation and action: no `nn.Module`, and nothing of ours."""

    noise_size = 1
    device = torch.device("cpu")

    def __init__(self, observation_space: Any, action_space: Any, scale: float = 0.0):
        self.logits = Parameter(torch.full((int(observation_space.n), int(action_space.n)), scale))
        self.seen = 0

    def __call__(self, features: Tensor, action_masks: Tensor | None = None) -> Categorical:
        return Categorical(self.logits[features], action_masks)

    @torch.no_grad()
    def act(
        self, observations: Array, noise: FloatArray | None, action_masks: BoolArray | None = None
    ) -> tuple[Array, FloatArray]:
        masks = None if action_masks is None else torch.from_numpy(action_masks)
        distribution = self(torch.from_numpy(observations), masks)
        actions = distribution.mode() if noise is None else distribution.sample(torch.from_numpy(noise))
        return actions.numpy(), distribution.log_prob(actions).numpy()

    def actor(self) -> Table:
        return self

    def to_env(self, actions: Array) -> Array:
        return actions

    def preprocess(self, observations: Tensor) -> Tensor:
        return observations

    def flatten(self, observations: Tensor) -> Tensor:
        return torch.eye(len(self.logits))[observations]

    def observe(self, observations: Tensor) -> None:
        self.seen += len(observations)

    def parameters(self) -> Iterator[Parameter]:
        yield self.logits

    def state_dict(self) -> dict[str, Any]:
        return {"logits": self.logits.detach(), "seen": torch.tensor(self.seen)}

    def load_state_dict(self, state_dict: dict[str, Any], strict: bool = True) -> None:
        self.logits.data.copy_(state_dict["logits"])
        self.seen = int(state_dict["seen"])

    def to(self, device: torch.device) -> Table:
        return self


def a_table() -> Table:
    return Table(IdentityDiscrete().space, IdentityDiscrete().space)


def table_agent(policy: Any = Table, **kwargs: Any) -> GRPO:
    return small(IdentityDiscrete, policy=policy, **{"policy_kwargs": None, "learning_rate": 0.1, **kwargs})


def test_a_policy_of_your_own_is_a_policy_model() -> None:
    model: PolicyModel = a_table()
    assert find_policy(model) is model
    assert find_policy(Table) is Table


def test_a_class_of_your_own_is_made_with_the_spaces_and_learns() -> None:
    agent = table_agent(batch_size=64).learn(1000)
    assert agent.predict(np.arange(3), deterministic=True)[0].tolist() == [0, 1, 2]
    assert mean_return(agent, IdentityDiscrete) == 4.0
    assert agent.policy.seen == agent.num_timesteps  # type: ignore[attr-defined]


def test_policy_kwargs_go_to_your_own_class() -> None:
    agent = table_agent(policy_kwargs={"scale": 2.0, "optimizer_class": torch.optim.SGD})
    assert agent.policy.logits.tolist() == [[2.0] * 3] * 3  # type: ignore[attr-defined]
    assert type(agent.optimizer) is torch.optim.SGD


@pytest.mark.parametrize("baseline", ["live_peers", "soft_groups", "bins"])
def test_an_object_is_taken_as_it_is(baseline: str) -> None:
    model = a_table()
    agent = table_agent(model, baseline=baseline)
    assert agent.policy is model
    before = model.logits.detach().clone()
    agent.learn(100)
    assert not torch.equal(model.logits.detach(), before)


@pytest.mark.parametrize("as_object", [False, True])
def test_a_checkpoint_of_your_own_policy_goes_on_exactly_if_it_is_given_again(as_object: bool, tmp_path: Path) -> None:
    def given() -> Any:
        return a_table() if as_object else Table

    whole = table_agent(given()).learn(100).learn(100, reset_num_timesteps=False)
    table_agent(given()).learn(100).save(tmp_path / "agent")
    with pytest.raises(ValueError, match=r"policy was, or held, .*Table.*pass policy="):
        GRPO.load(tmp_path / "agent")
    loaded = GRPO.load(tmp_path / "agent", IdentityDiscrete, policy=given())
    assert digest(loaded.learn(100, reset_num_timesteps=False)) == digest(whole)
    assert loaded.policy.seen == whole.policy.seen  # type: ignore[attr-defined]


def test_workers_play_with_your_own_policy() -> None:
    one, two = table_agent().learn(60), table_agent(n_workers=2, collector=Here).learn(60)
    assert digest(one) == digest(two)


class Half:
    """Acts, and cannot learn."""

    noise_size = 1
    act = to_env = actor = None


@pytest.mark.parametrize(
    "policy",
    [Half, Half(), 3, torch.nn.Linear, torch.nn.Linear(1, 1)],
    ids=shown,
)
def test_what_is_no_policy_is_told_what_it_lacks(policy: Any) -> None:
    with pytest.raises(
        ValueError, match=r"is not known; expected MlpPolicy, CnnPolicy, .*PolicyModel.* lacks .*preprocess"
    ):
        small(IdentityDiscrete, policy=policy)


def test_a_class_whose_objects_lack_an_attribute_is_refused_by_name() -> None:
    class Placeless(Table):
        def __getattribute__(self, name: str) -> Any:
            if name == "device":
                raise AttributeError(name)
            return super().__getattribute__(name)

    with pytest.raises(ValueError, match="policy=Placeless lacks device"):
        table_agent(Placeless)


def test_arguments_for_an_object_are_refused() -> None:
    with pytest.raises(ValueError, match=r"policy=Table is an object already, so scale cannot be passed on"):
        table_agent(a_table(), policy_kwargs={"scale": 1.0})


class Scaled(Table):
    def __init__(self, observation_space: Any, action_space: Any, normalize_observations: bool):
        super().__init__(observation_space, action_space)
        self.normalizes = normalize_observations


@pytest.mark.parametrize("asked", [False, True])
def test_whether_to_normalise_is_told_to_those_who_take_it(asked: bool) -> None:
    assert table_agent(Scaled, normalize_observations=asked).policy.normalizes is asked  # type: ignore[attr-defined]
    assert type(table_agent(normalize_observations=asked).policy) is Table
    assert type(table_agent(a_table(), normalize_observations=asked).policy) is Table


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(
        ValueError, match="policy='LstmPolicy' is not known; expected MlpPolicy, CnnPolicy, MultiInputPolicy"
    ):
        small(IdentityDiscrete, policy="LstmPolicy")


@pytest.mark.parametrize("name", POLICIES)
def test_a_name_is_its_class(name: str) -> None:
    assert find_policy(name) is find_policy(POLICIES[name]) is POLICIES[name]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("net_arc", "did you mean 'net_arch'"),
        ("activation", "did you mean 'activation_fn'"),
        ("use_sde", "exploration is not part"),
        ("share_features_extractor", "no value network"),
        ("xyzzy", "known are observation_space, action_space, net_arch"),
    ],
)
@pytest.mark.parametrize("policy", ["MlpPolicy", CnnPolicy])
def test_an_unknown_policy_argument_is_explained(policy: Any, name: str, said: str) -> None:
    with pytest.raises(TypeError, match=f"policy_kwargs has no '{name}'.*{said}"):
        small(Walk, policy=policy, policy_kwargs={name: 1})


class Wider(MlpPolicy):
    def __init__(self, observation_space: Any, action_space: Any, width: int = 5, **kwargs: Any):
        super().__init__(observation_space, action_space, net_arch=[width], **kwargs)


def test_a_subclass_may_have_arguments_of_its_own() -> None:
    policy = make_policy(Wider, Box(-1.0, 1.0, (2,)), Walk().action_space, True, {"width": 7})
    assert isinstance(policy, Wider)
    assert policy.normalizer is not None
    assert policy.body[0].out_features == 7
