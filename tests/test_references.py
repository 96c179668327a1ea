import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from grpo_gym import GRPO
from grpo_gym.distributions import Categorical, DiagonalGaussian
from grpo_gym.references import ESTIMATORS, Reference, adapted, divergence, loss_to_reference
from grpo_gym.types import Batch
from tests.agents import digest, small, watched, weights_digest
from tests.identities import SPACES, Identity
from tests.test_losses import case, every_distribution, gradient, slope
from tests.toys import IdentityBox, IdentityDiscrete, MaskedByInfo, Walk, play, policy_for

every_estimator = pytest.mark.parametrize("estimator", ESTIMATORS)
every_place = pytest.mark.parametrize("place", ["loss", "reward"])


def test_the_divergences_by_hand() -> None:
    one, other = Categorical(torch.tensor([[0.5, 0.5]]).log()), Categorical(torch.tensor([[0.25, 0.75]]).log())
    log_prob, other_log_prob = torch.tensor([0.5]).log(), torch.tensor([0.25]).log()
    found = {how: divergence(how, one, log_prob, other if how == "exact" else other_log_prob) for how in ESTIMATORS}
    # log 2, (log 2)²/2, 1/2 − 1 + log 2; (log 2 + log 2/3)/2
    expected = {"k1": 0.693147, "k2": 0.2402265, "k3": 0.193147, "exact": 0.143841}
    assert {how: kl.item() for how, kl in found.items()} == pytest.approx(expected, rel=1e-5)


def test_rows_of_a_distribution_are_the_distributions_of_these_rows() -> None:
    rows = torch.tensor([2, 0])
    mask = torch.tensor([[True, True], [True, True], [False, True]])
    categorical = Categorical(torch.tensor([[0.0, 1.0], [0.5, 2.0], [3.0, -1.0]]), mask)
    assert torch.allclose(categorical[rows].log_probs, categorical.log_probs[rows])
    gaussian = DiagonalGaussian(torch.arange(6.0).view(3, 2), torch.tensor([0.1, 0.2]))
    assert gaussian[rows].mean.tolist() == [[4, 5], [0, 1]]
    assert gaussian[rows].kl(gaussian[rows]).tolist() == [0, 0]


def rows_of(old: Tensor, reference: Any) -> Batch:
    return Batch(old, old, old, old, old, reference=reference)


@every_distribution
@pytest.mark.parametrize("estimator", ["k1", "k2", "exact"])
def test_as_a_loss_these_have_the_gradient_of_the_kl_from_the_policy(name: str, estimator: str) -> None:
    family, one, other = case(name)
    rows = other.expand(len(family.actions), -1)
    reference = family.make(rows) if estimator == "exact" else family.log_probs(other)

    def loss(parameters: Tensor) -> Tensor:
        distribution = family.make(parameters.expand(len(family.actions), -1))
        batch = rows_of(family.log_probs(one), reference)
        kl = loss_to_reference(estimator, distribution, family.log_probs(parameters), batch)
        assert kl is not None
        return family.mean(kl, one)

    down = gradient(loss, one)
    assert torch.allclose(down, slope(lambda p: family.kl(p, other), one), atol=1e-7)
    assert family.kl(one - 0.01 * down, other) < family.kl(one, other)


def test_without_a_reference_there_is_no_kl() -> None:
    nothing = torch.zeros(2)
    assert loss_to_reference("k3", Categorical(torch.zeros(2, 2)), nothing, rows_of(nothing, None)) is None
    agent = small(Walk)
    memory = watched(agent)
    agent.learn(50)
    assert agent._reference is None
    assert "train/reference_kl" not in memory.keys


def test_a_distribution_without_an_exact_kl_is_told_so() -> None:
    class Bare:
        pass

    with pytest.raises(ValueError, match=r"kl_estimator='exact' needs a method kl\(other\), which Bare has not"):
        divergence("exact", Bare(), torch.zeros(1), torch.zeros(1))  # type: ignore[arg-type]


# --- in training -----------------------------------------------------------------------------------------------


def distance(agent: GRPO, initial: Any, make: Callable[[], Any]) -> float:
    """The mean exact KL(π‖initial) over what the initial policy sees."""
    observations = play(make, 6).observations
    now, before = (cast(Any, policy).get_distribution(observations) for policy in (agent.policy, initial))
    return float(now.kl(before).mean().detach())


@pytest.mark.parametrize(
    ("estimator", "place"), [*((name, "loss") for name in ESTIMATORS), ("k1", "reward")], ids=lambda given: given
)
@pytest.mark.parametrize("make", [IdentityDiscrete, IdentityBox])
def test_a_penalty_keeps_the_policy_near_where_it_began(estimator: str, place: str, make: Callable[[], Any]) -> None:
    settings = {"group_size": 8, "n_epochs": 2, "batch_size": 32, "gamma": 0.0, "learning_rate": 1e-2}
    distances = []
    for kl_coef in (0.0, 5.0):
        agent = small(make, **settings, kl_coef=kl_coef, kl_estimator=estimator, kl_in=place)
        initial = copy.deepcopy(agent.policy)
        agent.learn(800)
        distances.append(distance(agent, initial, make))
    assert distances[1] < 0.5 * distances[0]


