"""Defects found in the GRPO systems that this package grew out of, and where each is tested to be absent."""

import ast
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grpo_gym.advantages import SCALES, scale
from grpo_gym.baselines import group_mean, leave_one_out
from grpo_gym.references import Reference
from grpo_gym.update import UpdateSettings, make_batch, update
from tests.toys import MaskedByInfo, Walk, play, policy_for

ROOT = Path(__file__).parents[1]

DEFECTS: dict[str, list[str]] = {
    "the ratio is not 1 before the first step, with masks 0.51 on average": [
        "test_rollout.py::test_the_ratio_is_one_before_the_first_step",
        "test_update.py::test_before_the_first_step_the_policy_is_still_the_one_that_acted",
    ],
    "the minimum of the ratios in place of the minimum of the products": [
        "test_losses.py::test_the_surrogate_is_the_minimum_of_the_products",
    ],
    "a KL term that raises the KL, an entropy term that has no gradient": [
        "test_losses.py::test_a_step_down_a_kl_loss_lowers_the_exact_kl",
        "test_losses.py::test_the_entropy_bonus_raises_the_exact_entropy",
        "test_references.py::test_as_a_loss_these_have_the_gradient_of_the_kl_from_the_policy",
        "test_references.py::test_as_a_reward_k1_alone_has_the_gradient_of_the_kl",
        "test_core.py::test_their_gradients_are_their_slopes",
    ],
    "equal rewards make a gradient, a nan, or resampling without end": [
        "test_agent_groups.py::test_equal_rewards_change_no_bit_of_the_weights_and_training_ends",
        "test_agent_groups.py::test_an_iteration_in_which_everything_ties_is_played_once_more_than_it_may_be_resampled",
    ],
    "leave-one-out is not G/(G−1) times mean-centred": [
        "test_baselines.py::test_leave_one_out_is_the_group_mean_without_its_shrinkage",
        "test_defects.py::test_standardised_over_the_batch_both_group_means_are_one",
    ],
    "members of a group play the same actions, for seed 0": [
        "test_rollout.py::test_members_share_their_start_and_nothing_else",
    ],
    "padding leaks into loss, entropy, KL or statistics": [
        "test_baselines.py::test_what_stands_in_the_padding_leaks_nowhere",
        "test_defects.py::test_what_stands_in_the_padding_reaches_no_weight_and_no_metric",
    ],
    "a Countdown evaluator that scores nothing, divides by zero, or lets a number be used twice": [
        "envs/test_countdown_expression.py::test_values_that_are_known",
        "envs/test_countdown_expression.py::test_division_by_zero_has_no_value_whatever_follows",
        "envs/test_countdown.py::test_an_expression_is_right_if_it_equals_the_target",
        "test_defects.py::test_no_text_is_run_as_code",
    ],
    "what a truncated episode is worth is left open": [
        "test_baselines.py::test_a_time_limit_counts_as_a_real_end",
        "test_variants.py::test_truncated_episodes_leave_the_loss_of_dapo_but_not_the_comparison",
    ],
    "Battleship scores without a scale": [
        "envs/test_players.py::test_uniform_play_scores_one_minus_fourteen_point_four_seventeenths",
        "envs/test_players.py::test_the_exact_scores_of_the_5_by_5_game",
        "envs/test_players.py::test_what_is_played_is_what_was_computed",
    ],
    "the example in the README does not run": [
        "test_readme.py::test_the_code_runs_and_prints_what_its_comments_say",
        "test_core.py::test_the_docs_run_as_printed_and_print_what_their_comments_say",
    ],
    "the best model is kept by its loss": [
        "test_callbacks.py::test_evaluations_are_logged_saved_and_the_best_kept",
        "test_defects.py::test_what_keeps_the_best_never_looks_at_a_loss",
    ],
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_each_defect_has_its_tests(defect: str) -> None:
    for place in DEFECTS[defect]:
        path, _, name = place.partition("::")
        tree = ast.parse((ROOT / "tests" / path).read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, place


@given(st.lists(st.lists(st.integers(-20, 20).map(float), min_size=4, max_size=4), min_size=1, max_size=5))
def test_standardised_over_the_batch_both_group_means_are_one(returns: list[list[float]]) -> None:
    for how in set(SCALES) - {"none", "batch_returns"}:
        centred, others = (
            scale(
                compare(torch.tensor(returns).double()).reshape(1, -1), torch.ones(1, 4 * len(returns)).bool(), 4, how
            )
            for compare in (group_mean, leave_one_out)
        )
        assert torch.allclose(centred, others, atol=1e-9)


@pytest.mark.parametrize("make", [Walk, MaskedByInfo])
@pytest.mark.parametrize("estimator", ["k3", "exact"])
def test_what_stands_in_the_padding_reaches_no_weight_and_no_metric(make: type[Walk], estimator: str) -> None:
    rollout = play(make, 6)
    assert not bool(rollout.mask.all())
    settings = UpdateSettings(
        0.01, 2, 8, 0.2, 0.2, ent_coef=0.1, max_grad_norm=0.5, kl_coef=0.1, kl_estimator=estimator
    )
    results = []
    for padding in (0.0, 1e9):
        policy = policy_for(make())  # type: ignore[arg-type]
        reference = Reference(policy_for(make(), seed=1), 0.1, estimator)  # type: ignore[arg-type]
        advantages = torch.where(rollout.mask, rollout.rewards - rollout.rewards.mean(), padding)
        batch = make_batch(policy, rollout, advantages, "trajectory")
        batch = replace(batch, reference=reference.look_at(rollout))
        optimizer = torch.optim.SGD(policy.parameters(), lr=0.01)
        metrics = update(policy, optimizer, batch, settings, torch.Generator().manual_seed(0))
        results.append((metrics, policy.state_dict()))
    (clean, weights), (dirty, other_weights) = results
    assert clean == dirty
    assert {"entropy_loss", "reference_kl", "approx_kl"} <= set(clean)
    assert all(torch.equal(weights[name], other_weights[name]) for name in weights)


def calls(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}


@pytest.mark.parametrize("path", sorted((ROOT / "envs").rglob("*.py")), ids=lambda path: path.stem)
def test_no_text_is_run_as_code(path: Path) -> None:
    assert not calls(path) & {"eval", "exec", "compile", "ast.literal_eval", "literal_eval"}


def test_what_keeps_the_best_never_looks_at_a_loss() -> None:
    keepers = [path for path in (ROOT / "grpo_gym").glob("*.py") if "best_model" in path.read_text(encoding="utf-8")]
    assert keepers
    for path in keepers:
        assert not re.search(r"\bloss", path.read_text(encoding="utf-8")), path
