"""Qwen2-Audio from its published files: its voice chat, against transformers' `generate`, and files it cannot use."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import (
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    WhisperFeatureExtractor,
)

from omnivox.errors import AudioError, CheckpointError, ConfigError
from omnivox.runtime.events import Audio, Text
from omnivox.sound import read_audio
from omnivox.systems.qwen2_audio import Qwen2Audio
from tests import tiny
from tests.systems import writers
from tests.systems.laws import steps_until_left

MARKS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|audio_bos|>", "<|AUDIO|>", "<|audio_eos|>"]
GENERATION = {"chat_format": "chatml", "do_sample": True, "eos_token_id": [256, 258], "pad_token_id": 256,
              "repetition_penalty": 1.1, "temperature": 0.7, "top_k": 20, "top_p": 0.5}


def write(folder: Path) -> Path:
    """The published folder: weights in safetensors, a tokenizer of bytes, the published chat's form."""
    torch.manual_seed(0)
    config = Qwen2AudioConfig(
        audio_token_index=260, audio_config={
            "d_model": 32, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32,
            "num_mel_bins": 128, "initializer_range": 0.2},
        text_config={
            "model_type": "qwen2", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 262, "initializer_range": 0.3})
    model = Qwen2AudioForConditionalGeneration(config)
    with torch.no_grad():
        model.lm_head.weight[256:] -= 2 * model.lm_head.weight[256:].mean(1, keepdim=True)
    model.save_pretrained(folder)
    tokenizer = tiny.byte_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": MARKS})
    tokenizer.pad_token = "<|endoftext|>"
    tokenizer.eos_token = "<|im_end|>"
    tokenizer.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=128).save_pretrained(folder)
    (folder / "generation_config.json").write_text(json.dumps(GENERATION))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("qwen") / "files")


def test_the_files_are_those_of_the_hub(folder: Path) -> None:
    with safe_open(folder / "model.safetensors", "pt") as file:
        names = set(file.keys())
    assert {"audio_tower.conv1.weight", "language_model.lm_head.weight", "language_model.model.embed_tokens.weight",
            "multi_modal_projector.linear.weight"} <= names


def test_the_user_s_turn_holds_nothing_but_the_sound(folder: Path) -> None:
    system = Qwen2Audio.load(folder, writers.Tone())
    inputs = system.inputs(writers.speech(1.0))
    text = system.processor.tokenizer.decode(inputs["input_ids"][0])
    assert text.replace("<|AUDIO|>", "") == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        "Audio 1: <|audio_bos|><|audio_eos|>\n<|im_end|>\n<|im_start|>assistant\n")
    assert text.count("<|AUDIO|>") == 25  # a position for 40 ms


@torch.no_grad()
@pytest.mark.parametrize("penalty", [1.0, 1.1])
def test_its_greedy_words_are_those_of_generate(penalty: float, folder: Path, question: Path) -> None:
    wave = read_audio(question)
    system = Qwen2Audio.load(folder, writers.Tone(), temperature=0, repetition_penalty=penalty, max_new_tokens=16)
    events = list(system.respond(wave))
    reply = events[-1].reply  # type: ignore[union-attr]
    model = Qwen2AudioForConditionalGeneration.from_pretrained(folder).eval()
    processor = Qwen2AudioProcessor.from_pretrained(folder)
    prompt = processor.apply_chat_template([{"role": "user", "content": [{"type": "audio", "audio_url": "x.wav"}]}],
                                           add_generation_prompt=True, tokenize=False)
    inputs = processor(text=prompt, audio=[wave.numpy()], sampling_rate=16000, return_tensors="pt")
    ids = model.generate(**inputs, do_sample=False, temperature=1.0, top_p=1.0, top_k=50, repetition_penalty=penalty,
                         max_new_tokens=16)[0, inputs["input_ids"].shape[1]:].tolist()
    assert reply.token_ids == ids
    assert reply.text == processor.tokenizer.decode([token for token in ids if token not in (256, 258)],
                                                    skip_special_tokens=True)
    text = [event.delta for event in events if isinstance(event, Text)]
    assert reply.text == "".join(text) != ""
    assert len(reply.audio) == sum(len(event.samples) for event in events if isinstance(event, Audio)) > 0
    assert reply.cut == (ids[-1] not in (256, 258))
    times = reply.timings
    assert 0 < times.encode < times.first_token <= times.first_audio <= times.total
    assert times.mel > 0
    assert times.prefill > 0


