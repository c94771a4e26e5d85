"""The spoken language model against numbers of the published implementation: what it answers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from omnivox.checkpoint import Prompt
from omnivox.model.ctc import CTCCollapse, collapse
from omnivox.model.llm import StreamingLLM
from omnivox.model.omni import SPEECH
from omnivox.runtime.respond import Done, Omni
from omnivox.streaming import Chunk
from tests import tiny
from tests.parity.references import OmniReference, label, sets

ENCODED = 1e-4  # absolute: mel, encoder, adaptor, embeddings
HIDDEN = 1e-3  # absolute: states and logits


@pytest.fixture(params=sets("omni"), ids=label, scope="module")
def reference(request: pytest.FixtureRequest) -> OmniReference:
    return OmniReference(request.param)


def close(found: Tensor, expected: Tensor | None, tolerance: float, *, whole: bool = True) -> None:
    """`expected`, where the set has it, within an absolute tolerance; unless `whole`, the first rows may do."""
    if expected is None:
        return
    assert len(found) == len(expected) or not whole
    torch.testing.assert_close(found[: len(expected)], expected, atol=tolerance, rtol=0)


def test_there_is_a_set_in_every_clone() -> None:
    assert any("fixtures" in folder.parts for folder in sets("omni"))


@torch.inference_mode()
def test_mel(reference: OmniReference) -> None:
    waves = {case: wave for case in reference.spoken if (wave := reference.wave(case)) is not None}
    if not waves:
        pytest.skip("this set has no waveforms")
    for case, wave in waves.items():
        close(reference.model.log_mel(wave[None])[0], reference.mel(case), ENCODED)


@torch.inference_mode()
def test_encoder_adaptor_and_embeddings(reference: OmniReference) -> None:
    model = reference.model
    for case in reference.cases:
        if case in reference.spoken:
            mel = reference.mel(case)[None]
            close(model.encoder(mel)[0][0], reference.expected(case, "encoder_out"), ENCODED, whole=False)
            close(model.encode(mel).row(0), reference.expected(case, "projector_out"), ENCODED, whole=False)
        close(reference.embeds(case), reference.expected(case, "inputs_embeds"), ENCODED, whole=False)


@torch.inference_mode()
def test_a_batch_of_prompts_is_encoded_as_each_alone(reference: OmniReference) -> None:
    mel = torch.stack([reference.mel(case) for case in reference.spoken])
    length = torch.tensor([1234 - 77 * b for b in range(len(mel))])
    together = reference.model.encode(mel, length)
    config = reference.model.config
    for b in range(len(mel)):
        assert int(together.length[b]) == (int(length[b]) + 1) // 2 // config.adaptor.k
        close(together.row(b), reference.model.encode(mel[b : b + 1]).row(0)[: together.length[b]], ENCODED)


@torch.inference_mode()
def test_step_by_step(reference: OmniReference) -> None:
    """Greedy tokens, their logits, the states used, and the units after every step, all through streaming modules."""
    model = reference.model
    llm, decoder, merge = StreamingLLM(model.llm), model.speech_decoder, CTCCollapse(model.speech_decoder.blank)
    for case in reference.cases:
        facts = reference.facts["cases"][case]
        wanted = facts["text_token_ids"]
        embeds = reference.embeds(case)
        state = llm.initial_state(1, capacity=len(embeds) + len(wanted))
        speaking, merging = decoder.initial_state(1, capacity=len(wanted)), merge.initial_state(1)
        tokens, logits, states, ctc_logits, units, counts = [], [], [], [], [], []
        x = embeds[None]
        while len(tokens) < len(wanted):
            hidden = llm.step(Chunk.full(x), state)[0].data[:, -1:]
            logits.append(llm.logits(hidden)[0, 0])
            states.append(hidden[0, 0])
            tokens.append(int(logits[-1].argmax()))
            spoken = decoder.step(Chunk.full(hidden), speaking)[0].data
            ctc_logits.append(spoken[0])
            units += merge.step(Chunk.full(spoken.argmax(-1)), merging)[0].row(0).tolist()
            counts.append(len(units))
            if tokens[-1] in reference.facts["eos_token_id"]:
                break
            x = model.llm.get_input_embeddings()(torch.tensor([tokens[-1:]]))
        assert tokens == wanted
        assert counts == facts["num_units_after_step"]
        assert units == facts["final_units"]
        close(torch.stack(logits), reference.expected(case, "logits"), HIDDEN, whole=False)
        close(torch.stack(states), reference.expected(case, "hidden_states_used"), HIDDEN, whole=False)
        found = torch.cat(ctc_logits)
        close(found, reference.expected(case, "ctc_logits"), HIDDEN, whole=False)
        close(found.argmax(-1), reference.expected(case, "ctc_argmax"), 0, whole=False)


@torch.inference_mode()
def test_all_at_once(reference: OmniReference) -> None:
    """The same from one pass over prompt and answer, as in training: `predicting` states are the ones that are used."""
    model = reference.model
    for case in reference.cases:
        facts, prompt = reference.facts["cases"][case], reference.embeds(case)
        answer = torch.tensor(facts["text_token_ids"])
        embeds = torch.cat([prompt, model.llm.get_input_embeddings()(answer)])
        hidden = model.llm.base_model(inputs_embeds=embeds[None], use_cache=False).last_hidden_state
        labels = torch.cat([torch.full((len(prompt),), -100), answer])[None]
        states = model.fed_states(hidden, labels, "predicting")
        close(states.row(0), reference.expected(case, "hidden_states_used"), HIDDEN, whole=False)
        close(model.llm.lm_head(states.row(0)), reference.expected(case, "logits"), HIDDEN, whole=False)
        classes = model.speech_decoder(states.data)[0].argmax(-1)
        close(classes, reference.expected(case, "ctc_argmax"), 0, whole=False)
        assert collapse(classes, model.speech_decoder.blank).tolist() == facts["final_units"]


def test_through_the_front(reference: OmniReference) -> None:
    """A waveform in, the published tokens and units out of `Omni.respond`."""
    model = reference.model
    vocoder = tiny.vocoder(model.config.speech_decoder.units)
    heard = 0
    for case in reference.spoken:
        if (wave := reference.wave(case)) is None:
            continue
        ids = reference.inputs[f"{case}.input_ids"].tolist()
        at = ids.index(SPEECH)
        prompt = Prompt(tuple(ids[:at]), tuple(ids[at + 1 :]), tuple(reference.facts["eos_token_id"]))
        omni = Omni(model, vocoder, None, prompt)
        facts = reference.facts["cases"][case]
        *_, done = omni.respond(wave, max_new_tokens=len(facts["text_token_ids"]))
        assert isinstance(done, Done)
        assert done.reply.token_ids == facts["text_token_ids"]
        assert done.reply.units == facts["final_units"]
        heard += 1
    if not heard:
        pytest.skip("this set has no waveforms")
