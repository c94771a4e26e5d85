"""A small system that answers with tones, questions on disk, and a measure of loudness."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from omnivox.evaluate.measure import Answer, Value
from omnivox.runtime.events import Audio, Done, Reply, Text, Timings
from omnivox.sound import write_wav
from omnivox.systems.system import Event

RATE = 8000


class Tones:
    """Says how long the question was, in a tone as long; fails on questions of the lengths in `fails`."""

    name = "tones"
    sample_rate = RATE

    def __init__(self, pitch: float = 200.0, fails: frozenset[int] = frozenset(), silent: bool = False) -> None:
        self.pitch, self.fails, self.silent, self.heard = pitch, fails, silent, list[int]()

    def settings(self) -> Mapping[str, Any]:
        return {"pitch": self.pitch, "omega": 10}

    def respond(self, question: Tensor) -> Iterator[Event]:
        self.heard.append(len(question))
        text = f"it was {len(question)} long"
        yield Text(text[:6])
        if len(question) in self.fails:
            raise RuntimeError("cannot hear\nmore about it")
        seconds = torch.arange(0 if self.silent else len(question) // 4) / RATE
        # what a system draws is part of its answer
        tone = torch.sin(6.283185 * self.pitch * seconds) * (0.2 + 0.3 * torch.rand(1))
        if len(tone):
            yield Audio(tone[:100])
        yield Text(text[6:])
        if len(tone):
            yield Audio(tone[100:])
        timings = Timings(first_token=0.1, first_units=0.2, first_audio=0.25, total=0.5, audio_seconds=len(tone) / RATE)
        yield Done(Reply(text, [1, 2], [3, 4, 5], tone, RATE, timings))


class Loudness:
    """The greatest sample; counts what it was given."""

    name = "loudness"

    def __init__(self, scale: float = 1.0) -> None:
        self.scale, self.given = scale, list[str]()

    def settings(self) -> Mapping[str, Any]:
        return {"scale": self.scale}

    def measure(self, answers: Sequence[Answer]) -> list[Value]:
        self.given += [answer.id for answer in answers]
        return [Value(None, "does not speak") if answer.audio is None or not len(answer.audio)
                else Value(self.scale * float(answer.audio.abs().max()), None, {"rate": answer.sample_rate})
                for answer in answers]


def write_questions(folder: Path, count: int = 5) -> Path:
    """Questions q0, q1 ... of 1600, 1700 ... samples, with a right answer each."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for i in range(count):
        write_wav(folder / f"{i}.wav", 0.1 * torch.ones(1600 + 100 * i), 16_000)
        rows.append({"id": f"q{i}", "text": f"how long is {i}?", "audio": f"{i}.wav",
                     "answer": f"it was {1600 + 100 * i} long"})
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder
