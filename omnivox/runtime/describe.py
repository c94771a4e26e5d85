"""What a loaded model is made of, as plain values: sizes of its parts, its rates, its settings."""

from __future__ import annotations

from typing import Any

from torch import nn

from omnivox.rates import MEL_RATE, SAMPLE_RATE
from omnivox.runtime.respond import Omni

PARTS = ("encoder", "adaptor", "llm", "speech_decoder")


def describe(omni: Omni) -> dict[str, dict[str, Any]]:
    """`parameters` (count) and `megabytes` of each part and in all, `rates` (per second), `settings`.

    Tensors that two parts share, or that the LLM ties, count once. Without a vocoder there are no rates of sound.
    """
    vocoder = omni.vocoder if omni.can_speak else None
    parts: dict[str, nn.Module] = {name: getattr(omni.model, name) for name in PARTS}
    if vocoder is not None:
        parts["vocoder"] = vocoder
    sizes = {name: _size(part) for name, part in parts.items()} | {"total": _size(nn.ModuleList(parts.values()))}
    config = omni.config
    encoder_rate = MEL_RATE / config.encoder.stride
    sound = {} if vocoder is None else {"unit_frames": vocoder.sample_rate / vocoder.frame_samples,
                                        "reply_samples": vocoder.sample_rate}
    first = next(omni.model.speech_decoder.parameters())
    return {
        "parameters": {name: count for name, (count, _) in sizes.items()},
        "megabytes": {name: round(size / 1e6, 2) for name, (_, size) in sizes.items()},
        "rates": {
            "question_samples": SAMPLE_RATE,
            "mel_frames": MEL_RATE,
            "encoder_frames": encoder_rate,
            "llm_positions": encoder_rate / config.adaptor.k,
            **sound,
        },
        "settings": {
            "llm": omni.model.llm.config.model_type,
            "vocabulary": omni.model.llm.config.vocab_size,
            "vocoder": "none" if vocoder is None else type(vocoder).__name__,
            "question_seconds": omni.model.max_samples / SAMPLE_RATE,
            "mel_bins": config.encoder.n_mels,
            "padded_to_30_s": config.mel.pad_to_chunk,
            "k": config.adaptor.k,
            "upsample": config.speech_decoder.upsample,
            "units": config.speech_decoder.units,
            "states_fed": config.states_fed,
            **({} if vocoder is None else {"lookahead_frames": vocoder.context[1]}),
            "dtype": str(first.dtype).removeprefix("torch."),
            "device": str(first.device),
        },
    }


def _size(part: nn.Module) -> tuple[int, int]:
    """Parameters, each once, and bytes of them and of the buffers."""
    parameters = list(part.parameters())
    stored = [*parameters, *part.buffers()]
    return sum(p.numel() for p in parameters), sum(t.numel() * t.element_size() for t in stored)
