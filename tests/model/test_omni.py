"""The spoken language model's batches: padding changes nothing, and what does not fit together is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from omnivox.model.omni import IGNORED, SPEECH, SpokenBatch, SpokenLM
from tests import tiny

QUESTIONS = [torch.tensor(ids) for ids in ([1, SPEECH, 4], [1, 7, SPEECH, 9, 4], [1, 8, 4])]  # the last is written
ANSWERS = [torch.tensor(ids) for ids in ([20, 21, 2], [22, 2], [23, 24, 25, 26, 2])]
UNITS = [torch.tensor(ids) for ids in ([1, 2, 3], [4, 5, 4, 5, 4, 5, 4, 5, 4, 5, 4, 5], [6])]  # the second is stretched
FRAMES = [64, 37, 0]


@pytest.fixture(scope="module")
def model() -> SpokenLM:
    return tiny.omni().model


@pytest.fixture(scope="module")
def mels() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(frames, tiny.CONFIG.mel.n_mels, generator=generator) for frames in FRAMES]


def batch(mels: list[Tensor], rows: list[int]) -> SpokenBatch:
    """Rows of the three examples, padded with rubbish."""
    ids = [torch.cat([QUESTIONS[b], ANSWERS[b]]) for b in rows]
    labels = [torch.cat([torch.full_like(QUESTIONS[b], IGNORED), ANSWERS[b]]) for b in rows]

    def lengths(of: list[Tensor]) -> Tensor:
        return torch.tensor([len(row) for row in of])

    def padded(of: list[Tensor], value: float) -> Tensor:
        return pad_sequence(of, batch_first=True, padding_value=value)

    heard, units = [mels[b] for b in rows], [UNITS[b] for b in rows]
    spoken = any(len(mel) for mel in heard)
    return SpokenBatch(padded(ids, 3), padded(labels, 3), lengths(ids), padded(heard, 99.0) if spoken else None,
                       lengths(heard) if spoken else None, padded(units, -1), lengths(units))


@torch.no_grad()
def test_rows_of_a_batch_are_as_alone(model: SpokenLM, mels: list[Tensor]) -> None:
    together = model.splice(batch(mels, [0, 1, 2]))
    for b in range(3):
        alone = model.splice(batch(mels, [b]))
        length = alone.embeds.shape[1]
        assert int(together.mask[b].sum()) == length == int(alone.mask.sum())
        torch.testing.assert_close(together.embeds[b, :length], alone.embeds[0], atol=1e-5, rtol=0)
        assert torch.equal(together.labels[b, :length], alone.labels[0])
        assert (together.labels[b, length:] == IGNORED).all()


@torch.no_grad()
def test_losses_of_a_batch_are_the_sums_of_its_rows(model: SpokenLM, mels: list[Tensor]) -> None:
    whole, rows = batch(mels, [0, 1, 2]), [batch(mels, [b]) for b in range(3)]
    counts = torch.tensor([len(answer) for answer in ANSWERS])
    alone = torch.stack([model.stage1_loss(row) for row in rows])
    torch.testing.assert_close(model.stage1_loss(whole), (alone * counts).sum() / counts.sum(), atol=1e-5, rtol=1e-5)
    spoken = model.stage2_loss(whole)
    assert spoken.frames.tolist() == [15, 12, 25]  # five a token, or as many as there are units
    for b, row in enumerate(rows):
        torch.testing.assert_close(spoken.nll[b], model.stage2_loss(row).nll[0], atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(spoken.loss, spoken.nll.sum() / 16)
    joint = model.joint_loss(whole, 0.5)
    torch.testing.assert_close(joint, model.stage1_loss(whole) + 0.5 * spoken.loss, atol=1e-5, rtol=1e-5)


def test_only_the_speech_decoder_learns_in_stage_2(mels: list[Tensor]) -> None:
    model = tiny.omni().model.requires_grad_(True)
    model.stage2_loss(batch(mels, [0, 1])).loss.backward()
    learning = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert learning == {"speech_decoder"}


@torch.no_grad()
def test_speech_takes_the_place_of_its_mark(model: SpokenLM) -> None:
    table, speech = model.llm.get_input_embeddings(), torch.randn(3, 16)
    found = model.embed_prompt(torch.tensor([1, SPEECH, 4, 5]), speech)
    assert torch.equal(found, torch.cat([table(torch.tensor([1])), speech, table(torch.tensor([4, 5]))]))
    assert torch.equal(model.embed_prompt(torch.tensor([1, 4])), table(torch.tensor([1, 4])))
    assert torch.equal(model.embed_prompt(torch.tensor([SPEECH]), speech), speech)
    with pytest.raises(ValueError, match="a place for speech; it is given none"):
        model.embed_prompt(torch.tensor([1, SPEECH]))
    with pytest.raises(ValueError, match="no place for speech; it is given some"):
        model.embed_prompt(torch.tensor([1]), speech)
    with pytest.raises(ValueError, match="2 places for speech"):
        model.embed_prompt(torch.tensor([SPEECH, SPEECH]), speech)


@torch.no_grad()
def test_the_longest_question_fits_and_no_longer_one(model: SpokenLM) -> None:
    samples = model.max_samples
    assert samples == tiny.CONFIG.encoder.positions * tiny.CONFIG.encoder.stride * 160
    assert int(model.encode(model.log_mel(torch.zeros(1, samples))).length) == tiny.CONFIG.encoder.positions // 2
    with pytest.raises(ValueError, match="encoder frames; this encoder has positions for"):
        model.encode(model.log_mel(torch.zeros(1, samples + 160)))


def test_parts_that_do_not_fit_together() -> None:
    wrong = {"encoder.n_mels": {"mel": replace(tiny.CONFIG.mel, n_mels=9)},
             "adaptor.encoder_width": {"adaptor": replace(tiny.CONFIG.adaptor, encoder_width=9)},
             "adaptor.llm_width": {"adaptor": replace(tiny.CONFIG.adaptor, llm_width=9)},
             "speech_decoder.llm_width": {"speech_decoder": replace(tiny.CONFIG.speech_decoder, llm_width=9)}}
    for name, change in wrong.items():
        with pytest.raises(ValueError, match=f"^{name}: found"):
            SpokenLM(replace(tiny.CONFIG, **change), tiny.llm())


def test_stage_2_needs_units_and_answers(model: SpokenLM, mels: list[Tensor]) -> None:
    with pytest.raises(ValueError, match="has no units"):
        model.stage2_loss(replace(batch(mels, [0]), units=None))
    silent = batch(mels, [0, 1])
    silent.labels[1] = IGNORED
    with pytest.raises(ValueError, match="row 1 has no answer"):
        model.stage2_loss(silent)
