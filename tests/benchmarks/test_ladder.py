from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import ladder, report, tables, tasks
from benchmarks.ladder import RUNGS, TASK_NAMES
from benchmarks.ours import SETTINGS
from benchmarks.tasks import Task
from grpo_gym import GRPO
from grpo_gym.recipes import RECIPES, Recipe
from tests.benchmarks.test_report import run_of, write_raw

CARTPOLE = tasks.find("CartPole-v1")
BASELINE_ALONE = {"baseline", "gae_lambda"}


def on(name: str) -> Task:
    if name.startswith("LunarLander"):
        pytest.importorskip("Box2D", reason="needs the extra box2d")
    return tasks.find(name)


@pytest.mark.parametrize("name", TASK_NAMES)
def test_rungs_differ_in_the_baseline_alone(name: str) -> None:
    all_arguments = [SETTINGS[rung](on(name)) for rung in RUNGS]
    without = [{key: value for key, value in one.items() if key not in BASELINE_ALONE} for one in all_arguments]
    assert all(one == without[0] for one in without)
    assert [one["baseline"] for one in all_arguments] == [
        "scalar", "outcome", "batch", "live_peers", "shrunk", "soft_groups", "soft_groups",
    ]  # fmt: skip


@pytest.mark.parametrize("name", TASK_NAMES)
def test_every_rung_makes_an_agent_that_plays_whole_episodes(name: str) -> None:
    task = on(name)
    for rung in RUNGS:
        agent = GRPO("MlpPolicy", None, **SETTINGS[rung](task))
        assert agent.n_steps is None


def test_the_recipe_is_kept_but_for_what_the_ladder_is_about(monkeypatch: pytest.MonkeyPatch) -> None:
    cut = {"n_steps": 64, "baseline": "soft_groups", "gae_lambda": 0.9, "n_epochs": 3}
    monkeypatch.setitem(RECIPES, "CartPole-v1", Recipe(1, cut))
    assert ladder.arguments(CARTPOLE, "ladder_batch") == {"n_epochs": 3, "baseline": "batch"}


def test_other_tasks_are_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"ladder_soft is not for Hopper-v5: .* CartPole-v1, Acrobot-v1"):
        SETTINGS["ladder_soft"](tasks.find("Hopper-v5"))


LADDER = [run_of(seed, [1, score], "grpo", "ladder_soft") for seed, score in enumerate((500.0, 470.0, 499.0))]
LADDER.append(run_of(0, [1, 20.0], "grpo", "ladder_scalar"))


def test_the_table_has_a_row_for_each_rung_that_was_run_the_lowest_first() -> None:
    table = tables.ladder_table([tables.entries(CARTPOLE, LADDER)], list(RUNGS))
    assert table.splitlines() == [
        "| rung | CartPole-v1 |",
        "|---|--:|",
        "| scalar | **20.0** (20.0 … 20.0), n = 1 |",
        "| soft | **490** (470 … 500), n = 3 |",
    ]


def test_a_task_that_a_rung_lacks_is_a_dash() -> None:
    acrobot = tasks.find("Acrobot-v1")
    other = [[*run_of(0, [1.0], "grpo", "ladder_soft")]]
    found = tables.entries(CARTPOLE, LADDER[-1:]), tables.Entry(acrobot, "grpo", "ladder_soft", tuple(other))
    table = tables.ladder_table([found[0], [found[1]]], list(RUNGS))
    assert table.splitlines()[2:] == [
        "| scalar | **20.0** (20.0 … 20.0), n = 1 | – |",
        "| soft | – | **1.00** (1.00 … 1.00), n = 1 |",
    ]


def test_the_ladder_stands_by_itself_under_its_commands(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for run in [*LADDER, run_of(0, [1, 500.0])]:
        write_raw(run, tmp_path)
    report.main(["--results", str(tmp_path)])
    before, _, text = (tmp_path / "README.md").read_text(encoding="utf-8").partition("## The ladder\n")
    assert "ladder" not in before
    ours, _, others = text.partition("\n## CartPole-v1\n")
    command = "python -m benchmarks.run --algorithms grpo --settings ladder_soft --tasks CartPole-v1 --seeds 0 1 2\n"
    assert ours.index(command) < ours.index("| soft | **490**")
    assert "ladder" not in others
