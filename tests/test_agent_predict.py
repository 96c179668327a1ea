import itertools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from grpo_gym import GRPO
from tests.agents import digest, small, weights_digest
from tests.toys import UNIT_BOX, IdentityBox, IdentityDiscrete, MaskedByInfo, Walk

MASKS = [mask for mask in itertools.product([False, True], repeat=3) if any(mask)]
"""Every mask of three actions that leaves one legal."""


# --- predict ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("observation", [np.int64(4), np.array(4), 4])
def test_one_observation_gets_one_action_and_an_integer_for_discrete(observation: Any) -> None:
    agent = small(lambda: IdentityDiscrete(n=3, start=3))
    action, state = agent.predict(observation, deterministic=True)
    assert isinstance(action, np.integer)
    assert action in (3, 4, 5)
    assert state is None


def test_a_batch_gets_the_actions_that_each_would_get() -> None:
    agent = small(IdentityDiscrete).learn(100)
    batch = np.array([2, 0, 1, 1])
    actions, _ = agent.predict(batch, deterministic=True)
    assert actions.shape == (4,)
    assert actions.tolist() == [agent.predict(one, deterministic=True)[0] for one in batch]


def test_box_actions_have_the_shape_and_type_of_the_space() -> None:
    space = Box(-1.0, 1.0, (2, 3), np.float32)
    agent = small(lambda: Walk(space))
    single, _ = agent.predict(np.zeros(2, np.float32))
    batch, _ = agent.predict(np.zeros((5, 2), np.float32))
    assert space.contains(single)
    assert (batch.shape, batch.dtype) == ((5, 2, 3), np.float32)


def test_box_actions_are_clipped_to_their_bounds() -> None:
    # a standard deviation of e^2 = 7 around 0 leaves [-1, 1] most of the time
    agent = small(IdentityBox, policy_kwargs={"net_arch": [8], "log_std_init": 2.0})
    actions, _ = agent.predict(np.zeros((200, 2), np.float32))
    assert {actions.min(), actions.max()} == {-1.0, 1.0}


def test_a_list_of_numbers_is_an_observation() -> None:
    agent = small(Walk)
    assert agent.predict([0.5, 1.0], deterministic=True) == agent.predict(np.array([0.5, 1.0]), deterministic=True)


def test_the_state_is_handed_back() -> None:
    assert small(IdentityDiscrete).predict(0, state=("mine",), episode_start=np.array([True]))[1] == ("mine",)


def test_what_reset_returns_is_refused_with_the_reason() -> None:
    with pytest.raises(ValueError, match=r"tuple: env\.reset\(\) returns \(observation, info\)"):
        small(Walk).predict(Walk().reset(seed=0))


