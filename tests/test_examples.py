import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize(
    ("name", "budget", "shown"),
    [
        ("battleship", 2_000, ["mean reward on 1,000 new boards: 0.", "shots for 9 ship cells"]),
        ("countdown", 2_000, ["3 numbers: 0.", "4 numbers: 0.", "→"]),
        ("dynamic_bandit", 2_000, ["noise: gaussian", "best arm: 3", "regret a game, GRPO"]),
        ("losses_as_functions", 3, ["leave one out [0.667, -0.667, -0.667, 0.667]", "preferred actions"]),
    ],
)
def test_an_example_runs_to_its_end_and_shows_what_it_says(
    name: str, budget: int, shown: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [f"{name}.py", str(budget)])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    printed = capsys.readouterr().out
    for text in shown:
        assert text in printed
