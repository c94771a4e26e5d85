"""Every snippet of README, CONTRIBUTING, MODEL_CARD and docs/ runs, or is held against what exists.

* The Python blocks of a page run in order, as one script, in a folder that holds `question.wav`.
* Each shell line runs where it can, and its verb, flags, extras and files must exist in any case.
* A block after `<!-- not run: why -->` is checked without running: Python calls fit the signatures, shell lines parse.
* A block after `<!-- run with a server -->` is run by tests/serve/test_clients*.py, and checked here likewise.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer

ROOT = Path(__file__).resolve().parent.parent
PAGES = [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "MODEL_CARD.md")),
         *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"(?P<mark><!-- (?:not run: [^\n]+|run with a server) -->\n)?"
                   r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One fenced snippet; `line` is that of its first line in the page."""

    page: Path
    language: str
    text: str
    line: int
    runs: bool


def blocks(page: Path, *languages: str) -> list[Block]:
    text = page.read_text()
    found = (match for match in FENCE.finditer(text) if match["language"] in languages)
    return [Block(page, match["language"], match["text"], text[:match.start("text")].count("\n") + 1, not match["mark"])
            for match in found]


WITH_PYTHON = [page for page in PAGES if blocks(page, "python")]
SHELL = [(block, line) for page in PAGES for block in blocks(page, "bash", "sh", "console")
         for line in block.text.splitlines() if line.strip()]


def test_every_fence_names_a_language_that_is_tested() -> None:
    for page in PAGES:
        fences = list(FENCE.finditer(page.read_text()))
        assert page.read_text().count("```") == 2 * len(fences), f"{page}: a fence is open"
        for match in fences:
            assert match["language"] in {"python", "bash", "text", "js"}, f"{page}: a fence in {match['language']!r}"


# -- Python -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("page", WITH_PYTHON, ids=[page.name for page in WITH_PYTHON])
def test_the_python_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                   request: pytest.FixtureRequest) -> None:
    script = [block for block in blocks(page, "python") if block.runs]
    if any('load("nano")' in block.text for block in script):
        request.getfixturevalue("nano_weights")
    shutil.copy(ROOT / "docs" / "question.wav", tmp_path / "question.wav")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    for block in script:
        # Blank lines in front, so that a traceback shows the page's own line.
        exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), names)


@pytest.mark.parametrize("page", WITH_PYTHON, ids=[page.name for page in WITH_PYTHON])
def test_python_that_is_not_run_calls_what_exists(page: Path) -> None:
    import omnivox

    for block in blocks(page, "python"):
        if block.runs:
            continue
        for node in ast.walk(ast.parse(block.text)):
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("omnivox."):
                called: Callable[..., object] = getattr(omnivox, ast.unparse(node.func).removeprefix("omnivox."))
                named = {word.arg: word.value for word in node.keywords if word.arg}
                inspect.signature(called).bind(*node.args, **named)


# -- shell ------------------------------------------------------------------------------------------------------------

def parse_omnivox(words: list[str]) -> None:
    """Raises where the command line does not know these words; runs nothing."""
    from omnivox.cli import app

    command = typer.main.get_command(app)
    while hasattr(command, "get_command") and words and not words[0].startswith("-"):
        with command.make_context("omnivox", ["--help"], resilient_parsing=True) as context:
            found = command.get_command(context, words[0])
        assert found is not None, f"omnivox has no command {words[0]!r}"
        command, words = found, words[1:]
    command.make_context("omnivox", list(words))


@pytest.mark.parametrize(("block", "line"), SHELL, ids=[f"{block.page.name}: {line}" for block, line in SHELL])
def test_a_shell_line_names_what_exists(block: Block, line: str) -> None:
    program, *words = shlex.split(line, comments=True)
    if program == "omnivox":
        parse_omnivox(words)
    elif program == "make":
        targets = [word for word in words if "=" not in word]
        makefile = (ROOT / "Makefile").read_text()
        assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
        assert all(re.search(rf"^{word.split('=')[0]} \?=", makefile, re.MULTILINE) for word in words if "=" in word)
    elif program == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert words[0] == "install"
        for word in words[1:]:
            match = re.fullmatch(r"\.(?:\[([\w,]+)\])?", word)
            assert match, f"pip install {word}: expected a clone, `.` or `.[extra]`"
            assert set((match[1] or "").split(",")) <= {"", *extras}
    else:
        pytest.fail(f"{program}: teach this test to check it")


RUN = [(block, line) for block, line in SHELL if block.runs and re.match(r"omnivox (respond|info|--version)\b", line)]


@pytest.mark.parametrize(("block", "line"), RUN, ids=[f"{block.page.name}: {line}" for block, line in RUN])
def test_a_command_runs_as_the_page_says(block: Block, line: str, nano_weights: Path, tmp_path: Path) -> None:
    shutil.copy(ROOT / "docs" / "question.wav", tmp_path / "question.wav")
    program, *words = shlex.split(line, comments=True)
    done = subprocess.run([Path(sys.executable).parent / program, *words], cwd=tmp_path, capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    if "--json" in words:
        json.loads(done.stdout)
    if "-o" in words:
        assert (tmp_path / words[words.index("-o") + 1]).stat().st_size > 1000


# -- README -----------------------------------------------------------------------------------------------------------

def test_the_first_screen_of_readme_has_a_sentence_a_picture_and_the_commands() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()[:30]
    assert any(line.startswith("**") and line.endswith("**") for line in lines)
    assert any(line.startswith("![") for line in lines)
    for command in ["make demo", "omnivox respond", "omnivox chat"]:
        assert any(line.startswith(command) for line in lines), f"{command} is not in the first 30 lines"


def test_links_between_pages_lead_somewhere() -> None:
    for page in [*PAGES, ROOT / "LOG.md", ROOT / "CHANGELOG.md"]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def tree() -> dict[str, str]:
    """The files and folders of README's tree, relative to the checkout, with what is said of each."""
    [block] = [block for block in blocks(ROOT / "README.md", "text") if block.text.startswith("omnivox/")]
    found: dict[str, str] = {}
    folders: list[str] = []
    for line in block.text.splitlines():
        match = re.fullmatch(r"(?P<indent> *)(?P<name>[\w.\-]+/?)(?: {2,}(?P<about>\S.*))?", line)
        assert match, f"README's tree: cannot read {line!r}"
        folders = folders[:len(match["indent"]) // 2]
        found["".join([*folders, match["name"]])] = match["about"] or ""
        if match["name"].endswith("/"):
            folders.append(match["name"])
    return found


def test_readmes_tree_is_the_tree() -> None:
    """Each Python file has its own line; a folder of data has one for all that it holds."""
    shown = {name for name in tree() if name.endswith(".py")}
    there = {str(file.relative_to(ROOT)) for file in (ROOT / "omnivox").rglob("*.py") if file.name != "__init__.py"}
    there |= {"omnivox/__init__.py"}
    assert shown - there == set(), "README's tree shows what is not there"
    assert there - shown == set(), "README's tree lacks these"
    data = {str(file.parent.relative_to(ROOT)) + "/" for file in (ROOT / "omnivox").rglob("*")
            if file.is_file() and file.suffix not in {".py", ".pyc"} and file.name != "py.typed"}
    assert all(any(folder.startswith(name) for name in tree() if name.count("/") > 1) for folder in data)


def test_every_file_of_readmes_tree_has_its_line() -> None:
    assert not [name for name, about in tree().items() if name.endswith(".py") and not about]
