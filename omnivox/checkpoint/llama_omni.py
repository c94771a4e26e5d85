"""Published LLaMA-Omni checkpoints (`model_type` `omni_speech2s_llama`): names, configuration and prompt."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from transformers import LlamaConfig

from omnivox.checkpoint.files import Tensors, first_line, open_tensors, read_json
from omnivox.checkpoint.prompt import Prompt
from omnivox.checkpoint.whisper import DIMS, OPENAI_DIMS, config_from_tensors, encoder_config, load_whisper
from omnivox.errors import CheckpointError
from omnivox.model.config import AdaptorConfig, EncoderConfig, MelConfig, OmniConfig, SpeechDecoderConfig

MODEL_TYPE = "omni_speech2s_llama"
SYSTEM = ("You are a helpful language and speech assistant. You are able to understand the speech content that the "
          "user provides, and assist the user with a variety of tasks using natural language.")
BEFORE = (f"<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n{SYSTEM}<|eot_id|>"
          "<|start_header_id|>user<|end_header_id|>\n\n")
AGAIN = "<|start_header_id|>user<|end_header_id|>\n\n"
AFTER = ("\nPlease directly answer the questions in the user's speech.<|eot_id|>"
         "<|start_header_id|>assistant<|end_header_id|>\n\n")

_PREFIXES = (("encoder.", "model.speech_encoder."), ("adaptor.", "model.speech_projector."),
             ("speech_decoder.", "speech_generator."))  # ours, published; the LLM's names only gain `llm.`
_LLAMA_KEYS = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
               "num_key_value_heads", "head_dim", "hidden_act", "max_position_embeddings", "initializer_range",
               "rms_norm_eps", "pad_token_id", "bos_token_id", "eos_token_id", "pretraining_tp", "tie_word_embeddings",
               "rope_theta", "rope_scaling", "rope_parameters", "attention_bias", "attention_dropout", "mlp_bias")
_KINDS = {"speech_encoder_type": "whisper", "speech_projector_type": "linear", "speech_generator_type": "ctc"}
_REQUIRED = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
             "speech_encoder_ds_rate", "unit_vocab_size", "ctc_upsample_factor")


def published_name(ours: str) -> str:
    """The published name of one of `SpokenLM`'s tensors."""
    for prefix, published in _PREFIXES:
        if ours.startswith(prefix):
            return published + ours.removeprefix(prefix)
    return ours.removeprefix("llm.")


def our_name(published: str) -> str | None:
    """Our name of a published tensor; None for buffers that old versions saved."""
    if published.endswith("rotary_emb.inv_freq"):
        return None
    for prefix, theirs in _PREFIXES:
        if published.startswith(theirs):
            return prefix + published.removeprefix(theirs)
    return f"llm.{published}"


def load_llama_omni(folder: Path, whisper: Path | None = None
                    ) -> tuple[OmniConfig, LlamaConfig, Prompt, Tensors, Tensors]:
    """Configurations, prompt, and the tensors under our names: all but the encoder's, and the encoder's.

    whisper: the encoder's file or folder; by default what the checkpoint's config names, or what lies beside it. The
    encoder in it comes before the one in the checkpoint, as in the published code.
    Raises CheckpointError naming the file, the key or tensor, and what would be right.
    """
    values = read_config(folder / "config.json")
    tensors = open_tensors(folder).renamed(our_name, published_name)
    encoder_config, encoder = _encoder(folder, values, tensors, whisper)
    rest = tensors.outside("encoder.")
    llama = _llama_config(values, folder)
    width = rest.required("adaptor.linear1.weight").shape[0]  # fixed in the published code, no key says it
    config = omni_config(values, llama, encoder_config, width, folder)
    return config, llama, Prompt(BEFORE, AFTER, _end_ids(folder, values), again=AGAIN, system=SYSTEM), rest, encoder