@pytest.mark.parametrize("shape", [(3,), (4, 3), (2, 2, 2), ()])
def test_a_wrong_shape_is_refused_naming_both(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \(2,\) for one") as caught:
        small(Walk).predict(np.zeros(shape, np.float32))
    assert str(shape) in str(caught.value)


def test_greedy_play_is_repeatable_and_draws_no_random_number() -> None:
    agent, twin = (small(Walk, ent_coef=1.0) for _ in range(2))
    observations = np.linspace(-1, 1, 40, dtype=np.float32).reshape(20, 2)
    first, _ = agent.predict(observations, deterministic=True)
    assert all((agent.predict(observations, deterministic=True)[0] == first).all() for _ in range(3))
    assert agent.predict(observations)[0].tolist() == twin.predict(observations)[0].tolist()


def test_drawn_actions_come_from_a_generator_of_the_agents_own() -> None:
    agent, twin, other = (small(IdentityDiscrete, seed=seed) for seed in (0, 0, 1))
    observations = np.zeros(50, np.int64)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    first = agent.predict(observations)[0].tolist()
    assert agent.predict(observations)[0].tolist() != first
    assert twin.predict(observations)[0].tolist() == first
    assert other.predict(observations)[0].tolist() != first


def test_predicting_does_not_change_training() -> None:
    agent, twin = small(IdentityDiscrete), small(IdentityDiscrete)
    agent.predict(np.zeros(1000, np.int64))
    assert digest(agent.learn(48)) == digest(twin.learn(48))


# --- masks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("start", [0, 5])
def test_masked_actions_are_never_predicted(mask: tuple[bool, ...], start: int) -> None:
    agent = small(lambda: IdentityDiscrete(n=3, start=start))
    legal = {start + action for action in range(3) if mask[action]}
    for observation in range(start, start + 3):
        assert agent.predict(observation, deterministic=True, action_masks=mask)[0] in legal
    drawn, _ = agent.predict(np.full(200, start), action_masks=np.tile(np.array(mask, np.int8), (200, 1)))
    assert set(drawn.tolist()) == legal  # each legal action is drawn once in 200 at about 1/3


def test_each_row_of_a_batch_has_its_own_mask() -> None:
    actions, _ = small(IdentityDiscrete).predict(np.zeros(3, np.int64), action_masks=np.eye(3))
    assert actions.tolist() == [0, 1, 2]


def test_a_trained_agent_can_play_by_the_masks_of_its_environment() -> None:
    agent, env = small(MaskedByInfo).learn(100), MaskedByInfo()
    for seed in range(5):
        observation, info = env.reset(seed=seed)
        over = False
        while not over:  # the environment asserts that each action is legal
            action, _ = agent.predict(observation, action_masks=info["action_mask"])
            observation, _, terminated, truncated, info = env.step(action)
            over = terminated or truncated


def test_a_mask_for_box_actions_is_refused() -> None:
    with pytest.raises(ValueError, match="only discrete actions"):
        small(IdentityBox).predict(np.zeros(2, np.float32), action_masks=[True, False])


@pytest.mark.parametrize("mask", [[False] * 3, [True] * 2, [True] * 4])
@pytest.mark.parametrize("deterministic", [False, True])
def test_a_mask_that_allows_nothing_or_fits_no_action_is_refused(mask: list[bool], deterministic: bool) -> None:
    with pytest.raises(ValueError, match="mask"):
        small(IdentityDiscrete).predict(0, deterministic=deterministic, action_masks=mask)


# --- another environment ---------------------------------------------------------------------------------------


def test_training_goes_on_in_another_environment_with_the_same_spaces() -> None:
    agent = small(lambda: Walk(limit=3)).learn(50)
    before = weights_digest(agent)
    agent.set_env(lambda: Walk(limit=6))
    assert agent.learn(50, reset_num_timesteps=False).num_timesteps >= 100
    assert weights_digest(agent) != before


def test_a_vector_environment_brings_its_own_number_of_slots() -> None:
    agent = small("CartPole-v1")
    assert agent.n_envs == 6
    vector: Any = gym.make_vec("CartPole-v1", 3, vectorization_mode="sync")
    agent.set_env(vector)
    assert (agent.n_envs, agent.get_env().slots) == (3, agent.env)  # type: ignore[union-attr]
    assert agent.learn(50).num_timesteps >= 50


@pytest.mark.parametrize(
    ("make", "ours", "theirs"),
    [
        (lambda: Walk(Discrete(4)), r"Discrete\(3\)", r"action_space of Walk is Discrete\(4\)"),
        (lambda: Walk(UNIT_BOX), r"Discrete\(3\)", r"action_space of Walk is Box"),
        (IdentityDiscrete, "Box", r"observation_space of IdentityDiscrete is Discrete\(3\)"),
    ],
)
def test_other_spaces_are_refused_naming_both(make: Callable[[], Any], ours: str, theirs: str) -> None:
    agent = small(Walk)
    env = agent.get_env()
    with pytest.raises(ValueError, match=f"{theirs}.*the agent was made for {ours}"):
        agent.set_env(make)
    assert agent.get_env() is env


# --- weights in and out ----------------------------------------------------------------------------------------


def test_weights_and_optimiser_go_from_one_agent_to_another() -> None:
    agent, other = small(IdentityDiscrete).learn(100), small(IdentityDiscrete, seed=9)
    assert digest(agent) != digest(other)
    other.set_parameters(agent.get_parameters())
    assert digest(agent) == digest(other)


def test_weights_can_be_read_from_a_file(tmp_path: Path) -> None:
    agent, other = small(IdentityDiscrete).learn(100), small(IdentityDiscrete, seed=9)
    agent.save(tmp_path / "agent")
    other.set_parameters(tmp_path / "agent")
    assert digest(agent) == digest(other)


def test_the_network_alone_is_enough_without_an_exact_match() -> None:
    agent, other = small(IdentityDiscrete).learn(100), small(IdentityDiscrete, seed=9)
    network = {"policy": agent.get_parameters()["policy"]}
    with pytest.raises(ValueError, match=r"named \['policy'\], expected \['policy', 'policy.optimizer'\]"):
        other.set_parameters(network)
    other.set_parameters(network, exact_match=False)
    assert weights_digest(agent) == weights_digest(other)


def renamed(agent: GRPO) -> dict[str, Any]:
    return {"actor": agent.get_parameters()["policy"]}


def without_a_tensor(agent: GRPO) -> dict[str, Any]:
    given = agent.get_parameters()
    return {**given, "policy": dict(list(given["policy"].items())[1:])}


def with_a_strange_tensor(agent: GRPO) -> dict[str, Any]:
    given = agent.get_parameters()
    return {**given, "policy": {**given["policy"], "critic.weight": torch.zeros(1)}}


def of_another_width(agent: GRPO) -> dict[str, Any]:
    return small(IdentityDiscrete, policy_kwargs={"net_arch": [9]}).learn(24).get_parameters()


def of_another_optimiser(agent: GRPO) -> dict[str, Any]:
    return {**agent.get_parameters(), "policy.optimizer": {"state": {}, "param_groups": []}}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (renamed, "actor"),
        (without_a_tensor, "body.0.weight"),
        (with_a_strange_tensor, "critic.weight"),
        (of_another_width, "size mismatch for body.0.weight"),
        (of_another_optimiser, "parameter groups"),
    ],
)
def test_parameters_that_do_not_fit_are_refused_by_name_and_change_nothing(
    change: Callable[[GRPO], dict[str, Any]], named: str
) -> None:
    agent, before = small(IdentityDiscrete), digest(small(IdentityDiscrete))
    given = change(small(IdentityDiscrete, seed=1).learn(24))
    with pytest.raises(ValueError, match=named):
        agent.set_parameters(given)
    assert digest(agent) == before
