"""SALMONN from its published files, against transformers' parts put together anew, and files that it cannot use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from sentencepiece import SentencePieceProcessor
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    Blip2QFormerConfig,
    Blip2QFormerModel,
    LlamaForCausalLM,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

from omnivox.checkpoint.files import tensors_of
from omnivox.errors import AudioError, CheckpointError, ConfigError
from omnivox.runtime.events import Audio, Text
from omnivox.sound import read_audio
from omnivox.systems.beats import load_beats
from omnivox.systems.llama import merge_lora
from omnivox.systems.qformer import Qformer, QformerConfig
from omnivox.systems.salmonn import Salmonn
from tests.systems import hearing, writers
from tests.systems.laws import steps_until_left


def vicuna(seed: int = 0) -> LlamaForCausalLM:
    return writers.llama(440, seed, max_position_embeddings=512)


def write(folder: Path, name: str = "salmonn_v1.pth", **changes: Any) -> Path:
    """The published folder. changes: tensors of SALMONN's own file; None takes one away."""
    folder.mkdir()
    model = vicuna()
    writers.llama_folder(folder / "vicuna-13b-v1.1", model)
    writers.sentencepiece_file(folder / "vicuna-13b-v1.1")
    hearing.whisper_folder(folder / "whisper-large-v2")
    hearing.beats_file(folder / "BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt2.pt")
    values = {key: value for key, value in (hearing.salmonn_tensors(model) | changes).items() if value is not None}
    torch.save({"model": values, "optimizer": {}, "config": {"lora": True}, "scaler": None, "epoch": 3}, folder / name)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("salmonn") / "files")


def their_qformer(tensors: dict[str, Tensor], frame_width: int) -> Blip2QFormerModel:
    """Transformers' own, by two renames."""
    model = Blip2QFormerModel(Blip2QFormerConfig(
        hidden_size=hearing.QUERIES, intermediate_size=hearing.INNER, num_hidden_layers=2, num_attention_heads=2,
        cross_attention_frequency=1, encoder_hidden_size=frame_width, use_qformer_text_input=False)).eval()
    model.load_state_dict({
        name.replace("embeddings.LayerNorm", "layernorm").replace("attention.self", "attention.attention"): value
        for name, value in tensors.items()})
    return model


def test_the_qformer_is_transformers() -> None:
    tensors = hearing.qformer_tensors()
    width = hearing.SPEECH + hearing.AUDIO
    ours = Qformer(QformerConfig(hearing.QUERIES, hearing.INNER, 2, width)).eval()
    ours.load_state_dict(tensors)
    queries, frames = hearing.noise(5, 3, hearing.QUERIES), hearing.noise(5, 17, width)
    theirs = their_qformer(tensors, width)(query_embeds=queries, encoder_hidden_states=frames).last_hidden_state
    assert torch.allclose(ours(queries, frames), theirs, atol=1e-5)


def test_a_merged_lora_is_peft_s_beside() -> None:
    model = vicuna()
    halves = writers.lora(model, 8, "{}.weight")
    beside = get_peft_model(vicuna(), LoraConfig(r=8, lora_alpha=32, target_modules=["q_proj", "v_proj"])).eval()
    left = beside.load_state_dict({f"base_model.model.{name}".replace(".weight", ".default.weight"): value
                                   for name, value in halves.items()}, strict=False)
    assert not left.unexpected_keys
    ids = torch.arange(3, 40)[None]
    plain = model(ids).logits
    assert merge_lora(model, tensors_of(halves, "lora.bin"), 32 / 8) == 4
    assert torch.allclose(model(ids).logits, beside(ids).logits, atol=1e-4)
    assert not torch.allclose(model(ids).logits, plain, atol=1e-2)


# -- from end to end --------------------------------------------------------------------------------------------------


