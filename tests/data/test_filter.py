"""Stage 6: what is let through, and why the rest is not."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from omnivox.data.filter import FilterSettings, FilterStage, clipped, silent
from omnivox.data.recognise import (
    FasterWhisper,
    Pocketsphinx,
    Whisper,
    language_code,
    recogniser,
    word_error_rate,
)
from omnivox.data.records import Rejected, Row
from omnivox.data.speak import SpeakStage, write_flac
from omnivox.data.spoken import filter_stage
from omnivox.data.voices import speaker
from omnivox.errors import ConfigError
from tests.data.speaking import ANSWERING, ASKING, rows


@pytest.fixture
def good(tmp_path: Path) -> list[Row]:
    """Spoken conversations with a unit for every 40 ms."""
    found = [row for row in SpeakStage(ASKING, ANSWERING).apply(rows(6), tmp_path) if isinstance(row, Row)]
    return [row.with_turns([replace(turn, units=tuple(range(20))) for turn in row.turns]) for row in found]


def changed(row: Row, **changes: Any) -> Row:
    return row.with_turns([replace(row.turns[0], **changes)])


def noise(seconds: float, loudness: float = 0.1) -> np.ndarray:
    return (loudness * np.random.default_rng(0).uniform(-1, 1, int(16_000 * seconds))).astype(np.float32)


def reason(stage: FilterStage, row: Row, build: Path) -> str:
    [out] = list(stage.apply([row], build))
    return out.reason if isinstance(out, Rejected) else ""


def test_good_rows_pass_with_their_scores(good: list[Row], tmp_path: Path) -> None:
    out = list(FilterStage().apply(good, tmp_path))
    for row in out:
        assert isinstance(row, Row)
        assert row.scores["answer_pace"] == pytest.approx(0.3, abs=0.01)
        assert row.scores["question_clipped"] == 0
        assert 0 < row.scores["units_per_token"] < 25
    assert [replace(row, scores={}) for row in out if isinstance(row, Row)] == good


@pytest.mark.parametrize(("samples", "expected"), [
    (noise(1.0, 1e-3), "silence: answer, nothing louder than 0.0010; expected 0.01"),
    (np.concatenate([noise(0.5), np.zeros(40_000, np.float32)]),
     "silence: answer, 83% of the time; expected 70% at most"),
    (np.clip(20 * noise(1.0), -1, 1), "clipping: answer, "),
    (noise(0.2), "pace: answer, 0.05 s per word; expected 0.12 to 2"),
    (noise(9.0), "pace: answer, 2.25 s per word; expected 0.12 to 2"),
])
def test_bad_sound(samples: np.ndarray, expected: str, good: list[Row], tmp_path: Path) -> None:
    row = changed(good[0], answer="It is really so.")
    clip = row.turns[0].answer_audio
    assert clip is not None
    write_flac(tmp_path / clip.path, samples)
    assert reason(FilterStage(), row, tmp_path).startswith(expected)


def test_bad_text_and_too_many_units(good: list[Row], tmp_path: Path) -> None:
    row = good[0]
    assert reason(FilterStage(), changed(row, answer="See https://example.org now then."), tmp_path).startswith(
        "unsayable: answer, link: ")
    assert reason(FilterStage(), changed(row, question="Что это такое, number a?"), tmp_path).startswith(
        "unsayable: question, script: ")
    assert reason(FilterStage(FilterSettings(script=None)), changed(row, question="Что это?"), tmp_path) == ""
    assert reason(FilterStage(), changed(row, units=tuple(range(206))), tmp_path) == (
        "units: 29.4 per token; expected λ = 25 at most")  # five words, a full stop and the end
    assert reason(FilterStage(), changed(row, units=tuple(range(150))), tmp_path) == ""
    assert reason(FilterStage(), changed(row, answer=None), tmp_path).startswith("unanswered: no answer as speech")


def test_every_reason_is_kept(good: list[Row], tmp_path: Path) -> None:
    row = changed(good[0], question="What is 4?", units=tuple(range(500)))
    found = reason(FilterStage(FilterSettings(question_seconds=0.5)), row, tmp_path)
    assert [part.split(":")[0] for part in found.split("; ") if ": " in part] == ["unsayable", "length", "units"]


def test_the_turn_that_is_wrong_is_named(good: list[Row], tmp_path: Path) -> None:
    row = good[0].with_turns([good[0].turns[0], replace(good[0].turns[0], units=tuple(range(500)))])
    assert reason(FilterStage(), row, tmp_path).endswith("expected λ = 25 at most of turn 2")


def test_a_tokenizer_counts_what_the_decoder_will_see(good: list[Row], tmp_path: Path, nano_weights: Path) -> None:
    stage = FilterStage(FilterSettings(tokenizer="nano", upsample=2))
    assert stage.tokens("two and two is four.") == 7
    assert reason(stage, changed(good[0], answer="two and two.", units=tuple(range(11))), tmp_path).startswith(
        "units: 2.2 per token; expected λ = 2")


def test_duplicates_by_their_questions(good: list[Row], tmp_path: Path) -> None:
    texts = ["What is it?", "what is it", "Who is it?", "What is it?", "What, is it?"]
    some = [changed(row, question=text) for row, text in zip(good, texts, strict=False)]
    stage = FilterStage()
    stage.begin(tmp_path, some)
    out = [reason(pickle.loads(pickle.dumps(stage)), row, tmp_path) for row in some]
    assert out[0] == out[2] == ""
    assert out[1] == f"duplicate: asked before in other letters, by row {some[0].id}"
    assert out[3] == f"duplicate: asked before, by row {some[0].id}"
    assert out[4].startswith("duplicate: asked before in other letters")
    stage = FilterStage(FilterSettings(duplicates=False))
    stage.begin(tmp_path, some)
    assert reason(stage, some[3], tmp_path) == ""


# -- recognisers ------------------------------------------------------------------------------------------------------

class Parrot:
    """Takes every answer for nonsense, every question for what it is."""

    max_wer = 0.3
    auditions = 0

    def __init__(self) -> None:
        self.told: list[str] = []

    def settings(self) -> Mapping[str, Any]:
        return {"recogniser": "parrot"}

    def begin(self, texts: Iterable[str]) -> None:
        self.told = list(texts)

    def errors(self, texts: Sequence[str], waves: Sequence[Tensor]) -> list[float | None]:
        return [0.5 if text.startswith("It is") else None for text in texts]


def test_speech_that_is_not_understood(good: list[Row], tmp_path: Path) -> None:
    stage = FilterStage(recogniser=Parrot())
    stage.begin(tmp_path, good)
    assert isinstance(stage.recogniser, Parrot)
    assert len(stage.recogniser.told) == 2 * len(good)
    assert reason(stage, good[0], tmp_path) == "wer: answer, 0.50; expected 0.30 at most"
    assert stage.settings()["recogniser"] == {"recogniser": "parrot"}
    lenient = FilterStage(FilterSettings(answer_wer=0.5), Parrot())
    [out] = lenient.apply(good[:1], tmp_path)
    assert isinstance(out, Row)
    assert out.scores["answer_wer"] == 0.5
    assert "question_wer" not in out.scores  # it could not judge


class Patriot(Parrot):
    """Takes what one voice says for nonsense, and what another says but for the first clip."""

    auditions = 3

    def __init__(self, foreign: str) -> None:
        super().__init__()
        self.foreign, self.calls = foreign, 0

    def errors(self, texts: Sequence[str], waves: Sequence[Tensor]) -> list[float | None]:
        self.calls += 1
        return [1.0 if self.foreign in text or "number a" in text else 0.1 for text in texts]


def test_a_voice_that_is_not_understood_is_not_judged(good: list[Row], tmp_path: Path) -> None:
    """Its word error rates would tell of the recogniser; a bad clip of a voice that is understood goes."""
    for answer_is_foreign in (False, True):
        judge = Patriot("It is" if answer_is_foreign else "nothing")
        stage = FilterStage(recogniser=judge)
        some = [changed(row, question_audio=replace(row.turns[0].question_audio, voice="f1")) for row in good]
        stage.begin(tmp_path, some)
        assert judge.calls == 2 * 3
        out = list(pickle.loads(pickle.dumps(stage)).apply(some, tmp_path))
        assert out[0] == Rejected("wer: question, 1.00; expected 0.30 at most")
        for row in out[1:]:
            assert isinstance(row, Row)
            assert row.scores["question_wer"] == 0.1
            assert row.scores.get("answer_wer") == (None if answer_is_foreign else 0.1)
        judge.calls = 0
        list(stage.apply(some, tmp_path))
        assert judge.calls == (3 if answer_is_foreign else 6)  # what was heard before is not heard again


def test_a_limit_for_nobody_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--answer-wer: found 0\.2, but nobody listens; expected a --recogniser"):
        filter_stage(FilterSettings(answer_wer=0.2), "none", "cpu", "English")
    assert filter_stage(FilterSettings(), "none", "cpu", "Klingon").recogniser is None
    with pytest.raises(ConfigError, match="--language: found 'Klingon'; a recogniser expects one that Whisper knows"):
        filter_stage(FilterSettings(), "whisper:some/model", "cpu", "Klingon")
    with pytest.raises(ConfigError, match="pocketsphinx: knows English, not 'de'"):
        recogniser("pocketsphinx", language="de")
    found = filter_stage(FilterSettings(), "whisper:some/model", "cpu", "German").recogniser
    assert found == Whisper("some/model", language="de")


@pytest.mark.parametrize(("kind", "package"), [("pocketsphinx", "pocketsphinx"), ("faster-whisper", "faster_whisper")])
def test_a_recogniser_that_is_missing_is_told_before_anything_is_spoken(
        kind: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omnivox.data.spoken.find_spec", lambda name: None if name == package else object())
    with pytest.raises(ConfigError, match=f"--recogniser {kind}: its Python package is missing; .* pip install {kind}"):
        filter_stage(FilterSettings(), kind, "cpu", "English")


def test_word_error_rates_of_other_languages() -> None:
    assert word_error_rate("Wie spät ist es, bitte?", "wie spät ist es bitte", "de") == 0
    assert word_error_rate("Wie spät ist es?", "wie alt ist es", "de") == 0.25
    assert word_error_rate("\u4eca\u5929\u5f88\u597d\u3002", "\u4eca\u5929\u4e0d\u597d", "zh") == 0.25  # by letters
    assert language_code("Chinese") == "zh"
    assert language_code("de") == "de"


def test_word_error_rates_do_not_count_spelling() -> None:
    assert word_error_rate("It's twenty-one degrees, isn't it?", "it is 21 degrees is not it") == 0
    assert word_error_rate("one two three four", "one two three") == pytest.approx(0, abs=1)  # numbers are joined
    assert word_error_rate("the cat sat down", "the cat sat") == 0.25
    assert word_error_rate("the cat", "") == 1
    assert word_error_rate("...", "anything") is None


def test_pocketsphinx_tells_speech_from_noise() -> None:
    pytest.importorskip("pocketsphinx", reason="pocketsphinx is not installed")
    if shutil.which("flite") is None:
        pytest.skip("flite is not installed")
    text = "the capital of france is paris"
    judge = recogniser("pocketsphinx")
    assert isinstance(judge, Pocketsphinx)
    assert judge.auditions
    judge.begin([text, "ten plus sixteen is twenty six", "zyxgloop the cat"])
    judge = pickle.loads(pickle.dumps(judge))
    wave = torch.from_numpy(speaker("flite:rms").speak(text, "flite:rms", None))
    right, wrong, unknown = judge.errors([text, "ten plus sixteen is twenty six", "zyxgloop the cat"], [wave] * 3)
    assert right is not None
    assert wrong is not None
    assert right < 0.35 < 0.8 < wrong
    assert unknown is None


def test_recognisers_by_name() -> None:
    assert recogniser("none") is None
    assert recogniser("whisper:some/model", "cpu") == Whisper("some/model")
    assert recogniser("faster-whisper:tiny") == FasterWhisper("tiny")
    with pytest.raises(ConfigError, match="recogniser: found 'ears'; expected whisper:NAME"):
        recogniser("ears")


@pytest.mark.parametrize(("changes", "message"), [
    ({"seconds_per_word": (2.0, 1.0)}, "seconds_per_word: found 2.0 to 1.0"), ({"silent": 1.5}, "silent: found 1.5"),
    ({"upsample": 0}, "upsample: found 0")])
def test_settings_that_make_no_sense(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FilterSettings(**changes)


def test_measures() -> None:
    assert clipped(torch.tensor([0.0, 1.0, -1.0, 0.5])) == 0.5
    tone = torch.ones(3200) * 0.5
    assert silent(torch.cat([tone, torch.zeros(3200)])) == 0.5
    assert silent(torch.cat([tone, tone * 0.02])) == 0
    assert silent(torch.zeros(1000)) == 1
