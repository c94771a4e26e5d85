"""SALMONN (Tang et al. 2024): two ears, a Q-Former and a Vicuna with a LoRA, which answers in writing; a TTS speaks.

    question ─┬► Whisper's encoder ─► LayerNorm ─┬► windows of 17 ─► Q-Former ─► linear ─► prompt ─► Vicuna ─► Text
              └► BEATs ─────────────► LayerNorm ─┘

The published files, in one folder: SALMONN's own (Q-Former, linear layer and LoRA), Whisper, BEATs and Vicuna.
Shapes: n samples at 16 kHz, T frames (50 per second), E width of both ears, L windows, D LLM width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnivox.checkpoint.files import NoInit, Tensors, fill, read_json, read_torch, tensors_of
from omnivox.checkpoint.load import pick_device, pick_dtype
from omnivox.checkpoint.whisper import load_whisper
from omnivox.errors import AudioError, CheckpointError, ConfigError
from omnivox.model.encoder import Encoder
from omnivox.model.mel import log_mel, mel_filters, pad_or_cut
from omnivox.rates import CHUNK_SAMPLES, SAMPLE_RATE
from omnivox.systems.beats import Beats, load_beats
from omnivox.systems.llama import load_llama, merge_lora
from omnivox.systems.parts import Part, find_parts
from omnivox.systems.qformer import Qformer, QformerConfig
from omnivox.systems.slow_tokenizer import SlowTokenizer
from omnivox.systems.system import Event, Making, Parts, answered
from omnivox.systems.tts import TTS, spoken
from omnivox.systems.writer import Choosing, Writer, deltas

WINDOW = 17  # frames: a third of a second
ALPHA = 32  # of the LoRA
INSTRUCTION = "Please answer the question in detail."  # SALMONN's own for spoken questions
BEFORE, AFTER = "USER: <Speech>", "</Speech> {}\nASSISTANT:"
PARTS = (
    Part(("salmonn_v1.pth", "salmonn*.pth"), "tsinghua-ee/SALMONN/salmonn_v1.pth", "about 0.2 GB; or salmonn_7b_v0.pth "
         "of tsinghua-ee/SALMONN-7B, with lmsys/vicuna-7b-v1.5 in the place of the 13B"),
    Part(("whisper-large-v2", "whisper*"), "openai/whisper-large-v2", "6.2 GB"),
    Part(("BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt2.pt", "BEATs*.pt"),
         "link in the table at https://github.com/microsoft/unilm/tree/master/beats", "about 0.4 GB"),
    Part(("vicuna-13b-v1.1", "vicuna*"), "lmsys/vicuna-13b-v1.1", "26 GB"),
)
_LORA = "llama_model.base_model.model."
_QFORMER = "speech_Qformer.bert."


class Ears(nn.Module):
    """A question → what the language model sees of it. Names of the modules are the published ones, where it has any.

    tensors: SALMONN's own, by their published names. Raises CheckpointError.
    """

    def __init__(self, encoder: Encoder, beats: Beats, tensors: Tensors) -> None:
        super().__init__()
        own = tensors.outside("llama_model.").outside("speech_encoder.").outside("beats.")
        speech, audio = encoder.config.width, beats.config.encoder_embed_dim
        config = _qformer_config(own, speech + audio)
        with NoInit():
            self.ln_speech, self.ln_audio = nn.LayerNorm(speech), nn.LayerNorm(audio)
            self.speech_query_tokens = nn.Parameter(torch.empty_like(own.required("speech_query_tokens")))
            self.speech_Qformer = nn.ModuleDict({"bert": Qformer(config)})
            self.speech_llama_proj = nn.Linear(config.width, own.required("speech_llama_proj.weight").shape[0])
        fill(self, own, torch.float32)
        self.encoder, self.beats = encoder, beats
        self.filters = nn.Buffer(mel_filters(encoder.config.n_mels), persistent=False)
        self.eval().requires_grad_(False)

    def forward(self, wave: Tensor) -> Tensor:
        """Positions [L, D] of a waveform [n], which counts as 1 s at least and 30 s at most."""
        wave = pad_or_cut(wave, min(max(len(wave), SAMPLE_RATE), CHUNK_SAMPLES)).to(self.filters.device)[None]
        speech, _ = self.encoder(log_mel(pad_or_cut(wave), self.filters))
        audio = self.ln_audio(self.beats(wave))
        audio = F.pad(audio, (0, 0, 0, speech.shape[1] - audio.shape[1]))
        frames_TE = torch.cat([self.ln_speech(speech), audio], -1)[0]
        windows = frames_TE[: len(frames_TE) // WINDOW * WINDOW].unflatten(0, (-1, WINDOW))
        found = self.speech_Qformer["bert"](self.speech_query_tokens.expand(len(windows), -1, -1), windows)
        return self.speech_llama_proj(found).flatten(0, 1)  # type: ignore[no-any-return]


class Salmonn:
    """model: the language model, its LoRA merged. beams: of the search; with more than one, all text comes at its end.

    instruction: what the model is told to do with the question.
    """

    name = "salmonn"

    def __init__(self, ears: Ears, model: Any, tokenizer: SlowTokenizer, tts: TTS, *, choosing: Choosing,
                 beams: int = 4, instruction: str = INSTRUCTION, source: str = "salmonn") -> None:
        if found := ears.speech_llama_proj.out_features - model.config.hidden_size:
            raise CheckpointError(f"{source}: speech_llama_proj.weight gives {model.config.hidden_size + found} "
                                  f"features; expected {model.config.hidden_size}, the width of this Vicuna; "
                                  "salmonn_v1.pth goes with the 13B, salmonn_7b_v0.pth with the 7B")
        _check_search(beams, choosing)
        self.ears, self.model, self.tokenizer, self.tts, self.source = ears, model, tokenizer, tts, source
        self.beams, self.instruction = beams, instruction
        self.writer = Writer(model, choosing, [tokenizer.eos])

    @classmethod
    def load(cls, folder: str | Path, tts: TTS, *, beams: int = 4, temperature: float = 0.0, top_p: float = 0.9,
             top_k: int = 50, seed: int = 0, max_new_tokens: int = 200, instruction: str = INSTRUCTION,
             device: str = "auto", dtype: str = "auto") -> Self:
        """The published files in `folder`, by the names in `PARTS`; the search as published unless told otherwise.

        beams: 1 is greedy (or sampled, at a temperature), and the text streams. dtype: of the language model.
        Raises CheckpointError, which says what to download; ConfigError.
        """
        choosing = Choosing(temperature, top_p, top_k, seed=seed, max_new_tokens=max_new_tokens)
        _check_search(beams, choosing)
        own, whisper, beats, vicuna = find_parts("salmonn", folder, PARTS)
        place = pick_device(device)
        numbers = pick_dtype(dtype, place, read_json(vicuna / "config.json"))
        tensors = read_salmonn(own)
        ears = Ears(_whisper(whisper), load_beats(beats), tensors)
        model: Any = load_llama(vicuna, numbers)
        lora = tensors.under(_LORA).renamed(lambda name: name.replace(".default.weight", ".weight"),
                                            lambda name: name.replace(".weight", ".default.weight"))
        merge_lora(model, lora, ALPHA / _rank(lora))
        return cls(ears.to(place), model.to(place), SlowTokenizer(vicuna), tts, choosing=choosing, beams=beams,
                   instruction=instruction, source=str(folder))

    @property
    def sample_rate(self) -> int:
        return self.tts.sample_rate

    def settings(self) -> Mapping[str, Any]:
        return {"model": self.source, "dtype": str(self.model.dtype).removeprefix("torch."), "beams": self.beams,
                "instruction": self.instruction, **self.writer.choosing.settings(), "tts": self.tts.settings()}

    def respond(self, question: Tensor) -> Iterator[Event]:
        """Text as it is written, Audio as the TTS speaks, then Done. Raises AudioError: a question of no samples."""
        return answered(lambda making: self._parts(question, making), self.sample_rate)

    @torch.no_grad()
    def embeddings(self, question: Tensor, making: Making | None = None) -> Tensor:
        """The prompt [1, positions, D] around a question [n]."""
        if not len(question):
            raise AudioError("question: holds no samples; expected some speech")
        heard = self.ears(question.float())
        if making:
            making.timings.encode = making.clock.lap()
        before = [self.tokenizer.bos, *self.tokenizer.encode(BEFORE)]
        after = self.tokenizer.encode(AFTER.format(self.instruction))
        table = self.model.get_input_embeddings()
        left, right = (table(torch.tensor(ids, device=self.model.device)) for ids in (before, after))
        return torch.cat([left, heard.to(left), right])[None]

    def _parts(self, question: Tensor, making: Making) -> Parts:
        embeds = self.embeddings(question, making)
        tokens = self.writer.tokens({"inputs_embeds": embeds}, [], making) if self.beams == 1 else self._search(
            embeds, making)
        yield from spoken(deltas(tokens, self.tokenizer), self.tts)

    def _search(self, embeds: Tensor, making: Making) -> Iterator[int]:
        """The tokens of the best of the beams, all at once: none is certain before the search has ended."""
        limit = self.writer.choosing.max_new_tokens
        with torch.no_grad():
            ids = self.model.generate(
                inputs_embeds=embeds, attention_mask=torch.ones_like(embeds[..., 0], dtype=torch.long),
                num_beams=self.beams, do_sample=False, max_new_tokens=limit, eos_token_id=self.tokenizer.eos,
                pad_token_id=self.tokenizer.eos)[0].tolist()
        making.timings.first_token = making.clock.now()
        end = ids.index(self.tokenizer.eos) + 1 if self.tokenizer.eos in ids else len(ids)
        making.token_ids += ids[:end]
        making.cut = self.tokenizer.eos not in ids
        yield from (token for token in ids[:end] if token != self.tokenizer.eos)


def _check_search(beams: int, choosing: Choosing) -> None:
    if isinstance(beams, bool) or beams < 1:
        raise ConfigError(f"beams: found {beams}; expected 1 or more")
    if beams > 1 and choosing.temperature:
        raise ConfigError(f"temperature: found {choosing.temperature} with {beams} beams; expected 0, or beams=1")


def read_salmonn(path: Path) -> Tensors:
    """SALMONN's own tensors. Nothing in the file is executed. Raises CheckpointError."""
    state = read_torch(path).get("model")
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: has no 'model'; expected SALMONN's file, as salmonn_v1.pth")
    return tensors_of({name: value for name, value in state.items() if isinstance(value, Tensor)}, str(path))


def _qformer_config(tensors: Tensors, frame_width: int) -> QformerConfig:
    """Its sizes, from the tensors; heads leave no trace in them."""
    first = tensors.required(f"{_QFORMER}encoder.layer.0.intermediate_query.dense.weight")
    layers = {name.split(".")[4] for name in tensors if name.startswith(f"{_QFORMER}encoder.layer.")}
    heads = QformerConfig.head_width
    if first.ndim != 2 or first.shape[1] % heads:
        raise CheckpointError(f"{tensors.source}: tensor '{_QFORMER}encoder.layer.0.intermediate_query.dense.weight' "
                              f"is {list(first.shape)}; expected [inner, a multiple of {heads}]")
    return QformerConfig(first.shape[1], first.shape[0], len(layers), frame_width)


def _rank(lora: Tensors) -> int:
    name = next((name for name in lora if name.endswith("lora_A.weight")), None)
    if name is None:
        raise CheckpointError(f"{lora.source}: holds no LoRA; expected tensors under {_LORA!r}")
    return lora.required(name).shape[0]


def _whisper(path: Path) -> Encoder:
    config, tensors = load_whisper(path)
    with NoInit():
        encoder = Encoder(config)
    fill(encoder, tensors, torch.float32)
    return encoder
