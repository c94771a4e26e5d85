"""Stage 7: Parquet, as `datasets` and the hub read it, and as `omnivox.data.dataset` trains from it.

    BUILD/write/data/train-00000000.parquet   one file a shard, named by the place of its first row in the input
                README.md  card.json          the data card
                dataset.json                  what a trainer wants to know before it reads sound
                preview.html                  some rows to listen to

A Parquet row is a turn; the turns of a conversation stand together, in one file. Row groups are small, so that a
trainer reads any row without much around it, and pages carry checksums.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import soundfile

from omnivox.data.records import Clip, Rejected, Row, Turn
from omnivox.data.stage import Outcome, Stage
from omnivox.errors import AudioError, ConfigError
from omnivox.rates import SAMPLE_RATE
from omnivox.sound import read_audio
from omnivox.writing import atomic

GROUP = 16  # conversations in a row group
MAX_SECONDS = 3600.0  # of one clip
_TEXT = {name: {"dtype": "string", "_type": "Value"} for name in
         ("id", "source", "licence", "instruction", "question", "answer", "question_voice", "answer_voice", "scores")}
_SECONDS = {"dtype": "float32", "_type": "Value"}
_AUDIO = {"sampling_rate": SAMPLE_RATE, "_type": "Audio"}
_FEATURES: dict[str, dict[str, Any]] = {  # in the words of `datasets`
    "id": _TEXT["id"], "turn": {"dtype": "int32", "_type": "Value"}, "turns": {"dtype": "int32", "_type": "Value"},
    "question": _TEXT["question"], "answer": _TEXT["answer"], "question_audio": _AUDIO, "answer_audio": _AUDIO,
    "units": {"feature": {"dtype": "int32", "_type": "Value"}, "_type": "Sequence"},
    "question_seconds": _SECONDS, "answer_seconds": _SECONDS,
    "question_voice": _TEXT["question_voice"], "answer_voice": _TEXT["answer_voice"],
    "instruction": _TEXT["instruction"], "source": _TEXT["source"], "licence": _TEXT["licence"],
    "scores": _TEXT["scores"]}


def arrow() -> Any:
    """pyarrow, with its parquet. Raises ConfigError where it is missing."""
    try:
        import_module("pyarrow.parquet")
        return import_module("pyarrow")
    except ImportError as error:
        raise ConfigError("pyarrow: the Python package is missing; install it with: pip install 'omnivox[data]'") \
            from error


def schema() -> Any:
    """Of every file: columns, and what `datasets` wants to know of them."""
    pa = arrow()
    kinds = {"string": pa.string(), "int32": pa.int32(), "float32": pa.float32()}
    audio = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    fields = [(name, audio if feature is _AUDIO else pa.list_(pa.int32()) if name == "units"
               else kinds[str(feature["dtype"])]) for name, feature in _FEATURES.items()]
    return pa.schema(fields, {"huggingface": json.dumps({"info": {"features": _FEATURES}})})


class WriteStage(Stage):
    """Writes what it is given; a conversation without sound or text is rejected."""

    name = "write"

    def __init__(self) -> None:
        arrow()
        self._place: dict[str, int] = {}

    def settings(self) -> Mapping[str, Any]:
        return {"format": 1}

    def begin(self, build: Path, rows: Iterable[Row]) -> None:
        self._place = {row.id: place for place, row in enumerate(rows)}

    def apply(self, rows: Sequence[Row], build: Path) -> Iterator[Outcome]:
        if not rows:
            return
        pa, kind = arrow(), schema()
        path = build / self.name / "data" / f"train-{self._place[rows[0].id]:08d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        text = [name for name in _TEXT if name != "id"]
        written = False
        with atomic(path) as temporary, pa.parquet.ParquetWriter(
                temporary, kind, compression="zstd", use_dictionary=text, write_page_checksum=True) as writer:
            for start in range(0, len(rows), GROUP):
                outcomes = [_tabulated(row, build) for row in rows[start:start + GROUP]]
                if table := [line for lines in outcomes if not isinstance(lines, Rejected) for line in lines]:
                    writer.write_table(pa.Table.from_pylist(table, kind))
                    written = True
                for row, lines in zip(rows[start:start + GROUP], outcomes, strict=True):
                    yield lines if isinstance(lines, Rejected) else row
        if not written:
            path.unlink()


def _tabulated(row: Row, build: Path) -> list[dict[str, Any]] | Rejected:
    """A line for each turn."""
    lines: list[dict[str, Any]] = []
    for index, turn in enumerate(row.turns):
        if missing := [name for name in ("question", "answer", "question_audio", "answer_audio")
                       if getattr(turn, name) is None]:
            return Rejected(f"unfinished: turn {index + 1} has no {missing[0].replace('_audio', ' as sound')}")
        try:
            lines.append(_line(row, index, turn, build))
        except AudioError as error:
            return Rejected(f"sound: {error}")
    return lines


def _line(row: Row, index: int, turn: Turn, build: Path) -> dict[str, Any]:
    asked, answered = turn.question_audio, turn.answer_audio
    assert asked is not None
    assert answered is not None
    return {
        "id": row.id, "turn": index, "turns": len(row.turns), "question": turn.question, "answer": turn.answer,
        "question_audio": {"bytes": flac(asked, build), "path": f"{row.id}-{index}q.flac"},
        "answer_audio": {"bytes": flac(answered, build), "path": f"{row.id}-{index}a.flac"},
        "units": None if turn.units is None else list(turn.units), "question_seconds": asked.seconds,
        "answer_seconds": answered.seconds, "question_voice": asked.voice, "answer_voice": answered.voice,
        "instruction": turn.instruction, "source": row.source, "licence": row.licence,
        "scores": json.dumps(dict(sorted(row.scores.items())))}


def flac(clip: Clip, build: Path) -> bytes:
    """A clip's FLAC: its file as it is, where that is one of ours; else made of it. Raises AudioError."""
    path = build / clip.path
    try:
        info = soundfile.info(path)
        if (info.format, info.subtype, info.channels, info.samplerate) == ("FLAC", "PCM_16", 1, SAMPLE_RATE):
            return path.read_bytes()
    except (soundfile.LibsndfileError, OSError):  # `read_audio` says why
        pass
    samples = read_audio(path, max_seconds=MAX_SECONDS).clamp(-1.0, 1.0).numpy()
    file = io.BytesIO()
    soundfile.write(file, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return file.getvalue()
