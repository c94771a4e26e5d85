"""Held-out questions: what is drawn, that it can be read back, and what is bundled."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from random import Random

import numpy as np
import pytest

from omnivox.errors import DataError
from omnivox.nano import dialogues, listener, questions, voices
from omnivox.nano.voices import HELD_ENGINE_VOICES, HELD_VOICES, TRAIN_VOICES, Voice
from omnivox.rates import SAMPLE_RATE

SMALL = {"seen_voice": 5, "new_voice": 4, "new_engine": 4, "decline": 3}


def tone(voice: Voice, text: str, rng: Random | None = None) -> voices.Samples:
    """A tone whose pitch and length tell the text, in place of a speech engine."""
    time = np.arange(4000 + 160 * len(text)) / SAMPLE_RATE
    return (0.5 * np.sin(2 * math.pi * (300 + 10 * len(text)) * time)).astype(np.float32)


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(voices, "speak", tone)
    monkeypatch.setattr(questions, "MANY", 5000)
    monkeypatch.setattr(listener, "missing_words", lambda: ["hoglet"])
    monkeypatch.setattr(questions, "pronounce", lambda words: [("hh", "ow", "g", "l", "ax", "t") for _ in words])
    questions.write(tmp_path / "held", seed=3, counts=SMALL)
    return tmp_path / "held"


def test_topics_have_equal_shares_and_questions_are_new() -> None:
    rng = Random(1)
    taken = {dialogues.sample(rng, "held").question for _ in range(3000)}
    before = set(taken)
    drawn = questions.draw(rng, "seen_voice", 60, taken)
    asked = [dialogue.question for dialogue in drawn]
    assert len(set(asked)) == 60
    assert not before.intersection(asked)
    assert taken == before.union(asked)  # what was drawn in vain stays free
    shares = Counter(dialogue.topic for dialogue in drawn)
    assert "decline" not in shares
    assert max(shares.values()) - sorted(shares.values())[2] <= 1  # two topics may run dry


def test_declined_questions_are_of_that_topic_alone() -> None:
    assert {dialogue.topic for dialogue in questions.draw(Random(1), "decline", 20, set())} == {"decline"}


def test_a_domain_without_enough_questions_is_refused() -> None:
    class Everything(set):  # type: ignore[type-arg]
        def __contains__(self, item: object) -> bool:
            return True

    with pytest.raises(DataError, match="new_voice: the domain gave 0 distinct held questions; expected 2"):
        questions.draw(Random(1), "new_voice", 2, Everything())


def test_what_is_written_can_be_read(written: Path) -> None:
    found = {kind: questions.held_out(kind, written) for kind in questions.KINDS}
    assert {kind: len(rows) for kind, rows in found.items()} == SMALL
    for row in (row for rows in found.values() for row in rows):
        wanted = tone(HELD_VOICES[0], row.question)
        assert row.audio.dtype == np.float32
        assert row.audio.shape == wanted.shape
        loudest, expected = (int(np.abs(np.fft.rfft(wave)).argmax()) for wave in (row.audio, wanted))
        assert abs(loudest - expected) <= 1  # its own sound, not another's
    labels = {kind: {row.voice for row in rows} for kind, rows in found.items()}
    assert labels["seen_voice"] | labels["decline"] <= {voice.label for voice in TRAIN_VOICES}
    assert labels["new_voice"] <= {voice.label for voice in HELD_VOICES}
    assert Counter(row.voice for row in found["new_engine"]) == {voice.label: 2 for voice in HELD_ENGINE_VOICES}
    assert (written / "lexicon.dict").read_text() == "hoglet HH OW G L AH T\n"
    assert len(list(written.iterdir())) == 6  # nothing half-written beside them


def test_writing_twice_gives_the_same(written: Path, tmp_path: Path) -> None:
    questions.write(tmp_path / "again", seed=3, counts=SMALL)
    assert (tmp_path / "again" / "questions.jsonl").read_text() == (written / "questions.jsonl").read_text()
    for kind in questions.KINDS:
        pairs = zip(questions.held_out(kind, written), questions.held_out(kind, tmp_path / "again"), strict=True)
        for one, other in pairs:
            np.testing.assert_array_equal(one.audio, other.audio)


def test_broken_folders_are_named(written: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="held-out questions cannot be read"):
        questions.held_out("decline", tmp_path / "nowhere")
    (written / "new_voice.opus").write_bytes((written / "decline.opus").read_bytes())
    with pytest.raises(DataError, match=r"new_voice.opus: \d+ samples at 16000 Hz; .*questions.jsonl says \d+"):
        questions.held_out("new_voice", written)
    (written / "decline.opus").write_bytes(b"OggS")
    with pytest.raises(DataError, match="held-out questions cannot be read"):
        questions.held_out("decline", written)
    with pytest.raises(DataError, match="kind: found 'all'; expected one of seen_voice"):
        questions.held_out("all", written)  # type: ignore[arg-type]


def test_the_bundle_is_whole_and_small() -> None:
    found = {kind: questions.held_out(kind) for kind in questions.KINDS}
    assert {kind: len(rows) for kind, rows in found.items()} == questions.COUNTS
    rows = [row for listed in found.values() for row in listed]
    assert len({row.question for row in rows}) == len(rows)
    assert all(0.3 * SAMPLE_RATE < len(row.audio) < 15 * SAMPLE_RATE and np.abs(row.audio).max() > 0.2 for row in rows)
    size = sum(len(path.read_bytes()) for path in questions.HELD.iterdir())
    assert size < 4e6


def test_the_bundle_is_of_todays_domain() -> None:
    known = set(dialogues.answers())
    assert all(row.answer in known for kind in questions.KINDS for row in questions.held_out(kind))
