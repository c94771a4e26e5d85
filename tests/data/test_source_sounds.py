"""The sounds that a source of spoken conversations names: those of its own folder are taken, and no others."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from omnivox.data.records import Clip
from tests.data.test_sources import reasons, rows, written


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sound that no source should have, and the folder where the work is done."""
    soundfile.write(tmp_path / "private.wav", np.zeros(8000), 16000)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "private.wav"


def speaking(path: str) -> dict[str, Any]:
    return {"conversation": [{"from": "human", "text": "What is it?", "speech": path},
                             {"from": "gpt", "text": "Nothing."}]}


@pytest.mark.parametrize("named", ["{}", "../private.wav", "wav/../../private.wav", "private.wav", "link.wav"])
def test_no_sound_outside_its_own_folder_is_taken(named: str, outside: Path, tmp_path: Path) -> None:
    """What is taken is published: a source may not help itself to what lies on the machine of who builds from it."""
    path = written(tmp_path / "theirs" / "s.json", [speaking(named.format(outside)), {"question": "fine"}])
    (path.parent / "link.wav").symlink_to(outside)
    (path.parent / "wav").mkdir()
    for work, source in ((tmp_path / "a", path), (tmp_path / "b", path.parent)):
        assert [row.turns[0].instruction for row in rows(work, source)] == ["fine"]
        [reason] = reasons(work)
        assert reason.startswith(f"sound: {named.format(outside)} stands outside {path.parent}")


@pytest.mark.parametrize("named", ["mine.wav", "{}/mine.wav", "theirs/mine.wav", "elsewhere/mine.wav",
                                   "/elsewhere/mine.wav"])
@pytest.mark.usefixtures("outside")
def test_a_sound_inside_may_be_named_in_many_ways(named: str, tmp_path: Path) -> None:
    path = written(tmp_path / "theirs" / "s.json", [speaking(named.format(tmp_path / "theirs"))])
    soundfile.write(path.parent / "mine.wav", np.zeros(8000), 16000)
    [row] = rows(tmp_path, path)
    assert row.turns[0].question_audio == Clip(str(path.parent / "mine.wav"), 0.5)


def test_a_data_set_of_the_hub_has_no_sounds_here(outside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                                  ) -> None:
    datasets = pytest.importorskip("datasets")
    (tmp_path / "some").mkdir()
    soundfile.write(tmp_path / "some" / "near.wav", np.zeros(8000), 16000)
    made = datasets.Dataset.from_list([speaking(name) for name in (str(outside), "private.wav", "near.wav")])
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: made.to_iterable_dataset())
    assert [row.turns[0].question_audio for row in rows(tmp_path, "some/thing")] == [None] * 3


def test_samples_without_a_header_cost_their_row(tmp_path: Path) -> None:
    path = written(tmp_path / "s.json", [speaking("q.raw"), {"question": "fine"}])
    (tmp_path / "q.raw").write_bytes(bytes(100))
    assert len(rows(tmp_path, path)) == 1
    assert re.fullmatch(r"sound: .*q\.raw cannot be read \(.+\) \(s\.json:1\)", reasons(tmp_path)[0])
