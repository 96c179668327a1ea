import re
from pathlib import Path

import pytest

from grpo_gym import cli

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"(<!-- not run.*-->\s*)?^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(language: str, *names: str) -> list[str]:
    texts = [(DOCS / name).read_text(encoding="utf-8") for name in names]
    return [code for text in texts for skip, of, code in BLOCK.findall(text) if of == language and not skip]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_commands_in_the_documentation_work_one_after_the_other() -> None:
    lines = [line for code in blocks("console", "reliability.md") for line in code.splitlines()]
    assert len(lines) == 2
    for line in lines:
        cli.main(line.removeprefix("$ grpo-gym ").split())
