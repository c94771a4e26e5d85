"""Facts about the tree itself: versions agree, settings name what exists, files stay small, nothing leaks."""

from __future__ import annotations

import re
import subprocess
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

from omnivox.errors import OmnivoxError

PYTHON = {"omnivox", "tests", "bench"}


@pytest.fixture(scope="module")
def project(root: Path) -> dict[str, object]:
    return tomllib.loads((root / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def tracked(root: Path) -> list[Path]:
    """Every committed file that is still there."""
    if not (root / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True).stdout
    return [root / name for name in listed.split("\0") if name and (root / name).exists()]


def text_of(file: Path) -> str:
    """The file's text, empty where it is not text."""
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=~!\[; ]", line, maxsplit=1)[0].lower().replace("_", "-") for line in requirements}


def test_the_version_is_one(project: dict, root: Path) -> None:
    stated = project["project"]["version"]
    assert version("omnivox") == stated
    assert re.search(rf"^## {re.escape(stated)}\b", (root / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_every_constraint_pins_something_that_is_asked_for(project: dict, root: Path) -> None:
    lines = [line for line in (root / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    asked = names(project["project"]["dependencies"])
    for extra in project["project"]["optional-dependencies"].values():
        asked |= names(extra)
    assert names(lines) <= asked
    assert all("==" in line or "~=" in line for line in lines)


def test_what_every_user_installs_is_pinned(project: dict, root: Path) -> None:
    lines = [line for line in (root / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert names(project["project"]["dependencies"]) <= names(lines)


def test_no_extra_brings_torchaudio(project: dict) -> None:
    for extra in project["project"]["optional-dependencies"].values():
        assert not names(extra) & {"torchaudio", "speechbrain", "s3prl", "fairseq"}


def test_make_knows_its_verbs(root: Path) -> None:
    makefile = (root / "Makefile").read_text()
    for verb in ["demo", "test", "slow", "check", "nano", "bench"]:
        assert re.search(rf"^{verb}:", makefile, re.MULTILINE), f"Makefile has no {verb}"
        assert f'"make {verb} ' in makefile, f"`make help` does not tell what {verb} does"


def test_make_dry_run_of_every_verb(root: Path) -> None:
    for verb in ["demo", "test", "slow", "check", "nano", "bench"]:
        done = subprocess.run(["make", "--dry-run", verb], cwd=root, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_an_old_python_is_refused_by_name(root: Path, tmp_path: Path) -> None:
    old = tmp_path / "python3.8"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = subprocess.run(["make", f"PYTHON={old}", f"VENV={tmp_path}/venv", "demo"], cwd=root, capture_output=True,
                          text=True, check=False)
    assert done.returncode != 0
    assert "older than 3.11" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_no_registry_and_no_machine_is_named(tracked: list[Path], root: Path) -> None:
    leak = re.compile(r"files\.pythonhosted|pypi\.org/simple|registry\.npmjs|deb\.debian|"
                      r"(?<![\w.])/(?:home|root|Users|work)/\w")
    found = [f"{file.relative_to(root)}: {match[0]}" for file in tracked if file.name != "test_house.py"
             for match in [leak.search(text_of(file))] if match]
    assert not found


def test_python_files_are_one_thing_each(tracked: list[Path], root: Path) -> None:
    long = {str(file.relative_to(root)): lines for file in tracked if file.suffix == ".py"
            for lines in [len(text_of(file).splitlines())] if lines > 400}
    assert not long, "a file of more than about 350 lines is two things"


def test_no_file_is_a_drawer(tracked: list[Path], root: Path) -> None:
    drawers = {"utils.py", "util.py", "base.py", "builder.py", "manager.py", "helpers.py", "common.py", "misc.py"}
    assert not [str(file.relative_to(root)) for file in tracked if file.name in drawers]


def test_every_python_file_says_what_it_is(tracked: list[Path], root: Path) -> None:
    python = [file for file in tracked if file.suffix == ".py" and file.relative_to(root).parts[0] in PYTHON]
    assert not [str(file.relative_to(root)) for file in python if not text_of(file).startswith('"""')]


def test_large_files_are_weights_or_sound(tracked: list[Path], root: Path) -> None:
    large = {str(file.relative_to(root)): file.stat().st_size for file in tracked if file.stat().st_size > 500_000}
    shipped = {name: size for name, size in large.items() if name.startswith("omnivox/nano/")}
    fixtures = {name: size for name, size in large.items() if name.startswith("tests/fixtures/")}
    assert large.keys() == shipped.keys() | fixtures.keys(), large
    assert sum(shipped.values()) <= 30e6
    assert sum(fixtures.values()) <= 8e6


def test_every_error_of_a_user_is_a_value_error() -> None:
    from omnivox import errors

    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert len(kinds) >= 5
    for kind in kinds:
        assert issubclass(kind, OmnivoxError)
        assert issubclass(kind, ValueError)
        assert kind.__name__ in errors.__doc__
