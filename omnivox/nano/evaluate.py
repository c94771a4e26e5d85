"""What nano understands and how it sounds, on the bundled held-out questions: greedy, offline, the same at every run.

    right, right_new_voice, right_new_engine    share of questions whose written answer equals the expected one
    right_20db                                  the first of these with noise 20 dB below the speech
    declines                                    share of questions outside the domain that are politely declined
    wer_reply, wer_tts                          word errors of `listener` on spoken replies, and on the voice that nano
                                                learned from saying the same words (None where flite is not installed)
    shipped_mb                                  the installed package with weights and held-out questions, in 10⁶ bytes

Shapes: n samples.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

from omnivox.checkpoint import load_checkpoint
from omnivox.errors import ConfigError
from omnivox.hardware import hardware
from omnivox.nano import questions, rooms, voices
from omnivox.nano.listener import Listener
from omnivox.nano.questions import HeldQuestion, Kind
from omnivox.rates import SAMPLE_RATE
from omnivox.runtime.events import Done, Reply
from omnivox.runtime.respond import Omni
from omnivox.sound import write_wav
from omnivox.writing import atomic

T = TypeVar("T")

SCORES: dict[str, Kind] = {"right": "seen_voice", "right_new_voice": "new_voice", "right_new_engine": "new_engine",
                           "right_20db": "seen_voice", "declines": "decline"}
SNR_DB = 20.0
LISTENED = 80  # replies that the listener hears, and as many sentences of the voice nano learned from
SHOWN = 12  # wrong answers in the table


@dataclass(frozen=True)
class Judged:
    """A held-out question and what was answered. noise: the kind that was added."""

    asked: HeldQuestion
    reply: Reply
    noise: str | None = None

    @property
    def right(self) -> bool:
        """Whether the written answer equals the expected one, letter by letter."""
        return self.reply.text == self.asked.answer


def evaluate(model: str | Path | Omni = "nano", limit: int | None = None, work: str | Path | None = None,
             echo: bool = True) -> dict[str, Any]:
    """Score a model on the held-out questions: the keys above, n (of each), notes, model, hardware.

    limit: questions of each kind at most. work: folder for every reply (replies.jsonl) and the sound listened to.
    echo: print tables, and progress on stderr. Raises ConfigError: the listener is not installed. CheckpointError.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"limit: found {limit}; expected 1 or more questions of each kind")
    listener, word_error_rate = Listener(), _word_error_rate()
    omni = model if isinstance(model, Omni) else Omni.from_checkpoint(load_checkpoint(model))
    judged = {score: judge(omni, score, limit, echo) for score in SCORES}
    result: dict[str, Any] = {score: round(share(found), 4) for score, found in judged.items()}
    heard = listen(judged["right"][:LISTENED], listener, word_error_rate, echo)
    result |= {key: heard[key] for key in ("wer_reply", "wer_tts")} | {"shipped_mb": shipped_megabytes()}
    result["n"] = {score: len(found) for score, found in judged.items()} | {"wer": heard["n"]}
    result["notes"] = heard["notes"]
    device = next(omni.model.parameters()).device.type
    result |= {"model": model if isinstance(model, str) else "given", "model_sha256": fingerprint(omni),
               "listener": listener.name, "device": device, "hardware": hardware()}
    if work is not None:
        _keep(Path(work), judged)
    if echo:
        show(result, judged)
    return result


# -- written answers --------------------------------------------------------------------------------------------------

def judge(omni: Omni, score: str, limit: int | None, echo: bool = False) -> list[Judged]:
    """The replies to one set of questions; those that are listened to are spoken as well."""
    asked = questions.held_out(SCORES[score])
    waves = [torch.from_numpy(question.audio) for question in asked]
    judged = []
    for i, question in enumerate(_track(asked[:limit], score, echo)):
        noise = rooms.NOISES[i % len(rooms.NOISES)] if score == "right_20db" else None
        wave = waves[i]
        if noise:
            others = waves[:i] + waves[i + 1:]
            wave = rooms.add_noise(wave, SNR_DB, torch.Generator().manual_seed(i), noise, others)
        judged.append(Judged(question, _reply(omni, wave, speak=score == "right" and i < LISTENED), noise))
    return judged


def _reply(omni: Omni, wave: Tensor, speak: bool) -> Reply:
    *_, done = omni.respond(wave, speak=speak)
    assert isinstance(done, Done)
    return done.reply


def share(judged: Sequence[Judged]) -> float:
    """Of right answers."""
    return sum(one.right for one in judged) / len(judged)


# -- spoken answers ---------------------------------------------------------------------------------------------------

WordErrorRate = Callable[[list[str], list[str]], float]  # (references, hypotheses)


def _word_error_rate() -> WordErrorRate:
    try:
        from jiwer import wer
    except ImportError as error:
        raise ConfigError("evaluate: Python package jiwer is missing; install it with: "
                          "pip install 'omnivox[nano]'") from error
    return lambda references, hypotheses: float(wer(references, hypotheses))


