"""Each member of the family by hand, on one small rollout.

    group 0   rewards 1, 4    returns-to-go 5, 4      ratios 1.5, 1
              rewards 1                     1                0.5
    group 1   rewards 8                     8                2
              rewards 0, 0, 6               6, 6, 6          1, 5, 0.2

Returns less the group's mean: 2, −2 | 1, −1. Where no other γ is published, γ = 1 is given.
"""

import inspect
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from grpo_gym import GRPO, variant
from grpo_gym.agent import ARGUMENTS
from grpo_gym.losses import grpo_loss
from grpo_gym.references import loss_to_reference
from grpo_gym.shaping import select_teaching
from grpo_gym.types import Batch
from grpo_gym.variants import VARIANTS, with_preset
from tests.agents import digest, small
from tests.toys import Walk, rollout_of

REWARDS = [[1, 4], [1], [8], [0, 0, 6]]
RATIOS = torch.tensor([1.5, 1.0, 0.5, 2.0, 1.0, 5.0, 0.2])
KL = 0.04 * (0.0360659 + 0.3068528 + 0.1931472 + 3.2 / 3) / 4
"""0.04 times k3 = 1/ρ − 1 + log ρ toward a reference that is the policy which acted, each episode alike."""


class Seen(Walk):
    observation_space = Box(-1.0, 1.0, (1,), np.float32)


def agent_of(name: str, **kwargs: Any) -> GRPO:
    agent = GRPO("MlpPolicy", Seen, variant=name, n_groups=2, group_size=2, max_episode_steps=10, **kwargs)
    agent._total_timesteps, agent._seconds_comparing = 1, 0.0
    return agent


def advantages_of(agent: GRPO) -> list[float]:
    rollout = rollout_of(REWARDS, 2)
    teaching = select_teaching(rollout, agent._compare(rollout), agent.scale_rewards, agent.truncated_episodes)
    assert teaching is not None
    found: list[float] = rollout.flat(teaching[1]).tolist()
    return found


def loss_of(agent: GRPO) -> float:
    rollout = rollout_of(REWARDS, 2)
    batch = agent._make_batch(rollout, agent._compare(rollout))
    assert isinstance(batch, Batch)
    if agent.kl_coef:
        batch = replace(batch, reference=torch.zeros(7))
    settings, log_probs = agent._settings(), RATIOS.log()
    distribution = agent.policy(batch.observations)
    loss, _ = grpo_loss(
        log_probs,
        distribution.entropy(),
        batch.old_log_probs,
        batch.advantages,
        batch.weights,
        settings.clip_low,
        settings.clip_high,
        settings.ent_coef,
        settings.objective,
        settings.ratio_cap,
        batch.trajectories,
        loss_to_reference(settings.kl_estimator, distribution, log_probs, batch),
        agent.kl_coef,
    )
    return loss.item()


PLUS_MINUS: list[float] = [1, 1, -1, 1, -1, -1, -1]
CENTRED: list[float] = [2, 2, -2, 1, -1, -1, -1]
TWICE: list[float] = [4, 4, -4, 2, -2, -2, -2]
"""Leave-one-out: G/(G−1) = 2 times centred."""

