"""The command line, called in this process or through the real console script."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from omnivox.cli import app

SCRIPT = Path(sys.executable).parent / "omnivox"


def call(*words: str | float | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def clear(result: Result, *said: str) -> None:
    """Asserts that this is one clear line about a user's mistake."""
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert result.stdout == ""
    for words in said:
        assert words in " ".join(result.stderr.split()), result.stderr


def script(*words: str | int | Path, cwd: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    if not SCRIPT.exists():
        pytest.skip("the console script is not installed")
    return subprocess.run([str(SCRIPT), *map(str, words)], cwd=cwd, capture_output=True, text=True, check=False,
                          **options)