def their_embeddings(folder: Path, wave: Tensor, system: Salmonn) -> Tensor:
    """The prompt as the published code makes it, of transformers' parts."""
    own = torch.load(folder / "salmonn_v1.pth")["model"]
    whisper = WhisperForConditionalGeneration.from_pretrained(folder / "whisper-large-v2").eval()
    mel = WhisperFeatureExtractor.from_pretrained(folder / "whisper-large-v2")(
        wave.numpy(), sampling_rate=16000, return_tensors="pt").input_features
    speech = whisper.model.encoder(mel).last_hidden_state
    audio = load_beats(folder / "BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt2.pt")(wave[None])
    speech = F.layer_norm(speech, (16,), own["ln_speech.weight"], own["ln_speech.bias"])
    audio = F.layer_norm(audio, (32,), own["ln_audio.weight"], own["ln_audio.bias"])
    both = torch.cat([speech, F.pad(audio, (0, 0, 0, 1500 - audio.shape[1]))], -1)
    windows = F.unfold(both.transpose(1, 2)[:, :, None], kernel_size=(1, 17), stride=(1, 17))
    windows = windows.view(48, 17, 88).permute(2, 1, 0)
    qformer = their_qformer({name.removeprefix("speech_Qformer.bert."): value for name, value in own.items()
                             if name.startswith("speech_Qformer.")}, 48)
    found = qformer(query_embeds=own["speech_query_tokens"].expand(88, -1, -1),
                    encoder_hidden_states=windows).last_hidden_state
    heard = F.linear(found, own["speech_llama_proj.weight"], own["speech_llama_proj.bias"])[:, 0]
    pieces = SentencePieceProcessor(model_file=str(folder / "vicuna-13b-v1.1" / "tokenizer.model"))
    table = system.model.get_input_embeddings()
    left = table(torch.tensor([1, *pieces.encode("USER: <Speech>")]))
    right = table(torch.tensor(pieces.encode("</Speech> Please answer the question in detail.\nASSISTANT:")))
    return torch.cat([left, heard, right])[None]


@torch.no_grad()
def test_its_prompt_is_that_of_the_published_code(folder: Path, question: Path) -> None:
    system, wave = Salmonn.load(folder, writers.Tone()), read_audio(question)
    found = system.embeddings(wave)
    expected = their_embeddings(folder, wave, system)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, atol=2e-4)


@torch.no_grad()
@pytest.mark.parametrize("beams", [1, 4])
def test_its_words_are_those_of_generate_with_the_lora_beside(beams: int, folder: Path) -> None:
    wave = writers.speech(1.5)
    system = Salmonn.load(folder, writers.Tone(), beams=beams, max_new_tokens=12)
    events = list(system.respond(wave))
    reply = events[-1].reply  # type: ignore[union-attr]
    plain = LlamaForCausalLM.from_pretrained(folder / "vicuna-13b-v1.1", dtype=torch.float32)
    model = get_peft_model(plain, LoraConfig(r=8, lora_alpha=32, target_modules=["q_proj", "v_proj"])).eval()
    own = torch.load(folder / "salmonn_v1.pth")["model"]
    model.load_state_dict({name.removeprefix("llama_model."): value for name, value in own.items()
                           if name.startswith("llama_model.")}, strict=False)
    embeds = their_embeddings(folder, wave, system)
    expected = model.generate(inputs_embeds=embeds, attention_mask=torch.ones_like(embeds[..., 0], dtype=torch.long),
                              num_beams=beams, do_sample=False, max_new_tokens=12, min_length=1, eos_token_id=2,
                              pad_token_id=0)[0].tolist()
    count = len(reply.token_ids)
    assert (reply.token_ids, any(expected[count:])) == (expected[:count], False)  # what is left is padding
    text = [event.delta for event in events if isinstance(event, Text)]
    assert reply.text == "".join(text) != ""
    assert len(reply.audio) == sum(len(event.samples) for event in events if isinstance(event, Audio)) > 0
    times = reply.timings
    assert 0 < times.encode < times.first_token <= times.first_audio <= times.total
    assert (times.prefill > 0) == (beams == 1)
    if beams == 1:
        assert len(text) > 4
        assert isinstance(events[1], Audio)