ADVANTAGES: dict[str, tuple[list[float], float]] = {
    "grpo": (PLUS_MINUS, 1),
    # step rewards 1, 4, 1: mean 2, σ² 2; 8, 0, 0, 6: mean 3.5, σ² 12.75
    "grpo_process": ([1 / 2**0.5, 2 / 2**0.5, -1 / 2**0.5, *(x / 12.75**0.5 for x in (4.5, -4.5, -1, 2.5))], 1),
    "dr_grpo": (CENTRED, 1),
    "rloo": (TWICE, 1),
    "loop": (TWICE, 1),
    "magistral": (CENTRED, 2.5**0.5),  # σ² of 2, −2, 1, −1
    "lite_ppo": (CENTRED, 6.5**0.5),  # σ² of 5, 1, 8, 6
    "dapo": (PLUS_MINUS, 1),
    # mean of all returns-to-go 36/7, σ² 202/49
    "reinforce_pp": ([-1, -8, -29, 20, 6, 6, 6], 202**0.5),
    "reinforce_pp_baseline": (CENTRED, 4 / 7**0.5),  # σ² over the 7 steps: 16/7
    "gspo": (PLUS_MINUS, 1),
    "cispo": (PLUS_MINUS, 1),
    "dual_clip": (PLUS_MINUS, 1),
    # all in one bin, first visits 5, 1, 8, 6: less the mean of the three others
    "gpg": ([0, -1, -16 / 3, 4, 4 / 3, 4 / 3, 4 / 3], 1),
    # t = 0: 5, 1, 8, 6, mean 5, σ² 6.5; t = 1: 4, 0, 0, 6, mean 2.5, σ² 6.75; t = 2: 0, 0, 0, 6, mean 1.5, σ² 6.75
    "gr2po": ([0, 1.5 / 6.75**0.5, -4 / 6.5**0.5, 3 / 6.5**0.5, 1 / 6.5**0.5, 3.5 / 6.75**0.5, 4.5 / 6.75**0.5], 1),
    # all saw the same: less 10/3 in group 0, less 6.5 in group 1
    "gigpo": ([2 + 5 / 3, 2 + 2 / 3, -2 - 7 / 3, 2.5, -1.5, -1.5, -1.5], 1),
    "microgrpo": (TWICE, 10**0.5),  # σ² of 4, −4, 2, −2
}

LOSSES: dict[str, float] = {
    # (1.2 + 1)/2, −0.8, 1.2, −(1 + 5 + 0.8)/3
    "grpo": -(1.1 - 0.8 + 1.2 - 6.8 / 3) / 4 + KL,
    # (1.2 + 2)/2, −0.8 over √2; 4.5·1.2, (−4.5 − 5 + 2.5·0.2)/3 over √12.75
    "grpo_process": -((1.6 - 0.8) / 2**0.5 + (5.4 - 3) / 12.75**0.5) / 4 + KL,
    # 2·2.2 − 2·0.8 + 1.2 − 6.8 = −2.8, over 4 episodes of 10 steps
    "dr_grpo": 2.8 / 40,
    "rloo": 5.6 / 40,
    "loop": 5.6 / 7,
    # 1.28 in place of 1.2
    "magistral": -(4.56 - 1.6 + 1.28 - 6.8) / 7 / 2.5**0.5,
    "lite_ppo": 2.8 / 7 / 6.5**0.5,
    "dapo": -(1.28 + 1 - 0.8 + 1.28 - 6.8) / 7,
    # −1.5, −8, −29·0.8, 20·1.2, 6·(1 + 1.2 + 0.2)
    "reinforce_pp": -(-1.5 - 8 - 23.2 + 24 + 14.4) / 7 / 202**0.5,
    "reinforce_pp_baseline": 2.8 / 7 * 7**0.5 / 4,
    # √1.5 and 2 clipped to 1.0004, 0.5 to 0.9997; (1·5·0.2)^(1/3) = 1
    "gspo": -(1.0004 - 0.9997 + 1.0004 - 1) / 4,
    # ρ·Â·log ρ
    "cispo": -(0.6081977 + 0 + 0.3465736 + 1.3862944 + 0 - 8.0471896 + 0.3218876) / 7,
    # −4 in place of −5
    "dual_clip": -(2.2 - 0.8 + 1.2 - 5.8) / 7,
    # 0 − 1 − 16/3·0.8 + 4·1.2 + 4/3·2.4
    "gpg": -(-1 - 64 / 15 + 4.8 + 3.2) / 7,
    # −4·0.8 + 3·1.2 + 1; 1.5 + 3.5·1.2 + 4.5·0.2
    "gr2po": -(1.4 / 6.5**0.5 + 6.6 / 6.75**0.5) / 7,
    # (11/3·1.2 + 8/3)/2, −13/3·0.8, 2.5·1.2, −1.5·6.8/3
    "gigpo": -((4.4 + 8 / 3) / 2 - 52 / 15 + 3 - 3.4) / 4,
    # within [0.1, 1.3]: (5.2 + 4 − 2)/3 and (2.6 − 2 − 10 − 0.4)/4, each group alike
    "microgrpo": -(2.4 - 2.45) / 2 / 10**0.5,
}
every_variant = pytest.mark.parametrize("name", VARIANTS)


