"""The held-out questions that nano is judged by, and `python -m omnivox.nano.questions OUT`, which writes them.

    questions.jsonl    one row a question: kind, question, answer, topic, voice, offset, samples
    seen_voice.opus    the questions of a kind one after another, 16 kHz, Ogg Opus
    new_voice.opus, new_engine.opus, decline.opus
    lexicon.dict       pronunciations of answer words that the listener's own dictionary lacks

Phrasings are of the split "held", and no question occurs word for word among MANY that training would draw. Topics have
equal shares, for a score should not be arithmetic's alone; a topic with few held phrasings gives what it has.

Shapes: n samples at 16 kHz.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from itertools import cycle
from pathlib import Path
from random import Random
from typing import Any, Literal, get_args

import numpy as np
import soundfile

from omnivox.errors import DataError
from omnivox.nano import listener, voices
from omnivox.nano.dialogues import Dialogue, sample
from omnivox.nano.speak import pronounce
from omnivox.nano.voices import HELD_ENGINE_VOICES, HELD_VOICES, TRAIN_VOICES, Samples, Voice
from omnivox.rates import SAMPLE_RATE
from omnivox.writing import atomic

Kind = Literal["seen_voice", "new_voice", "new_engine", "decline"]

KINDS: tuple[Kind, ...] = get_args(Kind)
COUNTS: Mapping[Kind, int] = {"seen_voice": 200, "new_voice": 100, "new_engine": 100, "decline": 100}
MANY = 300_000  # training questions, none of which may be held out
DRAWS = 400  # for each question wanted: topics of small weight come seldom
COMPRESSION = 0.94  # of libsndfile's 0 to 1: about 20 kbit/s
MANIFEST = "questions.jsonl"
HELD = resources.files("omnivox.nano").joinpath("held")


@dataclass(frozen=True)
class HeldQuestion:
    """audio: float32 [n] at 16 kHz. question: its words. answer: the right one. voice: a voice's label."""

    audio: Samples
    question: str
    answer: str
    topic: str
    voice: str


# -- writing ----------------------------------------------------------------------------------------------------------

def write(out: str | Path, seed: int = 0, counts: Mapping[Kind, int] = COUNTS) -> None:
    """Speak `counts` questions of each kind into folder `out`; the same seed in a fresh process gives the same sound.

    Raises DataError: the domain has not as many held questions. ConfigError: a speech engine is missing.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    rng = Random(f"held questions {seed}")
    trained = Random(f"train questions {seed}")
    taken = {sample(trained, "train").question for _ in range(MANY)}
    rows: list[dict[str, Any]] = []
    for kind in KINDS:
        dialogues = draw(rng, kind, counts[kind], taken)
        rows += _speak(out / f"{kind}.opus", kind, dialogues, rng)
    with atomic(out / listener.LEXICON) as temporary:
        temporary.write_text(_lexicon(), encoding="utf-8")
    with atomic(out / MANIFEST) as temporary:
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def draw(rng: Random, kind: Kind, count: int, taken: set[str]) -> list[Dialogue]:
    """`count` held dialogues, topics in equal shares; their questions are not in `taken`, and are added to it."""
    by_topic: dict[str, list[Dialogue]] = {}
    for _ in range(DRAWS * count):
        dialogue = sample(rng, "held")
        if (dialogue.topic == "decline") == (kind == "decline") and dialogue.question not in taken:
            taken.add(dialogue.question)
            by_topic.setdefault(dialogue.topic, []).append(dialogue)
    drawn: list[Dialogue] = []
    while by_topic and len(drawn) < count:
        for topic in rng.sample(sorted(by_topic), min(len(by_topic), count - len(drawn))):
            drawn.append(by_topic[topic].pop())
            if not by_topic[topic]:
                del by_topic[topic]
    if len(drawn) < count:
        raise DataError(f"{kind}: the domain gave {len(drawn)} distinct held questions; expected {count}")
    taken.difference_update(dialogue.question for unused in by_topic.values() for dialogue in unused)
    rng.shuffle(drawn)
    return drawn


def _voices(kind: Kind, rng: Random) -> Callable[[], Voice]:
    """What gives each question of a kind its voice."""
    if kind == "new_engine":
        turns = cycle(HELD_ENGINE_VOICES)
        return lambda: next(turns)
    listed = HELD_VOICES if kind == "new_voice" else TRAIN_VOICES
    return lambda: voices.pick(listed, rng)


def _speak(path: Path, kind: Kind, dialogues: list[Dialogue], rng: Random) -> list[dict[str, Any]]:
    """Write the sound of `dialogues` to `path`; returns their rows."""
    voice_of, pieces, rows, offset = _voices(kind, rng), list[Samples](), list[dict[str, Any]](), 0
    for dialogue in dialogues:
        voice = voice_of()
        samples = voices.speak(voice, dialogue.question, Random(rng.getrandbits(64)))
        rows.append({"kind": kind, "question": dialogue.question, "answer": dialogue.answer, "topic": dialogue.topic,
                     "voice": voice.label, "offset": offset, "samples": len(samples)})
        pieces.append(samples)
        offset += len(samples)
    with atomic(path) as temporary:
        soundfile.write(temporary, np.concatenate(pieces), SAMPLE_RATE, format="OGG", subtype="OPUS",
                        compression_level=COMPRESSION)
    return rows


def _lexicon() -> str:
    """Lines of "word PHONES" in pocketsphinx's phones, which are flite's in capitals without the schwa."""
    words = listener.missing_words()
    spoken = ([{"ax": "AH"}.get(phone, phone.upper()) for phone in phones] for phones in pronounce(words))
    return "".join(f"{word} {' '.join(phones)}\n" for word, phones in zip(words, spoken, strict=True))


# -- reading ----------------------------------------------------------------------------------------------------------

def held_out(kind: Kind, folder: Path | Traversable = HELD) -> list[HeldQuestion]:
    """The bundled questions of a kind, or those of another folder. Raises DataError: they are missing or broken."""
    if kind not in KINDS:
        raise DataError(f"kind: found {kind!r}; expected one of {', '.join(KINDS)}")
    manifest, sound = folder.joinpath(MANIFEST), folder.joinpath(f"{kind}.opus")
    try:
        rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
        samples, rate = soundfile.read(io.BytesIO(sound.read_bytes()), dtype="float32")
    except (OSError, ValueError, soundfile.LibsndfileError) as error:
        raise DataError(f"{folder}: held-out questions cannot be read ({error}); write them with: "
                        "python -m omnivox.nano.questions FOLDER") from error
    rows = [row for row in rows if row["kind"] == kind]
    stop = rows[-1]["offset"] + rows[-1]["samples"] if rows else 0
    if rate != SAMPLE_RATE or len(samples) != stop:
        raise DataError(f"{sound}: {len(samples)} samples at {rate} Hz; {manifest} says {stop} at {SAMPLE_RATE} Hz")
    return [HeldQuestion(samples[row["offset"]:row["offset"] + row["samples"]],
                         *(row[key] for key in ("question", "answer", "topic", "voice"))) for row in rows]


if __name__ == "__main__":
    write(sys.argv[1])
