import contextlib
import io
import math
import re
import runpy
import sys
from pathlib import Path

import pytest
import torch

from grpo_gym import core
from tests.test_losses import slope

ROOT = Path(__file__).parents[1]
DOCS = (ROOT / "docs" / "core.md").read_text(encoding="utf-8")
LOGITS = torch.tensor([[0.5, 0.25, 0.25], [1.0, 1.0, 2.0]]).log()
OTHER = torch.tensor([[0.25, 0.5, 0.25], [1.0, 1.0, 2.0]]).log()


def test_entropy_cross_entropy_and_kl_by_hand() -> None:
    # log 2/2 + 2·log 4/4 = 1.5·log 2; the same for 1/4, 1/4, 1/2
    assert core.entropy(LOGITS).tolist() == pytest.approx([1.5 * math.log(2)] * 2)
    assert core.cross_entropy(LOGITS, torch.tensor([0, 1])).tolist() == pytest.approx([math.log(2), math.log(4)])
    # 0.5·log 2 + 0.25·log 0.5
    assert core.exact_kl(LOGITS, OTHER).tolist() == pytest.approx([0.25 * math.log(2), 0])


def test_illegal_actions_have_no_part_in_them() -> None:
    mask = torch.tensor([[True, True, False]] * 2)
    # 2/3, 1/3 and 1/2, 1/2
    assert core.entropy(LOGITS, mask).tolist() == pytest.approx([math.log(3) - 2 / 3 * math.log(2), math.log(2)])
    assert core.cross_entropy(LOGITS, torch.tensor([0, 1]), mask).tolist() == pytest.approx(
        [math.log(1.5), math.log(2)]
    )
    assert core.exact_kl(LOGITS, OTHER, mask).tolist() == pytest.approx([math.log(2) / 3, 0], abs=1e-6)


@pytest.mark.parametrize("what", ["entropy", "exact_kl"])
def test_their_gradients_are_their_slopes(what: str) -> None:
    other = torch.tensor([0.3, -0.2, 0.8], dtype=torch.float64)

    def of(logits: torch.Tensor) -> torch.Tensor:
        return core.entropy(logits[None]) if what == "entropy" else core.exact_kl(logits[None], other[None])

    at = torch.tensor([1.0, 0.0, -0.5], dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad(of(at).sum(), at)
    assert torch.allclose(found, slope(lambda logits: float(of(logits).detach()), at.detach()), atol=1e-7)


def test_every_function_of_the_core_is_in_the_docs() -> None:
    assert [name for name in core.__all__ if f"`{name}`" not in DOCS] == []


def test_the_docs_run_as_printed_and_print_what_their_comments_say() -> None:
    names: dict[str, object] = {}
    for block in re.findall(r"^```python\n(.*?)^```", DOCS, re.MULTILINE | re.DOTALL):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            exec(compile(block, "core.md", "exec"), names)
        promised = re.findall(r"^# (.+)$", block, re.MULTILINE)
        assert [line for line in promised if line not in printed.getvalue().splitlines()] == []


@pytest.mark.parametrize(
    ("name", "budget", "shown"),
    [
        ("contextual_bandit", ["60"], ["step  59   mean reward 0.", "most probable actions on new states earn 0."]),
        ("fine_tune", ["500", "500"], ["trained on CartPole-v1", "adapters of rank 2, KL to the base", "524"]),
    ],
)
def test_an_example_runs_to_its_end_and_shows_what_it_says(
    name: str, budget: list[str], shown: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *budget])
    with torch.random.fork_rng(devices=[]):
        runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert [text for text in shown if text not in printed] == []


def test_a_bandit_of_states_is_learned_by_the_step_in_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    with torch.random.fork_rng(devices=[]), pytest.MonkeyPatch.context() as patch:
        torch.manual_seed(0)
        patch.setattr(sys, "argv", ["contextual_bandit.py"])
        runpy.run_path(str(ROOT / "examples" / "contextual_bandit.py"))
    score = re.search(r"earn ([\d.]+) of 1", capsys.readouterr().out)
    assert score is not None
    assert float(score[1]) > 0.9
