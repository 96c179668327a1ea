import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete

from grpo_gym.policy import MlpPolicy

OBSERVATION = Box(-1.0, 1.0, (2,), np.float32)
SPACES: dict[str, gym.Space[Any]] = {
    "discrete": Discrete(3),
    "offset": Discrete(3, start=5),
    "box": Box(-1.0, 1.0, (2,), np.float32),
    "matrix": Box(-1.0, 1.0, (2, 2), np.float32),
}
every_action_space = pytest.mark.parametrize("action_space", SPACES.values(), ids=SPACES)


def made(action_space: gym.Space[Any] = SPACES["discrete"], **kwargs: Any) -> MlpPolicy:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MlpPolicy(OBSERVATION, action_space, **kwargs)


def some_observations(n: int = 5) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).uniform(-1, 1, (n, 2)).astype(np.float32)


@every_action_space
@pytest.mark.parametrize("deterministic", [True, False])
def test_predicted_actions_lie_in_the_action_space(action_space: gym.Space[Any], deterministic: bool) -> None:
    policy, rng = made(action_space, log_std_init=2.0), np.random.default_rng(0)
    for observation in some_observations():
        assert action_space.contains(policy.predict(observation, deterministic, rng=rng))
    batch = policy.predict(some_observations(), deterministic, rng=rng)
    assert len(batch) == 5
    assert all(action_space.contains(action) for action in batch)


@every_action_space
def test_one_observation_is_a_batch_of_one(action_space: gym.Space[Any]) -> None:
    policy, observations = made(action_space), some_observations()
    batch = policy.predict(observations, deterministic=True)
    for observation, action in zip(observations, batch, strict=True):
        assert np.allclose(policy.predict(observation, deterministic=True), action, atol=1e-6)


@every_action_space
def test_a_drawn_action_is_a_function_of_the_generator(action_space: gym.Space[Any]) -> None:
    policy, observations = made(action_space), some_observations(50)
    before = str(np.random.get_state(legacy=False)), torch.get_rng_state()  # noqa: NPY002
    first, second, other = (
        policy.predict(observations, rng=np.random.default_rng(seed)).tolist() for seed in (0, 0, 1)
    )
    assert first == second != other
    assert str(np.random.get_state(legacy=False)) == before[0]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[1])


def test_drawing_without_a_generator_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a random generator"):
        made().predict(some_observations())


@pytest.mark.parametrize(
    ("space", "observation"),
    [
        (Discrete(4), 3),
        (Discrete(4, start=2), np.int64(5)),
        (MultiDiscrete([2, 3]), [1, 2]),
        (MultiBinary(3), np.array([True, False, True])),
        (Box(0, 255, (2, 2), np.uint8), np.zeros((2, 2))),
        (Box(-1.0, 1.0, (), np.float32), 0.5),
    ],
    ids=str,
)
def test_every_observation_space_can_be_predicted_from(space: gym.Space[Any], observation: Any) -> None:
    policy = MlpPolicy(space, Discrete(3))
    assert np.shape(policy.predict(observation, deterministic=True)) == ()
    assert np.shape(policy.predict(np.stack([observation] * 4), deterministic=True)) == (4,)


@pytest.mark.parametrize("shape", [(3,), (2, 2, 2), (4, 3), ()])
def test_another_observation_shape_is_refused_and_both_are_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="observation space") as caught:
        made().predict(np.zeros(shape, np.float32), deterministic=True)
    assert str(shape) in str(caught.value)
    assert "(2,) for one or ('n', 2) for a batch" in str(caught.value)


def test_what_reset_returns_is_refused_with_the_fix() -> None:
    with pytest.raises(ValueError, match=r"\(observation, info\), pass only the observation"):
        made().predict((np.zeros(2, np.float32), {}), deterministic=True)


@pytest.mark.parametrize("kind", ["list", "float64", "read-only", "reversed", "strided", "integers"])
def test_harmless_sloppiness_of_observations_is_accepted_without_a_warning(kind: str) -> None:
    policy, plain = made(), some_observations(4)
    given: Any = {
        "list": plain.tolist(),
        "float64": plain.astype(np.float64),
        "read-only": plain.copy(),
        "reversed": plain[::-1].copy()[::-1],
        "strided": np.repeat(plain, 2, axis=1)[:, ::2],
        "integers": np.zeros((4, 2), np.int64),
    }[kind]
    if kind == "read-only":
        given.flags.writeable = False
    expected = policy.predict(np.zeros((4, 2), np.float32) if kind == "integers" else plain, deterministic=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # in a new process only the first read-only array is warned of
        torch.set_warn_always(True)
        try:
            assert policy.predict(given, deterministic=True).tolist() == expected.tolist()
        finally:
            torch.set_warn_always(False)


def test_a_masked_prediction_is_legal() -> None:
    policy, rng = made(), np.random.default_rng(0)
    masks = np.eye(3, dtype=np.int8)[[2, 0, 1, 1, 0]]
    assert policy.predict(some_observations(), True, masks).tolist() == [2, 0, 1, 1, 0]
    assert policy.predict(some_observations(), False, masks, rng).tolist() == [2, 0, 1, 1, 0]
    assert policy.predict(some_observations()[0], True, [False, True, False]) == 1


def test_a_mask_that_allows_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="mask"):
        made().predict(some_observations(1), True, np.zeros((1, 3), np.bool_))


