"""Any causal LM steps through `SlotCache` exactly as `generate` does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from omnivox.model.llm import StreamingLLM
from omnivox.streaming import Chunk

SMALL: dict[str, Any] = {
    "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 128, "vocab_size": 97, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": None,
    "max_position_embeddings": 256,
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama": ("LlamaConfig", {}),
    "Qwen2": ("Qwen2Config", {}),
    "Qwen3": ("Qwen3Config", {"head_dim": 16}),
    "Mistral": ("MistralConfig", {"sliding_window": None}),
    "Mistral, sliding": ("MistralConfig", {"sliding_window": 5}),
    "SmolLM3": ("SmolLM3Config", {}),
    "Gemma2": ("Gemma2Config", {"head_dim": 16, "sliding_window": 5, "query_pre_attn_scalar": 16}),  # eager, soft caps
    "Gemma3": ("Gemma3TextConfig", {"head_dim": 16, "sliding_window": 5, "num_hidden_layers": 7}),
}


def build(family: str, **changes: Any) -> PreTrainedModel:
    name, extra = FAMILIES[family]
    torch.manual_seed(0)
    config = getattr(transformers, name)(**{**SMALL, **extra, **changes})
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():  # far enough from uniform that greedy choices are no coin flips
        parameter.data.mul_(2.0) if parameter.dim() > 1 else None
    return model


@torch.no_grad()
def greedy(llm: StreamingLLM, prompt: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Tokens [count] and the hidden states [count, D] that predict them, for one prompt of embeddings [T, D]."""
    table = llm.llm.get_input_embeddings()
    state = llm.initial_state(1)
    x, tokens, hidden = prompt[None], [], []
    for _ in range(count):
        y, state = llm.step(Chunk.full(x), state)
        hidden.append(y.data[0, -1])
        tokens.append(llm.logits(hidden[-1]).argmax())
        x = table(tokens[-1])[None, None]
    return torch.stack(tokens), torch.stack(hidden)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_greedy_equals_generate(family: str) -> None:
    model = build(family)
    prompt = model.get_input_embeddings()(torch.randint(3, 97, (1, 9)))
    expected = model.generate(inputs_embeds=prompt, max_new_tokens=20, do_sample=False, output_hidden_states=True,
                              return_dict_in_generate=True, attention_mask=torch.ones(1, 9, dtype=torch.long))
    tokens, hidden = greedy(StreamingLLM(model, capacity=32), prompt[0], 20)
    assert torch.equal(tokens, expected.sequences[0])
    torch.testing.assert_close(hidden, torch.stack([step[-1][0, -1] for step in expected.hidden_states]),
                               atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_ragged_batch_equals_offline(family: str) -> None:
    model = build(family)
    llm, table = StreamingLLM(model, capacity=24), model.get_input_embeddings()
    rows = [torch.randint(3, 97, (n,)) for n in (20, 4, 13)]
    state, done, got = llm.initial_state(3), [0, 0, 0], [[], [], []]
    pieces = torch.Generator().manual_seed(1)
    while any(d < len(row) for d, row in zip(done, rows, strict=True)):
        wish = torch.randint(0, 5, (3,), generator=pieces).tolist()
        n = [min(w, len(row) - d) for w, d, row in zip(wish, done, rows, strict=True)]
        x = torch.full((3, 4, 64), torch.nan)  # padding may hold anything
        for b in range(3):
            x[b, : n[b]] = table(rows[b][done[b] : done[b] + n[b]])
            done[b] += n[b]
        y, state = llm.step(Chunk(x, torch.tensor(n)), state)
        for b in range(3):
            got[b].append(y.row(b))
    for row, pieces_b in zip(rows, got, strict=True):
        offline = model(input_ids=row[None], output_hidden_states=True)
        torch.testing.assert_close(torch.cat(pieces_b), offline.hidden_states[-1][0], atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(llm.logits(torch.cat(pieces_b)), offline.logits[0], atol=2e-5, rtol=1e-4)


def test_cache_follows_the_models_dtype() -> None:
    llm = StreamingLLM(build("Llama").to(torch.bfloat16), capacity=8)
    state = llm.initial_state(2)
    assert {tensor.dtype for tensor in (*state.keys, *state.values)} == {torch.bfloat16}
    with torch.no_grad():
        y, _ = llm.step(Chunk.full(torch.randn(2, 3, 64, dtype=torch.bfloat16)), state)
    assert y.data.dtype == torch.bfloat16
    assert y.data.isfinite().all()


def test_attention_reads_no_further_than_the_longest_live_row(monkeypatch: pytest.MonkeyPatch) -> None:
    llm = StreamingLLM(build("Llama"), capacity=1000)
    read: list[int] = []
    attend = torch.nn.functional.scaled_dot_product_attention

    def watch(q: Tensor, k: Tensor, v: Tensor, **settings: Any) -> Tensor:
        read.append(k.shape[2])
        return attend(q, k, v, **settings)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watch)
    state = llm.initial_state(2)
    with torch.no_grad():
        llm.step(Chunk(torch.randn(2, 50, 64), torch.tensor([50, 3])), state)
        llm.step(Chunk(torch.randn(2, 1, 64), torch.tensor([0, 1])), state)
    assert read == [50] * 3 + [4] * 3


def test_past_the_capacity_is_an_error() -> None:
    llm = StreamingLLM(build("Llama"), capacity=4)
    with torch.no_grad(), pytest.raises(ValueError, match="5 positions; this state has room for 4"):
        llm.step(Chunk.full(torch.randn(1, 5, 64)), llm.initial_state(1))


@pytest.mark.parametrize(("name", "message"), [
    ("Qwen3NextConfig", "qwen3_next has layers of type 'linear_attention'"),
    ("Llama4TextConfig", "llama4_text has layers of type 'chunked_attention'"),
])
def test_layers_that_do_not_attend_are_refused(name: str, message: str) -> None:
    config = getattr(transformers, name)(**{**SMALL, "num_hidden_layers": 4, "head_dim": 16})
    model = AutoModelForCausalLM.from_config(config)
    with pytest.raises(ValueError, match=message):
        StreamingLLM(model, capacity=8)


REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "a head behind the base model": ("ModernBertDecoderConfig", {}),
    "an encoder as decoder": ("RobertaConfig", {"is_decoder": True}),
    "a mask of its own": ("GPTNeoConfig", {"num_layers": 2, "num_hidden_layers": 2,
                                           "attention_types": [[["global", "local"], 1]]}),
    "positions from the mask": ("OPTConfig", {"ffn_dim": 128, "word_embed_proj_dim": 64}),
    "embeddings of another width": ("OPTConfig", {"ffn_dim": 128, "word_embed_proj_dim": 32}),
    "a bias from the mask": ("BloomConfig", {"n_layer": 2, "n_head": 4}),
    "a bias of its own": ("MptConfig", {"d_model": 64, "n_layers": 2, "n_heads": 4, "expansion_ratio": 2}),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_stepped_exactly_is_refused_in_one_sentence(kind: str) -> None:
    name, extra = REFUSED[kind]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(getattr(transformers, name)(**{**SMALL, **extra})).eval()
    for parameter in model.parameters():
        parameter.data.mul_(2.0) if parameter.dim() > 1 else None
    name = model.config.model_type
    with pytest.raises(ValueError, match=rf"^llm: {name} .*; expected a decoder-only family") as told:
        StreamingLLM(model, capacity=8)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("family", ["GPT2Config", "GPTNeoXConfig", "PhiConfig", "FalconConfig", "CohereConfig",
                                    "GraniteConfig", "MixtralConfig", "GptOssConfig"])
def test_other_families_are_not_refused(family: str) -> None:
    torch.manual_seed(0)
    extra = {"logits_scaling": 2.0} if family == "GraniteConfig" else {}
    experts = {"num_local_experts": 4, "head_dim": 16} if family in ("MixtralConfig", "GptOssConfig") else {}
    config = getattr(transformers, family)(**{**SMALL, **extra, **experts})
    StreamingLLM(AutoModelForCausalLM.from_config(config).eval(), capacity=8)


def test_the_probe_reads_a_few_positions_only(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = build("Llama"), list[int]()
    layer = model.get_decoder().layers[0].mlp
    layer.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[:2].numel()))
    StreamingLLM(model)
    assert sum(seen) <= 20


def test_rope_that_depends_on_the_length_is_refused_beyond_its_limit() -> None:
    model = build("Llama", rope_scaling={"rope_type": "dynamic", "factor": 2.0}, max_position_embeddings=16)
    StreamingLLM(model, capacity=16).initial_state(1)
    with pytest.raises(ValueError, match="up to 16 positions only; found a capacity of 17"):
        StreamingLLM(model).initial_state(1, capacity=17)
    assert StreamingLLM(model).max_positions == 16


def test_long_rope_is_used_up_to_where_it_changes() -> None:
    rope = {"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8, "rope_theta": 1e4,
            "original_max_position_embeddings": 128}
    config = transformers.Phi3Config(**{**SMALL, "max_position_embeddings": 4096, "rope_parameters": rope,
                                        "original_max_position_embeddings": 128})
    assert StreamingLLM(AutoModelForCausalLM.from_config(config).eval(), capacity=8).max_positions == 128
