"""`omnivox bench`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from omnivox.cli.options import (
    Device,
    DeviceOption,
    DtypeOption,
    Json,
    Lookahead,
    Omega,
    Precision,
    Vocoder,
    Whisper,
    clear_errors,
    load,
)
from omnivox.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from omnivox.runtime.respond import Omni

QUESTIONS, QUESTION_SECONDS = 20, 7.5  # of the bundled ones; the mean of the paper's data
RUNS = {"questions": 1, "seconds": 5}
TOKENS = 256  # of a reply, at most; of a shape: the mean of the paper's data


def bench(
    model: Annotated[str | None, typer.Argument(metavar="[MODEL]", help='"nano", a folder, or a hub name; default: '
                                                                        "nano.")] = None,
    shape: Annotated[str | None, typer.Option(help="Random weights of a published size instead of a model: nano, 150m, "
                                                   "llama-omni-1b, llama-omni-3b, llama-omni-8b.")] = None,
    omega: Omega = 10,
    lookahead: Lookahead = None,
    device: DeviceOption = Device.AUTO,
    dtype: DtypeOption = Precision.AUTO,
    whisper: Whisper = None,
    vocoder: Vocoder = None,
    questions: Annotated[int | None, typer.Option(min=1, help="Bundled held-out questions to ask; a model's default: "
                                                              "20.")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="A question of noise so long instead; a shape's "
                                                                "default: 7.5.")] = None,
    runs: Annotated[int | None, typer.Option(min=1, help="How often each is asked; default: 1, noise 5 times.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Length of a shape's replies, by default the "
                                                       "paper's mean; at which a model's are cut.")] = None,
    published: Annotated[bool, typer.Option("--published", help="Also in the way of the published implementation, with "
                                                                "the ratios.")] = False,
    as_json: Json = False,
) -> None:
    """Measure how soon answers come and how fast they are made; the last line of stdout is JSON.

    A shape is built on this machine, nothing is downloaded; one that does not fit in its memory is refused at once.

    Examples:

      omnivox bench

      omnivox bench --shape llama-omni-8b --device cuda --published

      omnivox bench --shape 150m --omega 40 --seconds 3 --json
    """
    with clear_errors():
        if model is not None and shape is not None:
            raise ConfigError(f"--shape {shape}: is measured instead of a model; leave out {model!r} or the shape")
        if questions is not None and seconds is not None:
            raise ConfigError("--questions, --seconds: found both; expected one of them")
        if shape is not None and (whisper or vocoder):
            raise ConfigError("--whisper, --vocoder: a shape has no weights of others; leave them out")
        if questions is None and seconds is None:
            questions, seconds = (None, QUESTION_SECONDS) if shape else (QUESTIONS, None)
        from omnivox.evaluate.latency import LatencySettings, measure
        from omnivox.train.plan import ANSWER_TOKENS

        tokens = max_new_tokens or (ANSWER_TOKENS if shape else TOKENS)
        settings = LatencySettings(omega, lookahead, tokens, runs or RUNS["questions" if questions else "seconds"],
                                   published)
        asked = _questions(questions, seconds)
        omni = _random(shape, device, dtype, tokens) if shape else load(model or "nano", device, dtype, whisper,
                                                                        vocoder)
        about = _about(omni, model or shape or "nano", shape is not None, asked, settings)
        result = {"bench": "latency", **about, **measure(omni, asked, settings, echo=not as_json)}
        if not as_json:
            _show(result)
        typer.echo(json.dumps(result))


def _random(shape: str, device: Device, dtype: Precision, tokens: int) -> Omni:
    from omnivox.evaluate.shapes import random_omni

    return random_omni(shape, device=device.value, dtype=dtype.value, tokens=tokens)


def _questions(count: int | None, seconds: float | None) -> list[Tensor]:
    from itertools import islice

    from omnivox.evaluate.latency import noise
    from omnivox.evaluate.questions import find_questions
    from omnivox.sound import MAX_SECONDS

    if seconds is not None:
        if seconds > MAX_SECONDS:
            raise ConfigError(f"--seconds: found {seconds:g}; at most {MAX_SECONDS:g} s are heard")
        return [noise(seconds)]
    return [question.audio for question in islice(find_questions("nano"), count)]


def _about(omni: Omni, name: str, random: bool, questions: list[Tensor], settings: Any) -> dict[str, Any]:
    """What was measured, and on what."""
    import dataclasses

    from omnivox.hardware import hardware
    from omnivox.rates import SAMPLE_RATE
    from omnivox.runtime.describe import describe

    facts = describe(omni)
    asked = dataclasses.asdict(settings)
    if settings.lookahead is None:
        asked["lookahead"] = omni.vocoder.context[1]
    return {"model": name, "weights": "random" if random else "trained", "device": facts["settings"]["device"],
            "dtype": facts["settings"]["dtype"], "padded_to_30_s": facts["settings"]["padded_to_30_s"],
            "parameters": facts["parameters"], "settings": asked, "questions": len(questions),
            "question_seconds": round(sum(map(len, questions)) / SAMPLE_RATE / len(questions), 2),
            "hardware": hardware()}


def _show(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    machine, ratios, console = result["hardware"], result.get("ratios", {}), Console()
    where = machine["gpu"] if result["device"].startswith("cuda") else machine["cpu"]
    console.print(f"{result['model']} ({result['weights']} weights, {result['dtype']}) on {where}")
    for name, variant in result["variants"].items():
        compared = ratios if name == "published" else {}
        table = Table(f"{name}, ms")
        for column in ("p50", "p95", "p99", *(["times ours"] if compared else [])):
            table.add_column(column, justify="right")
        for part, values in variant["ms"].items():
            cells = [f"{value:,.1f}" for value in values.values()]
            table.add_row(part.replace("_", " "), *cells, *([str(compared.get(part, ""))] if compared else []))
        console.print(table, _in_words(variant))


def _in_words(variant: dict[str, Any]) -> str:
    told = [f"real-time factor {variant['real_time_factor']:.3g}",
            f"an answer of {variant['answer_seconds']:.3g} s takes {variant['decoding_seconds']:.3g} s",
            f"first audio of the first reply of all {variant['cold_first_audio_ms']:,.0f} ms"]
    if variant["words_per_second"] is not None:
        told += [f"{variant['words_per_second']:.3g} words a second",
                 f"{variant['lagging_words']:.3g} words written before the first sound"]
    return "; ".join(told)