def test_it_chooses_as_published_unless_told_otherwise(folder: Path) -> None:
    system = Qwen2Audio.load(folder, writers.Tone(), seed=3)
    assert json.loads(json.dumps(system.settings())) == {
        "model": str(folder), "dtype": "float32", "temperature": 0.7, "top_p": 0.5, "top_k": 20,
        "repetition_penalty": 1.1, "min_new_tokens": 0, "max_new_tokens": 256, "seed": 3, "tts": {"engine": "tone"}}
    assert (system.name, system.sample_rate) == ("qwen2_audio", 8000)
    assert Qwen2Audio.load(folder, writers.Tone(), top_p=0.9).settings()["top_p"] == 0.9
    assert system.writer.end_ids == (256, 258)


def test_a_seed_decides_what_is_sampled(folder: Path) -> None:
    def answer(seed: int) -> list[int]:
        system = Qwen2Audio.load(folder, writers.Tone(), seed=seed, temperature=3.0, top_p=1.0, max_new_tokens=12)
        ids: list[int] = list(system.respond(writers.speech(0.5)))[-1].reply.token_ids  # type: ignore[union-attr]
        return ids

    assert answer(1) == answer(1) != answer(2)


def test_whoever_stops_listening_stops_the_model(folder: Path) -> None:
    system = Qwen2Audio.load(folder, writers.Tone(), temperature=0)
    assert 0 < steps_until_left(system, system.model, writers.speech(0.5)) < 20
    assert not system.model.model.multi_modal_projector._forward_hooks


def test_long_questions_are_cut_and_those_of_nothing_refused(folder: Path) -> None:
    system = Qwen2Audio.load(folder, writers.Tone())
    long = writers.speech(31.0)
    assert torch.equal(system.inputs(long)["input_ids"], system.inputs(long[:480_000])["input_ids"])
    assert system.inputs(torch.zeros(480))["input_ids"].eq(260).sum() == 1
    with pytest.raises(AudioError, match="question: lasts 479 samples; this model hears 480 or more"):
        list(system.respond(torch.zeros(479)))


# -- what cannot be used ----------------------------------------------------------------------------------------------


def test_a_folder_that_is_not_there_tells_what_to_download(tmp_path: Path) -> None:
    for place in (tmp_path / "qwen", tmp_path):
        with pytest.raises(CheckpointError) as caught:
            Qwen2Audio.load(place, writers.Tone())
        how = f"{place} (about 17 GB): hf download Qwen/Qwen2-Audio-7B-Instruct --local-dir {place}"
        assert how in str(caught.value)


def test_another_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    with pytest.raises(CheckpointError, match="model_type is 'qwen2'; expected 'qwen2_audio'"):
        Qwen2Audio.load(tmp_path, writers.Tone())


def spoilt(folder: Path, name: str, value: torch.Tensor | None) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors[name]
    save_file(tensors | ({} if value is None else {name: value}), folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(("name", "value", "message"), [
    ("audio_tower.layers.0.fc1.bias", None, r"tensor 'model\.audio_tower\.layers\.0\.fc1\.bias' is missing"),
    ("multi_modal_projector.linear.weight", torch.zeros(3, 3), r"no Qwen2-Audio that can be read \(RuntimeError"),
])
def test_a_tensor_that_does_not_fit(name: str, value: torch.Tensor | None, message: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "files")
    spoilt(folder, name, value)
    with pytest.raises(CheckpointError, match=message):
        Qwen2Audio.load(folder, writers.Tone())


def test_pickled_weights_are_not_opened(tmp_path: Path) -> None:
    folder = write(tmp_path / "files")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no Qwen2-Audio that can be read"):
        Qwen2Audio.load(folder, writers.Tone())


def test_a_setting_that_makes_no_sense(folder: Path) -> None:
    with pytest.raises(ConfigError, match="repetition_penalty: found 0"):
        Qwen2Audio.load(folder, writers.Tone(), repetition_penalty=0)