def read_config(path: Path) -> dict[str, Any]:
    """A published config.json whose parts are all of the known kinds."""
    values = read_json(path)
    if (found := values.get("model_type")) != MODEL_TYPE:
        raise CheckpointError(f"{path}: model_type is {found!r}; expected {MODEL_TYPE!r} (published) or 'omnivox'")
    for key, kind in _KINDS.items():
        if values.get(key, kind) != kind:
            raise CheckpointError(f"{path}: {key} is {values[key]!r}; expected {kind!r}")
    for key in _REQUIRED:
        if not isinstance(value := values.get(key), int) or isinstance(value, bool) or value < 1:
            raise CheckpointError(f"{path}: {key} is {value!r}; expected a whole number")
    return values


def _llama_config(values: dict[str, Any], folder: Path) -> LlamaConfig:
    try:
        return LlamaConfig(**{key: values[key] for key in _LLAMA_KEYS if key in values})
    except Exception as error:  # whatever transformers makes of a wrong value
        raise CheckpointError(f"{folder / 'config.json'}: no configuration of a Llama ({first_line(error)})") from error


def omni_config(values: dict[str, Any], llama: LlamaConfig, encoder: EncoderConfig, inner_width: int,
                folder: Path) -> OmniConfig:
    """Our configuration of a published one."""
    text = str(values.get("ctc_decoder_config"))
    numbers = re.fullmatch(r"\s*\(?\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*\)?\s*", text)
    if numbers is None:
        raise CheckpointError(f"{folder / 'config.json'}: ctc_decoder_config is {text!r}; "
                              "expected (layers, width, heads, feed-forward), as \"(2,4096,32,11008)\"")
    layers, width, heads, ffn = map(int, numbers.groups())
    rope = dict(llama.rope_parameters or {})
    theta = rope.pop("rope_theta", 10000.0)
    config = OmniConfig(
        mel=MelConfig(encoder.n_mels, pad_to_chunk=True),
        encoder=encoder,
        adaptor=AdaptorConfig(values["speech_encoder_ds_rate"], encoder.width, inner_width, llama.hidden_size),
        speech_decoder=SpeechDecoderConfig(
            llama.hidden_size, width, layers, heads, ffn, values["ctc_upsample_factor"], values["unit_vocab_size"],
            rope_theta=theta, rope_scaling=rope if rope.get("rope_type", "default") != "default" else None,
            norm_eps=llama.rms_norm_eps))
    try:
        return OmniConfig.from_dict(config.to_dict())
    except ValueError as error:
        raise CheckpointError(f"{folder / 'config.json'}: {error}") from error


def _end_ids(folder: Path, values: dict[str, Any]) -> tuple[int, ...]:
    path = folder / "generation_config.json"
    found = (read_json(path) if path.exists() else values).get("eos_token_id", values.get("eos_token_id"))
    ids = tuple(found) if isinstance(found, list) else (found,)
    if not all(isinstance(number, int) and not isinstance(number, bool) for number in ids):
        raise CheckpointError(f"{path if path.exists() else folder / 'config.json'}: eos_token_id is {found!r}; "
                              "expected a token id or a list of them")
    return ids


def _encoder(folder: Path, values: dict[str, Any], tensors: Tensors, whisper: Path | None
             ) -> tuple[EncoderConfig, Tensors]:
    named = str(values.get("speech_encoder") or "large-v3.pt")
    beside = (folder / named, folder / Path(named).name, Path(named), *_beside(folder))
    if found := whisper or next((path for path in beside if path.exists()), None):
        config, encoder = load_whisper(found)
    else:
        encoder = tensors.under("encoder.")
        if not encoder:
            raise CheckpointError(f"{folder}: holds no speech encoder, and {named} is not there; give Whisper's file "
                                  "(`whisper=`, --whisper): OpenAI's large-v3.pt or a Hugging Face folder")
        dims = folder / DIMS
        config = encoder_config(read_json(dims), OPENAI_DIMS, dims) if dims.exists() else config_from_tensors(encoder)
    if values.get("speech_encoder_hidden_size", config.width) != config.width:
        raise CheckpointError(f"{encoder.source}: the encoder is {config.width} wide; {folder / 'config.json'} says "
                              f"speech_encoder_hidden_size {values['speech_encoder_hidden_size']}")
    return config, encoder


def _beside(folder: Path) -> list[Path]:
    """A Whisper encoder in the checkpoint's own folder, in safetensors."""
    return sorted(folder.glob("*whisper*.safetensors")) if (folder / DIMS).exists() else []
