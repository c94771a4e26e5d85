"""The snippets of README and docs/connect.md, run word for word but for the address; what nano says to the question."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.test_readme import blocks

RATE = 24_000  # of the protocol's sound
WORDS = "What is the capital of France?"
ANSWER = "The capital of France is Paris."
PLACE = "127.0.0.1:8000"  # as the page writes it


def snippet(heading: str, language: str, address: str, root: Path, page: str = "docs/connect.md") -> str:
    """The code below that heading of a page, with another address."""
    return _code(root / page, heading, language).replace(PLACE, address)


def _code(page: Path, heading: str, language: str) -> str:
    lines = page.read_text().splitlines()
    [start] = [number for number, line in enumerate(lines, 1) if line == f"## {heading}"]
    code = next(block for block in blocks(page, language) if block.line > start)
    assert PLACE in code.text
    return code.text


def run(code: str) -> dict[str, Any]:
    """Runs it as a script; gives its names."""
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(code, "a snippet", "exec"), names)
    return names


def loudness(sound: bytes) -> float:
    """Root mean square of 16-bit sound, of full scale."""
    samples = np.frombuffer(sound, "<i2").astype(np.float64) / 32768
    return float(np.sqrt(np.mean(samples**2)))
