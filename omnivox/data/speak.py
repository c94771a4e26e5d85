"""Stage 4: questions in many voices, answers in one.

A conversation's questions are asked by one speaker: first a sex by chance, then a voice, both by the row's own random
numbers. Sound is FLAC, 16 bits, mono, 16 kHz, under BUILD/speak/audio; a file that is there is whole, and is not spoken
again. Clips that the source brought are kept as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from omnivox.data.records import Clip, Rejected, Row, Turn
from omnivox.data.speaker import Speaker
from omnivox.data.stage import Outcome, Stage
from omnivox.errors import ConfigError, DataError
from omnivox.nano.voices import Samples
from omnivox.rates import SAMPLE_RATE
from omnivox.writing import atomic


class SpeakStage(Stage):
    """question: speaks the questions in its voices; answer: speaks the answers in its only one. Raises ConfigError."""

    name = "speak"

    def __init__(self, question: Speaker, answer: Speaker, seed: int = 0) -> None:
        self.question, self.answer, self.seed = question, answer, seed
        only = [voice for names in answer.voices.values() for voice in names]
        if len(only) != 1:
            raise ConfigError(f"answer voice: found {len(only)} voices ({', '.join(only[:5])}); expected one, "
                              "for the vocoder learns one")
        if not any(question.voices.values()):
            raise ConfigError("question voices: found none; expected one at least")
        self.answer_voice = only[0]

    def settings(self) -> Mapping[str, Any]:
        return {"question": self.question.settings(), "answer": self.answer.settings(), "seed": self.seed}

    def apply(self, rows: Sequence[Row], build: Path) -> Iterator[Outcome]:
        workers = max(self.question.at_once, self.answer.at_once)
        if workers == 1:
            yield from (self.speak(row, build) for row in rows)
            return
        pool = ThreadPoolExecutor(workers)
        try:
            yield from pool.map(lambda row: self.speak(row, build), rows)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def voice(self, row: Row) -> str:
        """Who asks this row's questions."""
        rng = row.rng("voice", self.seed)
        sexes = sorted(sex for sex, names in self.question.voices.items() if names)
        return rng.choice(list(self.question.voices[rng.choice(sexes)]))

    def speak(self, row: Row, build: Path) -> Outcome:
        """The row with its sound."""
        voice, rng = self.voice(row), row.rng("speech", self.seed)
        turns: list[Turn] = []
        for index, turn in enumerate(row.turns):
            seed, stem = rng.getrandbits(31), clip_path(row, index)
            if turn.question is None or turn.answer is None:
                return Rejected(f"unanswered: turn {index + 1} has no question or no answer as speech")
            try:
                asked = turn.question_audio or _clip(
                    build, f"{stem}q.flac", voice, self.question, turn.question, seed)
                answered = turn.answer_audio or _clip(
                    build, f"{stem}a.flac", self.answer_voice, self.answer, turn.answer, None)
            except DataError as error:
                return Rejected(f"speech: {error}")
            turns.append(replace(turn, question_audio=asked, answer_audio=answered))
        return row.with_turns(turns)


def clip_path(row: Row, turn: int) -> str:
    """Where a turn's sound stands in the build, without its last letter and ending; at most 256 folders of rows."""
    return f"speak/audio/{row.id[:2]}/{row.id}-{turn}"


def _clip(build: Path, path: str, voice: str, speaker: Speaker, text: str, seed: int | None) -> Clip:
    file = build / path
    if not file.exists():
        samples = speaker.speak(text, voice, seed)
        if not np.isfinite(samples).all():
            raise DataError(f"{voice}: NaN or infinite samples for {text[:60]!r}")
        file.parent.mkdir(parents=True, exist_ok=True)
        write_flac(file, samples)
    return Clip(path, round(soundfile.info(file).frames / SAMPLE_RATE, 3), voice)


def write_flac(path: Path, samples: Samples) -> None:
    """16 bits, mono, 16 kHz, whole or not at all; what is louder than full scale is cut there."""
    with atomic(path) as temporary:
        soundfile.write(temporary, np.clip(samples, -1.0, 1.0), SAMPLE_RATE, subtype="PCM_16", format="FLAC")
