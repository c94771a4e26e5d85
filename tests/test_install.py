"""The wheel: what it ships, and that a fresh environment with it alone answers a question."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run([str(word) for word in command], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, root, cwd=folder)
    [built] = folder.glob("omnivox-*.whl")
    return built


def test_the_wheel_ships_the_whole_package_and_nothing_else(wheel: Path, root: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    listed = run("git", "ls-files", "omnivox", cwd=root).split() if (root / ".git").exists() else []
    assert {name for name in listed if (root / name).exists()} <= names
    assert "omnivox/py.typed" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"omnivox"}
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert sum(entry.file_size for entry in zipfile.ZipFile(wheel).infolist()) <= 30e6


def test_a_fresh_environment_answers(wheel: Path, question: Path, nano_weights: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", "venv", cwd=tmp_path)
    python = next((tmp_path / "venv").glob("*/python*"))
    # Third parties come from this environment; omnivox itself from the wheel alone.
    [packages] = (tmp_path / "venv").glob("lib*/python*/site-packages")
    borrowed = tmp_path / "third-parties"
    borrowed.mkdir()
    for found in Path(pytest.__file__).parent.parent.iterdir():
        if "omnivox" not in found.name:
            (borrowed / found.name).symlink_to(found)
    (packages / "third-parties.pth").write_text(f"{borrowed}\n")
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=tmp_path)

    place = run(python, "-c", "import omnivox; print(omnivox.__file__)", cwd=tmp_path)
    assert place.startswith(str(packages.resolve()))
    said = run(python.parent / "omnivox", "respond", question, "-o", "reply.wav", "--json", cwd=tmp_path)
    assert json.loads(said)["text"]
    assert (tmp_path / "reply.wav").stat().st_size > 1000
