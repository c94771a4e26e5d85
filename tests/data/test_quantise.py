"""Stage 5: units of answers by either kind of quantiser."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from omnivox.data.manifest import StageFolder
from omnivox.data.quantise import QuantiseStage, load_quantiser
from omnivox.data.records import Clip, Rejected, Row
from omnivox.data.speak import SpeakStage
from omnivox.data.stage import run_stage
from omnivox.errors import CheckpointError, ConfigError
from omnivox.model.units import merge_repeats
from omnivox.sound import read_audio
from tests.data.speaking import ANSWERING, ASKING, rows, units_file, written
from tests.data.test_hubert import tiny


@pytest.fixture
def build(tmp_path: Path) -> Path:
    build = written(tmp_path / "build", rows(5, turns=2))
    run_stage(SpeakStage(ASKING, ANSWERING), build, "answer")
    return build


def stages(folder: Path, batch: int) -> list[QuantiseStage]:
    if not (folder / "hubert").exists():
        tiny().save_pretrained(folder / "hubert")
        centres = torch.randn(12, 16, generator=torch.Generator().manual_seed(3))
        save_file({"centres": centres}, folder / "km.safetensors")
    return [QuantiseStage(units_file(folder / "units.safetensors"), batch=batch),
            QuantiseStage(folder / "hubert", folder / "km.safetensors", layer=2, batch=batch)]


@pytest.mark.parametrize("which", [0, 1])
def test_answers_become_units_whatever_the_batch(which: int, build: Path, tmp_path: Path) -> None:
    spoken = list(StageFolder(build, "speak").rows())
    stage = stages(tmp_path, 3)[which]
    out = list(stage.apply(spoken, build))
    quantiser = load_quantiser(stage.model, stage.centres, stage.layer)
    for row in out:
        assert isinstance(row, Row)
        for turn in row.turns:
            assert turn.answer_audio is not None
            wave = read_audio(build / turn.answer_audio.path)
            assert turn.units == tuple(merge_repeats(quantiser.encode(wave))[0].tolist())
            assert all(a != b for a, b in zip(turn.units, turn.units[1:], strict=False))
            assert max(turn.units) < stage.units
    assert len({turn.units for row in out if isinstance(row, Row) for turn in row.turns}) > 5
    for batch in (1, 100):
        assert list(stages(tmp_path, batch)[which].apply(spoken, build)) == out


def test_settings_tell_of_the_quantiser(tmp_path: Path) -> None:
    ours, hubert = stages(tmp_path, 4)
    assert (ours.units, hubert.units) == (9, 12)
    assert hubert.settings()["layer"] == 2
    assert ours.settings()["layer"] is None
    assert len(str(hubert.settings()["centres"])) == 64
    assert stages(tmp_path, 8)[1].settings() == hubert.settings()


def test_rows_without_a_usable_answer_are_rejected(build: Path, tmp_path: Path) -> None:
    spoken = list(StageFolder(build, "speak").rows())
    turn = spoken[0].turns[0]
    (build / "cut.flac").write_bytes(b"fLaC")
    odd = [spoken[0], spoken[1].with_turns([replace(turn, answer_audio=None)]),
           spoken[2].with_turns([replace(turn, answer_audio=Clip("cut.flac", 1.0))]),
           spoken[3].with_turns([turn, replace(turn, answer_audio=Clip("none.flac", 1.0))])]
    out = list(stages(tmp_path, 16)[0].apply(odd, build))
    assert isinstance(out[0], Row)
    reasons = [one.reason.split(":")[0] for one in out[1:] if isinstance(one, Rejected)]
    assert reasons == ["unspoken", "sound", "sound"]


def test_files_that_are_no_quantiser(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no units\.safetensors; a HuBERT needs"):
        QuantiseStage(tmp_path)
    save_file({"centres": torch.zeros(4, 26)}, tmp_path / "units.safetensors")
    with pytest.raises(CheckpointError, match="'mean' is missing"):
        QuantiseStage(tmp_path)
    save_file({"centres": torch.zeros(4, 5)}, tmp_path / "units.safetensors")
    with pytest.raises(CheckpointError, match=r"centres are \[4, 5\]"):
        QuantiseStage(tmp_path)
    with pytest.raises(ConfigError, match="batch: found 0"):
        QuantiseStage(tmp_path, batch=0)
