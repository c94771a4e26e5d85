"""The command line. Bodies are short and import what they need themselves, so that `--help` is quick.

Exit status: 0 well, 1 the machine failed (a full disk), 2 bad usage or bad input (one line on stderr), 130 Ctrl-C.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from omnivox.errors import ConfigError, OmnivoxError

if TYPE_CHECKING:
    from omnivox.runtime.chat import SoundDevice
    from omnivox.runtime.events import Done
    from omnivox.runtime.respond import Omni
    from omnivox.serve.settings import ServeSettings

app = typer.Typer(name="omnivox", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
                  help="Speak and be answered: text and speech together, streamed.")


class Device(StrEnum):
    """Where the model runs."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    MPS = "mps"


class Precision(StrEnum):
    """The number format of weights and activations."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


Model = Annotated[str, typer.Option(help='"nano" (bundled), a folder, or a name on the Hugging Face hub.')]
DeviceOption = Annotated[Device, typer.Option(help="Where to run.")]
DtypeOption = Annotated[Precision, typer.Option(help="Number format of the weights.")]
Whisper = Annotated[Path | None, typer.Option(help="Whisper's weights, for a published checkpoint without them: "
                                                   "OpenAI's .pt or a Hugging Face folder.")]
Vocoder = Annotated[Path | None, typer.Option(help="Unit vocoder of a published checkpoint: a folder with "
                                                   "g_00500000 and config.json, or that file.")]
Omega = Annotated[int, typer.Option(min=1, help="Ω: units that are spoken at once; fewer sound sooner.")]
Lookahead = Annotated[int | None, typer.Option(min=0, help="Frames the vocoder waits for; default: until exact.")]
Temperature = Annotated[float, typer.Option(min=0.0, help="0 is greedy.")]
TopP = Annotated[float, typer.Option(min=0.0, max=1.0, help="Nucleus sampling, where the temperature is above 0.")]
Seed = Annotated[int, typer.Option(help="Of the sampler.")]
MaxNewTokens = Annotated[int, typer.Option(min=1, help="Length at which a reply is cut.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout and nothing else.")]


@app.callback(invoke_without_command=True, no_args_is_help=True)
def main(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    """Speak and be answered: text and speech together, streamed."""
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"omnivox {installed('omnivox')}")
        raise typer.Exit


@app.command(no_args_is_help=True)
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
    with clear_errors():
        if output is not None and not output.parent.is_dir():
            raise ConfigError(f"--output {output}: {output.parent} is no folder; create it first")
        omni = _load(model, device, dtype, whisper, vocoder)
        done = _stream(omni, question, quiet=as_json, chunk_units=omega, lookahead=lookahead, temperature=temperature,
                       top_p=top_p, seed=seed, max_new_tokens=max_new_tokens)
        if output is not None:
            from omnivox.sound import write_wav

            write_wav(output, done.reply.audio, done.reply.sample_rate)
        if as_json:
            typer.echo(json.dumps(_as_json(done, output)))
        else:
            _show_timings(done, output)


@app.command()
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

    Needs `pip install 'omnivox[chat]'`. It does not listen while it speaks, unless you wear --headphones.

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
                omni = _load(model, device, dtype, whisper, vocoder)
                events = talking.converse(omni, sound, Silero(), TurnSettings(silence_ms=silence_ms), **settings)
            typer.echo("Listening. Ctrl-C ends.", err=True)
            for event in events:
                _show_talk(event)


@app.command()
def serve(
    model: Model = "nano",
    host: Annotated[str, typer.Option(help="Address to listen on; beyond loopback a key is demanded.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    api_key: Annotated[list[str] | None, typer.Option(envvar="OMNIVOX_API_KEYS", help="A key that clients must have; "
                                                                                      "may be given again.")] = None,
    allow_public: Annotated[bool, typer.Option("--allow-public", help="Listen beyond loopback without a key.")] = False,
    allow_origin: Annotated[list[str] | None, typer.Option(help="Site whose pages may connect, such as "
                                                                "https://example.com; may be given again.")] = None,
    slots: Annotated[int, typer.Option(min=1, help="Replies made at once.")] = 8,
    queue: Annotated[int, typer.Option(min=0, help="Replies that may wait for a slot.")] = 32,
    context: Annotated[int, typer.Option(min=64, help="Positions of the LLM that a conversation may take.")] = 2048,
    max_sessions: Annotated[int, typer.Option(min=1, help="Clients at once.")] = 64,
    drain_seconds: Annotated[float, typer.Option(min=0.0, help="For answers under way when it is told to end.")] = 10.0,
    log_content: Annotated[bool, typer.Option("--log-content", help="Write what is said into the log.")] = False,
    ray: Annotated[bool, typer.Option("--ray", help="As replicas of Ray Serve; needs 'omnivox[ray]'.")] = False,
    replicas: Annotated[int, typer.Option(min=1, help="With --ray.")] = 2,
    device: DeviceOption = Device.AUTO,
    dtype: DtypeOption = Precision.AUTO,
    whisper: Whisper = None,
    vocoder: Vocoder = None,
) -> None:
    """Serve many conversations: the OpenAI Realtime protocol, completions with sound, and a page to talk to.

    Needs `pip install 'omnivox[serve]'`. SIGTERM or Ctrl-C: no new sessions, answers under way end.

    Examples:

      omnivox serve

      OMNIVOX_API_KEYS=secret omnivox serve --host 0.0.0.0 --slots 16
    """
    with clear_errors():
        from omnivox.serve.settings import ServeSettings

        settings = ServeSettings(host, port, tuple(api_key or ()), allow_public, tuple(allow_origin or ()),
                                 max_sessions=max_sessions, drain_seconds=drain_seconds, log_content=log_content,
                                 model_name=Path(model).name)
        loading = {"device": device.value, "dtype": dtype.value, "whisper": whisper, "vocoder": vocoder}
        _serve(model, loading, {"slots": slots, "queue": queue, "context": context}, settings,
               replicas if ray else None)


@app.command(no_args_is_help=True)
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

        facts = describe(_load(model, Device.CPU, Precision.AUTO, whisper, vocoder))
        if as_json:
            typer.echo(json.dumps(facts))
        else:
            _show_facts(facts)


@app.command(no_args_is_help=True)
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


@app.command(no_args_is_help=True)
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


@app.command(no_args_is_help=True)
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


@contextmanager
def clear_errors() -> Iterator[None]:
    """One line on stderr and an exit status instead of a traceback, for what is not the programmer's fault."""
    try:
        yield
    except OmnivoxError as error:
        typer.echo(f"omnivox: {error}", err=True)
        raise typer.Exit(2) from error
    except OSError as error:
        typer.echo(f"omnivox: {error}", err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt as error:
        typer.echo(err=True)
        raise typer.Exit(130) from error


def _load(model: str, device: Device, dtype: Precision, whisper: Path | None, vocoder: Path | None) -> Omni:
    import omnivox

    return omnivox.load(model, device=device.value, dtype=dtype.value, whisper=whisper, vocoder=vocoder)


def _serve(model: str, loading: dict[str, Any], engine: dict[str, int], settings: ServeSettings,
           replicas: int | None) -> None:
    """Raises ConfigError where the server's packages are missing."""
    try:
        from omnivox.serve.guard import check_bind
        from omnivox.serve.run import serve as run
    except ImportError as error:
        raise ConfigError(f"serve: a Python package is missing ({error}); install it with: "
                          "pip install 'omnivox[serve]'") from error
    import omnivox
    from omnivox.runtime.engine import Engine, EngineSettings

    check_bind(settings.host, settings)
    if replicas is not None:
        from omnivox.serve.ray import serve as run_ray

        run_ray(model, loading, EngineSettings(**engine), settings, replicas)
        return
    typer.echo(f"Loading {model} ...", err=True)
    omni = omnivox.load(model, **loading)
    typer.echo(f"http://{settings.host}:{settings.port} is the page; ws://{settings.host}:{settings.port}/v1/realtime "
               "for clients. Ctrl-C ends.", err=True)
    run(Engine(omni, EngineSettings(**engine)), settings)


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
