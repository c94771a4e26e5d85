"""From the flags of `omnivox data` to stages, and what is said about them.

Flags are a command's own, by the names of its parameters: fields of settings have the same names.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from omnivox.cli.options import clear_errors
from omnivox.errors import ConfigError, DataError

if TYPE_CHECKING:
    from omnivox.data.build import LLMSettings
    from omnivox.data.manifest import Manifest
    from omnivox.data.stage import Stage

T = TypeVar("T")
Flags = Mapping[str, Any]


@contextmanager
def working() -> Iterator[None]:
    """Errors in one line; SIGTERM ends the work as Ctrl-C does; a missing package is told by its extra."""
    from omnivox.stopping import stoppable

    with clear_errors(), stoppable():
        try:
            yield
        except ImportError as error:
            raise ConfigError(f"data: a Python package is missing ({error}); install it with: "
                              "pip install 'omnivox[data]'") from error


def build(flags: Flags) -> None:
    """Every stage. Those of speech are put together before the first begins: what they lack is told at once."""
    with working():
        text = [rewrite(flags), answer(flags)]
        speech = [] if flags["dry_run"] else [speak(flags), quantise(flags), filtering(flags), writing()]
        collect(flags)
        if agreed(text, flags):
            run([*text, *(stage for stage in speech if stage)], flags)
            finish(flags["out"])


def alone(name: str, flags: Flags) -> None:
    """One stage, over what the one before it wrote."""
    with working():
        if name == "sources":
            collect(flags)
        elif name in ("rewrite", "answer"):
            stage = rewrite(flags) if name == "rewrite" else answer(flags)
            if agreed([stage], flags):
                run([stage], flags)
        else:
            run([_of_speech(name, flags)], flags)
            if name == "write":
                finish(flags["build"])


def _of_speech(name: str, flags: Flags) -> Stage:
    if name == "quantise":
        if (stage := quantise(flags)) is None:
            raise ConfigError("--quantiser: is missing; expected a HuBERT with --centres, or a units.safetensors")
        return stage
    if name == "write":
        return writing()
    return speak(flags) if name == "speak" else filtering(flags)


# -- from flags to stages ---------------------------------------------------------------------------------------------

def picked(kind: type[T], flags: Flags, **more: Any) -> T:
    """Settings whose fields are the flags of the same names, and `more`."""
    names = (one.name for one in fields(kind))  # type: ignore[arg-type]
    return kind(**{name: flags[name] for name in names if name in flags} | more)


def llm_settings(flags: Flags) -> LLMSettings:
    """Who rewrites and answers."""
    from omnivox.data.build import LLMSettings

    return picked(LLMSettings, flags, by=flags["llm"], model=flags["llm_model"], api_key=flags["llm_key"] or None)


def collect(flags: Flags) -> None:
    """Stage 1."""
    from omnivox.data.sources import SourceSettings
    from omnivox.data.sources import collect as write_rows

    tell(write_rows(picked(SourceSettings, flags, sources=tuple(flags["sources"])), flags["out"]), flags["out"])


def rewrite(flags: Flags) -> Stage:
    """Stage 2."""
    from omnivox.data.build import rewrite_stage
    from omnivox.data.rewrite import RewriteSettings

    return rewrite_stage(llm_settings(flags), picked(RewriteSettings, flags))


def answer(flags: Flags) -> Stage:
    """Stage 3."""
    from omnivox.data.answer import AnswerSettings
    from omnivox.data.build import answer_stage

    return answer_stage(llm_settings(flags), picked(AnswerSettings, flags))


def speak(flags: Flags) -> Stage:
    """Stage 4. In each of many workers one utterance at a time: they are many."""
    from omnivox.data.spoken import VoiceSettings, names, speak_stage

    return speak_stage(VoiceSettings(
        flags["question_voices"], flags["answer_voice"], names(flags["female_voices"] or []),
        names(flags["male_voices"] or []), flags["answer_name"], flags["tts_url"], flags["tts_model"],
        flags["tts_key"] or None, flags["seed"], flags["device"],
        flags["tts_concurrency"] or (1 if flags["ray"] else None)))


def quantise(flags: Flags) -> Stage | None:
    """Stage 5; None without a quantiser."""
    from omnivox.data.spoken import QuantiserSettings, quantise_stage

    return quantise_stage(picked(QuantiserSettings, flags))


def filtering(flags: Flags) -> Stage:
    """Stage 6."""
    from omnivox.data.filter import FilterSettings
    from omnivox.data.spoken import filter_stage

    settings = picked(FilterSettings, flags, script="LATIN" if flags["language"] == "English" else None)
    return filter_stage(settings, flags["recogniser"], flags["device"], flags["language"])


def writing() -> Stage:
    """Stage 7."""
    from omnivox.data.write import WriteStage

    return WriteStage()


# -- running them -----------------------------------------------------------------------------------------------------

def agreed(stages: Sequence[Stage], flags: Flags) -> bool:
    """Tell what a model will be asked, and ask whether to go on if that may cost. Raises ConfigError: there is nobody
    to ask."""
    from omnivox.data.build import LOCAL, estimates
    from omnivox.data.estimate import Rates

    rates = Rates(flags["price_in"], flags["price_out"], concurrency=flags["concurrency"])
    found = estimates(stages, _folder(flags), rates)
    for one in found:
        typer.echo(str(one), err=True)
    if flags["dry_run"]:
        if not found:
            typer.echo("no model will be asked", err=True)
        return False
    if flags["yes"] or flags["llm"] == LOCAL or not sum(one.calls for one in found):
        return True
    if not sys.stdin.isatty():
        raise ConfigError("--yes: is missing; add it to begin with this estimate, or --dry-run to see it alone")
    return typer.confirm("Begin?", err=True)


def run(stages: Sequence[Stage], flags: Flags) -> None:
    """One stage after another, each over the rows of the one before it, and say how many rows went on.

    Raises DataError: none is left.
    """
    from omnivox.data.build import before
    from omnivox.data.build import runner as fitting
    from omnivox.data.manifest import StageFolder
    from omnivox.data.spoken import ray_runner
    from omnivox.data.stage import in_turn, run_stage

    folder, spread = _folder(flags), ray_runner(flags.get("ray"), flags.get("gpus", 0.0))
    for stage in stages:
        way = fitting(stage, in_turn if stage.name == "write" else spread)
        manifest = run_stage(stage, folder, before(stage.name, folder), way)
        tell(manifest, folder)
        if not manifest.rows:
            reason = StageFolder(folder, stage.name).first_reason()
            raise DataError(f"{folder / stage.name}: no row is left; the first was left out because: {reason}")


def _folder(flags: Flags) -> Path:
    """Of the build."""
    return Path(flags["build"] if "build" in flags else flags["out"])


def tell(manifest: Manifest, build: Path) -> None:
    """A line on stderr about a finished stage: rows, and why others were left out, the commonest reason first."""
    from omnivox.data.manifest import StageFolder

    folder, left = StageFolder(build, manifest.stage), ""
    if manifest.rejected:
        why = ", ".join(f"{reason} {count:,}" for reason, count in folder.reasons().most_common())
        left = f", {manifest.rejected:,} left out ({why}; each with its row: {folder.path / 'rejected.jsonl'})"
    typer.echo(f"{manifest.stage}: {manifest.rows:,} rows{left}", err=True)


def finish(build: Path) -> None:
    """The card and the page; the folder of the data set on stdout."""
    from omnivox.data.card import finish_dataset

    folder = finish_dataset(build)
    figures = json.loads((folder / "card.json").read_text(encoding="utf-8"))["figures"]
    heard = [f"{side}s {figures[f'{side}_wer']:.2f} ({figures[f'{side}s_judged']:,} of {figures['conversations']:,} "
             "judged)" for side in ("question", "answer") if f"{side}_wer" in figures]
    typer.echo(f"word error rates: {', '.join(heard) or 'not measured, for there was no --recogniser'}", err=True)
    typer.echo(str(folder))
