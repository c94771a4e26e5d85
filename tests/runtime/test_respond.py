"""Algorithm 1 on tiny random models: events, settings, and equality with the parts run offline."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from omnivox.errors import AudioError, CheckpointError, ConfigError
from omnivox.model.ctc import collapse
from omnivox.runtime.events import Audio, Done, Reply, Text
from omnivox.runtime.respond import Omni
from omnivox.sound import write_wav
from tests import tiny

TOKENS = 12  # of a reply, at most


@pytest.fixture(scope="module")
def omni() -> Omni:
    return tiny.omni(end_ids=())


@pytest.fixture(scope="module")
def question() -> Tensor:
    return tiny.question()


def ask(omni: Omni, question: Any, **settings: Any) -> Reply:
    *events, done = omni.respond(question, **{"max_new_tokens": TOKENS, **settings})
    assert isinstance(done, Done)
    assert done.reply.text == "".join(event.delta for event in events if isinstance(event, Text))
    sound = [event.samples for event in events if isinstance(event, Audio)]
    assert all(len(samples) for samples in sound)
    assert torch.equal(done.reply.audio, torch.cat([torch.empty(0), *sound]))
    return done.reply


@torch.no_grad()
def offline(omni: Omni, question: Tensor, count: int) -> tuple[list[int], list[int], Tensor]:
    """Greedy tokens by `generate`, units by one pass of the speech decoder, audio by one of the vocoder."""
    model = omni.model
    speech = model.encode(model.log_mel(question[None])).row(0)
    embeds = model.embed_prompt(torch.tensor(omni.prompt_ids), speech)[None]
    written = model.llm.generate(inputs_embeds=embeds, attention_mask=torch.ones(embeds.shape[:2], dtype=torch.long),
                                 max_new_tokens=count, do_sample=False, eos_token_id=list(omni.end_ids) or None)[0]
    embeds = torch.cat([embeds, omni.embedding(written)[None]], 1)
    hidden = model.llm.base_model(inputs_embeds=embeds).last_hidden_state
    first = embeds.shape[1] - len(written) - (omni.config.states_fed == "predicting")
    states = hidden[:, first : first + len(written)]
    units = collapse(model.speech_decoder(states)[0].argmax(-1), model.speech_decoder.blank)
    audio = omni.vocoder(units[None], torch.tensor([len(units)])).row(0)
    return written.tolist(), units.tolist(), audio


@pytest.mark.parametrize("fed", ["predicting", "consumed"])
def test_streamed_reply_equals_its_parts_offline(question: Tensor, fed: str) -> None:
    omni = tiny.omni(end_ids=(), states_fed=fed)
    reply = ask(omni, question)
    token_ids, units, audio = offline(omni, question, TOKENS)
    assert reply.token_ids == token_ids
    assert reply.units == units
    assert len(units) > 20, "the model under test should have something to say"
    torch.testing.assert_close(reply.audio, audio, atol=1e-4, rtol=0)


@pytest.mark.parametrize("settings", [
    {"chunk_units": 1}, {"chunk_units": 1000}, {"lookahead": 0}, {"chunk_units": 3, "lookahead": 2},
])
def test_text_and_units_do_not_depend_on_omega_and_lookahead(omni: Omni, question: Tensor, settings: dict[str, int]
                                                             ) -> None:
    expected, found = ask(omni, question), ask(omni, question, **settings)
    assert (found.text, found.token_ids, found.units) == (expected.text, expected.token_ids, expected.units)
    assert len(found.audio) == len(expected.audio)
    if "lookahead" not in settings:
        torch.testing.assert_close(found.audio, expected.audio, atol=1e-4, rtol=0)


def test_sound_comes_before_the_text_is_finished(omni: Omni, question: Tensor) -> None:
    kinds = [type(event) for event in omni.respond(question, max_new_tokens=40, chunk_units=5)]
    assert kinds[0] is Text
    assert kinds[-1] is Done
    assert kinds.index(Audio) < len(kinds) - 1 - kinds[::-1].index(Text)


def test_a_reply_that_ran_out_of_tokens_says_so(question: Tensor) -> None:
    free = ask(tiny.omni(end_ids=()), question)
    assert free.cut
    ended = ask(tiny.omni(end_ids=(free.token_ids[4],)), question, max_new_tokens=5)
    assert (len(ended.token_ids), ended.cut) == (5, False)
    assert ask(tiny.omni(end_ids=(free.token_ids[4],)), question, max_new_tokens=4).cut


def test_the_audio_of_a_reply_is_an_ordinary_tensor(omni: Omni, question: Tensor) -> None:
    audio = ask(omni, question).audio
    assert not audio.is_inference()
    loud = float(audio.abs().max())
    audio *= 0.5
    assert float(audio.abs().max()) == pytest.approx(loud / 2)


def test_whole_numbers_of_numpy_are_whole_numbers(omni: Omni, question: Tensor) -> None:
    found = ask(omni, question, max_new_tokens=np.int64(5), chunk_units=np.int32(3), lookahead=np.uint8(2))
    assert found.token_ids == ask(omni, question, max_new_tokens=5).token_ids


def test_more_lookahead_than_the_sound_depends_on_changes_nothing(omni: Omni, question: Tensor) -> None:
    expected = [event.samples for event in omni.respond(question, max_new_tokens=TOKENS) if isinstance(event, Audio)]
    found = [event.samples for event in omni.respond(question, max_new_tokens=TOKENS, lookahead=10**9)
             if isinstance(event, Audio)]
    assert len(found) == len(expected)
    assert all(map(torch.equal, found, expected))


def test_an_end_token_ends_the_reply(question: Tensor) -> None:
    free = ask(tiny.omni(end_ids=()), question)
    end = free.token_ids[4]
    assert end not in free.token_ids[:4]
    omni = tiny.omni(end_ids=(end,))
    reply = ask(omni, question)
    assert reply.token_ids == free.token_ids[:5]
    token_ids, units, _ = offline(omni, question, TOKENS)
    assert (reply.token_ids, reply.units) == (token_ids, units)
    assert tiny.WORDS[end] not in reply.text.split()


def test_an_empty_reply_is_done_and_silent(question: Tensor) -> None:
    omni = tiny.omni(end_ids=tuple(range(len(tiny.WORDS))))
    (done,) = omni.respond(question)
    assert isinstance(done, Done)
    assert (done.reply.text, done.reply.units, len(done.reply.token_ids)) == ("", [], 1)
    assert done.reply.audio.shape == (0,)
    assert done.reply.timings.first_audio == done.reply.timings.real_time_factor == 0


def test_text_alone(omni: Omni, question: Tensor) -> None:
    spoken, written = ask(omni, question), ask(omni, question, speak=False)
    assert (written.text, written.units, len(written.audio)) == (spoken.text, [], 0)


def test_sampling_repeats_with_its_seed(omni: Omni, question: Tensor) -> None:
    hot = {"temperature": 3.0, "top_p": 0.95, "top_k": 40}
    one = ask(omni, question, **hot, seed=1).token_ids
    assert one == ask(omni, question, **hot, seed=1).token_ids
    assert one != ask(omni, question, **hot, seed=2).token_ids
    assert ask(omni, question, temperature=3.0, top_k=1).token_ids == ask(omni, question).token_ids


def test_paths_arrays_and_tensors_are_the_same_question(omni: Omni, question: Tensor, tmp_path: Path) -> None:
    write_wav(tmp_path / "q.wav", question, 16000)
    expected = ask(omni, tmp_path / "q.wav").token_ids
    assert ask(omni, str(tmp_path / "q.wav")).token_ids == expected
    pcm = np.clip(question.numpy() * 32767, -32768, 32767).round().astype(np.int16)
    assert ask(omni, pcm).token_ids == expected


def test_written_questions_take_the_place_of_speech(omni: Omni) -> None:
    *_, done = omni.respond_text("word3 word4", max_new_tokens=TOKENS, speak=False)
    prompt = torch.tensor([[1, tiny.WORDS.index("word3"), tiny.WORDS.index("word4"), 4]])
    with torch.no_grad():
        expected = omni.model.llm.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=TOKENS,
                                           do_sample=False, eos_token_id=None)[0, 4:]
    assert isinstance(done, Done)
    assert done.reply.token_ids == expected.tolist()
    with pytest.raises(ConfigError, match="question: found ' '; expected some words"):
        omni.respond_text(" ")


def test_transcribe_asks_with_its_own_prompt(omni: Omni, question: Tensor) -> None:
    assert omni.transcribe(question, max_new_tokens=TOKENS) != ask(omni, question).text
    deaf = Omni(omni.model, omni.vocoder, omni.tokenizer, omni.prompt.from_dict({"before": [1], "after": [4]}))
    with pytest.raises(ConfigError, match="names no transcription prompt"):
        deaf.transcribe(question)


def test_timings_add_up(omni: Omni, question: Tensor) -> None:
    reply = ask(omni, question)
    t = reply.timings
    assert 0 < t.mel + t.encode + t.prefill <= t.first_token <= t.first_audio <= t.total
    assert t.audio_seconds == len(reply.audio) / reply.sample_rate
    assert t.real_time_factor == pytest.approx(t.total / t.audio_seconds)


def test_the_callers_time_is_not_counted(omni: Omni, question: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("omnivox.runtime.clock.perf_counter", lambda: now)
    for event in omni.respond(question, max_new_tokens=TOKENS):
        if isinstance(event, Done):
            assert event.reply.timings.total == 0
        now += 10


def test_leaving_early_frees_the_reply(omni: Omni, question: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[weakref.ref[Tensor]] = []
    fresh = omni.llm.initial_state

    def watch(batch: int, capacity: int | None = None) -> Any:
        state = fresh(batch, capacity)
        held.append(weakref.ref(state.keys[0]))
        return state

    monkeypatch.setattr(omni.llm, "initial_state", watch)
    events = omni.respond(question, max_new_tokens=TOKENS)
    next(events)
    assert held[0]() is not None
    events.close()  # type: ignore[attr-defined]
    gc.collect()
    assert held[0]() is None
    assert not torch.is_inference_mode_enabled()
    assert ask(omni, question).token_ids  # and the model is ready for the next


def test_what_the_caller_gets_is_his(omni: Omni, question: Tensor) -> None:
    """No inference mode leaks out, neither into the caller's code nor in the samples."""
    for event in omni.respond(question, max_new_tokens=TOKENS):
        assert not torch.is_inference_mode_enabled()
        if isinstance(event, Audio):
            assert event.samples.dtype == torch.float32
            gain = torch.ones(1, requires_grad=True)
            (gain * event.samples).sum().backward()
            assert gain.grad is not None


