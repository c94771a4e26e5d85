"""docs/data.md: its commands run one after the other, in one folder."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from omnivox.cli import app

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"(<!-- not run: [^\n]+ -->\n)?^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    found = FENCE.finditer((ROOT / "docs" / "data.md").read_text())
    return [line for match in found if not match[1] for line in match[2].splitlines()
            if line.startswith("omnivox data")]


def test_the_commands_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("flite") is None:
        pytest.skip("flite is not installed")
    pytest.importorskip("pyarrow")
    shutil.copy(ROOT / "docs" / "instructions.jsonl", tmp_path)
    monkeypatch.chdir(tmp_path)
    assert len(commands()) >= 8
    for line in commands():
        done = CliRunner().invoke(app, shlex.split(line)[1:])
        assert done.exit_code == 0, f"{line}\n{done.output}\n{done.exception!r}"
    for name in ("try", "data"):
        written = tmp_path / "build" / name / "write"
        assert list(written.rglob("*.parquet"))
        assert all((written / file).exists() for file in ("README.md", "card.json", "preview.html"))


def test_the_page_tells_of_what_there_is() -> None:
    """The layout that the page draws is the one that a build has."""
    page = (ROOT / "docs" / "data.md").read_text()
    from omnivox.data.stage import STAGES

    assert all(f"| `{stage}` |" in page for stage in STAGES)
