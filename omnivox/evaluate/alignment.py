"""Whether an answer says aloud what it says in writing: word and character errors of a transcript of its speech.

    asr_wer   edits between the words of the text answer and of the transcript, by the words of the text answer
    asr_cer   the same of characters, spaces included (v1 alone reports it)

Both are the paper's (v1 and v2), which lets Whisper-large-v3 transcribe. Over many answers a rate is the sum of the
edits by the sum of the words (`corpus_rate`), not the mean of rates: a short answer does not weigh more than its words.

    whisper:NAME, faster-whisper:NAME   hear anything; both texts as Whisper's English normaliser writes them
    pocketsphinx                        bundled: hears nano's domain alone; texts as nano's listener writes them

Shapes: n samples.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from omnivox.data.recognise import FasterWhisper, Whisper, normalised, recogniser
from omnivox.errors import ConfigError
from omnivox.evaluate.measure import Answer, Value, of_speech
from omnivox.nano.listener import Listener, words
from omnivox.rates import SAMPLE_RATE

_OPEN = ("whisper", "faster-whisper")


class Transcriber(ABC):
    """Writes down what it hears. The same sound is heard once, whichever measures ask."""

    def __init__(self) -> None:
        self._heard: dict[bytes, str] = {}

    @abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """All that it hears depends on, as JSON."""

    @abstractmethod
    def compared(self, text: str) -> str:
        """`text` as it is compared, "" where that leaves nothing. Raises UnheardError: it cannot be compared."""

    @abstractmethod
    def _listen(self, wave: Tensor) -> str:
        """What is said in `wave` [n], n > 0."""

    def transcribe(self, wave: Tensor) -> str:
        """What is said in `wave` [n] at 16 kHz, "" of an empty one."""
        if not len(wave):
            return ""
        samples = wave.detach().cpu().float().contiguous()
        key = hashlib.sha256(samples.numpy().tobytes()).digest()
        if key not in self._heard:
            self._heard[key] = self._listen(samples)
        return self._heard[key]


class UnheardError(ValueError):
    """A text that a transcriber cannot be held against; its message is the reason."""


class OpenTranscriber(Transcriber):
    """Whisper, by transformers or by CTranslate2."""

    def __init__(self, ear: Whisper | FasterWhisper) -> None:
        super().__init__()
        self.ear = ear
        ear.transcribe(torch.zeros(SAMPLE_RATE))  # what is missing is told now

    def settings(self) -> Mapping[str, Any]:
        return {**self.ear.settings(), "normaliser": "whisper english"}

    def compared(self, text: str) -> str:
        return normalised(text)

    def _listen(self, wave: Tensor) -> str:
        return self.ear.transcribe(wave)


class DomainTranscriber(Transcriber):
    """nano's listener. It hears the words of its domain whatever is said, so texts with others cannot be judged."""

    def __init__(self, listener: Listener | None = None) -> None:
        super().__init__()
        self.listener = listener or Listener()

    def settings(self) -> Mapping[str, Any]:
        return {"recogniser": "pocketsphinx", "model": self.listener.name}

    def compared(self, text: str) -> str:
        said = self.listener.reference(text)
        if said is None:
            unknown = sorted(set(words(text)) - self.listener.known)
            raise UnheardError(f"has words that the listener does not know: {', '.join(unknown[:5])}")
        return " ".join(said)

    def _listen(self, wave: Tensor) -> str:
        return " ".join(self.listener.transcribe(wave))


def transcriber(spec: str, device: str = "cpu", language: str = "en") -> Transcriber:
    """whisper:NAME, faster-whisper:NAME or pocketsphinx, ready to hear.

    Raises ConfigError: another name, or a package is missing. CheckpointError: no such model.
    """
    if spec == "pocketsphinx":
        return DomainTranscriber()
    ear = recogniser(spec, device, language) if spec.partition(":")[0] in _OPEN else None
    if not isinstance(ear, Whisper | FasterWhisper):
        raise ConfigError(f"transcriber: found {spec!r}; expected whisper:NAME, faster-whisper:NAME or pocketsphinx")
    return OpenTranscriber(ear)


Aligned = Callable[[str, str], Any]  # of a reference and a hypothesis: jiwer's counts of an alignment


class _ErrorRate:
    """Edits between a text answer and the transcript of its speech, by the text answer's length. Speech without a sound
    in it is an answer whose every word is missing. Raises ConfigError: jiwer is missing."""

    name: ClassVar[str]
    counted: ClassVar[str]  # what the length is counted in
    _function: ClassVar[str]  # of jiwer's

    def __init__(self, transcriber: Transcriber) -> None:
        self.transcriber = transcriber
        self._align: Aligned = getattr(_jiwer(self.name), self._function)

    def settings(self) -> Mapping[str, Any]:
        return self.transcriber.settings()

    def measure(self, answers: Sequence[Answer]) -> list[Value]:
        return of_speech(answers, self._of)

    def _of(self, answer: Answer, wave: Tensor) -> Value:
        try:
            said = self.transcriber.compared(answer.text)
        except UnheardError as error:
            return Value(None, f"the text answer {error}")
        if not said:
            return Value(None, "the text answer holds no words")
        transcript = self.transcriber.transcribe(wave)
        aligned = self._align(said, self.transcriber.compared(transcript))
        edits = aligned.substitutions + aligned.deletions + aligned.insertions
        length = aligned.hits + aligned.substitutions + aligned.deletions
        return Value(edits / length, None, {"edits": edits, self.counted: length, "heard": transcript})


class WordErrors(_ErrorRate):
    """asr_wer; in its detail: edits, words, heard."""

    name = "asr_wer"
    counted = "words"
    _function = "process_words"


class CharacterErrors(_ErrorRate):
    """asr_cer; in its detail: edits, characters, heard."""

    name = "asr_cer"
    counted = "characters"
    _function = "process_characters"


def _jiwer(name: str) -> Any:
    try:
        import jiwer
    except ImportError as error:
        raise ConfigError(f"{name}: Python package jiwer is missing; install it with: "
                          "pip install 'omnivox[evaluate]'") from error
    return jiwer


def corpus_rate(values: Iterable[Value]) -> float | None:
    """The error rate over many answers, of words or of characters: all edits by the whole length. Answers without a
    value are left out; None where none has one."""
    details = [value.detail for value in values if value.value is not None]
    length = sum(detail.get("words", detail.get("characters", 0)) for detail in details)
    return sum(detail["edits"] for detail in details) / length if length else None
