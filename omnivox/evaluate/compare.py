"""Several systems, one set of questions, the same measures: each system in a folder of its own.

    WORK/SET/SYSTEM/        a run's folder, named after the set of questions and the system as it was asked for
    WORK/SET/absent.json    systems that could not be had, each with the reason
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from omnivox.errors import CheckpointError, ConfigError, OmnivoxError
from omnivox.evaluate.folder import RunFolder, reasons
from omnivox.evaluate.measure import Measure
from omnivox.evaluate.measures import MeasureOptions, find_measure, named
from omnivox.evaluate.questions import QuestionSet, find_questions
from omnivox.evaluate.run import answer, measure
from omnivox.systems.find import find_system
from omnivox.systems.system import System
from omnivox.writing import atomic

ABSENT = "absent.json"
KEYED = ("realtime", "cascade")  # systems that take an API key
LONGEST = 100  # characters of a folder's name


@dataclass(frozen=True)
class Asked:
    """What is asked of every system. measures: by their names. limit, shard, seed: as `run.answer`."""

    questions: str = "nano"
    measures: Sequence[str] = ()
    limit: int | None = None
    shard: tuple[int, int] | None = None
    seed: int = 0


def compare(specs: Sequence[str], work: Path, asked: Asked, options: MeasureOptions, *, api_key: str | None = None,
            skip: bool = False, echo: bool = True) -> list[RunFolder]:
    """Every system's answers, measured. Measures that cannot be had are noted in each run's folder.

    skip: leave out systems that cannot be had, and note why beside the runs. Raises OmnivoxError: a system cannot be
    had. ConfigError: a measure has no such name. DataError: a folder holds another run.
    """
    questions = find_questions(asked.questions)
    measures, missing = _measures(asked.measures, options)
    runs, absent = list[RunFolder](), dict[str, str]()
    for spec in specs:
        given = {"api_key": api_key} if api_key and spec.partition(":")[0] in KEYED else {}
        try:
            system = find_system(spec, **given)
        except OmnivoxError as error:
            if not skip:
                raise
            absent[spec] = str(error)
        else:
            runs.append(_one(system, spec, work, questions, asked, measures, missing, echo))
    if absent:
        _keep_absent(work / slug(questions.name), absent)
    return runs


def _keep_absent(folder: Path, absent: Mapping[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with atomic(folder / ABSENT) as temporary:
        temporary.write_text(json.dumps(absent_systems(folder) | dict(absent), indent=1) + "\n", encoding="utf-8")


def absent_systems(folder: Path) -> dict[str, str]:
    """Systems that could not be had for a set of questions, and why. Raises DataError: that cannot be read."""
    return reasons(folder / ABSENT)


def _measures(names: Sequence[str], options: MeasureOptions) -> tuple[list[Measure], dict[str, str]]:
    """Those that can be had, and why the others cannot. Raises ConfigError: a name that there is not."""
    there, missing = list[Measure](), dict[str, str]()
    for name in named(names, options.judge_version):
        try:
            there.append(find_measure(name, options))
        except (ConfigError, CheckpointError) as error:
            missing[name] = str(error)
    return there, missing


def _one(system: System, spec: str, work: Path, questions: QuestionSet, asked: Asked, measures: Sequence[Measure],
         missing: Mapping[str, str], echo: bool) -> RunFolder:
    run = answer(system, questions, work / slug(questions.name) / slug(spec), spec=spec, limit=asked.limit,
                 shard=asked.shard, seed=asked.seed, echo=echo)
    if measures:
        measure(run, measures, questions, limit=asked.limit, echo=echo)
    run.keep_unavailable(missing, measured=[one.name for one in measures])
    return run


def slug(text: str) -> str:
    """A folder's name for a system or a set."""
    name = re.sub(r"[^\w.-]+", "-", text).strip("-.") or "unnamed"
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return name if len(name) <= LONGEST else f"{name[:LONGEST]}-{digest}"
