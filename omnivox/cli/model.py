"""`omnivox info` and `convert`."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from omnivox.cli.options import Device, Json, Precision, Vocoder, Whisper, clear_errors, load
from omnivox.stopping import stoppable


class Stored(StrEnum):
    """The number format of weights in files."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"
    INT8 = "int8"


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
    dtype: Annotated[Stored, typer.Option(help="Number format of the weights in the files; int8: matrices, with a "
                                               "scale for each row, half of float16.")] = Stored.AUTO,
) -> None:
    """Rewrite a checkpoint in our layout: config.json, safetensors, tokenizer.

    Examples:

      omnivox convert path/to/Llama-3.1-8B-Omni my-model --whisper large-v3.pt --vocoder path/to/vocoder

      omnivox convert my-model my-small-model --dtype int8
    """
    with clear_errors(), stoppable():
        from omnivox.checkpoint import convert as rewrite
        from omnivox.checkpoint.layout import VOCODER_FILE

        rewrite(source, destination, whisper=whisper, vocoder=vocoder, dtype=dtype.value)
        typer.echo(f"wrote {destination}", err=True)
        if not (destination / VOCODER_FILE).exists():
            typer.echo("omnivox: it holds no vocoder, so it can write but not speak; convert with --vocoder to give it "
                       "one", err=True)


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
