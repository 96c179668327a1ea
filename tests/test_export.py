import io
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from grpo_gym import GRPO
from grpo_gym.export import exported
from grpo_gym.layout import Layout
from grpo_gym.policy import MlpPolicy
from grpo_gym.recurrent import MlpGruPolicy
from tests.agents import digest, small
from tests.identities import SPACES
from tests.toys import IdentityBox, MaskedByInfo, Walk

UNIT = spaces.Box(-1.0, 1.0, (3,))
IMAGE = spaces.Box(0, 255, (6, 5, 3), np.uint8)
MIXED = spaces.Dict(
    {
        "picture": IMAGE,
        "told": spaces.Tuple([spaces.Discrete(3, start=2), spaces.MultiBinary(3), spaces.Box(-5, 5, (2, 2), np.int16)]),
        "what": spaces.MultiDiscrete([2, 3], dtype=np.uint16),
    }
)
OBSERVATIONS = [
    UNIT,
    spaces.Box(-np.inf, np.inf, (2, 3), np.float64),
    IMAGE,
    spaces.Discrete(4, start=2),
    spaces.MultiDiscrete(np.array([[2, 3], [4, 2]])),
    spaces.MultiBinary(3),
    MIXED,
    spaces.Tuple([UNIT]),
]
ACTIONS = [
    spaces.Discrete(3),
    spaces.Box(-0.01, 0.02, (2, 2)),  # most of what the network says is clipped
    spaces.Box(np.array([-1.0, 0.0]), np.array([1.0, 0.5]), dtype=np.float64),
    spaces.Box(-3, 3, (2,), np.int16),
    spaces.MultiBinary([2, 2]),
    *SPACES.values(),
]
SHIFTED = spaces.Discrete(3, start=-1)
TWO = spaces.MultiDiscrete([3, 2], start=[-1, 5])
OTHERS = [
    ("CnnPolicy", IMAGE, SHIFTED),
    ("CnnPolicy", spaces.Box(0, 255, (3, 36, 40), np.uint8), SHIFTED),
    ("MultiInputPolicy", MIXED, SPACES["dict"]),
    ("MlpGruPolicy", UNIT, SHIFTED),
    ("MlpGruPolicy", MIXED, SPACES["box"]),
    ("CnnGruPolicy", IMAGE, TWO),
    ("MultiInputGruPolicy", MIXED, SPACES["dict"]),
]


class Shows(gym.Env[Any, Any]):
    """Has any spaces; nobody plays it."""

    def __init__(self, observation_space: Any, action_space: Any):
        self.observation_space, self.action_space = observation_space, action_space


def loaded(path: Path) -> Any:
    return torch.export.load(path).module()


def drawn(space: gym.Space[Any], n: int) -> Any:
    """A batch as a vector environment shows it."""
    layout = Layout(space)
    return layout.unpack(np.stack([layout.pack_one(space.sample()) for _ in range(n)]))


def agent_of(observation_space: Any, action_space: Any, policy: str = "MlpPolicy", **kwargs: Any) -> GRPO:
    """An agent that has seen some observations, and whose actions depend on what it sees."""
    kwargs = {"net_arch": [8], "ortho_init": False, **kwargs, **({"hidden_size": 5} if "Gru" in policy else {})}
    observation_space.seed(7)
    env = partial(Shows, observation_space, action_space)
    agent = small(env, policy=policy, policy_kwargs=kwargs, normalize_observations=True)
    agent.policy.observe(torch.from_numpy(Layout(observation_space).pack(drawn(observation_space, 9))))
    return agent


def tensors(space: gym.Space[Any], batch: Any) -> Any:
    layout = Layout(space)
    return layout.nest(torch.from_numpy(np.array(part)) for part in layout.split(batch))


