"""The command line. Bodies are short and import what they need themselves, so that `--help` is quick.

Exit status: 0 well, 1 the machine failed (a full disk), 2 bad usage or bad input (one line on stderr), 130 Ctrl-C.
"""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer

from omnivox.cli import bench, data, evaluate, model, serve, talk, train

app = typer.Typer(name="omnivox", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
                  help="Speak and be answered: text and speech together, streamed.")


@app.callback(invoke_without_command=True, no_args_is_help=True)
def main(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    """Speak and be answered: text and speech together, streamed."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a character that it lacks is no reason to fail; stderr knows that
        sys.stdout.reconfigure(errors="replace")
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"omnivox {installed('omnivox')}")
        raise typer.Exit


app.command(no_args_is_help=True)(talk.respond)
app.command()(talk.chat)
app.command()(serve.serve)
app.command()(bench.bench)
for command in (model.info, model.convert, evaluate.evaluate, train.train):
    app.command(no_args_is_help=True)(command)
app.add_typer(data.data, name="data")
