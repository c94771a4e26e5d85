"""What the commands share: options, loading, and errors in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from omnivox.errors import OmnivoxError

if TYPE_CHECKING:
    from omnivox.runtime.respond import Omni


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


def load(model: str, device: Device, dtype: Precision, whisper: Path | None, vocoder: Path | None) -> Omni:
    """As `omnivox.load`."""
    import omnivox

    return omnivox.load(model, device=device.value, dtype=dtype.value, whisper=whisper, vocoder=vocoder)