def check_alike(space: gym.Space[Any], theirs: Any, ours: Any) -> None:
    """Equal, and each an action of the space."""
    layout = Layout(space)
    assert type(theirs) is (torch.Tensor if layout.is_plain else type(ours))
    arrays = layout.nest(part.numpy() for part in layout.split(theirs))
    for one, other in zip(layout.split(arrays), layout.split(ours), strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert all(space.contains(layout.unpack_one(row)) for row in layout.pack(arrays))


@pytest.mark.parametrize(
    ("policy", "observation_space", "action_space"),
    [
        *(("MlpPolicy", space, SHIFTED) for space in OBSERVATIONS),
        *(("MlpPolicy", UNIT, space) for space in ACTIONS),
        *OTHERS,
    ],
    ids=str,
)
def test_an_exported_policy_acts_as_the_agent_does(
    policy: str, observation_space: Any, action_space: Any, tmp_path: Path
) -> None:
    agent = agent_of(observation_space, action_space, policy)
    agent.export(tmp_path / "agent.pt2")
    deployed, remembers = loaded(tmp_path / "agent.pt2"), "Gru" in policy
    rng = np.random.default_rng(7)
    for n in (1, 2, 300):
        ours_after: Any = np.zeros((n, 5), np.float32)
        state = torch.zeros(n, 5)
        for _ in range(3 if remembers else 1):
            seen = drawn(observation_space, n)
            if not remembers:
                ours, _ = agent.predict(seen, deterministic=True)
                check_alike(action_space, deployed(tensors(observation_space, seen)), ours)
                continue
            begins = rng.random(n) < 0.3
            ours, ours_after = agent.predict(seen, ours_after, begins, deterministic=True)
            theirs, state = deployed(tensors(observation_space, seen), state, torch.from_numpy(begins))
            check_alike(action_space, theirs, ours)
            np.testing.assert_allclose(state, ours_after, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("space", [SPACES["box"], SPACES["dict"]], ids=str)
def test_what_is_squashed_is_squashed_there_too(space: Any, tmp_path: Path) -> None:
    agent = agent_of(UNIT, space, squash_output=True, state_dependent_std=True)
    agent.export(tmp_path / "agent.pt2")
    seen = drawn(UNIT, 100)
    check_alike(
        space, loaded(tmp_path / "agent.pt2")(torch.from_numpy(seen)), agent.predict(seen, deterministic=True)[0]
    )


def test_masks_are_obeyed_as_the_agent_obeys_them(tmp_path: Path) -> None:
    agent = small(MaskedByInfo, normalize_observations=True).learn(48)
    agent.export(tmp_path / "agent.pt2", action_masks=True)
    policy, rng = loaded(tmp_path / "agent.pt2"), np.random.default_rng(0)
    observations = rng.normal(size=(200, 2)).astype(np.float32)
    masks = rng.random((200, 3)) < 0.5
    masks[:, 1] |= ~masks.any(axis=1)
    actions = policy(torch.from_numpy(observations), torch.from_numpy(masks)).numpy()
    assert masks[np.arange(200), actions].all()
    assert (actions == agent.predict(observations, deterministic=True, action_masks=masks)[0]).all()


@pytest.mark.parametrize("policy", ["MlpPolicy", "MlpGruPolicy"])
def test_masks_of_several_choices_are_the_last_argument(policy: str, tmp_path: Path) -> None:
    agent = agent_of(UNIT, TWO, policy)
    agent.export(tmp_path / "agent.pt2", action_masks=True)
    seen, rng = drawn(UNIT, 200), np.random.default_rng(0)
    masks = rng.random((200, 3 + 2)) < 0.5
    masks[:, [1, 3]] = True
    state, begins = (np.zeros((200, 5), np.float32), np.zeros(200, np.bool_)) if "Gru" in policy else (None, None)
    given = (torch.from_numpy(x) for x in (seen, state, begins, masks) if x is not None)
    result = loaded(tmp_path / "agent.pt2")(*given)
    actions = (result if state is None else result[0]).numpy()
    assert (actions == agent.predict(seen, state, begins, deterministic=True, action_masks=masks)[0]).all()
    rows = np.arange(200)
    assert masks[rows, actions[:, 0] + 1].all()
    assert masks[rows, 3 + actions[:, 1] - 5].all()


def test_masks_of_what_has_no_choices_are_refused() -> None:
    with pytest.raises(ValueError, match=r"action_masks=True, but Box.* has no choices"):
        exported(MlpPolicy(UNIT, SPACES["box"]), action_masks=True)


def with_bias(policy: MlpPolicy, *bias: float) -> MlpPolicy:
    """A policy that says the same whatever it sees."""
    torch.nn.init.zeros_(policy.head.linear.weight)
    policy.head.linear.bias.data = torch.tensor(bias)
    return policy


def opened(policy: MlpPolicy) -> Any:
    return torch.export.load(io.BytesIO(exported(policy))).module()


def test_choices_are_counted_from_where_the_environment_counts_them() -> None:
    policy = with_bias(MlpPolicy(UNIT, TWO), 0.0, 0.1, 0.9, 0.3, 0.2)  # the last of three, and the first of two
    assert opened(policy)(torch.zeros(2, 3)).tolist() == [[-1 + 2, 5 + 0], [-1 + 2, 5 + 0]]


def test_a_squashed_number_of_0_is_the_middle_of_the_bounds() -> None:
    space = spaces.Tuple([spaces.Discrete(2, start=7), spaces.Box(0.0, np.array([4.0, 10.0]), dtype=np.float64)])
    choice, numbers = opened(with_bias(MlpPolicy(UNIT, space, squash_output=True), 0.1, 0.2, 0.0, 9.0))(
        torch.zeros(1, 3)
    )
    assert choice.tolist() == [8]
    assert numbers.tolist() == [[2.0, pytest.approx(10.0, abs=1e-6)]]


def test_a_unit_without_weights_forgets_half_at_each_step_and_all_where_an_episode_begins() -> None:
    policy = MlpGruPolicy(UNIT, SHIFTED, hidden_size=2)
    for parameter in policy.gru.parameters():
        torch.nn.init.zeros_(parameter)  # so z = σ(0) = 1/2, n = 0, and h ← h/2
    act, begins = opened(policy), torch.tensor([False, True])
    _, state = act(torch.ones(2, 3), torch.tensor([[1.0, -4.0], [1.0, -4.0]]), begins)
    assert state.tolist() == [[0.5, -2.0], [0.0, 0.0]]


def test_exporting_changes_nothing(tmp_path: Path) -> None:
    agent, twin = (small(IdentityBox, normalize_observations=True).learn(24) for _ in range(2))
    agent.export(tmp_path / "agent.pt2")
    for one in (agent, twin):
        one.learn(24, reset_num_timesteps=False)
    assert digest(agent) == digest(twin)


def test_it_runs_without_this_package(tmp_path: Path) -> None:
    plain = small(Walk).learn(24)
    plain.export(tmp_path / "plain.pt2")
    space = spaces.Dict({"place": spaces.Box(-9.0, 9.0, (2,)), "sign": spaces.Discrete(2)})
    remembering = agent_of(space, TWO, "MultiInputGruPolicy")
    remembering.export(tmp_path / "remembering.pt2")
    program = """
import torch
policy = torch.export.load("plain.pt2").module()
print(policy(torch.tensor([[0.25, 1.0], [-0.25, 2.0]])).tolist())
policy = torch.export.load("remembering.pt2").module()
state, begins = torch.zeros(3, 5), torch.tensor([True, False, False])
for t in range(3):
    places = torch.tensor([[0.5, t], [-1.0, 2.0], [t, t]])
    actions, state = policy({"place": places, "sign": torch.tensor([1, 0, 1])}, state, begins)
    print(actions.tolist())
import sys
assert not any(name.split(".")[0] in ("grpo_gym", "gymnasium") for name in sys.modules)
"""
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=True)
    first, _ = plain.predict(np.array([[0.25, 1.0], [-0.25, 2.0]], np.float32), deterministic=True)
    expected, state = [first.tolist()], None
    for t in range(3):
        seen = {"place": np.array([[0.5, t], [-1.0, 2.0], [t, t]], np.float32), "sign": np.array([1, 0, 1])}
        actions, state = remembering.predict(seen, state, [True, False, False], deterministic=True)
        expected.append(actions.tolist())
    assert done.stdout == "".join(f"{actions}\n" for actions in expected)


class OwnPolicy(MlpPolicy):
    """Its `get_distribution` tells nothing of what it does."""

    def act(self, observations: Any, noise: Any, action_masks: Any = None) -> Any:
        actions, log_probs = super().act(observations, noise, action_masks)
        return (actions + 1) % 3, log_probs


def test_what_would_act_otherwise_is_not_written(tmp_path: Path) -> None:
    agent = GRPO(OwnPolicy, Walk, n_groups=2, group_size=2)
    with pytest.raises(ValueError, match="OwnPolicy does not act alike once it is exported"):
        agent.export(tmp_path / "agent.pt2")
    assert list(tmp_path.iterdir()) == []


class OwnMemory(MlpPolicy):
    """Remembers in a way that is its own."""

    memory_size = 4

    def act_from(self, memories: Any, observations: Any, noise: Any, action_masks: Any = None) -> Any:
        return *self.act(observations, noise, action_masks), memories


class LooksAtNumbers(MlpPolicy):
    """Does what depends on what it sees in a way that cannot be followed."""

    def get_distribution(self, observations: torch.Tensor, action_masks: Any = None) -> Any:
        assert float(observations.numpy().sum()) < 1e9
        return super().get_distribution(observations, action_masks)


@pytest.mark.parametrize(
    ("policy", "why"),
    [
        (OwnMemory(UNIT, SHIFTED), "OwnMemory has a memory of its own and cannot be exported; expected MlpGruPolicy"),
        (LooksAtNumbers(UNIT, SHIFTED), "LooksAtNumbers cannot be exported: torch.export does not follow all"),
        (torch.nn.Linear(3, 2), "Linear cannot be exported; expected MlpPolicy, or a subclass of it"),
    ],
    ids=lambda x: type(x).__name__,
)
def test_what_cannot_be_exported_is_refused_in_words(policy: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        exported(policy)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        small(Walk).export(tmp_path / "file" / "agent.pt2")
