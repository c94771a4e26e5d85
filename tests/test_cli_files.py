"""The command line and the files it writes: where, whole or not at all, and never in the place of something else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from omnivox.checkpoint.load import load_checkpoint
from omnivox.runtime.respond import Omni
from tests import tiny
from tests.command import SCRIPT, call, clear, script
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


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_terminal_of_few_characters_is_no_reason_to_fail(tmp_path: Path, encoding: str) -> None:
    done = script("respond", "--help", cwd=tmp_path, env={**os.environ, "PYTHONIOENCODING": encoding})
    assert done.returncode == 0, done.stderr
    assert "--omega" in done.stdout


# -- convert: into what is there already ------------------------------------------------------------------------------

def test_convert_into_the_folder_that_one_stands_in(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                                    ) -> None:
    monkeypatch.chdir(tmp_path)
    result = call("convert", model, ".")
    assert result.exit_code == 0, result.output
    assert {path.name for path in Path.cwd().iterdir()} == {path.name for path in model.iterdir()}
    assert call("info", tmp_path, "--json").exit_code == 0


def test_convert_into_an_empty_folder_through_a_link(model: Path, tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "link").symlink_to("far")
    result = call("convert", model, tmp_path / "link")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "link").is_symlink()
    assert {path.name for path in (tmp_path / "far").iterdir()} == {path.name for path in model.iterdir()}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["far", "link"]


def test_convert_that_is_ended_leaves_nothing(nano_weights: Path, tmp_path: Path) -> None:
    if not SCRIPT.exists():
        pytest.skip("the console script is not installed")
    with subprocess.Popen([SCRIPT, "convert", nano_weights, "copy"], cwd=tmp_path, stderr=subprocess.PIPE) as process:
        while process.poll() is None and not list(tmp_path.iterdir()):
            time.sleep(0.001)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=120)
    assert (process.returncode, list(tmp_path.iterdir())) in [(130, []), (0, [tmp_path / "copy"])]


# -- without a vocoder ------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def mute(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that cannot speak."""
    folder, loaded = tmp_path_factory.mktemp("models") / "mute", load_checkpoint(model, device="cpu")
    Omni(loaded.model, None, loaded.tokenizer, loaded.prompt).save_pretrained(folder)
    return folder


def test_info_of_a_model_that_cannot_speak(mute: Path) -> None:
    result = call("info", mute, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["settings"]["vocoder"] == "none"
    assert "vocoder" not in told["parameters"]
    assert "reply_samples" not in told["rates"]
    assert call("info", mute).exit_code == 0


def test_what_needs_a_vocoder_names_the_flag(mute: Path, question: Path) -> None:
    clear(call("respond", question, "--model", mute), "this checkpoint has none", "--vocoder")


def test_convert_without_a_vocoder_warns(mute: Path, model: Path, tmp_path: Path) -> None:
    result = call("convert", mute, tmp_path / "copy")
    assert result.exit_code == 0, result.output
    assert "no vocoder" in result.stderr
    assert "--vocoder" in result.stderr
    assert "no vocoder" not in call("convert", model, tmp_path / "whole").stderr


def test_a_vocoder_that_is_not_there_is_named(mute: Path, tmp_path: Path) -> None:
    clear(call("info", mute, "--vocoder", tmp_path / "nope"), f"{tmp_path / 'nope'}: no such file or folder")


def test_torchs_own_names_of_device_and_number_format(model: Path) -> None:
    loaded = load_checkpoint(model, device=torch.device("cpu"), dtype=torch.float16)
    assert next(loaded.model.parameters()).dtype == torch.float16
