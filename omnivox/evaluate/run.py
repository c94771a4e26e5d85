"""One system answers one set of questions, and its answers are measured: both into a run's folder, both resumable.

    question ─► system ─► answers.jsonl, audio/ ─► measures ─► scores.jsonl

Measures hear the sound as it was written (16-bit), so a run that was resumed scores as one that was not. Random numbers
are those of the run's seed and the question's id, whatever was asked before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from time import perf_counter

import torch

from omnivox.errors import ConfigError, DataError
from omnivox.evaluate.folder import Answered, Journal, RunFolder, Score, settings_key
from omnivox.evaluate.measure import Answer, Measure
from omnivox.evaluate.pace import lagging_words
from omnivox.evaluate.questions import Question, QuestionSet
from omnivox.progress import bars
from omnivox.runtime.events import Audio, Done, Reply, Text
from omnivox.systems.system import System
from omnivox.writing import alone

MEASURED_AT_ONCE = 16  # answers: what a killed process loses
ALL_FAIL = 5  # questions in a row that may fail before there is any answer


def parse_shard(text: str) -> tuple[int, int]:
    """"I/N", I from 0. Raises ConfigError."""
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise ConfigError(f"--shard: found {text!r}; expected I/N with I from 0 to N - 1, such as 0/4")
    return int(index), int(count)


# -- answering --------------------------------------------------------------------------------------------------------

def answer(system: System, questions: QuestionSet, folder: Path, *, spec: str | None = None, limit: int | None = None,
           shard: tuple[int, int] | None = None, seed: int = 0, echo: bool = True) -> RunFolder:
    """Ask every question that has no answer yet; those on which the system failed are asked again.

    spec: what the user called the system; its name, if None. limit: the first so many questions. shard: (i, n), every
    n-th question from the i-th. A failure is recorded and counted. Raises DataError: the folder holds another run,
    another process answers there, or nothing is answered.
    """
    run = RunFolder(folder)
    part = folder if shard is None else folder / f"shard-{shard[0]}-of-{shard[1]}"
    with alone(part, "answering"):
        run.claim(system.name, spec or system.name, system.settings(), questions, seed)
        wanted = range(min(limit or len(questions), len(questions)))
        there = {identity for identity, row in run.answers().items() if row.error is None}
        mine = wanted if shard is None else wanted[shard[0]::shard[1]]
        missing = [index for index in mine if questions.ids[index] not in there]
        if not missing:
            return run
        run.same_machine()
        _warm_up(system, questions[missing[0]], seed)
        with closing(Journal(part / "answers.jsonl")) as journal, bars(shown=echo) as shown:
            task = shown.add_task(folder.name, total=len(mine), completed=len(mine) - len(missing))
            failed = 0
            for index in missing:
                row = ask(system, questions[index], run, seed)
                journal.append(row)
                shown.advance(task)
                failed += row.error is not None
                if failed == ALL_FAIL and not any(one.error is None for one in run.answers().values()):
                    raise DataError(f"{folder}: {system.name} answered none of {failed} questions; the last: "
                                    f"{row.error}")
    return run


def _warm_up(system: System, question: Question, seed: int) -> None:
    """The first reply of a process takes longer than any other."""
    try:
        _seed(seed, question.id)
        for _ in system.respond(question.audio):
            pass
    except Exception:  # noqa: S110  it will fail again, and be recorded then
        pass


def ask(system: System, question: Question, run: RunFolder, seed: int) -> Answered:
    """What the system answers, its sound kept; or its error."""
    _seed(seed, question.id)
    words = ""
    lagging: int | None = None
    text_done: float | None = None
    reply: Reply | None = None
    asked = perf_counter()
    try:
        for event in system.respond(question.audio):
            match event:
                case Text(delta):
                    words += delta
                    text_done = perf_counter() - asked
                case Audio(samples) if lagging is None and len(samples):
                    lagging = lagging_words(words)
                case Done(whole):
                    reply = whole
        if reply is None:
            raise RuntimeError("the reply has no end")
    except Exception as error:  # whatever a system raises is its failure
        told = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
        return Answered(question.id, question.text, error=_whole(told))
    sound = reply.audio.detach().float().cpu()
    return Answered(question.id, question.text, _whole(reply.text),
                    run.keep_sound(question.id, sound, reply.sample_rate) if len(sound) else None, reply.sample_rate,
                    len(sound) / reply.sample_rate, asdict(reply.timings), text_done, len(reply.units),
                    lagging)


def _whole(text: str) -> str:
    """`text` as it can be written: a server may have cut a character in two, or sent one half of it alone."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _seed(seed: int, identity: str) -> None:
    torch.manual_seed(int.from_bytes(hashlib.sha256(f"{seed} {identity}".encode()).digest()[:6], "big"))


# -- measuring --------------------------------------------------------------------------------------------------------

def measure(run: RunFolder, measures: Iterable[Measure], questions: QuestionSet, *, limit: int | None = None,
            echo: bool = True) -> None:
    """Measure every answer that these measures, with these settings, have not measured yet.

    Raises DataError: another process measures there.
    """
    with alone(run.path / "measuring", "measuring"):
        answers = run.answers()
        speaks = any(row.audio is not None for row in answers.values())
        expected = dict(zip(questions.ids[:limit], questions.answers, strict=False))
        done = run.scores().keys()
        with closing(Journal(run.path / "scores.jsonl")) as journal, bars(shown=echo) as shown:
            for one in measures:
                settings = dict(one.settings())
                key = settings_key(settings)
                missing = [row for identity in expected if (row := answers.get(identity)) is not None
                           and row.error is None and (identity, one.name, key) not in done]
                task = shown.add_task(f"{run.path.name}: {one.name}", total=len(missing), visible=bool(missing))
                for start in range(0, len(missing), MEASURED_AT_ONCE):
                    some = missing[start:start + MEASURED_AT_ONCE]
                    heard = [_heard(run, row, speaks, expected[row.id]) for row in some]
                    values = one.measure(heard)
                    journal.append(*(Score(row.id, one.name, value.value, dict(value.detail), value.why, settings)
                                     for row, value in zip(some, values, strict=True)))
                    shown.advance(task, len(some))


def _heard(run: RunFolder, row: Answered, speaks: bool, expected: str | None) -> Answer:
    """speaks: whether the system does at all; then an answer without sound is an empty one."""
    sound = run.sound(row)
    return Answer(id=row.id, question=row.question, text=row.text, sample_rate=row.sample_rate, expected=expected,
                  audio=torch.zeros(0) if sound is None and speaks else sound)
