"""`omnivox evaluate`: the bundled model's scores, other systems beside it, and the paper's tables of them."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from omnivox.cli.options import Device, Json, clear_errors
from omnivox.errors import ConfigError

if TYPE_CHECKING:
    from omnivox.evaluate.compare import Asked
    from omnivox.evaluate.measures import MeasureOptions


class JudgeVersion(StrEnum):
    """Which of the paper's protocols."""

    V1 = "v1"
    V2 = "v2"


Model = Annotated[str | None, typer.Argument(metavar="[MODEL]", help='"nano", or a folder of one trained like it: its '
                                                                     "scores on the bundled questions.")]
Systems = Annotated[list[str] | None, typer.Option("--system", metavar="SPEC", help="Who answers, such as omni, "
                    "omni:FOLDER?omega=10, cascade, speechgpt:FOLDER, realtime:URL; may be given again.")]
Questions = Annotated[str, typer.Option(metavar="SET", help="nano, nano:KIND, a folder of sounds with questions.jsonl, "
                                                            "or one of `omnivox data build`.")]
Measures = Annotated[list[str] | None, typer.Option("--measure", metavar="NAME", help="exact, asr_wer, asr_cer, utmos, "
                     "dnsmos_ovrl, plcmos, s2tif, s2sif; may be given again.")]
Tables = Annotated[bool, typer.Option("--tables", help="The paper's tables of what --work holds; without --system and "
                                                       "in an empty folder, of what is bundled.")]
Work = Annotated[Path | None, typer.Option(help="Folder to keep answers and scores in; what is there is not done "
                                                "again. Default: build/tables with --system or --tables.")]
Limit = Annotated[int | None, typer.Option(min=1, help="The first so many questions; of each kind for MODEL. Default: "
                                                       "all, or 20 for the bundled tables.")]
Shard = Annotated[str | None, typer.Option(metavar="I/N", help="Answer every N-th question from the I-th, beside other "
                                                               "processes; measure when all are done.")]
Seed = Annotated[int, typer.Option(help="Of systems that draw random numbers.")]
Asr = Annotated[str | None, typer.Option(metavar="NAME", help="Who transcribes: whisper:NAME, faster-whisper:NAME or "
                                         "pocketsphinx. Default: the paper's Whisper large-v3.")]
JudgeUrl = Annotated[str | None, typer.Option(help="An OpenAI-compatible server that scores, for s2tif and s2sif.")]
JudgeModel = Annotated[str | None, typer.Option(help="The model there.")]
JudgeKey = Annotated[str | None, typer.Option(envvar="OMNIVOX_JUDGE_KEY", help="Its key.")]
Version = Annotated[JudgeVersion, typer.Option("--judge-version", help="v1: content and style; v2: one score.")]
ApiKey = Annotated[str | None, typer.Option(envvar="OMNIVOX_API_KEY", help="Of a system behind a server.")]
DeviceOption = Annotated[Device, typer.Option(help="Where measures run; a system's is in its SPEC, as ?device=cuda.")]


def evaluate(
    model: Model = None, system: Systems = None, questions: Questions = "nano", measure: Measures = None,
    tables: Tables = False, work: Work = None, limit: Limit = None, shard: Shard = None, seed: Seed = 0,
    asr: Asr = None, judge_url: JudgeUrl = None, judge_model: JudgeModel = None, judge_key: JudgeKey = None,
    judge_version: Version = JudgeVersion.V1, api_key: ApiKey = None, device: DeviceOption = Device.AUTO,
    as_json: Json = False,
) -> None:
    """Score the bundled model; or let systems answer questions and measure them; or make the paper's tables.

    The last line of stdout is JSON. Whatever ends it, run it again and it goes on.

    Examples:

      omnivox evaluate nano --limit 20

      omnivox evaluate --tables

      omnivox evaluate --system omni --system cascade --measure exact

      omnivox evaluate --system omni:my-8b --questions mine --shard 0/4
    """
    with clear_errors():
        _together(model, system, tables, {"--measure": measure, "--shard": shard,
                                          "--questions": questions != "nano" and questions})
        if model is not None:
            from omnivox.nano.evaluate import evaluate as score

            typer.echo(json.dumps(score(model, limit=limit, work=work, echo=not as_json)))
            return
        if shard is not None and (measure or tables):
            raise ConfigError("--shard: answers alone; run again without it to measure, once all shards are done")
        from omnivox.evaluate.bundled import is_bundled
        from omnivox.evaluate.compare import Asked
        from omnivox.evaluate.measures import WHISPER, MeasureOptions
        from omnivox.evaluate.run import parse_shard

        work = work or Path("build/tables")
        asked = Asked(questions, tuple(measure or ()), limit, parse_shard(shard) if shard else None, seed)
        ours = not system and is_bundled(work)
        options = MeasureOptions(asr or ("pocketsphinx" if ours else WHISPER), judge_url, judge_model, judge_key,
                                 "v2" if judge_version is JudgeVersion.V2 else "v1", work / "judged", device.value)
        if ours:
            from omnivox.evaluate.bundled import headline, run_bundled

            run_bundled(work, limit, options, echo=not as_json)
            _write(work, headline(work), as_json)
        else:
            _answer(system or [], work, asked, options, api_key, tables, as_json)


def _together(model: str | None, system: list[str] | None, tables: bool, of_systems: dict[str, Any]) -> None:
    """Raises ConfigError: nothing to do, or flags that do not go together. of_systems: those that need --system."""
    if model is not None and (system or tables):
        other = "--system" if system else "--tables"
        raise ConfigError(f"{other}: goes without MODEL, found {model!r}; a model is a system as --system omni:{model}")
    if model is None and not system and not tables:
        raise ConfigError("MODEL: is missing; expected nano, or --system, or --tables")
    for flag, value in of_systems.items():
        if value and not system:
            raise ConfigError(f"{flag}: is for systems; add --system SPEC")


def _answer(systems: list[str], work: Path, asked: Asked, options: MeasureOptions, api_key: str | None, tables: bool,
            as_json: bool) -> None:
    from omnivox.evaluate.compare import compare
    from omnivox.evaluate.summary import summarise

    runs = compare(systems, work, asked, options, api_key=api_key, skip=tables, echo=not as_json)
    if tables:
        _write(work, {}, as_json)
        return
    told = [summarise(run).told() for run in runs]
    if not as_json:
        _show(told)
    typer.echo(json.dumps({"work": str(work), "runs": told}))


def _write(work: Path, told: dict[str, Any], as_json: bool) -> None:
    from omnivox.evaluate.report import write

    text, files = write(work)
    if not as_json:
        typer.echo(text)
    typer.echo(json.dumps({**told, **files}))


def _show(runs: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("figure", *(run["system"] for run in runs))
    for name in dict.fromkeys(name for run in runs for name in run["figures"]):
        cells = [run["figures"].get(name, {}) for run in runs]
        table.add_row(name, *("" if cell.get("value") is None else f"{cell['value']:,.4g}" for cell in cells))
    table.add_row("answered", *(str(run["answered"]) for run in runs))
    table.add_row("failed", *(str(run["failed"]) for run in runs))
    Console().print(table)
