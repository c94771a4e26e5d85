"""Scores of a model whose answers are known beforehand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from omnivox.errors import ConfigError
from omnivox.nano import evaluate as evaluation
from omnivox.nano import questions, rooms, voices
from omnivox.nano.evaluate import evaluate
from omnivox.nano.questions import HeldQuestion
from omnivox.rates import SAMPLE_RATE
from omnivox.runtime.events import Done, Reply, Text
from omnivox.runtime.respond import Omni

ANSWER = "Yes it is."
COUNTS = {"seen_voice": 10, "new_voice": 4, "new_engine": 4, "decline": 5}


def held_out(kind: str) -> list[HeldQuestion]:
    """Questions whose length in samples tells the kind and the number."""
    def sound(n: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        return (0.3 * np.sin(np.arange(n) / 5)).astype(np.float32)

    first = 3200 * (1 + list(COUNTS).index(kind))
    return [HeldQuestion(sound(first + 10 * i), f"{kind} {i}", ANSWER, f"topic {i % 2}", f"voice {i % 2}")
            for i in range(COUNTS[kind])]


class Parrot(Omni):
    """Answers ANSWER, unless the question has one of the lengths in `wrong`."""

    def __init__(self, wrong: frozenset[int] = frozenset()) -> None:
        torch.manual_seed(0)
        self.model, self._vocoder = nn.Linear(2, 2), nn.Linear(2, 2)  # type: ignore[assignment]
        self.wrong, self.heard = wrong, list[tuple[Tensor, bool]]()

    def respond(self, question: Any, *, speak: bool = True, **_: Any) -> Iterator[Any]:
        self.heard.append((question, speak))
        text = ANSWER.lower() if len(question) in self.wrong else ANSWER
        yield Text(text)
        yield Done(Reply(text, [], [], torch.ones(100 if speak else 0), SAMPLE_RATE))


class Ear:
    """Hears the first word wrong where there is sound of 100 samples, and all of it right elsewhere."""

    name = "ear"

    def reference(self, text: str) -> list[str] | None:
        return text.split() if text == ANSWER else None

    def transcribe(self, audio: Any, rate: int) -> list[str]:
        return ["No", *ANSWER.split()[1:]] if len(audio) == 100 else ANSWER.split()


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("jiwer")
    monkeypatch.setattr(questions, "held_out", held_out)
    monkeypatch.setattr(evaluation, "Listener", Ear)
    monkeypatch.setattr(evaluation, "LISTENED", 3)
    monkeypatch.setattr(voices, "speak", lambda voice, text: np.zeros(200, np.float32))


def test_scores_are_shares_of_exact_answers() -> None:
    wrong = {3200 + 10, 6400, 6400 + 10, 9600, 12800 + 20}  # seen: one, new: two, engine: one, declined: one
    result = evaluate(Parrot(frozenset(wrong)), echo=False)
    assert {key: result[key] for key in evaluation.SCORES} == {
        "right": 0.9, "right_new_voice": 0.5, "right_new_engine": 0.75, "right_20db": 0.9, "declines": 0.8}
    assert result["n"] == {"right": 10, "right_new_voice": 4, "right_new_engine": 4, "right_20db": 10, "declines": 5,
                           "wer": 2}
    assert result["wer_reply"] == pytest.approx(1 / 3, abs=1e-4)
    assert result["wer_tts"] == 0.0
    assert [note.partition(" replies")[0] for note in result["notes"]] == ["1"]
    assert 0.1 < result["shipped_mb"] < 30
    assert json.loads(json.dumps(result)) == result


def test_only_what_is_listened_to_is_spoken_and_noise_is_exact() -> None:
    first, again = Parrot(), Parrot()
    assert evaluate(first, echo=False) == evaluate(again, echo=False)
    assert [speak for _, speak in first.heard] == [True] * 3 + [False] * 30
    for (one, _), (other, _) in zip(first.heard, again.heard, strict=True):
        assert torch.equal(one, other)
    clean, noisy = first.heard[:10], first.heard[18:28]
    for (wave, _), (heard, _) in zip(clean, noisy, strict=True):
        snr = 10 * torch.log10(rooms.speech_power(wave) / (heard - wave).square().mean())
        assert float(snr) == pytest.approx(20.0, abs=0.01)


def test_a_limit_takes_as_many_of_each_kind(capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(Parrot(), limit=2)["n"] == {**dict.fromkeys(evaluation.SCORES, 2), "wer": 2}
    printed = capsys.readouterr().out
    assert "right_new_engine" in printed
    assert "some of 0 wrong answers" in printed
    with pytest.raises(ConfigError, match="limit: found 0"):
        evaluate(Parrot(), limit=0)


def test_without_flite_the_reason_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: Any) -> None:
        raise ConfigError("flite: no such program")

    monkeypatch.setattr(voices, "speak", absent)
    result = evaluate(Parrot(), echo=False)
    assert result["wer_tts"] is None
    assert result["wer_reply"] is not None
    assert result["notes"] == ["wer_tts was not measured: flite: no such program"]


def test_replies_are_kept_where_asked(tmp_path: Path) -> None:
    evaluate(Parrot(frozenset({12800})), work=tmp_path / "work", echo=False)
    rows = [json.loads(line) for line in (tmp_path / "work" / "replies.jsonl").read_text().splitlines()]
    assert len(rows) == 33
    assert [row["reply"] for row in rows if not row["right"]] == [ANSWER.lower()]
    assert len(list((tmp_path / "work").glob("spoken-*.wav"))) == 3


def test_the_fingerprint_is_of_the_weights() -> None:
    omni = Parrot()
    before = evaluation.fingerprint(omni)
    assert evaluation.fingerprint(omni) == before
    with torch.no_grad():
        omni.model.weight[0, 0] += 1e-3  # type: ignore[operator, index]
    assert evaluation.fingerprint(omni) != before
