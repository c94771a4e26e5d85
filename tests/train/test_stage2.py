"""What the bundled model's speech decoder learns from: the states of what the model itself says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from omnivox.model.adaptor import Adaptor
from omnivox.model.config import AdaptorConfig
from omnivox.nano.words import ANSWER, TRANSCRIBE, build_tokenizer
from omnivox.train.language import LanguageConfig, build_llm
from omnivox.train.loop import Schedule
from omnivox.train.stage1 import SpokenPrompts
from omnivox.train.stage2 import Stage2Config, States, _usable

WIDTH = 16
WORDS = ("Paris", "Rome", "Sorry", ".")


class Frames:
    """Encoder frames of utterances that are all alike but for their numbers."""

    copies = 2

    def rows(self, keys: Sequence[tuple[int, int]]) -> list[Tensor]:
        return [torch.randn(6, 8, generator=torch.Generator().manual_seed(10 * i + copy)) for i, copy in keys]


@pytest.fixture
def prompts() -> SpokenPrompts:
    torch.manual_seed(0)
    tokenizer = build_tokenizer(WORDS)
    llm = build_llm(LanguageConfig(Schedule(steps=1, lr=1e-2), width=WIDTH, layers=1, heads=2, ffn=16), tokenizer)
    return SpokenPrompts(Adaptor(AdaptorConfig(k=2, encoder_width=8, inner_width=8, llm_width=WIDTH)), llm.eval(),
                         tokenizer)


def states(prompts: SpokenPrompts, answers: Sequence[str | None]) -> States:
    corpus = SimpleNamespace(rows=[{"answer": answer, "text": "Rome."} for answer in answers])
    return States(corpus, Frames(), prompts, "predicting")  # type: ignore[arg-type]


@pytest.fixture
def sorry(prompts: SpokenPrompts, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that the model itself says is "Sorry"."""
    ids = [prompts.tokenizer.convert_tokens_to_ids("Sorry"), prompts.tokenizer.eos_token_id]
    monkeypatch.setattr(prompts, "replies", lambda frames: [ids] * len(frames))


@pytest.mark.usefixtures("sorry")
def test_what_the_model_says_itself_is_what_its_voice_learns_to_say(prompts: SpokenPrompts) -> None:
    [(said, found)] = states(prompts, ["Paris."]).rows([(0, 1, ANSWER)], {"Sorry", "Rome."})
    assert said == "Sorry"
    [(_, expected)] = states(prompts, ["Sorry"]).rows([(0, 1, ANSWER)])
    assert torch.equal(found, expected)
    assert found.shape == (2, WIDTH)  # the word and the end


@pytest.mark.usefixtures("sorry")
def test_a_reply_that_nobody_has_spoken_leaves_the_right_one(prompts: SpokenPrompts) -> None:
    made = states(prompts, ["Paris."])
    assert [said for said, _ in made.rows([(0, 0, ANSWER)], {"Rome."})] == ["Paris."]
    assert [said for said, _ in made.rows([(0, 1, ANSWER), (0, 1, TRANSCRIBE)])] == ["Paris.", "Rome."]


@pytest.mark.usefixtures("sorry")
def test_what_is_to_be_repeated_is_repeated(prompts: SpokenPrompts) -> None:
    assert [said for said, _ in states(prompts, [None]).rows([(0, 0, TRANSCRIBE)], {"Sorry"})] == ["Rome."]


def test_what_is_said_often_is_learned_more_often_but_not_as_often(prompts: SpokenPrompts) -> None:
    answers = ["Sorry"] * 256 + ["Paris."] * 16 + ["Rome."] * 3 + ["never spoken"] * 9
    units = {answer: torch.arange(2) for answer in ("Sorry", "Paris.", "Rome.")}
    config = Stage2Config(Schedule(steps=1, lr=1e-2), per_answer=10, often=0.75)
    chosen = _usable(states(prompts, answers), units, ANSWER, config)
    assert Counter(answers[i] for i in chosen) == {"Sorry": 64, "Paris.": 10, "Rome.": 3}
    assert chosen == sorted(set(chosen))
    assert max(i for i in chosen if answers[i] == "Sorry") > 200  # of all who ask, not of the first
