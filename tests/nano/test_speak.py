"""The spoken corpus: complete shards, resuming, what a row holds, phones."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import pytest

from omnivox.errors import DataError
from omnivox.nano import speak as module
from omnivox.nano.english import common_words
from omnivox.nano.speak import (
    PHONES,
    Corpus,
    phonetic_sentence,
    pronounce,
    speak_answers,
    speak_questions,
)
from omnivox.nano.voices import ANSWER_VOICE, Voice

pytestmark = pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")
KAL = [Voice("flite", "kal16")]


@dataclass(frozen=True)
class Capital:
    topic: str
    question: str
    answer: str


def ask(rng: Random, split: str) -> Capital:
    """Picklable, for the workers."""
    country = rng.choice(["france", "spain", "peru"])
    return Capital("capitals", f"what is the capital of {country}", f"the capital of {country} is easy.")


def ask_of_rome(rng: Random, split: str) -> Capital:
    raise AssertionError("a complete shard was spoken again")


def questions(out: Path, shards: int, **changes: object) -> None:
    settings = {"seed": 5, "workers": 1, "source": ask, "phonetic": 0.3, "shard_seconds": 8.0} | changes
    speak_questions(out, shards * 8 / 3600, "train", KAL, **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("questions")
    questions(out, 2)
    return out


def test_rows_and_samples_agree(folder: Path):
    corpus = Corpus(folder)
    assert corpus.hours * 3600 >= 16
    total = sum(len(np.load(path)) for path in folder.glob("*.npy"))
    assert sum(len(utterance.audio) for utterance in corpus) == total
    asked = [utterance for utterance in corpus if utterance.topic == "capitals"]
    nonsense = [utterance for utterance in corpus if utterance.topic == "phonetic"]
    assert len(asked) + len(nonsense) == len(corpus)
    assert all(utterance.answer and utterance.answer.startswith("the capital") for utterance in asked)
    assert nonsense
    assert all(utterance.answer is None for utterance in nonsense)
    assert all(0.5 < np.abs(utterance.audio).max() <= 0.6001 for utterance in corpus)
    assert all(set(utterance.phones) <= set(PHONES) for utterance in corpus)


def test_a_killed_run_goes_on_with_the_missing_shard_and_ends_the_same(folder: Path, tmp_path: Path):
    out = tmp_path / "killed"
    shutil.copytree(folder, out)
    (out / "shard-00001.jsonl").unlink()  # killed between the sound and its manifest
    (out / "shard-00001.npy").write_bytes(b"half")
    kept = (out / "shard-00000.npy").stat().st_mtime_ns
    assert len(Corpus(out)) < len(Corpus(folder))
    questions(out, 2)
    assert (out / "shard-00000.npy").stat().st_mtime_ns == kept
    for name in ("shard-00001.npy", "shard-00001.jsonl"):
        assert (out / name).read_bytes() == (folder / name).read_bytes()


def test_complete_shards_are_never_spoken_again(folder: Path):
    questions(folder, 2, source=ask_of_rome)


def test_another_seed_is_refused_in_the_same_folder(folder: Path):
    with pytest.raises(DataError, match=r"corpus\.json.*'seed': 5"):
        questions(folder, 2, seed=6)


def test_a_shard_that_fails_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(module.np, "save", full)
    with pytest.raises(OSError, match="space"):
        module._answer_shard(0, out=tmp_path, groups=[["hello"]], voice=ANSWER_VOICE, topic="answer", split="train")
    assert list(tmp_path.iterdir()) == []


def test_answers_keep_their_order_and_repeat_exactly(tmp_path: Path):
    texts = ["Hello there!", "Cat is spelled C, A, T.", "Paris. It is in France."]
    for name in ("first", "second"):
        speak_answers(tmp_path / name, texts, shard_lines=2, workers=1)
    first, second = Corpus(tmp_path / "first"), Corpus(tmp_path / "second")
    assert [utterance.text for utterance in first] == texts
    assert all(np.array_equal(a.audio, b.audio) for a, b in zip(first, second, strict=True))


def test_broken_folders_are_named(folder: Path, tmp_path: Path):
    with pytest.raises(DataError, match="no complete shard"):
        Corpus(tmp_path)
    out = tmp_path / "short"
    shutil.copytree(folder, out)
    np.save(out / "shard-00000.npy", np.zeros(10, np.int16))
    with pytest.raises(DataError, match=r"shard-00000\.jsonl.*the sound at 10"):
        Corpus(out)


def test_manifests_are_plain_json_rows(folder: Path):
    rows = [json.loads(line) for line in (folder / "shard-00000.jsonl").read_text().splitlines()]
    assert set(rows[0]) == {"text", "answer", "topic", "voice", "offset", "samples", "split", "phones"}
    assert [row["offset"] for row in rows] == np.cumsum([0] + [row["samples"] for row in rows])[:-1].tolist()


def test_phones_are_one_sequence_a_text_whatever_its_stops():
    batch = ["hello there", "Dr. Smith is here. Really? Yes.", "c a t", "good day"]
    together = pronounce(batch)
    assert together == [pronounce([text])[0] for text in batch]
    assert " ".join(together[0]) == "hh ax l ow dh eh r"
    assert " ".join(together[2]) == "s iy ey t iy"


def test_every_common_word_has_known_phones_and_all_phones_occur():
    words = sorted({word for listed in common_words().values() for word in listed})
    assert len(words) > 1500
    assert {phone for phones in pronounce(words) for phone in phones} == set(PHONES)


def test_phonetic_sentences_vary_and_repeat_by_seed():
    sentences = [phonetic_sentence(Random(seed)) for seed in range(200)]
    assert sentences == [phonetic_sentence(Random(seed)) for seed in range(200)]
    assert len(set(sentences)) > 195
    assert all(3 <= len(sentence.split()) <= 8 for sentence in sentences)
