from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import run, tasks, variants
from benchmarks.cell import Cell
from benchmarks.ours import SETTINGS
from grpo_gym import GRPO
from grpo_gym.recipes import recipe
from grpo_gym.variants import VARIANTS
from tests.benchmarks.test_report import run_of, write_raw

SIZES = ("n_groups", "group_size", "batch_size", "n_epochs", "learning_rate")


def agent_of(name: str, task: str) -> GRPO:
    return GRPO("MlpPolicy", None, **SETTINGS[f"variant_{name}"](tasks.find(task)))


@pytest.mark.parametrize("task", variants.TASK_NAMES)
def test_variants_differ_in_what_they_compute_and_not_in_how_much(task: str) -> None:
    sizes = recipe(tasks.find(task).env_id)
    for name in VARIANTS:
        agent = agent_of(name, task)
        assert agent.variant == name
        assert agent.n_steps is None
        assert {key: getattr(agent, key) for key in SIZES if key in sizes} == {
            key: sizes[key] for key in SIZES if key in sizes
        }
        own = {
            key: value
            for key, value in VARIANTS[name].items()
            if key not in (*sizes, "policy_kwargs") or key == "gamma"
        }
        assert {key: getattr(agent, key) for key in own} == own


def test_beside_them_stands_the_agent_without_a_variant() -> None:
    agent = agent_of("default", "CartPole-v1")
    assert (agent.variant, agent.baseline, agent.gamma) == (None, "soft_groups", 0.985)


def test_other_tasks_are_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"variant_dapo is not for Hopper-v5: .* CartPole-v1, Battleship-v0"):
        SETTINGS["variant_dapo"](tasks.find("Hopper-v5"))


def test_the_same_command_runs_what_is_missing_and_writes_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained: list[str] = []

    def train(cell: Cell, results: Path, steps: Any) -> tuple[str, None]:
        trained.append(str(cell))
        write_raw(run_of(cell.seed, [1, 400.0 + cell.seed], "grpo", cell.settings), results)
        return "score", None

    monkeypatch.setattr(run, "train", train)
    words = ["--variants", "grpo", "loop", "--tasks", "CartPole-v1", "--seeds", "0", "2", "--results", str(tmp_path)]
    for _ in range(2):
        assert variants.main(words) == 0
    assert trained == [f"grpo variant_{name} CartPole-v1 seed {seed}" for name in ("grpo", "loop") for seed in (0, 2)]
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "| variant | CartPole-v1 |\n|---|--:|\n| grpo | **401** (400 … 402), n = 2 |\n| loop | **401**" in text
    assert "python -m benchmarks.variants --tasks CartPole-v1 --seeds 0 2\n" in text
    assert text in capsys.readouterr().out


def test_trials_do_not_mix_with_results() -> None:
    with pytest.raises(SystemExit):
        variants.main(["--steps", "100"])
