"""Whisper in transformers' layout, of random weights: it answers at any length, and the same to the same sound."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tokenizers import pre_tokenizers
from transformers import (
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizer,
)

from omnivox.data.recognise import FasterWhisper, Whisper, recogniser
from omnivox.errors import CheckpointError

SPECIAL = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|translate|>", "<|startoflm|>",
           "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>",
           *(f"<|{i * 0.02:.2f}|>" for i in range(1501))]


@pytest.fixture(scope="session")
def whisper_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whisper")
    vocabulary = {token: i for i, token in enumerate([*sorted(pre_tokenizers.ByteLevel.alphabet()), *SPECIAL])}
    end, start = vocabulary["<|endoftext|>"], vocabulary["<|startoftranscript|>"]
    torch.manual_seed(0)
    WhisperForConditionalGeneration(WhisperConfig(
        vocab_size=len(vocabulary), num_mel_bins=80, d_model=16, encoder_layers=1, decoder_layers=1,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16,
        max_target_positions=448, pad_token_id=end, bos_token_id=end, eos_token_id=end, decoder_start_token_id=start,
        suppress_tokens=None, begin_suppress_tokens=None, init_std=1.0)).save_pretrained(folder)
    (folder / "generation_config.json").write_text(json.dumps({
        "is_multilingual": True, "lang_to_id": {"<|en|>": vocabulary["<|en|>"]},
        "task_to_id": {"transcribe": vocabulary["<|transcribe|>"], "translate": vocabulary["<|translate|>"]},
        "no_timestamps_token_id": vocabulary["<|notimestamps|>"], "max_length": 20, "pad_token_id": end,
        "bos_token_id": end, "eos_token_id": end, "decoder_start_token_id": start}))
    WhisperProcessor(WhisperFeatureExtractor(feature_size=80),
                     WhisperTokenizer(vocab=vocabulary, merges=[])).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("seconds", [1.0, 33.0])
def test_it_hears_speech_of_any_length(seconds: float, whisper_folder: Path) -> None:
    wave = 0.1 * torch.randn(int(16_000 * seconds), generator=torch.Generator().manual_seed(1))
    judge = recogniser(f"whisper:{whisper_folder}")
    assert isinstance(judge, Whisper)
    heard = judge.transcribe(wave)
    assert judge.transcribe(wave) == heard
    assert "<|endoftext|>" not in heard
    [rate] = judge.errors(["the cat sat"], [wave])
    assert rate is not None
    assert rate >= 1  # it knows nothing


def test_faster_whisper_hears_too(whisper_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("faster_whisper", reason="faster-whisper is not installed")
    converters = pytest.importorskip("ctranslate2").converters
    converters.TransformersConverter(str(whisper_folder), copy_files=["tokenizer.json"]).convert(str(tmp_path / "ct2"))
    judge = recogniser(f"faster-whisper:{tmp_path / 'ct2'}")
    assert isinstance(judge, FasterWhisper)
    wave = 0.1 * torch.randn(16_000, generator=torch.Generator().manual_seed(1))
    assert judge.transcribe(wave) == judge.transcribe(wave)
    with pytest.raises(CheckpointError, match="no faster-whisper model"):
        FasterWhisper(str(tmp_path / "none")).transcribe(wave)


def test_a_folder_without_one_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no Whisper that can be read"):
        Whisper(str(tmp_path)).transcribe(torch.zeros(1600))
