"""From the flags of `omnivox data` to stages, and what is said about them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from omnivox.cli.options import clear_errors
from omnivox.errors import ConfigError

if TYPE_CHECKING:
    from omnivox.data.build import LLMSettings
    from omnivox.data.manifest import Manifest
    from omnivox.data.stage import Runner, Stage


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


def collect(sources: Sequence[str], out: Path, **settings: Any) -> None:
    """Stage 1."""
    from omnivox.data.sources import SourceSettings
    from omnivox.data.sources import collect as write_rows

    tell(write_rows(SourceSettings(tuple(sources), **settings), out), out)


def llm_settings(by: str, model: str | None, key: str | None, **settings: Any) -> LLMSettings:
    """Who rewrites and answers."""
    from omnivox.data.build import LLMSettings

    return LLMSettings(by, model, key or None, **settings)


def rewrite(llm: LLMSettings, **settings: Any) -> Stage:
    """Stage 2."""
    from omnivox.data.build import rewrite_stage
    from omnivox.data.rewrite import RewriteSettings

    return rewrite_stage(llm, RewriteSettings(**settings))


def answer(llm: LLMSettings, **settings: Any) -> Stage:
    """Stage 3."""
    from omnivox.data.answer import AnswerSettings
    from omnivox.data.build import answer_stage

    return answer_stage(llm, AnswerSettings(**settings))


def agreed(stages: Sequence[Stage], build: Path, llm: LLMSettings, *, price_in: float, price_out: float, yes: bool,
           dry_run: bool) -> bool:
    """Tell what an endpoint will be asked, and ask whether to go on. Raises ConfigError: there is nobody to ask."""
    from omnivox.data.build import estimates
    from omnivox.data.estimate import Rates

    found = estimates(stages, build, Rates(price_in, price_out, concurrency=llm.concurrency))
    for one in found:
        typer.echo(str(one), err=True)
    if dry_run:
        if not found:
            typer.echo("no endpoint will be called", err=True)
        return False
    if yes or not sum(one.calls for one in found):
        return True
    if not sys.stdin.isatty():
        raise ConfigError("--yes: is missing; add it to begin with this estimate, or --dry-run to see it alone")
    return typer.confirm("Begin?", err=True)


def speak(*, question_voices: str, answer_voice: str, female: list[str] | None, male: list[str] | None,
          **settings: Any) -> Stage:
    """Stage 4."""
    from omnivox.data.spoken import VoiceSettings, names, speak_stage

    return speak_stage(VoiceSettings(question_voices, answer_voice, names(female or []), names(male or []), **settings))


def quantise(*settings: Any) -> Stage | None:
    """Stage 5; None without a quantiser."""
    from omnivox.data.spoken import QuantiserSettings, quantise_stage

    name, centres, layer, device = settings
    return quantise_stage(QuantiserSettings(name, centres, layer, device=device))


def filtering(recogniser: str, language: str, device: str, **limits: Any) -> Stage:
    """Stage 6."""
    from omnivox.data.filter import FilterSettings
    from omnivox.data.spoken import filter_stage

    settings = FilterSettings(script="LATIN" if language == "English" else None, **limits)
    return filter_stage(settings, recogniser, device, "en" if language == "English" else language.lower())


def writing() -> Stage:
    """Stage 7."""
    from omnivox.data.spoken import write_stage

    return write_stage()


def on(workers: int | None, gpus: float) -> Runner:
    """Ray with so many workers, or this process."""
    from omnivox.data.spoken import ray_runner

    return ray_runner(workers, gpus)


def run(stages: Sequence[Stage], build: Path, workers: int | None = None, gpus: float = 0.0) -> None:
    """One stage after another, each over the rows of the one before it, and say how many rows went on."""
    from omnivox.data.build import before
    from omnivox.data.build import runner as fitting
    from omnivox.data.stage import in_turn, run_stage

    for stage in stages:
        way = fitting(stage, in_turn if workers is None or stage.name == "write" else on(workers, gpus))
        tell(run_stage(stage, build, before(stage.name, build), way), build)


def tell(manifest: Manifest, build: Path) -> None:
    """A line on stderr about a finished stage."""
    left = f", {manifest.rejected:,} left out (why: {build / manifest.stage / 'rejected.jsonl'})"
    typer.echo(f"{manifest.stage}: {manifest.rows:,} rows{left if manifest.rejected else ''}", err=True)


def finish(build: Path) -> None:
    """The card and the page; the folder of the data set on stdout."""
    from omnivox.data.card import finish_dataset

    typer.echo(str(finish_dataset(build)))
