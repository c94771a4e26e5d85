"""`omnivox respond` and `omnivox chat`."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from omnivox.cli.options import (
    Device,
    DeviceOption,
    DtypeOption,
    Json,
    Lookahead,
    MaxNewTokens,
    Model,
    Omega,
    Precision,
    Seed,
    Temperature,
    TopP,
    Vocoder,
    Whisper,
    clear_errors,
    load,
)
from omnivox.errors import ConfigError
from omnivox.stopping import stoppable

if TYPE_CHECKING:
    from omnivox.runtime.chat import SoundDevice
    from omnivox.runtime.events import Done
    from omnivox.runtime.respond import Omni


def respond(
    question: Annotated[Path, typer.Argument(metavar="QUESTION.wav", help="A spoken question: wav, flac, mp3 or ogg.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the spoken reply here, as wav.")] = None,
    model: Model = "nano",
    omega: Omega = 10,
    lookahead: Lookahead = None,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    seed: Seed = 0,
    max_new_tokens: MaxNewTokens = 256,
    device: DeviceOption = Device.AUTO,
    dtype: DtypeOption = Precision.AUTO,
    whisper: Whisper = None,
    vocoder: Vocoder = None,
    as_json: Json = False,
) -> None:
    """Answer one spoken question.

    The text appears as it is made; timings follow on stderr.

    Examples:

      omnivox respond question.wav -o reply.wav

      omnivox respond question.wav --omega 40 --temperature 0.7 --seed 1

      omnivox respond question.wav --json | jq .text
    """
    with clear_errors(), stoppable():
        if output is not None:
            _check_output(output)
        omni = load(model, device, dtype, whisper, vocoder)
        done = _stream(omni, question, quiet=as_json, chunk_units=omega, lookahead=lookahead, temperature=temperature,
                       top_p=top_p, seed=seed, max_new_tokens=max_new_tokens)
        if output is not None:
            from omnivox.sound import write_wav

            write_wav(output, done.reply.audio, done.reply.sample_rate)
        if as_json:
            typer.echo(json.dumps(_as_json(done, output)))
        else:
            _show_timings(done, output)


def chat(
    model: Model = "nano",
    omega: Omega = 10,
    lookahead: Lookahead = None,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    seed: Seed = 0,
    max_new_tokens: MaxNewTokens = 256,
    silence_ms: Annotated[float, typer.Option(min=32.0, help="A pause this long ends your turn.")] = 500.0,
    server: Annotated[str | None, typer.Option(metavar="URL", help="Talk with a Realtime server instead, ours or a "
                                                                   "hosted one: ws://127.0.0.1:8000")] = None,
    api_key: Annotated[str | None, typer.Option(envvar="OMNIVOX_API_KEY", help="The server's key.")] = None,
    headphones: Annotated[bool, typer.Option("--headphones", help="With --server: listen while an answer plays, so "
                                                                  "that you can speak over it. Loudspeakers would make "
                                                                  "it interrupt itself.")] = False,
    device: DeviceOption = Device.AUTO,
    dtype: DtypeOption = Precision.AUTO,
    whisper: Whisper = None,
    vocoder: Vocoder = None,
) -> None:
    """Talk through microphone and speaker; Ctrl-C ends it.

    Needs `pip install 'omnivox\\[chat]'`. It does not listen while it speaks, unless you wear --headphones.

    Examples:

      omnivox chat

      omnivox chat --silence-ms 800

      omnivox chat --server ws://127.0.0.1:8000 --headphones
    """
    from omnivox.runtime import chat as talking
    from omnivox.runtime.turns import Silero, TurnSettings

    settings = {"chunk_units": omega, "lookahead": lookahead, "temperature": temperature, "top_p": top_p, "seed": seed,
                "max_new_tokens": max_new_tokens}
    with clear_errors():
        if server is not None and (whisper or vocoder or device != Device.AUTO or dtype != Precision.AUTO):
            raise ConfigError("--device, --dtype, --whisper, --vocoder: the server decides; leave them out")
        if headphones and server is None:
            raise ConfigError("--headphones: needs a server that notices when you speak; add --server URL")
        with talking.SoundDevice() as sound:
            if server is not None:
                events = _talk(sound, server, settings, api_key=api_key or None, model=model, silence_ms=silence_ms,
                               headphones=headphones)
            else:
                omni = load(model, device, dtype, whisper, vocoder)
                events = talking.converse(omni, sound, Silero(), TurnSettings(silence_ms=silence_ms), **settings)
            typer.echo("Listening. Ctrl-C ends.", err=True)
            for event in events:
                _show_talk(event)


def _check_output(output: Path) -> None:
    """Before the long work. Raises ConfigError."""
    if not output.parent.is_dir():
        raise ConfigError(f"--output {output}: {output.parent} is no folder; create it first")
    if output.is_dir():
        raise ConfigError(f"--output {output}: is a folder; name a file in it, such as {output / 'reply.wav'}")
    if output.suffix.lower() not in ("", ".wav"):
        raise ConfigError(f"--output {output}: a reply is written as wav; end its name in .wav")


def _talk(sound: SoundDevice, server: str, settings: dict[str, Any], **options: Any) -> Iterator[object]:
    """A conversation with a server, which is told only of the settings that are not the usual ones."""
    from omnivox.runtime.remote import talk

    usual = {"chunk_units": 10, "lookahead": None, "temperature": 0.0, "top_p": 1.0, "seed": 0, "max_new_tokens": 256}
    return talk(server, sound, **options, **{name: value for name, value in settings.items() if value != usual[name]})


def _show_talk(event: object) -> None:
    from omnivox.runtime.events import Done, Text
    from omnivox.runtime.remote import Interrupted, Said

    match event:
        case Said(text):
            typer.echo(f"> {text}", err=True)
        case Text(delta):
            typer.echo(delta, nl=False)
        case Interrupted():
            typer.echo(" -")
        case Done():
            typer.echo()


def _stream(omni: Omni, question: Path, *, quiet: bool, **settings: Any) -> Done:
    """Answer `question`, its text on stdout as it comes unless `quiet`."""
    from omnivox.runtime.events import Done, Text

    for event in omni.respond(question, **settings):
        if isinstance(event, Text) and not quiet:
            sys.stdout.write(event.delta)
            sys.stdout.flush()
        elif isinstance(event, Done):
            if not quiet:
                typer.echo()
            return event
    raise AssertionError("a reply ends in Done")


def _as_json(done: Done, output: Path | None) -> dict[str, Any]:
    reply = done.reply
    return {
        "text": reply.text,
        "units": list(reply.units),
        "sample_rate": reply.sample_rate,
        "output": None if output is None else str(output),
        "cut": reply.cut,
        "timings": dataclasses.asdict(reply.timings),
    }


def _show_timings(done: Done, output: Path | None) -> None:
    from rich.console import Console
    from rich.table import Table

    reply = done.reply
    table = Table(show_header=False, box=None)
    timings = dataclasses.asdict(reply.timings)
    table.add_row("speech", f"{timings.pop('audio_seconds'):.2f} s")
    table.add_row("real-time factor", f"{timings.pop('real_time_factor'):.3f}")
    for name, seconds in timings.items():
        table.add_row(name.replace("_", " "), f"{1000 * seconds:.0f} ms")
    Console(stderr=True).print(table)
    if output is not None:
        typer.echo(f"wrote {output}", err=True)
