"""What every test may use. Nothing here reaches the network."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = ROOT / "omnivox" / "nano" / "weights" / "config.json"


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def question() -> Path:
    """The bundled question, "What is the capital of France?"."""
    return ROOT / "docs" / "question.wav"


@pytest.fixture(scope="session")
def nano_weights() -> Path:
    """The folder of nano's weights; a test that asks for it is skipped while they are not trained."""
    if not WEIGHTS.exists():
        pytest.skip(f"nano is not trained: no {WEIGHTS.relative_to(ROOT)}")
    return WEIGHTS.parent
