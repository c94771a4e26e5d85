"""What a loaded model is made of, as plain values: sizes of its parts, its rates, its settings."""

from __future__ import annotations

from typing import Any

from torch import nn

from omnivox.rates import MEL_RATE, SAMPLE_RATE
from omnivox.runtime.respond import Omni

PARTS = ("encoder", "adaptor", "llm", "speech_decoder")


def describe(omni: Omni) -> dict[str, dict[str, Any]]:
    """`parameters` (count) and `megabytes` of each part and in all, `rates` (per second), `settings`.

    Tensors that two parts share, or that the LLM ties, count once.
    """
    parts: dict[str, nn.Module] = {name: getattr(omni.model, name) for name in PARTS} | {"vocoder": omni.vocoder}
    sizes = {name: _size(part) for name, part in parts.items()} | {"total": _size(nn.ModuleList(parts.values()))}
    config = omni.config
    encoder_rate = MEL_RATE / config.encoder.stride
    unit_rate = omni.vocoder.sample_rate / omni.vocoder.frame_samples
    first = next(omni.model.speech_decoder.parameters())
    return {
        "parameters": {name: count for name, (count, _) in sizes.items()},
        "megabytes": {name: round(size / 1e6, 2) for name, (_, size) in sizes.items()},
        "rates": {
            "question_samples": SAMPLE_RATE,
            "mel_frames": MEL_RATE,
            "encoder_frames": encoder_rate,
            "llm_positions": encoder_rate / config.adaptor.k,
            "unit_frames": unit_rate,
            "reply_samples": omni.sample_rate,
        },
        "settings": {
            "llm": omni.model.llm.config.model_type,
            "vocabulary": omni.model.llm.config.vocab_size,
            "vocoder": type(omni.vocoder).__name__,
            "mel_bins": config.encoder.n_mels,
            "padded_to_30_s": config.mel.pad_to_chunk,
            "k": config.adaptor.k,
            "upsample": config.speech_decoder.upsample,
            "units": config.speech_decoder.units,
            "states_fed": config.states_fed,
            "lookahead_frames": omni.vocoder.context[1],
            "dtype": str(first.dtype).removeprefix("torch."),
            "device": str(first.device),
        },
    }


def _size(part: nn.Module) -> tuple[int, int]:
    """Parameters, each once, and bytes of them and of the buffers."""
    parameters = list(part.parameters())
    stored = [*parameters, *part.buffers()]
    return sum(p.numel() for p in parameters), sum(t.numel() * t.element_size() for t in stored)
