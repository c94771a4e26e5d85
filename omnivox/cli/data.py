"""`omnivox data`: a data set of spoken conversations, built stage by stage.

`locals()`, at the head of a body, is the command's flags by their names: they are listed once, where Typer reads them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from omnivox.cli import stages

data = typer.Typer(no_args_is_help=True, help="""Build spoken conversations to train on.

Seven stages, each with its own folder in the build: sources, rewrite, answer, speak, quantise, filter, write.

Whatever ends a stage, run it again and it goes on. Needs `pip install 'omnivox\\[data]'`.

Example:

  omnivox data build alpaca.json --out build/data
""")

Sources = Annotated[list[str], typer.Argument(metavar="SOURCE...", help="Files (JSON, JSON lines, Parquet), folders, "
                                                                        "or names of data sets on the hub.")]
Out = Annotated[Path, typer.Option("--out", help="Folder of the build.")]
Build = Annotated[Path, typer.Argument(metavar="BUILD", help="Folder of the build.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Rows taken of each source.")]
Turns = Annotated[int | None, typer.Option(min=1, help="Turns kept of each conversation; default: the first, and all "
                                                       "where they are speech already.")]
Licence = Annotated[str, typer.Option(help="Licence of the sources, kept with each row.")]
Split = Annotated[str, typer.Option(help="Of a data set with several.")]
Config = Annotated[str | None, typer.Option(help="Of a data set with several.")]
Reextract = Annotated[bool, typer.Option("--reextract", help="Leave out another tokenizer's units; make our own.")]
ShardRows = Annotated[int, typer.Option(min=1, help="Rows of a shard: what is done at once, and kept.")]
LLM = Annotated[str, typer.Option(metavar="rules|local|URL", help="Who rewrites and answers: rules, a transformers "
                                                                  "model of this machine, or an OpenAI-compatible "
                                                                  "endpoint such as http://127.0.0.1:8000/v1")]
LLMModel = Annotated[str | None, typer.Option(help="The model's name there; with local, a folder or hub name.")]
LLMKey = Annotated[str | None, typer.Option(envvar="OMNIVOX_LLM_KEY", help="The endpoint's key.")]
Temperature = Annotated[float, typer.Option(min=0.0, help="Of the language model.")]
Concurrency = Annotated[int, typer.Option(min=1, help="Calls at once.")]
Timeout = Annotated[float, typer.Option(min=0.1, help="Seconds for one call.")]
Tries = Annotated[int, typer.Option(min=1, help="Calls before a failure is final.")]
PriceIn = Annotated[float, typer.Option(min=0.0, help="Of a million tokens read, for the estimate.")]
PriceOut = Annotated[float, typer.Option(min=0.0, help="Of a million tokens written, for the estimate.")]
Yes = Annotated[bool, typer.Option("--yes", help="Begin without asking, whatever the estimate.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print calls, tokens, cost and time; call nobody.")]
Language = Annotated[str, typer.Option(help="Of questions and answers; the rules know English alone.")]
Words = Annotated[int, typer.Option(min=1, help="At most, in a question and in an answer.")]
Fillers = Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of questions with a filler, by rules.")]
Seed = Annotated[int, typer.Option(help="Of fillers and voices.")]
Placeholders = Annotated[bool, typer.Option("--placeholders", help="By rules, answer with an empty phrase where the "
                                                                   "source has no answer: to try the stages out.")]
Questions = Annotated[str, typer.Option("--question-voices", metavar="ENGINE", help="offline, flite:NAME, espeak:NAME, "
                                        "vits:FOLDER-OR-HUB-NAME, or server.")]
Answer = Annotated[str, typer.Option("--answer-voice", metavar="ENGINE", help="As --question-voices, one voice.")]
Female = Annotated[list[str] | None, typer.Option("--female-voices", help="Names, with commas between.")]
Male = Annotated[list[str] | None, typer.Option("--male-voices", help="Names, with commas between.")]
ServerVoice = Annotated[str | None, typer.Option("--answer-name", help="The answers' voice of a server.")]
TTSUrl = Annotated[str | None, typer.Option(help="An OpenAI-compatible speech server, such as "
                                                 "http://127.0.0.1:8880/v1")]
TTSModel = Annotated[str | None, typer.Option(help="Its model.")]
TTSConcurrency = Annotated[int | None, typer.Option(min=1, help="Utterances made at once; default: one for each core, "
                                                                "4 of a server, 1 in each worker of --ray.")]
TTSKey = Annotated[str | None, typer.Option(envvar="OMNIVOX_TTS_KEY", help="Its key.")]
Quantiser = Annotated[str | None, typer.Option(help="A HuBERT (folder, hub name, fairseq .pt) with --centres, or a "
                                                    "units.safetensors; none: answers get no units.")]
Centres = Annotated[Path | None, typer.Option(help="The k-means file of the HuBERT.")]
Layer = Annotated[int, typer.Option(min=1, help="Of the HuBERT.")]
Recogniser = Annotated[str, typer.Option(metavar="NAME", help="Who checks the speech: none, pocketsphinx, "
                                                              "whisper:NAME or faster-whisper:NAME.")]
QuestionWER = Annotated[float | None, typer.Option("--question-wer", min=0.0, help="Largest word error rate of a "
                                                   "question; default: the recogniser's own.")]
AnswerWER = Annotated[float | None, typer.Option("--answer-wer", min=0.0, help="Likewise of an answer.")]
Upsample = Annotated[int, typer.Option(min=1, help="λ of the speech decoder to be trained.")]
Tokenizer = Annotated[str | None, typer.Option(help="Of the LLM to be trained; default: words are counted.")]
Device = Annotated[str, typer.Option(help="For models of this machine.")]
Workers = Annotated[int | None, typer.Option("--ray", metavar="WORKERS", min=1,
                                             help="Speak, quantise and filter on Ray with so many workers.")]
Gpus = Annotated[float, typer.Option(min=0.0, help="With --ray: GPUs, or a share of one, for each worker.")]


@data.command(no_args_is_help=True)
def build(
    sources: Sources, out: Out, limit: Limit = None, turns: Turns = None, licence: Licence = "",
    split: Split = "train", config: Config = None, reextract: Reextract = False, shard_rows: ShardRows = 500,
    llm: LLM = "rules", llm_model: LLMModel = None, llm_key: LLMKey = None, temperature: Temperature = 0.7,
    concurrency: Concurrency = 32, timeout: Timeout = 120.0, tries: Tries = 8, price_in: PriceIn = 0.0,
    price_out: PriceOut = 0.0, yes: Yes = False, dry_run: DryRun = False, language: Language = "English",
    words: Words = 60, fillers: Fillers = 0.4, seed: Seed = 0, placeholders: Placeholders = False,
    question_voices: Questions = "offline", answer_voice: Answer = "flite:rms", female_voices: Female = None,
    male_voices: Male = None, answer_name: ServerVoice = None, tts_url: TTSUrl = None, tts_model: TTSModel = None,
    tts_key: TTSKey = None, tts_concurrency: TTSConcurrency = None, quantiser: Quantiser = None,
    centres: Centres = None, layer: Layer = 11, recogniser: Recogniser = "none", question_wer: QuestionWER = None,
    answer_wer: AnswerWER = None, upsample: Upsample = 25, tokenizer: Tokenizer = None, device: Device = "cpu",
    ray: Workers = None, gpus: Gpus = 0.0,
) -> None:
    """All stages, from written instructions to Parquet files with sound, and a card that says what they hold.

    Examples:

      omnivox data build alpaca.json --out build/data

      omnivox data build alpaca.json ultrachat.jsonl --out build/data --llm http://127.0.0.1:8000/v1 --llm-model llama

      omnivox data build alpaca.json --out build/data --quantiser voidful/mhubert-base --centres km1000.bin
    """
    stages.build(locals())


@data.command(no_args_is_help=True)
def sources(
    sources: Sources, out: Out, limit: Limit = None, turns: Turns = None, licence: Licence = "",
    split: Split = "train", config: Config = None, reextract: Reextract = False, shard_rows: ShardRows = 500,
) -> None:
    """Stage 1: instructions of Alpaca, UltraChat, chats, plain JSON lines, or conversations that are speech already.

    Example:

      omnivox data sources alpaca.json --out build/data --limit 1000
    """
    stages.alone("sources", locals())


@data.command(no_args_is_help=True)
def rewrite(
    build: Build, llm: LLM = "rules", llm_model: LLMModel = None, llm_key: LLMKey = None,
    temperature: Temperature = 0.7, concurrency: Concurrency = 32, timeout: Timeout = 120.0, tries: Tries = 8,
    price_in: PriceIn = 0.0, price_out: PriceOut = 0.0, yes: Yes = False, dry_run: DryRun = False,
    language: Language = "English", words: Words = 60, fillers: Fillers = 0.4, seed: Seed = 0, device: Device = "cpu",
) -> None:
    """Stage 2: each instruction as somebody would say it.

    Example:

      omnivox data rewrite build/data --llm http://127.0.0.1:8000/v1 --llm-model llama --dry-run
    """
    stages.alone("rewrite", locals())


@data.command(no_args_is_help=True)
def answer(
    build: Build, llm: LLM = "rules", llm_model: LLMModel = None, llm_key: LLMKey = None,
    temperature: Temperature = 0.7, concurrency: Concurrency = 32, timeout: Timeout = 120.0, tries: Tries = 8,
    price_in: PriceIn = 0.0, price_out: PriceOut = 0.0, yes: Yes = False, dry_run: DryRun = False,
    language: Language = "English", words: Words = 60, seed: Seed = 0, placeholders: Placeholders = False,
    device: Device = "cpu",
) -> None:
    """Stage 3: each question answered as speech; by rules, from the source's own answer.

    Example:

      omnivox data answer build/data
    """
    stages.alone("answer", locals())


@data.command(no_args_is_help=True)
def speak(
    build: Build, question_voices: Questions = "offline", answer_voice: Answer = "flite:rms",
    female_voices: Female = None, male_voices: Male = None, answer_name: ServerVoice = None, tts_url: TTSUrl = None,
    tts_model: TTSModel = None, tts_key: TTSKey = None, tts_concurrency: TTSConcurrency = None, seed: Seed = 0,
    device: Device = "cpu", ray: Workers = None, gpus: Gpus = 0.0,
) -> None:
    """Stage 4: questions in many voices, answers in one.

    Example:

      omnivox data speak build/data --answer-voice vits:kakao-enterprise/vits-ljs
    """
    stages.alone("speak", locals())


@data.command(no_args_is_help=True)
def quantise(
    build: Build, quantiser: Quantiser = None, centres: Centres = None, layer: Layer = 11, device: Device = "cpu",
    ray: Workers = None, gpus: Gpus = 0.0,
) -> None:
    """Stage 5: the units of each answer.

    Example:

      omnivox data quantise build/data --quantiser voidful/mhubert-base --centres km1000.bin --device cuda
    """
    stages.alone("quantise", locals())


@data.command("filter", no_args_is_help=True)
def filter_(
    build: Build, recogniser: Recogniser = "none", question_wer: QuestionWER = None, answer_wer: AnswerWER = None,
    upsample: Upsample = 25, tokenizer: Tokenizer = None, language: Language = "English", device: Device = "cpu",
    ray: Workers = None, gpus: Gpus = 0.0,
) -> None:
    """Stage 6: leave out what would teach the wrong thing; each rejected row keeps its reason.

    Example:

      omnivox data filter build/data --recogniser whisper:openai/whisper-large-v3
    """
    stages.alone("filter", locals())


@data.command(no_args_is_help=True)
def write(build: Build) -> None:
    """Stage 7: Parquet files with sound, a card, and a page to listen to.

    Example:

      omnivox data write build/data
    """
    stages.alone("write", locals())
