"""Every measure by its name.

    exact                               the written answer is the expected one
    asr_wer, asr_cer                    errors of a transcript of the speech against the written answer
    utmos, dnsmos_ovrl, dnsmos_sig,     how natural the speech sounds
    dnsmos_bak, plcmos
    s2tif_content, s2tif_style,         a judge's marks of the written and of the spoken answer (v1)
    s2sif_content, s2sif_style
    s2tif_score, s2sif_score            one mark of each (v2)
    s2tif, s2sif                        those of the version that is asked for
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from omnivox.checkpoint.load import pick_device
from omnivox.errors import ConfigError
from omnivox.evaluate.alignment import CharacterErrors, Transcriber, WordErrors, transcriber
from omnivox.evaluate.exact import Exact
from omnivox.evaluate.measure import Measure
from omnivox.evaluate.naturalness import Dnsmos, Plcmos, Utmos

if TYPE_CHECKING:
    from omnivox.evaluate.judge import Judge

Version = Literal["v1", "v2"]
WHISPER = "whisper:openai/whisper-large-v3"
"""The paper's."""
MARKS: dict[Version, tuple[str, ...]] = {"v1": ("content", "style"), "v2": ("score",)}
JUDGED = tuple(f"{kind}_{mark}" for marks in MARKS.values() for kind in ("s2tif", "s2sif") for mark in marks)


@dataclass
class MeasureOptions:
    """What measures are made with. asr: who transcribes. judge_url: an OpenAI-compatible server, with a model there.
    cache: folder of the judge's replies. device: of models that run here."""

    asr: str = WHISPER
    judge_url: str | None = None
    judge_model: str | None = None
    judge_key: str | None = field(default=None, repr=False)
    judge_version: Version = "v1"
    cache: Path = Path("build/judged")
    device: str = "cpu"

    @cached_property
    def transcriber(self) -> Transcriber:
        """Of `asr`, loaded once for all measures. Raises ConfigError, CheckpointError."""
        return transcriber(self.asr, str(pick_device(self.device)))

    @cached_property
    def judge(self) -> Judge:
        """Raises ConfigError: which one is not said, or a package is missing."""
        if not self.judge_url or not self.judge_model:
            raise ConfigError("a judge is needed: --judge-url, an OpenAI-compatible server, and --judge-model")
        try:
            from omnivox.evaluate.judge import judge
        except ImportError as error:
            raise ConfigError(f"judge: Python package {error.name} is missing; install it with: "
                              "pip install 'omnivox[evaluate]'") from error
        return judge(self.judge_url, self.judge_model, self.cache, self.judge_key)


def _score(name: str, options: MeasureOptions) -> Measure:
    judge = options.judge
    from omnivox.evaluate.score import Score

    return Score(name, judge, options.transcriber if name.startswith("s2sif") else None)


MAKERS: dict[str, Callable[[MeasureOptions], Measure]] = {
    "exact": lambda _: Exact(),
    "asr_wer": lambda options: WordErrors(options.transcriber),
    "asr_cer": lambda options: CharacterErrors(options.transcriber),
    "utmos": lambda options: Utmos(device=str(pick_device(options.device))),
    **{f"dnsmos_{part}": partial(lambda part, _: Dnsmos(part), part) for part in Dnsmos.parts},
    "plcmos": lambda _: Plcmos(),
    **{name: partial(_score, name) for name in JUDGED}}


def named(names: Iterable[str], version: Version) -> list[str]:
    """`names` with s2tif and s2sif in full. Raises ConfigError: a name that there is not, listing those that exist."""
    found: list[str] = []
    for name in names:
        if name not in MAKERS and name not in ("s2tif", "s2sif"):
            raise ConfigError(f"measure: found {name!r}; expected one of {', '.join([*MAKERS, 's2tif', 's2sif'])}")
        found += [name] if name in MAKERS else [f"{name}_{mark}" for mark in MARKS[version]]
    return list(dict.fromkeys(found))


def find_measure(name: str, options: MeasureOptions) -> Measure:
    """One of `MAKERS`. Raises ConfigError, CheckpointError: what it lacks."""
    return MAKERS[name](options)