@every_distribution
def test_as_a_reward_k1_alone_has_the_gradient_of_the_kl(name: str) -> None:
    family, one, other = case(name)
    slopes = {}
    for how in ("k1", "k2", "k3", "exact"):
        make = family.make(one.expand(len(family.actions), -1)), family.make(other.expand(len(family.actions), -1))
        log_probs = [made.log_prob(family.actions) for made in make]
        kl = divergence(how, make[0], log_probs[0], make[1] if how == "exact" else log_probs[1])
        # the policy gradient of what is earned: E[∇ log π · r]
        slopes[how] = gradient(lambda p, kl=kl: family.mean(family.log_probs(p) * kl, one), one)  # type: ignore[misc]
    expected = slope(lambda p: family.kl(p, other), one)
    assert torch.allclose(slopes["k1"], expected, atol=1e-7)
    assert not torch.allclose(slopes["k2"], expected, atol=1e-2)
    assert not torch.allclose(slopes["k3"], expected, atol=1e-2)
    assert slopes["exact"].abs().max() < 1e-9  # at its own step; it counts for the steps that lead there


@every_estimator
@every_place
def test_illegal_actions_make_no_nan(estimator: str, place: str) -> None:
    agent = small(MaskedByInfo, kl_coef=0.5, kl_estimator=estimator, kl_in=place)
    memory = watched(agent)
    agent.learn(60)
    found = memory.of("train/reference_kl")
    assert found
    assert all(map(math.isfinite, found))


@every_place
def test_at_the_start_the_divergence_is_zero(place: str) -> None:
    agent = small(Walk, kl_coef=0.5, kl_in=place, n_epochs=1, batch_size=None)
    memory = watched(agent)
    agent.learn(1)
    assert memory.of("train/reference_kl") == pytest.approx([0.0], abs=1e-6)


def test_the_reference_looks_at_a_rollout_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    look_at = Reference.look_at

    def watch(reference: Reference, rollout: Any) -> Any:
        looks.append(rollout)
        return look_at(reference, rollout)

    monkeypatch.setattr(Reference, "look_at", watch)
    agent = small(Walk, kl_coef=0.1, n_epochs=4, batch_size=4).learn(60)
    assert len(looks) == agent._iterations > 1


def test_a_penalty_in_the_reward_by_hand() -> None:
    rollout = play(Walk, 6)
    policy, other = policy_for(Walk(), seed=0), policy_for(Walk(), seed=1)  # type: ignore[arg-type]
    reference = Reference(other, 0.5, "k1")
    penalised, mean = reference.penalise(rollout, policy)
    log_ref = other.evaluate_actions(rollout.observations, rollout.actions)[0].detach()
    expected = rollout.flat(rollout.rewards) - 0.5 * (rollout.log_probs - log_ref)
    assert torch.allclose(rollout.flat(penalised.rewards), expected, atol=1e-6)
    assert penalised.rewards[~rollout.mask].count_nonzero() == 0
    assert mean == pytest.approx((rollout.log_probs - log_ref).mean().item(), abs=1e-6)


# --- which reference -------------------------------------------------------------------------------------------


def test_a_frozen_reference_stays_as_the_policy_was() -> None:
    agent = small(Walk, kl_coef=0.1, normalize_observations=True)
    before = copy.deepcopy(agent.policy.state_dict())
    agent.learn(80)
    assert agent._reference is not None
    kept = agent._reference.policy.state_dict()
    assert all(torch.equal(kept[name], before[name]) for name in before)
    assert agent._reference.policy is not agent.policy


def test_a_reference_becomes_the_policy_every_k_iterations() -> None:
    policy, later = policy_for(Walk(), seed=0), policy_for(Walk(), seed=1)  # type: ignore[arg-type]
    reference = Reference(policy, 0.1, "k3", update=3)
    for iteration, moved in enumerate([False, False, True, False, False, True], start=1):
        before = reference.policy
        reference.follow(later, iteration, math.nan)
        assert (reference.policy is not before) == moved
    assert torch.equal(cast(Any, reference.policy).head.linear.weight, later.head.linear.weight)


def test_a_moving_average_goes_a_share_of_the_way() -> None:
    policy = policy_for(Walk())  # type: ignore[arg-type]
    later = copy.deepcopy(policy)
    with torch.no_grad():
        policy.head.linear.bias.fill_(1.0)
        later.head.linear.bias.fill_(5.0)
    reference = Reference(policy, 0.1, "k3", update=0.25)
    reference.follow(later, 1, math.nan)
    assert cast(Any, reference.policy).head.linear.bias.tolist() == [2.0] * 3  # 1 + 0.25·4
    reference.follow(later, 2, math.nan)
    assert cast(Any, reference.policy).head.linear.bias.tolist() == [2.75] * 3  # 2 + 0.25·3
    assert policy.head.linear.bias.tolist() == [1.0] * 3