def test_questions_count_as_a_second_at_least_and_half_a_minute_at_most(folder: Path) -> None:
    system = Salmonn.load(folder, writers.Tone())
    short, long = writers.speech(0.3), writers.speech(31.0)
    padded = F.pad(short, (0, 16_000 - len(short)))
    assert torch.equal(system.embeddings(short), system.embeddings(padded))
    assert torch.equal(system.embeddings(long), system.embeddings(long[:480_000]))
    with pytest.raises(AudioError, match="question: holds no samples"):
        list(system.respond(torch.empty(0)))


def test_whoever_stops_listening_stops_the_model(folder: Path) -> None:
    system = Salmonn.load(folder, writers.Tone(), beams=1)
    assert 0 < steps_until_left(system, system.model, writers.speech(0.5)) < 10


def test_settings_are_json_and_say_what_answers_depend_on(folder: Path) -> None:
    system = Salmonn.load(folder, writers.Tone(), instruction="Please answer.")
    assert json.loads(json.dumps(system.settings())) == {
        "model": str(folder), "dtype": "float32", "beams": 4, "instruction": "Please answer.", "temperature": 0.0,
        "repetition_penalty": 1.0, "min_new_tokens": 0, "max_new_tokens": 200, "tts": {"engine": "tone"}}
    assert (system.name, system.sample_rate) == ("salmonn", 8000)


def test_the_smaller_one_goes_by_its_own_names(tmp_path: Path) -> None:
    folder = write(tmp_path / "files", "salmonn_7b_v0.pth")
    (folder / "vicuna-13b-v1.1").rename(folder / "vicuna-7b-v1.5")
    assert list(Salmonn.load(folder, writers.Tone(), max_new_tokens=2).respond(writers.speech(0.5)))


# -- what cannot be used ----------------------------------------------------------------------------------------------


def test_missing_parts_are_told_all_at_once_with_where_they_are_had(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        Salmonn.load(tmp_path, writers.Tone())
    message = str(caught.value)
    assert f"hf download tsinghua-ee/SALMONN salmonn_v1.pth --local-dir {tmp_path}" in message
    assert f"hf download lmsys/vicuna-13b-v1.1 --local-dir {tmp_path / 'vicuna-13b-v1.1'}" in message
    assert "26 GB" in message
    assert "https://github.com/microsoft/unilm/tree/master/beats" in message


@pytest.mark.parametrize(("asked", "message"), [
    ({"beams": 0}, "beams: found 0; expected 1 or more"),
    ({"temperature": 0.5}, "temperature: found 0.5 with 4 beams; expected 0, or beams=1"),
    ({"max_new_tokens": 0}, "max_new_tokens: found 0"),
])
def test_a_setting_that_makes_no_sense(asked: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        Salmonn.load(tmp_path, writers.Tone(), **asked)


LORA = "llama_model.base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight"


@pytest.mark.parametrize(("changes", "message"), [
    ({"ln_audio.bias": None}, r"salmonn_v1\.pth: tensor 'ln_audio\.bias' is missing"),
    ({"speech_query_tokens": None}, "'speech_query_tokens' is missing"),
    ({"ln_speech.weight": torch.ones(8)}, r"'ln_speech\.weight' is \[8\]; expected \[16\]"),
    ({"speech_Qformer.bert.encoder.layer.1.output_query.dense.bias": None}, r"output_query\.dense\.bias' is missing"),
    ({"ears.weight": torch.ones(1)}, r"'ears\.weight' is there, with no place"),
    ({LORA: None}, r"q_proj\.lora_A\.default\.weight' is missing"),
    ({LORA: torch.ones(8, 3)}, r"lora_A\.default\.weight' is \[8, 3\]; expected \[8, 32\]"),
    ({"speech_llama_proj.weight": torch.zeros(24, 128), "speech_llama_proj.bias": torch.zeros(24)},
     r"speech_llama_proj\.weight gives 24 features; expected 32"),
])
def test_a_file_that_does_not_fit(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        Salmonn.load(write(tmp_path / "files", **changes), writers.Tone())


def test_a_hostile_file_is_refused_and_not_run(tmp_path: Path) -> None:
    folder = write(tmp_path / "files", config=writers.Hostile(tmp_path / "mark"))
    with pytest.raises(CheckpointError, match="was not executed"):
        Salmonn.load(folder, writers.Tone())
    assert not (tmp_path / "mark").exists()
