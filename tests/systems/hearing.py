"""Writers of what SALMONN hears with: BEATs, Whisper, and its own file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

from tests.systems import writers

BEATS: dict[str, Any] = {  # as a published file has it, but for the sizes
    "input_patch_size": 16, "embed_dim": 24, "conv_bias": False, "encoder_layers": 2, "encoder_embed_dim": 32,
    "encoder_ffn_embed_dim": 40, "encoder_attention_heads": 2, "activation_fn": "gelu",
    "layer_wise_gradient_decay_ratio": 0.6, "layer_norm_first": False, "deep_norm": True, "dropout": 0.0,
    "attention_dropout": 0.0, "activation_dropout": 0.0, "encoder_layerdrop": 0.05, "dropout_input": 0.0,
    "conv_pos": 8, "conv_pos_groups": 4, "relative_position_embedding": True, "num_buckets": 16, "max_distance": 20,
    "gru_rel_pos": True, "finetuned_model": True, "predictor_dropout": 0.0, "predictor_class": 5}
SPEECH, AUDIO, QUERIES, INNER = 16, 32, 128, 48  # widths: Whisper's, BEATs', the Q-Former's (two heads)


def noise(*shape: int, seed: list[int] = [0]) -> Tensor:  # noqa: B006  # the next numbers each time
    seed[0] += 1
    return 0.3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed[0]))


def linear(name: str, out: int, into: int) -> dict[str, Tensor]:
    return {f"{name}.weight": noise(out, into), f"{name}.bias": noise(out)}


def norm(name: str, width: int) -> dict[str, Tensor]:
    return {f"{name}.weight": 1 + noise(width), f"{name}.bias": noise(width)}


def beats_tensors() -> dict[str, Tensor]:
    """By the published names; the bias by distance is one tensor with a name in each layer."""
    width, inner, embed = BEATS["encoder_embed_dim"], BEATS["encoder_ffn_embed_dim"], BEATS["embed_dim"]
    heads, shared = BEATS["encoder_attention_heads"], noise(BEATS["num_buckets"], BEATS["encoder_attention_heads"])
    made = {"patch_embedding.weight": noise(embed, 1, 16, 16) / 4, **norm("layer_norm", embed),
            **linear("post_extract_proj", width, embed), **linear("predictor", 5, width),
            **norm("encoder.layer_norm", width), "encoder.pos_conv.0.bias": noise(width),
            "encoder.pos_conv.0.weight_g": 1 + noise(1, 1, BEATS["conv_pos"]),
            "encoder.pos_conv.0.weight_v": noise(width, width // BEATS["conv_pos_groups"], BEATS["conv_pos"])}
    for i in range(BEATS["encoder_layers"]):
        layer = f"encoder.layers.{i}"
        for name in ("k_proj", "v_proj", "q_proj", "out_proj"):
            made |= linear(f"{layer}.self_attn.{name}", width, width)
        made |= linear(f"{layer}.self_attn.grep_linear", 8, width // heads)
        made |= {f"{layer}.self_attn.grep_a": 1 + noise(1, heads, 1, 1),
                 f"{layer}.self_attn.relative_attention_bias.weight": shared,
                 **norm(f"{layer}.self_attn_layer_norm", width), **norm(f"{layer}.final_layer_norm", width),
                 **linear(f"{layer}.fc1", inner, width), **linear(f"{layer}.fc2", width, inner)}
    return made


def beats_file(path: Path, tensors: dict[str, Tensor] | None = None, **changes: Any) -> Path:
    """cfg and model. changes: to cfg; None takes a key away."""
    cfg = {key: value for key, value in (BEATS | changes).items() if value is not None}
    torch.save({"cfg": cfg, "model": beats_tensors() if tensors is None else tensors}, path)
    return path


def whisper_folder(folder: Path) -> Path:
    torch.manual_seed(4)
    config = WhisperConfig(
        vocab_size=20, num_mel_bins=80, d_model=SPEECH, encoder_layers=2, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=4 * SPEECH, decoder_ffn_dim=16, init_std=0.3, pad_token_id=0,
        bos_token_id=1, eos_token_id=2, decoder_start_token_id=1, suppress_tokens=[], begin_suppress_tokens=[])
    WhisperForConditionalGeneration(config).save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=80).save_pretrained(folder)
    return folder


def qformer_tensors() -> dict[str, Tensor]:
    """Without the prefix."""
    made = norm("embeddings.LayerNorm", QUERIES)
    for i in range(2):
        layer = f"encoder.layer.{i}"
        for name, seen in (("attention", QUERIES), ("crossattention", SPEECH + AUDIO)):
            made |= linear(f"{layer}.{name}.self.query", QUERIES, QUERIES)
            made |= linear(f"{layer}.{name}.self.key", QUERIES, seen)
            made |= linear(f"{layer}.{name}.self.value", QUERIES, seen)
            made |= linear(f"{layer}.{name}.output.dense", QUERIES, QUERIES)
            made |= norm(f"{layer}.{name}.output.LayerNorm", QUERIES)
        made |= linear(f"{layer}.intermediate_query.dense", INNER, QUERIES)
        made |= linear(f"{layer}.output_query.dense", QUERIES, INNER)
        made |= norm(f"{layer}.output_query.LayerNorm", QUERIES)
    return made


def salmonn_tensors(llama: Any) -> dict[str, Tensor]:
    """By the published names."""
    width = llama.config.hidden_size
    return {"speech_query_tokens": noise(1, 1, QUERIES), **norm("ln_speech", SPEECH), **norm("ln_audio", AUDIO),
            **linear("speech_llama_proj", width, QUERIES),
            **{f"speech_Qformer.bert.{name}": value for name, value in qformer_tensors().items()},
            **writers.lora(llama, 8, "llama_model.base_model.model.{}.default.weight")}
