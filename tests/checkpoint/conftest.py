"""What the tests of our own layout share."""

from __future__ import annotations

import pytest

from omnivox.checkpoint import Loaded
from tests import tiny


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    """A whole tiny checkpoint."""
    omni = tiny.omni()
    return Loaded(omni.model, omni.tokenizer, omni.vocoder, omni.prompt)
