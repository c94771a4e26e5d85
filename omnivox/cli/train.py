"""`omnivox train`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from omnivox.cli.options import clear_errors
from omnivox.errors import ConfigError

if TYPE_CHECKING:
    from omnivox.train.plan import Plan
    from omnivox.train.recipes import NanoRecipe
    from omnivox.train.settings import TrainRecipe


def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help='"nano", the bundled model; or any LLM: '
                                                                 "llama-omni-8b, llama-omni-3b, llama-omni-1b.")],
    step: Annotated[str | None, typer.Argument(metavar="STEP", help="stage1, stage2, units or vocoder; of nano: "
                                               "begin, sentences, words, questions, strange, exams, answers, "
                                               "repeats, language, encoder, hear, units, vocoder, stage1, stage2, "
                                               "assemble, blend.")] = None,
    work: Annotated[Path | None, typer.Option(help="Folder of the run; what is done in it is kept. Default: "
                                                   "build/RECIPE.")] = None,
    scale: Annotated[float, typer.Option(min=0.001, help="nano: shortens data and training, to try the steps.")] = 1.0,
    data: Annotated[Path | None, typer.Option(help="Conversations: Parquet shards, or .jsonl and sounds. For units and "
                                                   "vocoder: a folder of recordings.")] = None,
    held: Annotated[Path | None, typer.Option(help="Conversations to measure on; default: some of --data.")] = None,
    llm: Annotated[str | None, typer.Option(help="Another LLM than the recipe's: a folder or hub name.")] = None,
    whisper: Annotated[str | None, typer.Option(help="Another speech encoder: OpenAI's .pt, a folder, a hub name.")
                       ] = None,
    vocoder: Annotated[Path | None, typer.Option(help="Unit vocoder for the finished model (stage2).")] = None,
    model: Annotated[Path | None, typer.Option(help="Checkpoint for stage2 to go on from, default: stage1's; or "
                                                    "nano's begin (and blend), default: the bundled one.")] = None,
    hubert: Annotated[str | None, typer.Option(help="units, vocoder: a HuBERT, as folder, hub name or fairseq's .pt.")
                      ] = None,
    centres: Annotated[Path | None, typer.Option(help="vocoder: k-means centres; default: those of the step units.")
                       ] = None,
    changes: Annotated[list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Change any setting, as "
                                                      "stage1.lr=1e-4; may be given again.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print parameters, memory, steps and time; start nothing.")
                    ] = False,
    gpus: Annotated[int, typer.Option(min=1, help="--plan: how many GPUs.")] = 1,
    gpu_memory: Annotated[float, typer.Option(min=1, help="--plan: GB of each.")] = 48.0,
    gpu_tflops: Annotated[float, typer.Option(min=1, help="--plan: dense bfloat16 TFLOPS of each.")] = 181.0,
) -> None:
    """Run one step of a recipe; killed, it goes on from its last checkpoint. Several processes: start it by torchrun.

    Examples:

      omnivox train nano --plan

      omnivox train nano sentences

      omnivox train llama-omni-1b stage1 --data folder --set seed=1

      omnivox train llama-omni-8b --plan --gpus 4
    """
    with clear_errors():
        work = work or Path("build") / recipe
        if recipe == "nano":
            _unused("nano", {"--data": data, "--held": held, "--llm": llm, "--whisper": whisper, "--vocoder": vocoder,
                             "--hubert": hubert, "--centres": centres, "--set": changes})
            _nano(step, work, scale, plan, model)
            return
        from omnivox.train.recipes import find_recipe

        _unused(recipe, {"--scale": scale if scale != 1 else None})
        found = _changed(find_recipe(recipe), llm, whisper, changes or [])
        if plan:
            from omnivox.train.plan import Machine
            from omnivox.train.plan import plan as planned

            _show(found.name, planned(found, Machine(gpus, gpu_memory, gpu_tflops)))
            return
        if step is None:
            raise ConfigError("STEP: is missing; expected stage1, stage2, units or vocoder, or --plan")
        if data is None:
            raise ConfigError("--data: is missing; expected a folder of conversations (`omnivox data build` makes one)")
        if step in ("units", "vocoder"):
            _voice(step, work, found, data, hubert, centres)
            return
        _run(step, work, found, data, held, vocoder, model)


def _unused(recipe: str, flags: dict[str, object]) -> None:
    if given := [name for name, value in flags.items() if value]:
        raise ConfigError(f"{given[0]}: found with the recipe {recipe}, which does not use it; expected it left out")


def _nano(step: str | None, work: Path, scale: float, plan: bool, model: Path | None) -> None:
    from omnivox.train.nano import NanoTraining, run_step
    from omnivox.train.recipes import nano

    if plan:
        _show_nano(nano(scale=scale))
        return
    if step is None:
        raise ConfigError("STEP: is missing; expected one of nano's (`omnivox train --help` lists them), or --plan")
    run_step(NanoTraining(work, nano(scale=scale), model=model or "nano"), step)


def _changed(recipe: TrainRecipe, llm: str | None, whisper: str | None, changes: list[str]) -> TrainRecipe:
    from dataclasses import replace

    from omnivox.train.plan import sizes_of
    from omnivox.train.settings import override

    if llm is not None:
        sizes = sizes_of(Path(llm)) if Path(llm).is_dir() else recipe.llm_sizes
        recipe = replace(recipe, llm=llm, llm_sizes=sizes)
    return override(recipe if whisper is None else replace(recipe, whisper=whisper), changes)


def _run(step: str, work: Path, recipe: TrainRecipe, data: Path, held: Path | None, vocoder: Path | None,
         model: Path | None) -> None:
    try:
        from omnivox.train.steps import OmniTraining
        from omnivox.train.trainer import Stopped
    except ImportError as error:
        raise ConfigError(f"train: needs {error.name}; pip install 'omnivox[train]'") from error
    try:
        OmniTraining(work, recipe, data, held, vocoder, model).run(step)
    except Stopped as stopped:
        typer.echo(f"omnivox: {stopped}", err=True)
        raise typer.Exit(130) from stopped


def _voice(step: str, work: Path, recipe: TrainRecipe, sounds: Path, hubert: str | None, centres: Path | None) -> None:
    from dataclasses import replace

    from omnivox.data.quantise import load_quantiser
    from omnivox.train.hubert_units import train_hubert_units
    from omnivox.train.unit_vocoder import VocoderTraining, read_clips

    if hubert is None:
        raise ConfigError("--hubert: is missing; expected the model whose states are the units")
    centres = centres or work / "units.safetensors"
    if step == "units":
        train_hubert_units(sounds, hubert, centres, recipe.decoder.units, seed=recipe.seed)
        return
    quantiser = load_quantiser(hubert, str(centres))
    clips = read_clips(sounds, quantiser)
    VocoderTraining(clips, replace(recipe.hifigan, units=quantiser.units), recipe.vocoder, work / "vocoder").run()


def _show_nano(recipe: NanoRecipe) -> None:
    from rich.console import Console
    from rich.table import Table

    from omnivox.train.nano_plan import fast_products, plan

    table = Table(title="nano on CPU cores", title_justify="left")
    for column in ("", "learnt", "frozen", "hours of speech", "steps", "GB of memory", "minutes of one core"):
        table.add_column(column, justify="right" if column else "left")
    found = plan(recipe)
    for step in found.steps:
        table.add_row(step.name, *(f"{count / 1e6:.1f}M" if count else "" for count in (step.learnt, step.frozen)),
                      f"{step.hours:.1f}" if step.hours else "", f"{step.steps:,}" if step.steps else "",
                      f"{step.memory_gb:.1f}", f"{step.minutes:.0f}")
    console, total = Console(width=140), sum(step.minutes for step in found.steps)
    parts = [f"{part.replace('_', ' ')} {count / 1e6:.1f}M" for part, count in found.parameters.items()]
    console.print(", ".join(parts))
    console.print(table)
    console.print(f"{total:.0f} minutes of one core, {total / 120:.1f} hours of two, by what steps took on an AMD EPYC "
                  f"{'with' if fast_products() else 'without'} products in bfloat16, as this CPU is.")


def _show(name: str, plan: Plan) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{name} on {plan.machine.gpus} x {plan.machine.memory_gb:g} GB", title_justify="left")
    for column in ("", "learnt", "frozen", "weights", "gradients", "optimiser", "activations", "GB on each GPU",
                   "steps", "hours", "GB on disk"):
        table.add_column(column, justify="right" if column else "left")
    for stage in plan.stages:
        memory = stage.memory
        parts = (memory.weights, memory.gradients, memory.optimiser, memory.activations, memory.total)
        table.add_row(stage.name, f"{stage.learnt / 1e6:,.0f}M", f"{stage.frozen / 1e6:,.0f}M",
                      *(f"{part:.1f}" for part in parts), f"{stage.steps:,}", f"{stage.hours:.1f}",
                      f"{stage.disk_gb:.0f}" if stage.disk_gb else "")
    console = Console(width=140)
    console.print(", ".join(f"{part.replace('_', ' ')} {count / 1e6:,.0f}M" for part, count in plan.parameters.items()))
    console.print(table)
    console.print("An estimate from sizes alone, for conversations as long as the paper's." if plan.fits else
                  "Does not fit: share the layers out (--set stage1.parallel=fsdp2, more GPUs), train additions only "
                  "(--set stage1.tune=lora), or take less at once (--set stage1.micro_batch=1).")
