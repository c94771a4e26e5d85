"""UTMOS22-strong (Saeki et al. 2022): how natural speech sounds, as listeners would rate it from 1 to 5.

    wav2vec 2.0 base ─► features, beside a domain's and a listener's embedding ─► BLSTM ─► two linears ─► mean · 2 + 3

The sizes, names and weights are those that tarepan/SpeechMOS v1.2.0 publishes, which the paper measures with: the
strong learner without its phoneme encoder, for one domain and one listener. The waveform goes in as it is, not
normalised. Sound of other rates comes here by soxr; SpeechMOS has torchaudio convert it.

Shapes: B batch, N samples, T frames (50 per second), D features, E of an embedding.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import Wav2Vec2Config, Wav2Vec2Model

from omnivox.checkpoint.files import NoInit, Tensors, fill, open_tensors
from omnivox.checkpoint.hubert import base_sizes, fairseq_name, name_from_fairseq
from omnivox.errors import CheckpointError

FILE = "utmos22_strong_step7459_v1.pt"
ADDRESS = f"https://github.com/tarepan/SpeechMOS/releases/download/v1.0.0/{FILE}"
_INNER = "wav2vec2."  # fairseq's names begin so


def default_weights() -> Path:
    """Where torch.hub, and so SpeechMOS, keeps the file."""
    return Path(torch.hub.get_dir()) / "checkpoints" / FILE


class Utmos22(nn.Module):
    """The strong learner. Parameters outside `wav2vec2` have their published names.

    domain, judge: E of their embeddings. rnn: the BLSTM's width in one direction. projection: between the linears.
    """

    def __init__(self, config: Wav2Vec2Config, domain: int = 128, judge: int = 128, rnn: int = 512,
                 projection: int = 2048) -> None:
        super().__init__()
        self.wav2vec2 = Wav2Vec2Model(config)
        self.domain_emb = nn.Parameter(torch.zeros(1, domain))
        self.judge_emb = nn.Parameter(torch.zeros(1, judge))
        self.blstm = nn.LSTM(config.hidden_size + domain + judge, rnn, batch_first=True, bidirectional=True)
        self.projection = nn.Sequential(nn.Linear(2 * rnn, projection), nn.ReLU(), nn.Linear(projection, 1))
        self.reach = 1  # samples that a frame is made of
        stride = 1
        for kernel, step in zip(config.conv_kernel, config.conv_stride, strict=True):
            self.reach += (kernel - 1) * stride
            stride *= step

    def forward(self, samples_BN: Tensor) -> Tensor:
        """Scores [B] of waveforms [B, N] at 16 kHz, all of the same length, N ≥ `reach`."""
        features_BTD = self.wav2vec2(samples_BN).last_hidden_state
        batch, frames, _ = features_BTD.shape
        same = [embedding.expand(batch, frames, -1) for embedding in (self.domain_emb, self.judge_emb)]
        heard, _ = self.blstm(torch.cat([features_BTD, *same], 2))
        scores: Tensor = self.projection(heard).mean(1).squeeze(1) * 2 + 3
        return scores


def load_utmos(path: str | Path | None = None) -> Utmos22:
    """The published weights in float32, frozen. Nothing in the file is executed.

    path: the file; None: where `default_weights` says. Raises CheckpointError: it is not there (and what to download),
    damaged, or something else.
    """
    file = default_weights() if path is None else Path(path)
    if not file.is_file():
        raise CheckpointError(f"{file}: no such file; expected the weights of UTMOS22-strong (411 MB, MIT); "
                              f"get them with: curl --location --create-dirs --output {file} {ADDRESS}")
    tensors = open_tensors(file).renamed(_ours, _published)
    sizes = [tensors.required(name).shape for name in ("domain_emb", "judge_emb", "blstm.weight_hh_l0",
                                                       "projection.0.weight")]
    with NoInit():
        model = Utmos22(_config(tensors), sizes[0][1], sizes[1][1], sizes[2][1], sizes[3][0])
    fill(model, tensors, torch.float32)
    model.eval().requires_grad_(False)
    return model


def _ours(name: str) -> str | None:
    """The name here of a published tensor; None for what only pre-training needs."""
    if not name.startswith(_INNER):
        return name
    inner = name_from_fairseq(name.removeprefix(_INNER))
    return None if inner in (None, "masked_spec_embed") else f"{_INNER}{inner}"


def _published(name: str) -> str:
    return _INNER + fairseq_name(name.removeprefix(_INNER)) if name.startswith(_INNER) else name


def _config(tensors: Tensors) -> Wav2Vec2Config:
    sizes = base_sizes(tensors.under(_INNER))
    return Wav2Vec2Config(**sizes, mask_time_prob=0.0, mask_feature_prob=0.0)  # so that there is no tensor to mask with


@torch.no_grad()
def naturalness(model: Utmos22, wave: Tensor) -> float:
    """The score of one waveform [N] at 16 kHz, N ≥ `model.reach`."""
    return float(model(wave[None].to(model.domain_emb.device)))
