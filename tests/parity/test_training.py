"""Both stages' losses and gradients against numbers of the published implementation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from omnivox.checkpoint.llama_omni import published_name
from omnivox.model.omni import SpokenLM
from tests.parity.references import OmniReference, label, sets

LOSS = 1e-4  # relative
GRADIENT = 1e-3  # relative, of each parameter's norm
CTC_GRADIENT = 1e-3
HIDDEN = 1e-3  # absolute


@pytest.fixture(params=sets("omni"), ids=label, scope="module")
def reference(request: pytest.FixtureRequest) -> OmniReference:
    reference = OmniReference(request.param)
    if not reference.trains:
        pytest.skip("this set has no training batch")
    return reference


@pytest.fixture
def model(reference: OmniReference) -> Iterator[SpokenLM]:
    """With the released trainer's states, everything but the encoder to be trained."""
    model, config = reference.model, reference.model.config
    model.config = replace(config, states_fed="consumed")
    model.requires_grad_(True)
    model.encoder.requires_grad_(False)
    yield model.train()
    model.eval().zero_grad()
    model.requires_grad_(False)
    model.config = config


def norms(model: SpokenLM) -> dict[str, float]:
    """Gradient norms under published names."""
    return {published_name(name): float(p.grad.norm()) for name, p in model.named_parameters() if p.grad is not None}


def close(found: Tensor | float, expected: Tensor | float | list[float], relative: float = 0,
          absolute: float = 0) -> None:
    torch.testing.assert_close(torch.as_tensor(found), torch.as_tensor(expected), rtol=relative, atol=absolute,
                               check_dtype=False)


def test_splice(reference: OmniReference, model: SpokenLM) -> None:
    spliced = model.splice(reference.batch)
    close(spliced.labels, reference.train_outputs["labels"])
    close(spliced.mask, reference.train_outputs["attention_mask"])


@torch.no_grad()
def test_stage1_logits(reference: OmniReference, model: SpokenLM) -> None:
    spliced = model.splice(reference.batch)
    logits = model.llm(inputs_embeds=spliced.embeds, attention_mask=spliced.mask).logits
    close(logits[spliced.labels != -100], reference.train_outputs["stage1_logits_at_labels"], absolute=HIDDEN)


def test_stage1(reference: OmniReference, model: SpokenLM) -> None:
    facts = reference.train_facts
    loss = model.stage1_loss(reference.batch)
    close(loss, facts["stage1_loss"], LOSS)
    close(model.eval().stage1_loss(reference.batch), facts["eval_mode_loss_of_s2s_class_is_lm_only"], LOSS)
    loss.backward()
    found = norms(model)
    assert found.keys() == facts["stage1_grad_l2_norm"].keys()
    for name, expected in facts["stage1_grad_l2_norm"].items():
        assert found[name] == pytest.approx(expected, rel=GRADIENT), name


@torch.no_grad()
def test_states_consumed(reference: OmniReference, model: SpokenLM) -> None:
    spliced = model.splice(reference.batch)
    hidden = model.llm.base_model(inputs_embeds=spliced.embeds, attention_mask=spliced.mask).last_hidden_state
    consumed = model.fed_states(hidden, spliced.labels)
    assert consumed.length.tolist() == reference.train_facts["stage2_src_lens"]
    for b in range(len(consumed.length)):
        if (expected := reference.train_outputs.get(f"stage2_hidden_used.{b}")) is not None:
            close(consumed.row(b), expected, absolute=HIDDEN)
    predicting = model.fed_states(hidden, spliced.labels, "predicting")
    assert torch.equal(predicting.length, consumed.length)
    for b in range(len(consumed.length)):  # one position earlier
        assert torch.equal(predicting.row(b)[1:], consumed.row(b)[:-1])
        assert not torch.allclose(predicting.row(b)[:1], consumed.row(b)[:1])


def test_stage2(reference: OmniReference, model: SpokenLM) -> None:
    facts = reference.train_facts
    result = model.stage2_loss(reference.batch)
    close(result.loss, facts["stage2_loss"], LOSS)
    close(result.nll, facts["stage2_ctc_nll_per_sample"], LOSS)
    assert result.frames.tolist() == facts["stage2_up_lens"]
    assert reference.batch.units_length.tolist() == facts["stage2_tgt_lens"]
    mask = torch.arange(int(result.frames.max())) < result.frames[:, None]
    close(mask, reference.train_outputs["stage2_upsample_mask"].bool())
    result.loss.backward()
    found = norms(model)
    assert found.keys() == facts["stage2_grad_l2_norm"].keys()
    for name, expected in facts["stage2_grad_l2_norm"].items():
        assert found[name] == pytest.approx(expected, rel=CTC_GRADIENT), name


@torch.no_grad()
def test_stage2_logits(reference: OmniReference, model: SpokenLM) -> None:
    spliced = model.splice(reference.batch)
    hidden = model.llm.base_model(inputs_embeds=spliced.embeds, attention_mask=spliced.mask).last_hidden_state
    states = model.fed_states(hidden, spliced.labels)
    frames = torch.tensor(reference.train_facts["stage2_up_lens"])
    logits = model.speech_decoder(states.data, states.length, frames)
    for key, expected in reference.train_outputs.items():
        if found := re.fullmatch(r"stage2_ctc_logits(?:_first\d+)?\.(\d+)", key):
            close(logits[int(found[1]), : len(expected)], expected, absolute=HIDDEN)


def test_joint(reference: OmniReference, model: SpokenLM) -> None:
    loss = model.joint_loss(reference.batch, reference.config["ctc_loss_weight"])
    close(loss, reference.train_facts["joint_loss_lm_plus_weight_times_ctc"], LOSS)
    loss.backward()
    facts, found = reference.train_facts, norms(model)
    assert found.keys() == facts["stage1_grad_l2_norm"].keys() | facts["stage2_grad_l2_norm"].keys()
