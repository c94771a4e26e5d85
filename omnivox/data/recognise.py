"""What a recogniser makes of speech, and its word error rate against what was to be said.

    whisper          through transformers; the paper measures with large-v3
    faster-whisper   the same models through CTranslate2, faster
    pocketsphinx     offline, with the words of the build and nothing of their order: a coarse sieve, of English alone

Texts are compared as Whisper's normalisers write them; those of languages that are written without spaces letter by
letter. Waves are float32 [n] at 16 kHz.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, ClassVar, Protocol

from torch import Tensor

from omnivox.checkpoint.files import find_folder
from omnivox.errors import CheckpointError, ConfigError
from omnivox.nano.listener import Listener
from omnivox.rates import CHUNK_SAMPLES, SAMPLE_RATE

SPACELESS = frozenset({"zh", "ja", "th", "lo", "my", "yue"})  # codes of languages that are written without spaces


class Recogniser(Protocol):
    """A judge of how well speech can be understood."""

    @property
    def max_wer(self) -> float:
        """Above which it takes speech for broken, unless told otherwise."""
        ...

    @property
    def auditions(self) -> int:
        """Clips that it must hear of a voice before it is known to understand it; 0: it understands any."""
        ...

    def settings(self) -> Mapping[str, Any]:
        """All that it hears depends on, as JSON."""
        ...

    def begin(self, texts: Iterable[str]) -> None:
        """Told all that will be said, before it hears anything."""
        ...

    def errors(self, texts: Sequence[str], waves: Sequence[Tensor]) -> list[float | None]:
        """The word error rate of each wave against its text; None where it cannot judge."""
        ...


def word_error_rate(text: str, heard: str, language: str = "en") -> float | None:
    """Of `heard` against `text`, both normalised; None where `text` holds no words."""
    import jiwer

    said, found = normalised(text, language), normalised(heard, language)
    if not said:
        return None
    return float(jiwer.wer(said, found)) if found else 1.0


def normalised(text: str, language: str = "en") -> str:
    """`text` as Whisper's normaliser of that language (a code) has it: lower case, no punctuation, a space between what
    is counted; in English numbers are digits."""
    text = re.sub(r"\.{2,}|…", " ", text)  # it leaves a stop of an ellipsis
    return " ".join(str(_normaliser(language)(text)).split())


@cache
def _normaliser(language: str) -> Any:
    from transformers.models.whisper.english_normalizer import BasicTextNormalizer, EnglishTextNormalizer

    return EnglishTextNormalizer({}) if language == "en" else BasicTextNormalizer(split_letters=language in SPACELESS)


def language_code(name: str) -> str:
    """Whisper's code of a language that is given by its English name or its code. Raises ConfigError: no such one."""
    from transformers.models.whisper.tokenization_whisper import LANGUAGES, TO_LANGUAGE_CODE

    code = TO_LANGUAGE_CODE.get(name.lower(), name.lower())
    if code not in LANGUAGES:
        raise ConfigError(f"--language: found {name!r}; a recogniser expects one that Whisper knows, such as English, "
                          "German or Chinese")
    return str(code)


class _Transcriber:
    """A recogniser of anything."""

    max_wer: ClassVar[float] = 0.3
    auditions: ClassVar[int] = 0
    language: str

    def begin(self, texts: Iterable[str]) -> None:
        """It knows all words already."""

    def transcribe(self, wave: Tensor) -> str:
        raise NotImplementedError

    def errors(self, texts: Sequence[str], waves: Sequence[Tensor]) -> list[float | None]:
        return [word_error_rate(text, self.transcribe(wave), self.language)
                for text, wave in zip(texts, waves, strict=True)]


