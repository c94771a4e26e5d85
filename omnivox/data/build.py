"""The stages that make text, put together from settings; what each stage reads, and how it is best run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omnivox.data.answer import AnswerByLLM, AnswerByRules, AnswerSettings
from omnivox.data.cache import ReplyCache
from omnivox.data.endpoint import Endpoint, EndpointSettings
from omnivox.data.estimate import Estimate, Rates, estimate
from omnivox.data.llm import LLM
from omnivox.data.local import LocalLLM, LocalSettings
from omnivox.data.manifest import StageFolder
from omnivox.data.rewrite import RewriteByLLM, RewriteByRules, RewriteSettings
from omnivox.data.saying import CACHE
from omnivox.data.stage import STAGES, Runner, Stage, at_once, in_turn
from omnivox.errors import ConfigError

RULES = "rules"
LOCAL = "local"
SHARDS_AT_ONCE = 2  # so that an endpoint has work while the last rows of a shard are on their way


@dataclass(frozen=True)
class LLMSettings:
    """by: "rules", "local" (a transformers model) or the URL of an OpenAI-compatible endpoint. model: its name."""

    by: str = RULES
    model: str | None = None
    api_key: str | None = None
    temperature: float = 0.7
    max_tokens: int = 512
    concurrency: int = 32
    timeout: float = 120.0
    tries: int = 8
    device: str = "cpu"


def language_model(settings: LLMSettings) -> LLM | None:
    """None for rules. Raises ConfigError: a model without a name, or no such kind."""
    if settings.by == RULES:
        if settings.model:
            raise ConfigError(f"--llm-model: found {settings.model!r}, but rules write the texts; expected --llm local "
                              "or --llm URL beside it")
        return None
    if settings.by != LOCAL and not settings.by.startswith(("http://", "https://")):
        raise ConfigError(f"--llm: found {settings.by!r}; expected rules, local, or the URL of an endpoint such as "
                          "http://127.0.0.1:8000/v1")
    if not settings.model:
        raise ConfigError(f"--llm-model: is missing; expected the name of a model for {settings.by}")
    if settings.by == LOCAL:
        return LocalLLM(LocalSettings(settings.model, settings.temperature, settings.max_tokens,
                                      device=settings.device))
    return Endpoint(EndpointSettings(settings.by, settings.model, settings.api_key, settings.temperature,
                                     settings.max_tokens, settings.concurrency, settings.timeout, settings.tries))


def rewrite_stage(llm: LLMSettings, settings: RewriteSettings) -> Stage:
    """By the model, or by rules."""
    model = language_model(llm)
    return RewriteByRules(settings) if model is None else RewriteByLLM(settings, model)


def answer_stage(llm: LLMSettings, settings: AnswerSettings) -> Stage:
    """By the model, or by rules."""
    model = language_model(llm)
    return AnswerByRules(settings) if model is None else AnswerByLLM(settings, model)


def runner(stage: Stage, otherwise: Runner = in_turn) -> Runner:
    """How a stage is best run: several shards at once where it waits for a server, else as is said."""
    if isinstance(stage, RewriteByLLM | AnswerByLLM):
        return at_once(SHARDS_AT_ONCE) if isinstance(stage.llm, Endpoint) else in_turn
    return otherwise


def before(stage: str, build: Path) -> str:
    """The stage whose rows `stage` reads: the nearest before it that was begun, for not every build has every stage."""
    begun = (name for name in reversed(STAGES[:STAGES.index(stage)]) if StageFolder(build, name).manifest())
    return next(begun, STAGES[0])


def estimates(stages: Sequence[Stage], build: Path, rates: Rates) -> list[Estimate]:
    """Of the stages that will ask a model, over the rows that there are so far; none for those that are done. A model
    of this machine costs nothing, and does a batch at once."""
    found: list[Estimate] = []
    with ReplyCache(build / CACHE) as cache:
        for stage in stages:
            done = StageFolder(build, stage.name).manifest()
            if isinstance(stage, RewriteByLLM | AnswerByLLM) and not (done and done.complete):
                own = Rates(concurrency=stage.llm.local.batch) if isinstance(stage.llm, LocalLLM) else rates
                found.append(estimate(stage, _latest(build, stage.name).rows(), cache, own))
    return found


def _latest(build: Path, stage: str) -> StageFolder:
    """The finished stage that is nearest before `stage`."""
    for name in reversed(STAGES[1:STAGES.index(stage)]):
        folder = StageFolder(build, name)
        if (manifest := folder.manifest()) and manifest.complete:
            return folder
    return StageFolder(build, STAGES[0])