def test_the_coefficient_doubles_above_the_target_and_halves_below() -> None:
    assert adapted(0.1, 0.031, 0.02) == 0.2  # above 0.03
    assert adapted(0.1, 0.029, 0.02) == 0.1
    assert adapted(0.1, 0.014, 0.02) == 0.1  # above 0.0133
    assert adapted(0.1, 0.013, 0.02) == 0.05
    assert adapted(0.1, math.nan, 0.02) == 0.1


@every_place
def test_training_moves_the_coefficient(place: str) -> None:
    agent = small(Walk, kl_coef=1.0, reference_kl=1e6, kl_in=place)
    memory = watched(agent)
    agent.learn(80)
    assert memory.of("train/kl_coef")[:3] == [1.0, 0.5, 0.25]
    assert agent.kl_coef == 1.0


def test_another_agents_file_can_be_the_reference(tmp_path: Path) -> None:
    other = small(IdentityDiscrete, seed=5, policy_kwargs={"net_arch": [5, 5]}).learn(100)
    other.save(tmp_path / "other")
    agent = small(IdentityDiscrete, kl_coef=5.0, reference=tmp_path / "other", gamma=0.0, kl_estimator="exact")
    before = distance(agent, other.policy, IdentityDiscrete)
    agent.learn(400)
    assert distance(agent, other.policy, IdentityDiscrete) < 0.3 * before


@pytest.mark.parametrize("space", ["multidiscrete", "multibinary", "dict", "boxes"])
def test_the_exact_divergence_is_there_for_every_kind_of_action(space: str) -> None:
    def make() -> Identity:
        return Identity(SPACES[space])

    policy = "MultiInputPolicy" if space in ("dict", "boxes") else "MlpPolicy"
    settings = {"policy": policy, "group_size": 8, "n_epochs": 2, "batch_size": 32, "gamma": 0.0}
    distances = []
    for kl_coef in (0.0, 5.0):
        agent = small(make, **settings, learning_rate=1e-2, kl_coef=kl_coef, kl_estimator="exact")
        initial = copy.deepcopy(agent.policy)
        agent.learn(400)
        distances.append(distance(agent, initial, make))
    assert distances[1] < 0.5 * distances[0]


def test_a_reference_of_other_shapes_cannot_follow(tmp_path: Path) -> None:
    small(IdentityDiscrete, policy_kwargs={"net_arch": [5]}).save(tmp_path / "other")
    agent = small(IdentityDiscrete, kl_coef=0.1, reference=tmp_path / "other", reference_update=0.1)
    with pytest.raises(ValueError, match=r"networks differ: body.0.weight \(5, 3\) and \(8, 3\)"):
        agent.learn(10)


def test_a_loaded_agent_is_its_own_reference(tmp_path: Path) -> None:
    trained = small(IdentityDiscrete).learn(100)
    trained.save(tmp_path / "trained")
    agent = GRPO.load(tmp_path / "trained", IdentityDiscrete, kl_coef=0.1).learn(30)
    assert agent._reference is not None
    kept = agent._reference.policy.state_dict()
    assert all(torch.equal(kept[name], x) for name, x in trained.policy.state_dict().items())


# --- going on exactly ------------------------------------------------------------------------------------------

SETTINGS: dict[str, dict[str, Any]] = {
    "frozen": {},
    "refreshed": {"reference_update": 2},
    "moving average": {"reference_update": 0.3, "kl_estimator": "exact"},
    "adaptive in the reward": {"reference_kl": 0.01, "kl_in": "reward"},
    "adaptive": {"reference_kl": 0.5, "kl_estimator": "k1"},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_a_saved_agent_goes_on_with_its_reference_bit_for_bit(settings: dict[str, Any], tmp_path: Path) -> None:
    agent = small(IdentityDiscrete, kl_coef=0.5, normalize_observations=True, **settings).learn(72)
    agent.save(tmp_path / "agent")
    loaded = GRPO.load(tmp_path / "agent", IdentityDiscrete)
    loaded.save(tmp_path / "again")  # before it learned anything
    assert (tmp_path / "again.zip").read_bytes() == (tmp_path / "agent.zip").read_bytes()
    for one in (agent, loaded):
        one.learn(72, reset_num_timesteps=False)
    assert digest(loaded) == digest(agent)
    assert agent._reference is not None
    assert loaded._reference is not None
    mine, theirs = agent._reference.state(), loaded._reference.state()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_what_is_given_anew_replaces_what_was_stored(tmp_path: Path) -> None:
    small(IdentityDiscrete, kl_coef=1.0, reference_kl=1e6).learn(72).save(tmp_path / "agent")
    anew: list[tuple[dict[str, Any], float]] = [({}, 1 / 8), ({"kl_coef": 0.3}, 0.3)]
    for given, coefficient in anew:
        agent = GRPO.load(tmp_path / "agent", IdentityDiscrete, **given)
        memory = watched(agent)
        agent.learn(24)
        assert memory.of("train/kl_coef") == [coefficient]
    renewed = GRPO.load(tmp_path / "agent", IdentityDiscrete, reference="initial")
    before = weights_digest(renewed)
    renewed.learn(24)
    assert renewed._reference is not None
    renewed.policy = renewed._reference.policy
    assert weights_digest(renewed) == before