def listen(judged: Sequence[Judged], listener: Listener, word_error_rate: WordErrorRate, echo: bool = False
           ) -> dict[str, Any]:
    """`wer_reply`, `wer_tts`, how many replies (`n`) both are over, and `notes` on what was left out."""
    written = [(one.reply, listener.reference(one.reply.text)) for one in judged]
    spoken = [(reply, " ".join(words)) for reply, words in written if words]
    notes = [f"{len(judged) - len(spoken)} replies without words, or with words the listener does not know, "
             "were not listened to"] if len(spoken) < len(judged) else []
    if not spoken:
        return {"wer_reply": None, "wer_tts": None, "n": 0, "notes": notes}
    references = [words for _, words in spoken]

    def rate(said: Iterable[tuple[Any, int]]) -> float:
        return round(word_error_rate(references, [" ".join(listener.transcribe(*one)) for one in said]), 4)

    replies = [reply for reply, _ in spoken]
    wer_reply = rate((reply.audio, reply.sample_rate) for reply in _track(replies, "wer_reply", echo))
    try:
        wer_tts = rate((voices.speak(voices.ANSWER_VOICE, reply.text), SAMPLE_RATE)
                       for reply in _track(replies, "wer_tts", echo))
    except ConfigError as error:
        wer_tts, notes = None, [*notes, f"wer_tts was not measured: {error}"]
    return {"wer_reply": wer_reply, "wer_tts": wer_tts, "n": len(spoken), "notes": notes}


# -- what was measured, and where -------------------------------------------------------------------------------------

def shipped_megabytes() -> float:
    """Of the package as it is installed, compiled files aside."""
    with resources.as_file(resources.files("omnivox")) as folder:
        files = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        return round(sum(path.stat().st_size for path in files) / 1e6, 3)


def fingerprint(omni: Omni) -> str:
    """SHA-256 over the names and values of all weights."""
    digest = hashlib.sha256()
    parts: tuple[nn.Module, ...] = (omni.model, omni.vocoder)
    for part in parts:
        for name, value in sorted(part.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _keep(folder: Path, judged: dict[str, list[Judged]]) -> None:
    """Write every reply to replies.jsonl, and what was said to spoken-000.wav and on."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"score": score, "topic": one.asked.topic, "voice": one.asked.voice, "noise": one.noise,
             "question": one.asked.question, "expected": one.asked.answer, "reply": one.reply.text, "right": one.right}
            for score, found in judged.items() for one in found]
    with atomic(folder / "replies.jsonl") as temporary:
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for i, one in enumerate(judged["right"][:LISTENED]):
        if len(one.reply.audio):
            write_wav(folder / f"spoken-{i:03d}.wav", one.reply.audio, one.reply.sample_rate)


# -- showing ----------------------------------------------------------------------------------------------------------

def _track(items: Sequence[T], name: str, echo: bool) -> Iterable[T]:
    return track(items, name, console=Console(stderr=True), disable=not echo)


def show(result: dict[str, Any], judged: dict[str, list[Judged]]) -> None:
    """Print the scores, where the wrong answers lie, and some of them."""
    console, machine = Console(), result["hardware"]
    scores = Table("score", "value", "n", title=f"{result['model']}, {machine['date']}, "
                   f"{machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads, {result['device']}")
    for key in (*SCORES, "wer_reply", "wer_tts", "shipped_mb"):
        value = result[key]
        scores.add_row(key, "not measured" if value is None else f"{value:.3f}",
                       str(result["n"].get(key, result["n"]["wer"] if key.startswith("wer") else "")))
    console.print(scores, *result["notes"])
    inside = {score: found for score, found in judged.items() if score != "declines"}
    console.print(_shares("topic", inside, lambda one: one.asked.topic))
    console.print(_shares("voice", {"right_new_engine": judged["right_new_engine"]}, lambda one: one.asked.voice))
    console.print(_shares("noise", {"right_20db": judged["right_20db"]}, lambda one: str(one.noise)))
    wrong = [(score, one) for score, found in judged.items() for one in found if not one.right]
    some = Table("score", "voice", "question", "expected", "answered", title=f"some of {len(wrong)} wrong answers")
    for score, one in wrong[::max(1, len(wrong) // SHOWN)][:SHOWN]:
        some.add_row(score, one.asked.voice, one.asked.question, one.asked.answer, one.reply.text)
    console.print(some)


def _shares(name: str, judged: dict[str, list[Judged]], of: Callable[[Judged], str]) -> Table:
    """Right answers of all, by what `of` says, for each score."""
    table = Table(name, *judged)
    for value in sorted({of(one) for found in judged.values() for one in found}):
        cells = [[one.right for one in found if of(one) == value] for found in judged.values()]
        table.add_row(value, *(f"{sum(cell)}/{len(cell)}" if cell else "" for cell in cells))
    return table
