"""The command line and the files it writes: where, whole or not at all, and never in the place of something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import tiny
from tests.command import call, clear, script
from tests.disk import small


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model in our layout."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny.omni().save_pretrained(folder)
    return folder


def test_a_reply_file_that_makes_no_sense(question: Path, tmp_path: Path) -> None:
    words = ("respond", question, "--model", tmp_path / "nothing", "-o")
    clear(call(*words, tmp_path), "--output", "is a folder; name a file in it")
    clear(call(*words, tmp_path / "reply.mp3"), "--output", "end its name in .wav")


def test_a_full_disk_leaves_no_half_reply(model: Path, question: Path, tmp_path: Path) -> None:
    words = ("respond", question, "--model", model, "-o", tmp_path / "reply.wav")
    done = script(*words, cwd=tmp_path, preexec_fn=small)
    assert done.returncode == 1
    assert done.stderr.startswith("omnivox: [Errno 27]")
    assert str(tmp_path / "reply.wav") in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_no_half_model(model: Path, tmp_path: Path) -> None:
    done = script("convert", model, "copy", cwd=tmp_path, preexec_fn=small)
    assert done.returncode == 1
    assert done.stderr.startswith("omnivox: ")
    assert "model.safetensors" in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
