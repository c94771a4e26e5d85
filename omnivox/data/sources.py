"""Stage `sources`: instructions from wherever they are published, as rows.

A record's own fields tell its layout:

    instruction, input, output       Alpaca
    data: [question, answer, ...]    UltraChat as it was published; first turns unless more are asked for
    messages: [{role, content}]      UltraChat on the hub, and most chat data
    conversation: [{from, text, speech, unit}]       InstructS2S-200K, Multiturn-Speech-Conversations: already speech
    conversations: [{from, value}]   ShareGPT, and LLaMA-Omni's question files
    instruction | question | prompt | text, answer | output | response | completion        anything else

Published speech conversations come with units of another tokenizer than the speech decoder's (CosyVoice's, up to 6560):
they are refused, or left out where they are to be extracted again.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import soundfile

from omnivox.data.manifest import Manifest, ShardReport, StageFolder
from omnivox.data.reading import Broken, Record, fingerprint, read_records
from omnivox.data.records import Clip, Rejected, Row, Turn, row_id
from omnivox.data.stage import Outcome, progress
from omnivox.errors import ConfigError, DataError
from omnivox.writing import alone

LICENCES = {"tatsu-lab/alpaca": "CC-BY-NC-4.0", "yahma/alpaca-cleaned": "CC-BY-NC-4.0", "stingning/ultrachat": "MIT",
            "openbmb/UltraChat": "MIT", "HuggingFaceH4/ultrachat_200k": "MIT"}
ASKING = ("instruction", "question", "prompt", "text")
ANSWERING = ("answer", "output", "response", "completion")
PEOPLE = frozenset({"human", "user"})
MODELS = frozenset({"gpt", "assistant", "model", "chatbot"})
MEDIA = re.compile(r"<(?:speech|audio|image|video)>")


@dataclass(frozen=True)
class SourceSettings:
    """turns: of a conversation at most; None: the first, as the paper does, and all where they are speech already.

    limit: rows that are taken of each source. licence: "" for what is known of it. split, config: of a data set with
    several. reextract: leave out the units of published speech conversations.
    """

    sources: tuple[str, ...]
    turns: int | None = None
    limit: int | None = None
    licence: str = ""
    split: str = "train"
    config: str | None = None
    reextract: bool = False
    shard_rows: int = 500

    def __post_init__(self) -> None:
        if not self.sources:
            raise ConfigError("SOURCE: none is given; expected a file, a folder or the name of a data set")
        if len(set(self.sources)) < len(self.sources):
            raise ConfigError("SOURCE: one is given twice")
        for name in ("turns", "limit", "shard_rows"):
            if (found := getattr(self, name)) is not None and found < 1:
                raise ConfigError(f"{name}: found {found}; expected 1 or more")


class _BadRecordError(ValueError):
    """Why a record is of no use; begins with the word that it is counted by."""


def collect(settings: SourceSettings, build: str | Path) -> Manifest:
    """Write the rows of every source into shards in the folder `build`, or nothing where that has been done.

    A run that was stopped is begun anew: sources are read from their beginning in any case. Raises DataError: a source
    that is not there or holds nothing of use, units of another tokenizer, other settings.
    """
    build = Path(build)
    folder = StageFolder(build, "sources")
    claimed = {**asdict(settings), "sources": [_readable(Path(name).name) for name in settings.sources]}
    digest = "".join(fingerprint(name) for name in settings.sources)
    with alone(build, "building"):
        folder.forget()
        manifest = folder.claim(claimed, digest)
        if manifest.complete:
            return manifest
        folder.sweep()
        reports: list[ShardReport] = []
        with progress("sources", None) as count:
            rows = _rows(settings)
            while shard := list(islice(rows, settings.shard_rows)):
                reports.append(folder.write_shard(len(reports), *zip(*shard, strict=True)))
                count(len(shard))
        if not sum(report.rows for report in reports):
            raise DataError(f"{', '.join(settings.sources)}: {_why_nothing(folder, reports)}")
        return folder.finish(manifest, reports)


def _why_nothing(folder: StageFolder, reports: Sequence[ShardReport]) -> str:
    if not reports:
        return "holds no record; expected instructions"
    return f"holds no row of use; the first was left out because: {folder.first_reason()}"


def _rows(settings: SourceSettings) -> Iterator[tuple[Row, Outcome]]:
    names = _names(settings.sources)
    for source in settings.sources:
        taken, home = 0, _home(source)
        for place, record in read_records(source, settings.split, settings.config):
            if settings.limit is not None and taken >= settings.limit:
                break
            row, outcome = _row(source, names[source], home, _readable(place), record, settings)
            taken += isinstance(outcome, Row)
            yield row, outcome


def _names(sources: Sequence[str]) -> dict[str, str]:
    """What rows are to call each source: a file's own name; its path where two have that name, for ids hold it."""
    short = {source: Path(source).name or Path(source).resolve().name if Path(source).exists() else source
             for source in sources}
    shared = Counter(short.values())
    return {source: _readable(name if shared[name] == 1 else source) for source, name in short.items()}