def given_gamma(name: str) -> dict[str, Any]:
    return {} if "gamma" in VARIANTS[name] else {"gamma": 1.0}


def test_every_variant_is_worked_by_hand() -> None:
    assert set(ADVANTAGES) == set(LOSSES) == set(VARIANTS)


@every_variant
def test_the_advantages_of_a_variant_by_hand(name: str) -> None:
    agent = agent_of(name, **given_gamma(name))
    expected, deviation = ADVANTAGES[name]
    assert advantages_of(agent) == pytest.approx([x / deviation for x in expected], rel=1e-5)


@every_variant
def test_the_loss_of_a_variant_by_hand(name: str) -> None:
    assert loss_of(agent_of(name, **given_gamma(name))) == pytest.approx(LOSSES[name], rel=1e-4)


def test_cispo_loses_no_gradient_and_weighs_none_by_more_than_five() -> None:
    log_probs = torch.tensor([9.0, 0.2]).log().requires_grad_()
    ones, zeros = torch.ones(2), torch.zeros(2)
    loss, _ = grpo_loss(log_probs, ones, zeros, ones, ones, 1.0, 4.0, objective="clipped_weights")
    (taught,) = torch.autograd.grad(loss, log_probs)
    assert taught.tolist() == pytest.approx([-5 / 2, -0.2 / 2])


def test_truncated_episodes_leave_the_loss_of_dapo_but_not_the_comparison() -> None:
    agent = agent_of("dapo")
    rollout = replace(rollout_of(REWARDS, 2), truncated=torch.tensor([False, False, True, False]))
    batch = agent._make_batch(rollout, agent._compare(rollout))
    assert batch is not None
    assert batch.advantages.tolist() == [1, 1, -1, -1, -1, -1]
    everything = replace(rollout, truncated=torch.ones(4, dtype=torch.bool))
    with pytest.warns(UserWarning, match="all 4 episodes that teach something were truncated.*'drop_bad' or 'keep'"):
        assert agent._make_batch(everything, agent._compare(everything)) is None


# --- as constructor arguments ----------------------------------------------------------------------------------


@every_variant
def test_a_variant_is_a_set_of_constructor_arguments(name: str) -> None:
    shown = variant(name)
    assert shown == VARIANTS[name]
    assert set(shown) <= set(ARGUMENTS) - {"policy", "env", "variant", "seed"}
    agent = GRPO("MlpPolicy", Walk, variant=name)
    assert {key: getattr(agent, key) for key in shown} == shown
    others = {p.name: p.default for p in inspect.signature(GRPO.__init__).parameters.values() if p.name not in shown}
    kept = ("ent_coef", "n_steps", "max_grad_norm", "normalize_observations", "reference")
    assert {key: getattr(agent, key) for key in kept} == {key: others[key] for key in kept}


@every_variant
def test_a_variant_learns(name: str) -> None:
    agent = small(Walk, variant=name)
    before = digest(agent)
    agent.learn(60)
    assert digest(agent) != before


def test_changing_what_was_shown_does_not_change_the_variant() -> None:
    shown = variant("microgrpo")
    shown["policy_kwargs"]["optimizer_class"] = None
    assert variant("microgrpo")["policy_kwargs"] == {"optimizer_class": torch.optim.AdamW}


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("dapo", {"clip_range_high": None}),  # each is the default of the constructor
        ("dapo", {"group_size": 8, "max_resamples": 0}),
        ("microgrpo", {"batch_size": 256, "learning_rate": 1e-3}),
        ("grpo", {"kl_coef": 0.0, "baseline": "live_peers", "scale_rewards": "batch"}),
        ("dr_grpo", {"gamma": 0.5}),
    ],
)
def test_a_given_argument_wins_even_where_it_equals_the_default(name: str, given: dict[str, Any]) -> None:
    agent = GRPO("MlpPolicy", Walk, variant=name, **given)
    assert {key: getattr(agent, key) for key in given} == given
    kept = {key: value for key, value in VARIANTS[name].items() if key not in given}
    assert {key: getattr(agent, key) for key in kept} == kept