@dataclass(frozen=True)
class Whisper(_Transcriber):
    """A Whisper in transformers' layout: a folder or a hub name. Greedy. Raises CheckpointError on first use."""

    name: str = "openai/whisper-large-v3"
    device: str = "cpu"
    language: str = "en"

    def settings(self) -> Mapping[str, Any]:
        return {"recogniser": "whisper", "model": self.name, "language": self.language}

    def transcribe(self, wave: Tensor) -> str:
        """What is said in `wave` [n]."""
        model, processor = _whisper(self.name, self.device)
        long = len(wave) > CHUNK_SAMPLES
        inputs = processor(wave.numpy(), sampling_rate=SAMPLE_RATE, return_tensors="pt", return_attention_mask=True,
                           **({"truncation": False, "padding": "longest"} if long else {})).to(model.device)
        many = getattr(model.generation_config, "is_multilingual", False)
        options = {"language": self.language, "task": "transcribe"} if many else {}
        ids = model.generate(inputs.input_features, attention_mask=inputs.attention_mask, do_sample=False,
                             num_beams=1, return_timestamps=long, **options)
        return str(processor.batch_decode(ids, skip_special_tokens=True)[0]).strip()


@cache
def _whisper(name: str, device: str) -> tuple[Any, Any]:
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

    folder = find_folder(name)
    try:
        model: Any = WhisperForConditionalGeneration.from_pretrained(folder)
        return model.to(device).eval(), WhisperProcessor.from_pretrained(folder)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{folder}: no Whisper that can be read ({type(error).__name__}: "
                              f"{str(error).splitlines()[0] if str(error) else 'no reason given'})") from error


@dataclass(frozen=True)
class FasterWhisper(_Transcriber):
    """A CTranslate2 model by its name ("large-v3") or folder. Raises ConfigError: the package is missing."""

    name: str = "large-v3"
    device: str = "cpu"
    language: str = "en"

    def settings(self) -> Mapping[str, Any]:
        return {"recogniser": "faster-whisper", "model": self.name, "language": self.language}

    def transcribe(self, wave: Tensor) -> str:
        """What is said in `wave` [n]."""
        segments, _ = _faster_whisper(self.name, self.device).transcribe(
            wave.numpy(), language=self.language, beam_size=1, temperature=0.0, condition_on_previous_text=False)
        return " ".join(segment.text.strip() for segment in segments)


@cache
def _faster_whisper(name: str, device: str) -> Any:
    try:
        from faster_whisper import WhisperModel
    except ImportError as error:
        raise ConfigError("faster-whisper: the Python package is missing; install it with: "
                          "pip install faster-whisper") from error
    try:
        return WhisperModel(name, device=device, compute_type="default")
    except Exception as error:  # of CTranslate2 and of the hub's client
        raise CheckpointError(f"{name}: no faster-whisper model that can be read ({type(error).__name__}: "
                              f"{error})") from error


@dataclass
class Pocketsphinx:
    """Hears which of the build's words are said. It cannot judge a text with a word that its dictionary lacks, nor a
    voice too unlike the people that it learned from: most of espeak's."""

    max_wer: float = 0.6
    auditions: int = 5
    texts: tuple[str, ...] = field(default=(), repr=False)

    def settings(self) -> Mapping[str, Any]:
        return {"recogniser": "pocketsphinx", "auditions": self.auditions}

    def begin(self, texts: Iterable[str]) -> None:
        self.texts = tuple(texts)
        self.__dict__.pop("_listener", None)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_listener"}

    @cached_property
    def _listener(self) -> Listener:
        return Listener(self.texts)

    def errors(self, texts: Sequence[str], waves: Sequence[Tensor]) -> list[float | None]:
        import jiwer

        found: list[float | None] = []
        for text, wave in zip(texts, waves, strict=True):
            said = self._listener.reference(text)
            found.append(None if not said else float(jiwer.wer(
                " ".join(said), " ".join(self._listener.transcribe(wave)))))
        return found


def recogniser(spec: str, device: str = "cpu", language: str = "en") -> Recogniser | None:
    """whisper:NAME, faster-whisper:NAME, pocketsphinx, or none. `language`: its code. Raises ConfigError."""
    kind, _, name = spec.partition(":")
    if kind == "whisper":
        return Whisper(name or Whisper.name, device, language)
    if kind == "faster-whisper":
        return FasterWhisper(name or FasterWhisper.name, device, language)
    if spec == "pocketsphinx":
        if language != "en":
            raise ConfigError(f"--recogniser pocketsphinx: knows English, not {language!r}; expected whisper:NAME, "
                              "faster-whisper:NAME or none")
        return Pocketsphinx()
    if spec == "none":
        return None
    raise ConfigError(f"recogniser: found {spec!r}; expected whisper:NAME, faster-whisper:NAME, pocketsphinx or none")