def _readable(name: str) -> str:
    """A file's name in UTF-8, whatever bytes it has."""
    return name.encode(errors="surrogateescape").decode(errors="replace")


def _home(source: str) -> Path | None:
    """The folder in which a source's sounds stand; None of a data set on the hub: its paths are not of this machine."""
    path = Path(source)
    return path if path.is_dir() else path.parent if path.exists() else None


def _row(source: str, name: str, home: Path | None, place: str, record: Record, settings: SourceSettings
         ) -> tuple[Row, Outcome]:
    licence = settings.licence or LICENCES.get(source, "unknown")
    try:
        if isinstance(record, Broken):
            raise _BadRecordError(f"broken: {record.why}")
        turns = _turns(record, settings, home)
    except _BadRecordError as error:
        shown = record.text if isinstance(record, Broken) else str(record)
        row = Row(row_id(name, place, shown), name, licence, (Turn(shown[:200]),))
        return row, Rejected(f"{error} ({place})")
    except DataError as error:
        raise DataError(f"{source}: {place}: {error}") from error
    own = record.get("id", record.get("prompt_id", place))
    row = Row(row_id(name, f"{own} {place}", turns[0].instruction), name, licence, turns)
    return row, row


# -- layouts ----------------------------------------------------------------------------------------------------------

def _turns(record: Mapping[str, Any], settings: SourceSettings, home: Path | None) -> tuple[Turn, ...]:
    for field, layout in LAYOUTS.items():
        if isinstance(record.get(field), list):
            turns = layout(record[field], settings, home)
            most = settings.turns or (None if layout is _spoken else 1)
            break
    else:
        turns, most = [_single(record)], 1
    if not turns:
        raise _BadRecordError("empty: holds no question")
    return tuple(turns[:most])


def _text(found: Any, what: str) -> str:
    if not isinstance(found, str):
        raise _BadRecordError(f"broken: {what} is {type(found).__name__}, not text")
    return found.strip()


def _single(record: Mapping[str, Any]) -> Turn:
    """Alpaca, and anything with a question and perhaps an answer."""
    name = next((name for name in ASKING if name in record), None)
    if name is None:
        raise _BadRecordError(f"layout: found the fields {', '.join(map(str, list(record)[:8]))}; expected one of "
                              f"{', '.join([*ASKING, *LAYOUTS])}")
    instruction = _text(record[name], name)
    more = record.get("input")
    if more is not None and _text(more, "input") and _text(more, "input").lower() not in {"<noinput>", "no input"}:
        instruction = f"{instruction}\n{_text(more, 'input')}"
    if not instruction:
        raise _BadRecordError(f"empty: {name} holds nothing")
    answer = next((record[name] for name in ANSWERING if record.get(name) is not None), None)
    return Turn(instruction, reference=_text(answer, "answer") or None if answer is not None else None)


def _alternating(found: list[Any], *_: Any) -> list[Turn]:
    """UltraChat: [question, answer, question, ...]."""
    texts = [_text(one, "data") for one in found]
    pairs = zip(texts[::2], [*texts[1::2], None], strict=False)
    return [Turn(asked, reference=answered or None) for asked, answered in pairs if asked]