@every_action_space
def test_what_acting_says_of_an_action_is_what_evaluating_says(action_space: gym.Space[Any]) -> None:
    policy, observations = made(action_space), some_observations(200)
    noise = np.random.default_rng(1).random((200, policy.noise_size), np.float32) * 0.99 + 0.005
    actions, log_probs = policy.act(observations, noise)
    again, entropy = policy.evaluate_actions(torch.from_numpy(observations), torch.from_numpy(actions))
    assert np.abs(log_probs - again.detach().numpy()).max() <= 1e-6
    assert entropy.shape == (200,)
    assert entropy.requires_grad


@every_action_space
def test_without_noise_the_most_probable_action_is_taken(action_space: gym.Space[Any]) -> None:
    policy, observations = made(action_space), some_observations()
    mode = policy.get_distribution(torch.from_numpy(observations)).mode()
    assert policy.act(observations, None)[0].tolist() == mode.tolist()


def test_a_discrete_policy_begins_nearly_uniform() -> None:
    entropy = made().get_distribution(torch.from_numpy(some_observations())).entropy()
    assert entropy.detach().numpy() == pytest.approx(np.log(3), abs=1e-3)


def test_orthogonal_weights_are_orthogonal_and_may_be_left_out() -> None:
    (first,) = [module for module in made(net_arch=[7]).body if isinstance(module, torch.nn.Linear)]
    # gain √2: the columns of a 7 × 2 matrix have squared length 2
    assert torch.allclose(first.weight.T @ first.weight, 2 * torch.eye(2), atol=1e-5)
    assert first.bias.count_nonzero() == 0
    (plain,) = [m for m in made(net_arch=[7], ortho_init=False).body if isinstance(m, torch.nn.Linear)]
    assert not torch.allclose(plain.weight.T @ plain.weight, 2 * torch.eye(2), atol=1e-2)


@pytest.mark.parametrize("net_arch", [(5, 7), [5, 7], {"pi": [5, 7]}])
def test_the_hidden_layers_are_as_wide_as_asked_for(net_arch: Any) -> None:
    widths = [module.out_features for module in made(net_arch=net_arch).body if hasattr(module, "out_features")]
    assert widths == [5, 7]


def test_no_hidden_layer_makes_a_linear_policy() -> None:
    assert [tuple(p.shape) for p in made(net_arch=[]).parameters()] == [(3, 2), (3,)]


def test_there_is_nothing_to_train_but_body_and_head() -> None:
    # 2·64 + 64, 64·64 + 64, 64·3 + 3: no value network
    assert sum(p.numel() for p in made(normalize_observations=True).parameters()) == 192 + 4160 + 195


def test_layers_for_a_value_network_are_refused() -> None:
    with pytest.raises(ValueError, match=r"vf.*value network.*critic-free"):
        made(net_arch={"pi": [5], "vf": [5]})


def test_a_spare_observation_level_is_told_apart_on_request() -> None:
    policy = MlpPolicy(Box(-1, 1, (2,), np.int8), Discrete(3), one_hot_observations=True)
    assert policy.preprocess(torch.tensor([[-1, 1]], dtype=torch.int8)).tolist() == [[1, 0, 0, 0, 0, 1]]


def test_observing_moves_the_normaliser_and_nothing_else() -> None:
    policy = made(normalize_observations=True)
    weights = [p.clone() for p in policy.parameters()]
    raw = torch.tensor([[0.0, 10.0], [2.0, 30.0]])
    assert torch.equal(policy.preprocess(raw / 10), raw / 10)
    policy.observe(raw)  # means 1 and 20, deviations 1 and 10
    assert torch.allclose(policy.preprocess(raw), torch.tensor([[-1.0, -1.0], [1.0, 1.0]]))
    assert all(torch.equal(p, before) for p, before in zip(policy.parameters(), weights, strict=True))


def test_without_a_normaliser_observing_is_harmless() -> None:
    policy = made()
    policy.observe(torch.tensor([[1.0, 2.0]]))
    assert policy.preprocess(torch.tensor([[1.0, 2.0]])).tolist() == [[1, 2]]