def test_an_argument_given_by_its_place_wins_too() -> None:
    assert GRPO("MlpPolicy", Walk, 1e-3, variant="microgrpo").learning_rate == 1e-3


def test_policy_arguments_are_joined_key_by_key() -> None:
    given = {"net_arch": [4]}
    agent = GRPO("MlpPolicy", Walk, variant="microgrpo", policy_kwargs=given)
    assert agent.policy_kwargs == {"net_arch": [4], "optimizer_class": torch.optim.AdamW}
    assert type(agent.optimizer) is torch.optim.AdamW
    assert given == {"net_arch": [4]}
    assert with_preset({"variant": "microgrpo", "policy_kwargs": {"optimizer_class": int}})["policy_kwargs"] == {
        "optimizer_class": int
    }


@pytest.mark.parametrize("ask", [variant, lambda name: GRPO("MlpPolicy", Walk, variant=name)])
def test_an_unknown_variant_is_answered_with_the_known_ones(ask: Any) -> None:
    with pytest.raises(ValueError, match="variant='grpo2' is not known; choose from grpo, grpo_process, dr_grpo, rloo"):
        ask("grpo2")


def test_a_loaded_agent_goes_on_as_the_variant_that_it_is_given(tmp_path: Any) -> None:
    small(Walk, variant="dapo", clip_range_high=0.5).save(tmp_path / "agent")
    same = GRPO.load(tmp_path / "agent")
    assert (same.variant, same.clip_range_high, same.max_resamples) == ("dapo", 0.5, 4)
    other = GRPO.load(tmp_path / "agent", variant="magistral", clip_range=0.1)
    assert (other.variant, other.clip_range, other.clip_range_high) == ("magistral", 0.1, 0.28)
    assert other.max_resamples == 4  # nothing that Magistral says anything about


def test_the_constant_of_dr_grpo_is_the_longest_that_an_episode_may_be() -> None:
    batches = []
    for limit in (None, 100):
        agent = GRPO("MlpPolicy", "CartPole-v1", variant="dr_grpo", max_episode_steps=limit, seed=0)
        agent._seconds_comparing = 0.0
        rollout = agent.sampler.play(agent.policy.actor(), 4, np.random.default_rng(0), lambda played: True)
        assert rollout is not None
        batch = agent._make_batch(rollout, agent._compare(rollout))
        assert batch is not None
        batches.append(batch)
    own, given = (batch.weights[0].item() for batch in batches)  # CartPole-v1's own limit is 500
    assert given == pytest.approx(5 * own)


# --- the sequence's ratio --------------------------------------------------------------------------------------


def test_minibatches_take_no_sequence_apart() -> None:
    agent = small(Walk, variant="gspo", batch_size=4, n_epochs=2)
    seen: list[list[int]] = []
    select = Batch.select

    def watch(batch: Batch, index: torch.Tensor) -> Batch:
        rows = select(batch, index)
        assert rows.trajectories is not None
        assert batch.trajectories is not None
        for number in set(rows.trajectories.tolist()):
            assert (rows.trajectories == number).sum() == (batch.trajectories == number).sum()
        seen.append(sorted(set(rows.trajectories.tolist())))
        return rows

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Batch, "select", watch)
        agent.learn(1)
    # 6 episodes, each in one minibatch of each of the two passes
    assert sorted(number for numbers in seen for number in numbers) == sorted([*range(6), *range(6)])


def test_every_variant_has_its_row_in_the_docs() -> None:
    text = (Path(__file__).parents[1] / "docs" / "variants.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == list(VARIANTS)