def _messages(found: list[Any], *_: Any) -> list[Turn]:
    """[{role, content}] and [{from, value}]."""
    turns: list[Turn] = []
    for message in found:
        if not isinstance(message, dict):
            raise _BadRecordError(f"broken: a message is {type(message).__name__}, not an object")
        who = str(message.get("role", message.get("from", ""))).lower()
        text = _text(message.get("content", message.get("value", message.get("text"))), f"the message of {who!r}")
        if who in PEOPLE:
            if MEDIA.search(text):
                raise _BadRecordError("wordless: the question stands in a sound file or a picture only")
            turns.append(Turn(text))
        elif who in MODELS and turns and turns[-1].reference is None:
            turns[-1] = replace(turns[-1], reference=text or None)
        elif who != "system":
            raise _BadRecordError(f"order: a message of {who!r} stands where a question should")
    return [turn for turn in turns if turn.instruction]


def _spoken(found: list[Any], settings: SourceSettings, home: Path | None) -> list[Turn]:
    """[{from, text, speech, unit}]: question and answer are speech already, and stay as they are."""
    turns: list[Turn] = []
    for one in found:
        if not isinstance(one, dict):
            raise _BadRecordError(f"broken: a turn is {type(one).__name__}, not an object")
        who, text = str(one.get("from", one.get("role", ""))).lower(), _text(one.get("text", one.get("value")), "text")
        _refuse_units(one, settings)
        clip = _clip(one.get("speech"), home)
        if who in PEOPLE and text:
            turns.append(Turn(text, question=text, question_audio=clip))
        elif who in MODELS and turns and turns[-1].answer is None and text:
            turns[-1] = replace(turns[-1], reference=text, answer=text, answer_audio=clip)
        else:
            raise _BadRecordError(f"order: a turn of {who!r}{'' if text else ' without text'} where another is due")
    return turns


def _refuse_units(one: Mapping[str, Any], settings: SourceSettings) -> None:
    """Raises DataError: there are units, and they are not to be left out."""
    units = one.get("unit", one.get("units"))
    if not units or settings.reextract:
        return
    values = [int(digits) for digits in re.findall(r"\d{1,9}", units if isinstance(units, str) else str(units))]
    raise DataError(f"unit: found {len(values)} units up to {max(values, default=0)}; published conversations hold "
                    "those of another tokenizer (CosyVoice's, 0 to 6560), which no unit vocoder here speaks and which "
                    "cannot be converted; add --reextract to leave them out, and the stages 'speak' and 'quantise' "
                    "make units of the answers' speech")


def _clip(found: Any, home: Path | None) -> Clip | None:
    """The source's own sound file, where it is there."""
    if not isinstance(found, str) or not found or home is None:
        return None
    path = _sound(found, home)
    try:
        return None if path is None else Clip(str(path), round(soundfile.info(path).duration, 4))
    except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: of samples without a header
        raise _BadRecordError(f"sound: {path} cannot be read ({getattr(error, 'error_string', error)})") from error


def _sound(found: str, home: Path) -> Path | None:
    """The file that `found` names inside `home`. One outside it is not taken, be it by a link: what is taken is
    published, and who wrote the source may have wished for anything on this machine."""
    try:
        there = [path.resolve() for path in (Path(found), home / found, home / Path(found).name) if path.is_file()]
    except OSError as error:
        raise _BadRecordError(f"sound: {found[:40]!r} is no path of a file ({error.strerror})") from error
    inside = [path for path in there if path.is_relative_to(home.resolve())]
    if there and not inside:
        raise _BadRecordError(f"sound: {found} stands outside {home}; expected a file of the source's own folder")
    return inside[0] if inside else None


Layout = Callable[[list[Any], SourceSettings, Path | None], list[Turn]]
LAYOUTS: dict[str, Layout] = {
    "conversation": _spoken, "conversations": _messages, "messages": _messages, "data": _alternating}
