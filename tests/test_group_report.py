import dataclasses
import math
from typing import Any

import pytest

from grpo_gym.baselines import BASELINES
from grpo_gym.group_report import REASONS, GroupReport
from grpo_gym.snapshots import Proof

HEALTHY = GroupReport(
    name="Toy-v0",
    n_groups=8,
    group_size=4,
    max_episode_steps=1000,
    gamma=0.99,
    has_time_limit=True,
    n_steps=1234,
    equal_starts=True,
    equal_transitions=True,
    snapshots=(Proof("deepcopy", True), Proof("replay", False, "it would not")),
    terminated=0.75,
    truncated=0.25,
    cut=0.0,
    mean_length=12.5,
    return_mean=-3.0,
    within_std=1.0,
    between_std=2.0,
    start_share=0.8,
    tied_groups=0.0,
    unexplained={"live_peers": 0.25, "batch": 1.0, "shrunk": 0.25, "soft_groups": 0.5},
)


def but(**changes: Any) -> GroupReport:
    return dataclasses.replace(HEALTHY, **changes)


def test_what_may_be_recommended_can_be_passed_to_the_agent() -> None:
    assert set(REASONS) <= set(BASELINES)


@pytest.mark.parametrize(
    ("live_peers", "batch", "shrunk", "soft_groups", "expected"),
    [
        (0.25, 1.0, 0.25, 0.5, "live_peers"),
        (1.2, 1.0, 1.0, 1.1, "batch"),
        (0.5, 0.6, 0.4, 0.5, "shrunk"),
        (1.2, 1.1, 1.0, 0.5, "soft_groups"),
        # within 5 %, the plainest
        (0.42, 0.41, 0.4, 0.4, "live_peers"),
        (0.43, 0.42, 0.41, 0.4, "batch"),
    ],
)
def test_the_plainest_of_the_best_is_recommended(
    live_peers: float, batch: float, shrunk: float, soft_groups: float, expected: str
) -> None:
    left = {"live_peers": live_peers, "batch": batch, "shrunk": shrunk, "soft_groups": soft_groups}
    report = but(unexplained=left)
    assert report.recommended_baseline == expected
    assert f"it leaves {left[expected]:.3f} of the variance" in report.why


def test_the_reason_names_the_next_best() -> None:
    assert HEALTHY.why == (
        "no comparison tells more than the one with peers from the same start; it leaves 0.250 of the variance, "
        "shrunk 0.250"
    )
    assert but(unexplained={"batch": 1.0}).why.endswith("it leaves 1.000 of the variance")


def test_where_most_groups_tie_nothing_was_measured() -> None:
    report = but(tied_groups=0.5)
    assert report.recommended_baseline == "soft_groups"
    assert report.why.startswith("in 50% of the groups random play earned all members the same")


def test_a_healthy_environment_has_no_problems() -> None:
    assert HEALTHY.problems == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"equal_starts": False, "equal_transitions": None}, ["repeat the start", "self.np_random", "super().reset"]),
        ({"equal_transitions": False}, ["equal actions", "self.np_random", "forget"]),
        ({"snapshots": (Proof("replay", False, "x"),)}, ["no exact way back", "replay", "deepcopy"]),
        ({"cut": 0.5, "has_time_limit": False}, ["50%", "1,000 steps", "max_episode_steps", "TimeLimit"]),
        ({"tied_groups": 0.75}, ["75%", "teaches nothing", "max_resamples"]),
        ({"failure": "KeyError: 'mine'"}, ["KeyError: 'mine'"]),
    ],
)
def test_each_problem_is_told_with_how_to_mend_it(changes: dict[str, Any], words: list[str]) -> None:
    (problem,) = but(**changes).problems
    assert [word for word in words if word not in problem] == []
    assert f"PROBLEM            {problem[:40]}" in str(but(**changes))


@pytest.mark.parametrize("changes", [{"cut": 0.5}, {"has_time_limit": False}, {"snapshots": ()}, {"tied_groups": 0.4}])
def test_what_harms_nobody_is_no_problem(changes: dict[str, Any]) -> None:
    assert but(**changes).problems == ()


def test_it_prints_as_a_table_that_fits_a_terminal() -> None:
    assert str(HEALTHY).splitlines() == [
        "Toy-v0: random play, 8 groups of 4 episodes and 8 pairs of twins, 1,234 steps",
        "  equal starts       yes",
        "  equal transitions  yes",
        "  snapshots          deepcopy: exact",
        "  snapshots          replay: no, it would not",
        "  time limit         yes",
        "  ends               75% terminated, 25% truncated, 0% cut here after 1,000 steps; mean length 12.5",
        "  returns            mean -3; standard deviation 1 within groups, 2 between; the start makes 80% of the",
        "                     variance",
        "  variance left      live_peers 0.250, batch 1.000, shrunk 0.250, soft_groups 0.500 (gamma 0.99)",
        "  recommended        baseline='live_peers': no comparison tells more than the one with peers from the same",
        "                     start; it leaves 0.250 of the variance, shrunk 0.250",
    ]


def test_what_could_not_be_tried_is_not_printed() -> None:
    failed = GroupReport("Toy-v0", 8, 4, 1000, 0.99, has_time_limit=False, failure="KeyError: 'mine'")
    assert failed.recommended_baseline is None
    assert str(failed).splitlines() == [
        "Toy-v0: random play, 8 groups of 4 episodes and 8 pairs of twins, 0 steps",
        "  equal starts       not known",
        "  equal transitions  not known",
        "  time limit         no",
        "  PROBLEM            random play raised an exception, and training would: KeyError: 'mine'",
    ]
    assert "nan" not in str(but(start_share=math.nan))
