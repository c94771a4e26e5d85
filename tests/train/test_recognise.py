"""The encoder's training: classes that are the LLM's own words, batches that depend on their step alone."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from omnivox.model.config import AdaptorConfig, EncoderConfig
from omnivox.nano.dialogues import question_words
from omnivox.nano.speak import PHONES
from omnivox.train.loop import Schedule
from omnivox.train.recognise import Batches, RecogniseConfig, Recogniser, error_rates, word_ids

CONFIG = RecogniseConfig(EncoderConfig(80, 32, 2, heads=2, positions=100, strides=(2, 2), conv_kernel=3),
                         Schedule(steps=10, lr=1e-3), batch=3, pool=2, phone_layer=1)
ADAPTOR = AdaptorConfig(k=2, encoder_width=32, inner_width=16, llm_width=8)
WORDS = {"two": 3, "plus": 4, "three": 5}
BLANK, UNKNOWN = 0, 1


@dataclass
class Said:
    text: str
    phones: tuple[str, ...]
    audio: np.ndarray  # type: ignore[type-arg]


@pytest.fixture
def spoken() -> list[Said]:
    rng = np.random.default_rng(0)
    return [Said("Two plus three", ("t", "uw", "p"), rng.standard_normal(9_600).astype(np.float32)) for _ in range(8)]


@pytest.fixture
def recogniser() -> Recogniser:
    torch.manual_seed(0)
    return Recogniser(CONFIG, ADAPTOR, torch.randn(6, 8), BLANK).eval()


def test_a_position_is_the_word_whose_embedding_it_lies_on(recogniser: Recogniser) -> None:
    torch.nn.init.zeros_(recogniser.adaptor.linear2.weight)
    table = recogniser.get_buffer("table")
    for word in range(6):
        with torch.no_grad():
            recogniser.adaptor.linear2.bias.copy_(table[word])
        phones, frames, words, positions = recogniser(torch.randn(2, 40, 80), torch.tensor([40, 24]))
        assert (words.argmax(-1) == word).all()
        assert phones.shape == (2, 10, len(PHONES) + 1)
        assert frames.tolist() == [10, 6]
        assert positions.tolist() == [5, 3]
    away = table - table[5]
    expected = -0.5 * CONFIG.sharpness * away.square().sum(1)
    found = words[0, 0] - words[0, 0, 5]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_the_words_do_not_move(recogniser: Recogniser) -> None:
    assert "table" not in dict(recogniser.named_parameters())
    assert "table" not in recogniser.state_dict()


def test_a_row_does_not_depend_on_its_padding(recogniser: Recogniser) -> None:
    mel = torch.randn(1, 24, 80)
    alone = recogniser(mel, torch.tensor([24]))[2]
    padded = torch.cat([torch.cat([mel, torch.randn(1, 16, 80)], 1), torch.randn(1, 40, 80)])
    together = recogniser(padded, torch.tensor([24, 40]))[2]
    torch.testing.assert_close(together[:1, : alone.shape[1]], alone, rtol=1e-4, atol=1e-4)


def test_a_step_has_one_batch_and_another_step_another(spoken: list[Said]) -> None:
    words = WORDS | {word: i for i, word in enumerate(question_words(), 6) if word not in WORDS}
    batches = Batches(spoken, [9_600] * 8, CONFIG, words, UNKNOWN, BLANK)
    first, again, other = batches.at(4), batches.at(4), batches.at(5)
    assert torch.equal(first.mel, again.mel)
    assert first.mel.shape != other.mel.shape or not torch.equal(first.mel, other.mel)
    assert first.classes[first.words].tolist() == [[3, 4, 5]] * 3
    assert first.classes[0] == BLANK
    assert len(first.classes) == len(set(first.classes.tolist())) == 4 + CONFIG.others
    assert first.weight[:4].tolist() == [0] * 4
    assert float(first.weight.exp().sum()) == pytest.approx(len(batches.rivals) + 1)
    assert first.word_count.tolist() == first.phone_count.tolist() == [3, 3, 3]
    assert [PHONES[i] for i in first.phones[0]] == ["t", "uw", "p"]


def test_words_that_the_llm_does_not_know_are_one_class(spoken: list[Said]) -> None:
    assert word_ids(replace(spoken[0], text="Two plus zebra"), WORDS, UNKNOWN) == [3, 4, UNKNOWN]


def test_error_rates_count_edits_per_phone_and_per_word(recogniser: Recogniser, spoken: list[Said]) -> None:
    torch.nn.init.zeros_(recogniser.adaptor.linear2.weight)
    with torch.no_grad():  # hears one word, always the same, and no phone
        recogniser.adaptor.linear2.bias.copy_(recogniser.get_buffer("table")[4])
        recogniser.phones[1].weight.zero_()
        recogniser.phones[1].bias.fill_(-5.0)[-1] = 5.0
    assert error_rates(recogniser, spoken, WORDS, UNKNOWN, batch=3) == (1.0, pytest.approx(2 / 3))