def test_a_full_context_ends_the_reply_cleanly(question: Tensor) -> None:
    prompt = 2 + 12  # one second is 12 positions at 12.5 a second
    omni = tiny.omni(end_ids=(), llm_changes={"max_position_embeddings": prompt + 5})
    assert len(ask(omni, question, max_new_tokens=100).token_ids) == 5
    omni = tiny.omni(end_ids=(), llm_changes={"max_position_embeddings": prompt})
    with pytest.raises(AudioError, match="takes 14 positions with its prompt; this LLM has 14"):
        ask(omni, question)


def test_a_rope_that_changes_with_the_length_ends_the_reply_where_it_changes(question: Tensor) -> None:
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    omni = tiny.omni(end_ids=(), llm_changes={"rope_parameters": rope, "max_position_embeddings": 20})
    reply = ask(omni, question, max_new_tokens=100)
    assert (len(reply.token_ids), reply.cut) == (6, True)


def test_a_question_longer_than_the_encoder_hears(omni: Omni) -> None:
    with pytest.raises(AudioError, match=r"lasts 9\.0 s; this model hears at most 8\.0 s"):
        ask(omni, tiny.question(9.0))


@pytest.mark.parametrize(("settings", "message"), [
    ({"chunk_units": 0}, "chunk_units: found 0; expected a whole number, 1 or more"),
    ({"chunk_units": 2.5}, "chunk_units: found 2.5"),
    ({"lookahead": -1}, "lookahead: found -1; expected a whole number, 0 or more"),
    ({"max_new_tokens": 0}, "max_new_tokens: found 0"),
    ({"temperature": -0.5}, "temperature: found -0.5"),
])
def test_settings_are_checked_before_anything_runs(omni: Omni, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        omni.respond("no such file.wav", **settings)


def test_without_vocoder_and_tokenizer(omni: Omni, question: Tensor) -> None:
    mute = Omni(omni.model, None, None, omni.prompt)
    reply = ask(mute, question, speak=False)
    assert (reply.text, reply.token_ids) == ("", ask(omni, question).token_ids)
    with pytest.raises(CheckpointError, match="vocoder: this checkpoint has none"):
        ask(mute, question)


def test_an_llm_that_cannot_be_stepped_is_refused() -> None:
    omni = tiny.omni()
    omni.model.llm.config._attn_implementation = "flex_attention"
    with pytest.raises(ConfigError, match="attn_implementation is 'flex_attention'; expected 'sdpa' or 'eager'"):
        Omni(omni.model, omni.vocoder, omni.tokenizer, omni.prompt)
