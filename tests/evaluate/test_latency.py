"""Latency: the figures, the shapes of random weights, and the published way of answering beside ours."""

from __future__ import annotations

from dataclasses import replace
from queue import Queue
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig

import omnivox
from omnivox.errors import ConfigError
from omnivox.evaluate.latency import (
    OURS,
    PARTS,
    PUBLISHED,
    Answered,
    LatencySettings,
    WaitingClock,
    ask,
    measure,
    noise,
    percentiles,
    ratios,
    summary,
)
from omnivox.evaluate.published import Published
from omnivox.evaluate.shapes import SHAPES, Shape, build, bytes_needed, check_fits, find_shape, parameters
from omnivox.model.config import MelConfig, SourceFilterConfig
from omnivox.runtime.describe import describe
from omnivox.runtime.engine import Engine
from omnivox.runtime.events import Done, Reply, Timings
from omnivox.runtime.history import History
from omnivox.runtime.respond import Omni, ReplySettings
from tests import tiny

TOKENS = 12
ALL = 10_000  # Ω that no reply reaches
CPU = torch.device("cpu")
SMALL = Shape("small", replace(tiny.CONFIG, speech_decoder=replace(tiny.CONFIG.speech_decoder, upsample=25, units=40)),
              LlamaConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
                          num_key_value_heads=1, vocab_size=50, max_position_embeddings=256),
              SourceFilterConfig(units=40, width=8, pitch_width=8, duration_width=8), before=3, after=2)


@pytest.fixture(scope="module")
def question() -> Tensor:
    return tiny.question()


def reply(omni: Omni, question: Tensor, **settings: Any) -> Reply:
    *_, done = omni.respond(question, **{"max_new_tokens": TOKENS} | settings)
    assert isinstance(done, Done)
    return done.reply


def padded() -> Omni:
    """A tiny model that hears every question as 30 s."""
    return tiny.omni(mel=MelConfig(8, pad_to_chunk=True), encoder=replace(tiny.CONFIG.encoder, positions=750),
                     llm_changes={"max_position_embeddings": 1024}, end_ids=())


# -- when the first units are there -----------------------------------------------------------------------------------

@pytest.mark.parametrize("omega", [1, 10, ALL])
def test_the_first_units_come_between_the_first_token_and_the_first_sound(question: Tensor, omega: int) -> None:
    t = reply(tiny.omni(end_ids=()), question, chunk_units=omega).timings
    assert 0 < t.first_token < t.first_units < t.first_audio <= t.total


