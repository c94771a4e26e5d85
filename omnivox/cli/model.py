"""`omnivox info`, `convert`, `evaluate` and `train`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from omnivox.cli.options import Device, DtypeOption, Json, Precision, Vocoder, Whisper, clear_errors, load
from omnivox.errors import ConfigError


def info(
    model: Annotated[str, typer.Argument(metavar="MODEL", help='"nano", a folder, or a hub name.')],
    whisper: Whisper = None,
    vocoder: Vocoder = None,
    as_json: Json = False,
) -> None:
    """Sizes, rates and settings of a model.

    Examples:

      omnivox info nano

      omnivox info path/to/model --json | jq .parameters
    """
    with clear_errors():
        from omnivox.runtime.describe import describe

        facts = describe(load(model, Device.CPU, Precision.AUTO, whisper, vocoder))
        if as_json:
            typer.echo(json.dumps(facts))
        else:
            _show_facts(facts)


def convert(
    source: Annotated[str, typer.Argument(metavar="SRC", help="A published folder or hub name, or a folder of ours.")],
    destination: Annotated[Path, typer.Argument(metavar="DST", help="Folder to write; it must not hold files yet.")],
    whisper: Whisper = None,
    vocoder: Vocoder = None,
    dtype: DtypeOption = Precision.AUTO,
) -> None:
    """Rewrite a checkpoint in our layout: config.json, safetensors, tokenizer.

    Example:

      omnivox convert path/to/Llama-3.1-8B-Omni my-model --whisper large-v3.pt --vocoder path/to/vocoder
    """
    with clear_errors():
        from omnivox.checkpoint import convert as rewrite

        rewrite(source, destination, whisper=whisper, vocoder=vocoder, dtype=dtype.value)
        typer.echo(f"wrote {destination}", err=True)


def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help='"nano", or a folder of one trained like it.')],
    limit: Annotated[int | None, typer.Option(min=1, help="Questions of each kind at most; default: all.")] = None,
    work: Annotated[Path | None, typer.Option(help="Folder to keep the replies in.")] = None,
) -> None:
    """Score the bundled model on held-out questions; the last line of stdout is JSON.

    Example:

      omnivox evaluate nano --limit 20
    """
    with clear_errors():
        from omnivox.nano.evaluate import evaluate as score

        typer.echo(json.dumps(score(model, limit=limit, work=work)))


def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help='"nano", the bundled model.')],
    step: Annotated[str, typer.Argument(metavar="STEP", help="sentences, words, questions, exams, answers, language, "
                                                             "encoder, units, vocoder, stage1, stage2 or assemble.")],
    work: Annotated[Path, typer.Option(help="Folder of the run; what is done in it is kept.")] = Path("build/nano"),
    scale: Annotated[float, typer.Option(min=0.001, help="Shortens data and training, to try the steps out.")] = 1.0,
) -> None:
    """Run one step of a recipe; killed, it goes on from its last checkpoint.

    Examples:

      omnivox train nano sentences

      omnivox train nano stage1 --work build/nano
    """
    with clear_errors():
        if recipe != "nano":
            raise ConfigError(f"RECIPE: found {recipe!r}; expected nano")
        from omnivox.train.nano import NanoTraining, run_step
        from omnivox.train.recipes import nano

        run_step(NanoTraining(work, nano(scale=scale)), step)


def _show_facts(facts: dict[str, dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, box=None)
    for group, values in facts.items():
        table.add_row(f"[bold]{group}[/bold]")
        for name, value in values.items():
            plain = isinstance(value, bool | str)
            table.add_row("  " + name.replace("_", " "), str(value) if plain else f"{value:,}")
    Console().print(table)
