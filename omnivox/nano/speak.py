"""From text to a spoken corpus on disk: shards of 16-bit sound, each with a manifest, that can be killed and resumed.

    corpus.json          what the folder was asked to hold; resuming with another seed or split is refused
    shard-00000.npy      int16 [samples], the utterances one after another at 16 kHz
    shard-00000.jsonl    one row an utterance: text, answer, topic, voice, offset, samples, split, phones

A shard depends on (seed, its index) alone, is spoken by a process of its own, and is written beside and renamed, its
manifest last: a shard with a manifest is complete, and is skipped. Training may begin on the first shards.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from omnivox.errors import DataError
from omnivox.nano import voices as engines
from omnivox.nano.english import common_words
from omnivox.nano.voices import ANSWER_VOICE, Samples, Voice
from omnivox.progress import bars
from omnivox.rates import SAMPLE_RATE
from omnivox.writing import atomic

Split = Literal["train", "held"]

SHARD_SECONDS = 1200.0  # about 500 questions
PHONETIC_SHARE = 0.25  # of the training questions are sentences about nothing, so that every phone sequence is heard
# flite's own symbols, that is ARPAbet with the schwa (ax) apart
PHONES = ("aa", "ae", "ah", "ao", "aw", "ax", "ay", "b", "ch", "d", "dh", "eh", "er", "ey", "f", "g", "hh", "ih", "iy",
          "jh", "k", "l", "m", "n", "ng", "ow", "oy", "p", "r", "s", "sh", "t", "th", "uh", "uw", "v", "w", "y", "z",
          "zh")


class Asked(Protocol):
    """What a question needs to have: `omnivox.nano.dialogues.Dialogue`."""

    @property
    def topic(self) -> str: ...
    @property
    def question(self) -> str: ...
    @property
    def answer(self) -> str: ...


Source = Callable[[Random, Split], Asked]


@dataclass(frozen=True)
class Line:
    """What to say, and what it is about; `answer` is None where the text is no question."""

    text: str
    answer: str | None
    topic: str


@dataclass(frozen=True)
class Utterance:
    """One row of a corpus. audio: float32 [n] at 16 kHz; phones: of PHONES, the same for every voice."""

    text: str
    answer: str | None
    topic: str
    voice: str
    split: str
    phones: tuple[str, ...]
    audio: Samples


# -- writing ----------------------------------------------------------------------------------------------------------

def speak_questions(out: Path, hours: float, split: Split, voices: Sequence[Voice], seed: int = 0, workers: int = 2, *,
                    source: Source | None = None, phonetic: float | None = None,
                    shard_seconds: float = SHARD_SECONDS) -> None:
    """At least `hours` of questions into folder `out`, in whole shards; asking for more hours later adds shards.

    source: draws a dialogue from (rng, split), a function that can be pickled; `omnivox.nano.dialogues.sample` if None.
    phonetic: share of sentences about nothing; PHONETIC_SHARE of the training questions and none of the held if None.
    """
    share = (PHONETIC_SHARE if split == "train" else 0.0) if phonetic is None else phonetic
    count = math.ceil(hours * 3600 / shard_seconds)
    task = partial(_question_shard, out=Path(out), split=split, voices=list(voices), seed=seed, source=source,
                   phonetic=share, seconds=shard_seconds)
    asked = {"kind": "questions", "seed": seed, "split": split, "shard_seconds": shard_seconds}
    _speak(Path(out), task, count, workers, asked)


def speak_answers(out: Path, texts: Sequence[str], voice: Voice = ANSWER_VOICE, *, topic: str = "answer",
                  split: Split = "train", shard_lines: int = 250, workers: int = 2) -> None:
    """Every one of `texts`, in their order, spoken by one voice in its own plain manner."""
    groups = [list(texts[start:start + shard_lines]) for start in range(0, len(texts), shard_lines)]
    task = partial(_answer_shard, out=Path(out), groups=groups, voice=voice, topic=topic, split=split)
    _speak(Path(out), task, len(groups), workers,
           {"kind": "answers", "voice": voice.label, "split": split, "lines": shard_lines})


def _speak(out: Path, task: Callable[[int], float], count: int, workers: int, asked: dict[str, Any]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    _claim(out / "corpus.json", asked)
    missing = [index for index in range(count) if not _manifest(out, index).exists()]
    # A fresh process for each shard: espeak's speech repeats from nowhere else. Spawned: torch's threads do not fork.
    context = multiprocessing.get_context("spawn")
    with bars() as progress, \
            ProcessPoolExecutor(workers, mp_context=context, max_tasks_per_child=1) as pool:
        bar = progress.add_task(f"speaking {out.name}", total=count, completed=count - len(missing))
        try:
            for done in as_completed([pool.submit(task, index) for index in missing]):
                done.result()
                progress.advance(bar)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _claim(path: Path, asked: dict[str, Any]) -> None:
    """Write what the folder is to hold, or compare with what it was asked to hold before."""
    if not path.exists():
        with atomic(path) as temporary:
            temporary.write_text(json.dumps(asked) + "\n")
    elif (found := json.loads(path.read_text())) != asked:
        raise DataError(f"{path}: the folder holds {found}; asked for {asked}; expected the same or an empty folder")


def _question_shard(index: int, *, out: Path, split: Split, voices: list[Voice], seed: int, source: Source | None,
                    phonetic: float, seconds: float) -> float:
    draw: Source = source or import_module("omnivox.nano.dialogues").sample
    rng = Random(f"{split} {seed} {index}")

    def utterances() -> Iterator[tuple[Line, Voice, Samples]]:
        total = 0.0
        while total < seconds:
            line = _nonsense(rng) if rng.random() < phonetic else _line(draw(rng, split))
            voice = engines.pick(voices, rng, engines.TRAIN_SHARES if split == "train" else engines.SHARES)
            samples = engines.speak(voice, line.text, Random(rng.getrandbits(64)))
            total += len(samples) / SAMPLE_RATE
            yield line, voice, samples

    return _write_shard(out, index, split, utterances())


def _answer_shard(index: int, *, out: Path, groups: list[list[str]], voice: Voice, topic: str, split: Split) -> float:
    lines = (Line(text, None, topic) for text in groups[index])
    return _write_shard(out, index, split, ((line, voice, engines.speak(voice, line.text)) for line in lines))


def _line(dialogue: Asked) -> Line:
    return Line(dialogue.question, dialogue.answer or None, dialogue.topic)


def _nonsense(rng: Random) -> Line:
    return Line(phonetic_sentence(rng), None, "phonetic")


def _manifest(out: Path, index: int) -> Path:
    return out / f"shard-{index:05d}.jsonl"


def _write_shard(out: Path, index: int, split: Split, utterances: Iterator[tuple[Line, Voice, Samples]]) -> float:
    """Write the shard, sound first and manifest last; returns its hours."""
    rows: list[dict[str, Any]] = []
    pieces: list[NDArray[np.int16]] = []
    offset = 0
    for line, voice, samples in utterances:
        pieces.append(np.round(np.clip(samples, -1.0, 1.0) * 32767).astype(np.int16))
        rows.append(asdict(line) | {"voice": voice.label, "offset": offset, "samples": len(samples), "split": split})
        offset += len(samples)
    for row, phones in zip(rows, pronounce([row["text"] for row in rows]), strict=True):
        row["phones"] = " ".join(phones)
    manifest = _manifest(out, index)
    with atomic(manifest.with_suffix(".npy")) as temporary, temporary.open("wb") as file:
        np.save(file, np.concatenate(pieces))
    with atomic(manifest) as temporary:
        temporary.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return offset / SAMPLE_RATE / 3600


# -- reading ----------------------------------------------------------------------------------------------------------

class Corpus(Sequence[Utterance]):
    """The complete shards of folders, as they are when it is opened; sound stays on disk until it is asked for.

    Raises DataError: no complete shard in one of them, or a manifest that does not fit its sound.
    """

    def __init__(self, *folders: str | Path) -> None:
        self.rows: list[dict[str, Any]] = []
        self._sounds: list[NDArray[np.int16]] = []
        self._shard_of: list[int] = []
        for folder in map(Path, folders):
            manifests = sorted(folder.glob("shard-*.jsonl"))
            if not manifests:
                raise DataError(f"{folder}: holds no complete shard; expected shard-00000.npy and shard-00000.jsonl")
            for manifest in manifests:
                self._open(manifest)

    def _open(self, manifest: Path) -> None:
        try:
            sound = np.load(manifest.with_suffix(".npy"), mmap_mode="r")
            rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
        except (OSError, ValueError) as error:
            raise DataError(f"{manifest}: shard cannot be read ({error}); delete it and speak it again") from error
        if rows and rows[-1]["offset"] + rows[-1]["samples"] != len(sound):
            raise DataError(f"{manifest}: rows end at sample {rows[-1]['offset'] + rows[-1]['samples']}, the sound at "
                            f"{len(sound)}; delete the shard and speak it again")
        self._shard_of += [len(self._sounds)] * len(rows)
        self._sounds.append(sound)
        self.rows += rows

    @property
    def hours(self) -> float:
        """Of speech in all."""
        return sum(len(sound) for sound in self._sounds) / SAMPLE_RATE / 3600

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        row, sound = self.rows[index], self._sounds[self._shard_of[index]]
        audio = sound[row["offset"]:row["offset"] + row["samples"]].astype(np.float32) / 32767
        return Utterance(row["text"], row["answer"], row["topic"], row["voice"], row["split"],
                         tuple(row["phones"].split()), audio)


# -- phones and sentences ---------------------------------------------------------------------------------------------

def pronounce(texts: Sequence[str]) -> list[tuple[str, ...]]:
    """The phones of each text by flite's front end, in one process for all: about 2 ms a text.

    flite prints a line for each sentence, so the stops inside a text are handed to it as commas.
    """
    plain = [re.sub(r"[.?!;:]+(?=\s)", ",", re.sub(r"\s+", " ", engines.spoken_form(text.strip()))) for text in texts]
    lines = _segments("\n\n".join(plain) + "\n")
    if len(lines) != len(plain):  # a text that flite cut in two: pay a process for each
        lines = [tuple(phone for line in _segments(text + "\n") for phone in line) for text in plain]
    return lines


def _segments(text: str) -> list[tuple[str, ...]]:
    command = [engines.program("flite"), "-voice", "kal16", "-f", "/dev/stdin", "-ps", "-o", "none"]
    done = subprocess.run(command, input=text.encode("ascii", "ignore"), capture_output=True, check=True)
    lines = [tuple(phone for phone in line.split() if phone != "pau") for line in done.stdout.decode().splitlines()]
    if unknown := {phone for line in lines for phone in line} - set(PHONES):
        raise DataError(f"flite: phones {sorted(unknown)} are none of the {len(PHONES)} that the encoder learns")
    return lines


PATTERNS = tuple(pattern.split() for pattern in (
    "determiner noun verb determiner noun", "determiner adjective noun verb preposition determiner noun",
    "pronoun verb determiner adjective noun", "verb determiner noun preposition determiner noun",
    "question auxiliary determiner noun verb", "question auxiliary pronoun verb determiner noun",
    "determiner noun preposition determiner noun verb adverb", "auxiliary pronoun verb adverb determiner noun",
    "adjective noun conjunction adjective noun", "pronoun auxiliary verb conjunction verb", "noun noun noun noun",
    "number adjective noun verb adverb", "name verb determiner noun", "verb number noun conjunction number noun",
    "adverb verb noun", "name conjunction name auxiliary verb preposition noun", "number number number number"))


def phonetic_sentence(rng: Random) -> str:
    """Three to eight common words that sound like a sentence and mean nothing; one in four is mere words."""
    words = common_words()
    if rng.random() < 0.25:
        everything = [word for listed in words.values() for word in listed]
        return " ".join(rng.choice(everything) for _ in range(rng.randint(3, 7)))
    return " ".join(rng.choice(words[kind]) for kind in rng.choice(PATTERNS))
