import configparser
import contextlib
import functools
import importlib.util
import io
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from grpo_gym import GRPO, cli

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = sorted((ROOT / "docs").glob("*.md"))


def blocks_of(text: str) -> list[tuple[str, str, str]]:
    """Fenced blocks: what says that one is not run, its language, its lines."""
    return re.findall(r"(<!-- not run.*-->\s*)?^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def python_of(text: str) -> list[str]:
    return [block for not_run, language, block in blocks_of(text) if language == "python" and not not_run]


BLOCKS = blocks_of(TEXT)
PYTHON = python_of(TEXT)
IN_DOCS = {path.name: code for path in DOCS if (code := python_of(path.read_text(encoding="utf-8")))}
NEEDED = {"logging.md": "pygame", "scaling.md": "ray"}
"""Extras that a page's code cannot do without."""

COMMANDS = [
    line for _, language, block in BLOCKS if language in ("", "sh", "bash", "console") for line in block.splitlines()
]
GRPO_GYM = [line for line in COMMANDS if line.startswith("grpo-gym ")]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: block.splitlines()[0])
def test_the_code_runs_and_prints_what_its_comments_say(block: str) -> None:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(block, "README.md", "exec"), {"__name__": "readme"})
    promised = re.findall(r"^print\(.*\)  # (.+)$", block, re.MULTILINE)
    assert [line for line in promised if line not in printed.getvalue().splitlines()] == []


@pytest.mark.parametrize("page", IN_DOCS)
def test_the_code_of_a_page_runs_from_top_to_bottom(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    if page in NEEDED:
        pytest.importorskip(NEEDED[page])
    names: dict[str, Any] = {"__name__": "docs"}
    for block in IN_DOCS[page]:
        exec(compile(block, page, "exec"), names)


@pytest.mark.parametrize("block", IN_DOCS["reliability.md"], ids=["without a memory", "with a memory"])
def test_how_to_use_an_export_can_be_copied_by_itself(block: str) -> None:
    exec(compile(block, "docs", "exec"), {"__name__": "docs"})


def test_the_commands_in_the_documentation_work_one_after_the_other() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    blocks = [block for not_run, language, block in blocks_of(page) if language == "console" and not not_run]
    lines = [line for block in blocks for line in block.splitlines()]
    assert len(lines) == 2
    for line in lines:
        cli.main(line.removeprefix("$ grpo-gym ").split())


def test_every_page_of_the_docs_is_in_the_contents() -> None:
    contents = (ROOT / "docs" / "index.md").read_text(encoding="utf-8").partition("{toctree}")[2].split()
    assert {path.stem for path in DOCS} - {"index"} <= set(contents)


def test_every_linked_page_of_the_docs_exists() -> None:
    for path in DOCS:
        links = re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text(encoding="utf-8"))
        local = [link for link in links if "://" not in link and not link.startswith("generated/")]
        assert [link for link in local if not (path.parent / link).exists()] == []


def test_there_is_code_to_run_and_there_are_commands_to_check() -> None:
    assert len(PYTHON) >= 2
    assert {line.split()[1] for line in GRPO_GYM} == {"train", "evaluate", "play", "recipes", "doctor"}


def test_every_make_target_exists() -> None:
    texts = [*COMMANDS, *re.findall(r"`([^`\n]+)`", TEXT)]
    named = {text.split()[1] for text in texts if text.startswith("make ")}
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"run", "test"} <= named <= targets


def test_the_commands_are_understood_and_work_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GRPO, "learn", lambda agent, *args, **kwargs: agent)  # learning is tested elsewhere
    played = []

    @functools.wraps(cli.play)  # its window cannot open everywhere
    def play(*args: Any, **kwargs: Any) -> None:
        played.append((args, kwargs))

    monkeypatch.setattr(cli, "play", play)
    for line in GRPO_GYM:
        cli.main(shlex.split(line, comments=True)[1:])
    assert len(played) == sum(line.startswith("grpo-gym play") for line in GRPO_GYM)


def test_every_module_that_is_run_exists() -> None:
    modules = re.findall(r"python -m ([\w.]+)", TEXT)
    assert [name for name in modules if importlib.util.find_spec(name) is None] == []


def test_every_linked_file_exists() -> None:
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", TEXT) if "://" not in link]
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_table_has_every_extra_and_no_others() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    table = TEXT.partition("| extra |")[2].partition("\n\n")[0]
    named = {name for row in table.splitlines()[2:] for name in re.findall("`([^`]+)`", row.split("|")[1])}
    assert named == set(setup["options.extras_require"])
