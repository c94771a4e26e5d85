"""The speech decoder at sizes that no reference set has, against the Llama layers that the published one is made of."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaModel

from omnivox.model.config import SpeechDecoderConfig
from omnivox.model.speech_decoder import SpeechDecoder

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}


@pytest.mark.parametrize(("width", "heads", "layers", "upsample", "units", "scaling"), [
    (36, 2, 3, 20, 600, LLAMA3),
    (32, 8, 1, 3, 5, None),
    (20, 1, 2, 7, 50, {"rope_type": "linear", "factor": 2.0}),
])
@torch.no_grad()
def test_speech_decoder(width: int, heads: int, layers: int, upsample: int, units: int,
                        scaling: dict[str, Any] | None) -> None:
    torch.manual_seed(0)
    config = SpeechDecoderConfig(16, width, layers, heads, 40, upsample, units, 10000.0, scaling)
    ours = SpeechDecoder(config).eval()
    theirs = LlamaModel(LlamaConfig(
        vocab_size=1, hidden_size=width, intermediate_size=40, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=heads, rms_norm_eps=config.norm_eps,
        rope_parameters={"rope_type": "default", **(scaling or {}), "rope_theta": 10000.0})).eval()
    theirs.norm = nn.Identity()
    theirs.layers.load_state_dict(ours.layers.state_dict())
    states = torch.randn(2, 9, 16)
    x = ours.input_proj(states).repeat_interleave(upsample, 1)
    expected = ours.output_proj(theirs(inputs_embeds=x, use_cache=False).last_hidden_state)
    found = ours(states)
    assert found.shape == (2, 9 * upsample, units + 1)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)
