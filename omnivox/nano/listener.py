"""A recogniser that knows nothing of nano: pocketsphinx (Huggins-Daines et al. 2006), whose model is in its own wheel.

Its acoustic model is a Gaussian one of other people's recordings. Its language model is made here: it knows how often a
word occurs in the domain's answers, and half believes it, but nothing of their order. One that knew the sentences would
hear them in mumbling too, and could not tell a good voice from a bad one. Words that sound the same are one word to it,
for nothing but such knowledge could tell "two" from "too".

On the voice that nano learned its answers from (flite rms) its word error rate over 25 answers and 1,797 words was 0.31
with all words equally probable, 0.09 with frequencies half believed and 0.06 with frequencies believed at 0.9. With
2,345 words, half believed, it was 0.18 over 30 bundled answers, 0.15 over 25 others and 0.50 over these with pink noise
at 20 dB: it hears every flaw.

Shapes: n samples.
"""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from collections.abc import Container, Iterable
from functools import cached_property
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import soxr
from torch import Tensor

from omnivox.errors import ConfigError
from omnivox.nano import dialogues
from omnivox.rates import SAMPLE_RATE

LEXICON = "lexicon.dict"  # in held/: the answers' words that pocketsphinx's own dictionary lacks
MARGIN = SAMPLE_RATE * 3 // 10  # samples of silence added at both sides, which its silence model wants to see
PEAK = 0.6  # of full scale
SILENCE = 1e-3  # of full scale: nothing louder
BELIEVED = 0.5  # of the words' frequencies
END_SHARE = 0.15  # of words, an answer has six or seven
Samples = np.ndarray[Any, np.dtype[np.float32]]


def _pocketsphinx() -> Any:
    try:
        import pocketsphinx
    except ImportError as error:
        raise ConfigError("listener: Python package pocketsphinx is missing; install it with: "
                          "pip install 'omnivox[nano]'") from error
    return pocketsphinx


def words(text: str) -> list[str]:
    """`text` as the listener writes: lower case, without punctuation."""
    return [token.lower() for token in dialogues.tokens(text) if token[0].isalpha()]


def word_counts(texts: Iterable[str]) -> Counter[str]:
    """How often each word occurs in `texts`."""
    return Counter(word for text in texts for word in words(text))


def read_lexicon(lines: Iterable[str], wanted: Container[str]) -> dict[str, list[str]]:
    """Pronunciations of the `wanted` words, from lines of "word PHONES" or "word(2) PHONES"."""
    found: dict[str, list[str]] = {}
    for line in lines:
        entry, _, phones = line.strip().partition(" ")
        word = entry.partition("(")[0]
        if word in wanted:
            found.setdefault(word, []).append(phones.strip())
    return found


def own_lexicon(wanted: Container[str]) -> dict[str, list[str]]:
    """What pocketsphinx itself knows of the `wanted` words."""
    path = Path(_pocketsphinx().get_model_path("en-us/cmudict-en-us.dict"))
    with path.open(encoding="utf-8") as lines:
        return read_lexicon(lines, wanted)


def missing_words() -> list[str]:
    """The answers' words that pocketsphinx cannot pronounce."""
    wanted = word_counts(dialogues.answers())
    return sorted(wanted.keys() - own_lexicon(wanted).keys())


class Listener:
    """A recogniser of the words of `texts` (all answers of the domain if None).

    lexicon: pronunciations by word, beside those that pocketsphinx and the bundled list know. Words with none of the
    three are not in `known`, and texts with them cannot be scored.
    """

    def __init__(self, texts: Iterable[str] | None = None, lexicon: dict[str, list[str]] | None = None) -> None:
        counts = word_counts(dialogues.answers() if texts is None else texts)
        bundled = resources.files("omnivox.nano").joinpath("held", LEXICON)
        lines = bundled.read_text(encoding="utf-8").splitlines() if bundled.is_file() else []
        pronounced = read_lexicon(lines, counts) | own_lexicon(counts) | (lexicon or {})
        self.name = f"pocketsphinx {version('pocketsphinx')}, {len(pronounced)} words in any order"
        self.known = frozenset(pronounced)
        self._same: dict[str, str] = {}  # from each word to the most frequent one that usually sounds so
        self._spoken: dict[str, set[str]] = {}  # from each of those to all their pronunciations
        self._counts: Counter[str] = Counter()
        by_sound: dict[str, str] = {}
        for word in sorted(pronounced, key=lambda word: (-counts[word], word)):
            usual = pronounced[word][0]  # dictionaries list it first
            same = self._same[word] = by_sound.setdefault(usual, word)
            self._spoken.setdefault(same, set()).update(pronounced[word])
            self._counts[same] += counts[word]

    @cached_property
    def _decoder(self) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            dictionary, model = Path(folder, "words.dict"), Path(folder, "words.lm")
            dictionary.write_text("".join(f"{word}{f'({i})' if i > 1 else ''} {phones}\n"
                                          for word, spoken in sorted(self._spoken.items())
                                          for i, phones in enumerate(sorted(spoken), 1)), encoding="utf-8")
            model.write_text(language_model(self._counts), encoding="utf-8")
            # cmn=batch: the mean cepstrum is each utterance's own, so what was heard before does not matter
            return _pocketsphinx().Decoder(dict=str(dictionary), lm=str(model), samprate=SAMPLE_RATE, cmn="batch",
                                           loglevel="FATAL")

    def reference(self, text: str) -> list[str] | None:
        """The words to be heard in `text`, each as the listener writes what sounds so; None where one is unknown."""
        spoken = words(text)
        return [self._same[word] for word in spoken] if self.known.issuperset(spoken) else None

    def transcribe(self, audio: Samples | Tensor, rate: int = SAMPLE_RATE) -> list[str]:
        """The words heard in `audio` [n] at `rate` Hz; the same for the same sound, whatever was heard before."""
        samples = audio.detach().cpu().numpy() if isinstance(audio, Tensor) else np.asarray(audio)
        peak = float(np.abs(samples).max(initial=0.0))
        if peak < SILENCE:
            return []
        if rate != SAMPLE_RATE:
            samples = soxr.resample(samples, rate, SAMPLE_RATE)
        loud = np.pad(samples * (PEAK / peak), MARGIN)
        decoder = self._decoder
        decoder.start_utt()
        decoder.process_raw((loud * 32767).astype(np.int16).tobytes(), full_utt=True)
        decoder.end_utt()
        segments = (segment.word.partition("(")[0] for segment in decoder.seg() or ())
        return [word for word in segments if word in self.known]  # without <s>, <sil> and [NOISE]


def language_model(counts: Counter[str], believed: float = BELIEVED) -> str:
    """An ARPA unigram model: `believed` of each word's share of `counts`, the rest shared evenly among all words."""
    total, even = counts.total(), (1 - believed) / (len(counts) + 1)
    rows = ["-99.0000 <s>", f"{math.log10(even + believed * END_SHARE):.4f} </s>"]
    rows += [f"{math.log10(even + believed * (1 - END_SHARE) * count / total):.4f} {word}"
             for word, count in sorted(counts.items())]
    return "\n".join(["\\data\\", f"ngram 1={len(rows)}", "", "\\1-grams:", *rows, "", "\\end\\", ""])