def test_more_units_are_waited_for_longer(question: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    def tokens_until_units(omega: int) -> float:
        omni, heard = tiny.omni(end_ids=()), list[Tensor]()
        voice = omni.voice(TOKENS, ReplySettings(chunk_units=omega))
        hear = voice.hear
        with monkeypatch.context() as patch:
            patch.setattr(voice, "hear", lambda hidden: heard.append(hidden) or hear(hidden))
            patch.setattr(omni, "voice", lambda *_: voice)
            patch.setattr("omnivox.runtime.clock.perf_counter", lambda: float(len(heard)))
            return reply(omni, question).timings.first_units

    assert 1 == tokens_until_units(1) < tokens_until_units(20)


def test_what_is_not_spoken_has_no_units(question: Tensor) -> None:
    silent = tiny.omni(end_ids=tuple(range(len(tiny.WORDS))))
    assert reply(silent, question).timings.first_units == 0
    assert reply(tiny.omni(), question, speak=False).timings.first_units == 0


def test_the_engine_knows_it_too(question: Tensor) -> None:
    omni, events = tiny.omni(end_ids=()), Queue[object]()
    with Engine(omni) as engine:
        history = History(omni, context=engine.context)
        history.add(history.speech(question))
        for omega in (10, ALL):
            engine.reply(history.prompt(), events.put, ReplySettings(chunk_units=omega, max_new_tokens=TOKENS))
            while not isinstance(event := events.get(timeout=60), Done):
                pass
            t = event.reply.timings
            assert 0 < t.first_token <= t.first_units <= t.first_audio


# -- the published way ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("model", ["own length", "padded"])
@pytest.mark.parametrize("omega", [4, 10])
def test_the_published_way_says_the_same_and_sounds_different_at_seams(model: str, omega: int, question: Tensor
                                                                      ) -> None:
    omni = padded() if model == "padded" else tiny.omni(end_ids=(), encoder=replace(tiny.CONFIG.encoder, positions=750))
    ours, theirs = (reply(one, question, chunk_units=omega) for one in (omni, Published.of(omni)))
    assert (theirs.token_ids, theirs.text, theirs.units) == (ours.token_ids, ours.text, ours.units)
    assert len(set(ours.units)) > 3
    shorter = min(len(ours.audio), len(theirs.audio))
    assert not torch.allclose(ours.audio[:shorter], theirs.audio[:shorter], atol=1e-3)


def test_without_seams_both_sound_the_same(question: Tensor) -> None:
    omni = padded()
    ours, theirs = (reply(one, question, chunk_units=ALL) for one in (omni, Published.of(omni)))
    assert len(ours.audio) > 0
    torch.testing.assert_close(theirs.audio, ours.audio, atol=1e-4, rtol=0)


def test_the_published_way_decodes_the_whole_prefix_at_each_token(question: Tensor, monkeypatch: pytest.MonkeyPatch
                                                                 ) -> None:
    omni = tiny.omni(end_ids=(), encoder=replace(tiny.CONFIG.encoder, positions=750))
    lengths, whole = [], omni.model.speech_decoder.forward
    monkeypatch.setattr(omni.model.speech_decoder, "forward",
                        lambda states: lengths.append(states.shape[1]) or whole(states))
    reply(Published.of(omni), question)
    assert lengths == list(range(1, TOKENS + 1))


def test_the_published_way_encodes_30_s(question: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    omni = tiny.omni(encoder=replace(tiny.CONFIG.encoder, positions=750))
    frames, encode = [], omni.model.encode
    monkeypatch.setattr(omni.model, "encode", lambda mel, *rest: frames.append(mel.shape[1]) or encode(mel, *rest))
    for one in (omni, Published.of(omni)):
        reply(one, question)
    assert frames == [100, 3000]


# -- figures ----------------------------------------------------------------------------------------------------------

def test_percentiles_of_known_numbers() -> None:
    found = percentiles([float(n) for n in range(100, 0, -1)])
    assert found == pytest.approx({"p50": 50.5, "p95": 95.05, "p99": 99.01})
    assert percentiles([3.0]) == {"p50": 3.0, "p95": 3.0, "p99": 3.0}
    with pytest.raises(ValueError, match="found no values"):
        percentiles([])


def test_a_summary_of_known_replies() -> None:
    def answered(total: float, seconds: float, text: str, lagging: int | None) -> Answered:
        t = Timings(mel=0.001, encode=0.01, prefill=0.02, first_token=0.05, first_units=0.06 * bool(seconds),
                    first_audio=0.08 * bool(seconds), total=total, audio_seconds=seconds)
        return Answered(Reply(text, [1, 2], [3] * 5, torch.zeros(int(16_000 * seconds)), 16_000, t), t, lagging)

    found = summary([answered(1.0, 2.0, "one two three", 1), answered(2.0, 4.0, "four five six", 2),
                     answered(0.5, 0.0, "", None)])
    assert (found["replies"], found["spoken"]) == (3, 2)
    assert found["ms"]["first_audio"] == {"p50": 80.0, "p95": 80.0, "p99": 80.0}  # the silent one has none
    assert found["ms"]["total"]["p50"] == 1000.0
    assert found["real_time_factor"] == 0.5
    assert found["words_per_second"] == 1.0
    assert found["lagging_words"] == 1.5
    assert found["decoding_seconds"] == pytest.approx(3.5 / 3, abs=1e-4)
    with pytest.raises(ConfigError, match="no question was answered in speech"):
        summary([answered(0.5, 0.0, "", None)])


def test_ratios_say_how_many_times_as_long() -> None:
    def of(ms: float, factor: float) -> dict[str, Any]:
        return {"ms": {part: {"p50": ms} for part in PARTS}, "real_time_factor": factor}

    found = ratios(of(30.0, 0.6), of(10.0, 0.4))
    assert found == dict.fromkeys(PARTS, 3.0) | {"real_time_factor": 1.5}
    assert ratios(of(30.0, 0.6), of(0.0, 0.4)) == {"real_time_factor": 1.5}  # nothing to compare with


def test_lagging_words_are_those_written_before_the_first_sound(question: Tensor) -> None:
    omni = tiny.omni(end_ids=())
    soon, late = (ask(omni, question, LatencySettings(omega, max_new_tokens=TOKENS)) for omega in (1, ALL))
    assert soon.lagging is not None
    assert 0 < soon.lagging < late.lagging == len(late.reply.text.split())
    assert soon.reply.text == late.reply.text


def test_a_waiting_clock_waits_before_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def work() -> None:
        nonlocal now
        now += 5.0

    monkeypatch.setattr("omnivox.runtime.clock.perf_counter", lambda: now)
    clock = WaitingClock(work)
    assert [clock.lap(), clock.lap()] == [5.0, 5.0]


def test_both_ways_are_asked_the_same_as_often(question: Tensor) -> None:
    omni = tiny.omni(end_ids=(), encoder=replace(tiny.CONFIG.encoder, positions=750))
    asked = [question, tiny.question(0.5, seed=1)]
    found = measure(omni, asked, LatencySettings(runs=2, max_new_tokens=TOKENS, published=True), echo=False)
    assert set(found["variants"]) == {OURS, PUBLISHED}
    for variant in found["variants"].values():
        assert variant["replies"] == variant["spoken"] == 4
        assert variant["tokens"] == TOKENS
        assert variant["cold_first_audio_ms"] > 0
        assert all(set(values) == {"p50", "p95", "p99"} for values in variant["ms"].values())
    assert found["same_tokens"] == found["same_units"] == 4
    assert set(found["ratios"]) == {*PARTS, "real_time_factor"}
    alone = measure(omni, asked, LatencySettings(max_new_tokens=TOKENS), echo=False)
    assert set(alone) == {"variants"}
    assert set(alone["variants"]) == {OURS}


def test_nothing_to_ask_and_no_runs() -> None:
    with pytest.raises(ConfigError, match="questions: found none"):
        measure(tiny.omni(), [], LatencySettings(), echo=False)
    with pytest.raises(ConfigError, match="runs: found 0"):
        LatencySettings(runs=0)


# -- shapes -----------------------------------------------------------------------------------------------------------

def test_the_8b_shape_is_the_published_one() -> None:
    found = parameters(find_shape("llama-omni-8b"))
    table = 1500 * 1280  # of positions, which others count
    assert found["encoder"] + table == 636_968_960  # Whisper large-v3's
    assert found["adaptor"] == (6400 * 2048 + 2048) + (2048 * 4096 + 4096)
    assert found["llm"] == 8_030_261_248  # Llama 3.1 8B
    assert found["speech_decoder"] == 425_649_129  # "425M"
    assert found["total"] == sum(count for name, count in found.items() if name != "total")


@pytest.mark.parametrize(("name", "llm"), [("llama-omni-3b", 3_212_749_824), ("llama-omni-1b", 1_235_814_400)])
def test_the_smaller_llms_are_the_published_ones(name: str, llm: int) -> None:
    assert parameters(find_shape(name))["llm"] == llm


def test_the_middle_shape_is_of_150m_and_28m() -> None:
    found = parameters(find_shape("150m"))
    assert found["llm"] == pytest.approx(150e6, rel=0.02)
    assert found["speech_decoder"] == pytest.approx(28e6, rel=0.01)


def test_the_small_shape_is_the_bundled_model(nano_weights: Any) -> None:
    assert parameters(find_shape("nano")) == describe(omnivox.load("nano", device="cpu"))["parameters"]


def test_an_unknown_shape_names_those_that_are_known() -> None:
    with pytest.raises(ConfigError, match=r"found '70b'; expected nano, 150m, llama-omni-1b, .*llama-omni-8b"):
        find_shape("70b")


def test_a_shape_that_does_not_fit_is_refused_with_both_numbers() -> None:
    shape = find_shape("150m")
    needed = bytes_needed(shape, torch.float32)
    assert needed > 4 * 210e6
    assert bytes_needed(shape, torch.float32, tokens=500) > needed > bytes_needed(shape, torch.bfloat16)
    check_fits(shape, torch.float32, CPU, 53, needed)
    check_fits(shape, torch.float32, CPU, 53, None)  # nobody knows: let it try
    with pytest.raises(ConfigError, match=r"150m: needs 1\.2 GB in float32; cpu has 0\.5 GB free; "
                                          r"try --dtype bfloat16 or a smaller shape \(nano\)"):
        check_fits(shape, torch.float32, CPU, 53, int(5e8))
    with pytest.raises(ConfigError, match=r"in bfloat16; cpu has 0\.1 GB free; try a smaller shape"):
        check_fits(shape, torch.bfloat16, CPU, 53, int(1e8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_random_weights_keep_the_pace_of_real_ones(dtype: torch.dtype, question: Tensor) -> None:
    omni = build(SMALL, CPU, dtype)
    assert {p.dtype for p in omni.model.parameters()} == {dtype}
    found = reply(omni, question)
    assert len(found.token_ids) == TOKENS  # no token ends it
    assert len(found.units) == 10 * TOKENS
    assert len(found.audio) == 2 * len(found.units) * omni.vocoder.frame_samples
    assert bool(found.audio.isfinite().all())
    theirs = reply(Published.of(omni), question)
    assert (theirs.token_ids, theirs.units) == (found.token_ids, found.units)


def test_the_same_seed_gives_the_same_weights(question: Tensor) -> None:
    one, two, other = (build(SMALL, CPU, torch.float32, seed).model.state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert any(not torch.equal(value, other[name]) for name, value in one.items())


def test_shapes_are_listed_from_small_to_large(nano_weights: Any) -> None:
    sizes = [bytes_needed(find_shape(name), torch.bfloat16) for name in SHAPES]
    assert sizes == sorted(sizes)


def test_noise_is_a_question_of_that_length() -> None:
    assert noise(0.5).shape == (8000,)
    assert torch.equal(noise(0.5), noise(0.5))
