"""Units as published systems have them: the nearest of K centres to each frame of a HuBERT layer (mHuBERT's eleventh).

The waveform goes in as it is, not normalised. A batch gives what its members give alone: the convolutions normalise
over a whole utterance, so each passes them by itself, and the transformer sees the padding masked. Speech longer than
100 s is cut there, as in the published extraction.

Shapes: N samples, T frames (50 per second), D features, K centres.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import HubertModel

from omnivox.checkpoint.hubert import load_centres, load_hubert
from omnivox.errors import CheckpointError, ConfigError

MAX_SAMPLES = 1_600_000  # at once: 100 s
LAYER = 11  # of mHuBERT, counted from 1
_BLOCK = 16_384  # frames whose distances to all centres are held at once
_BATCH_SAMPLES = 16 * 160_000  # in one pass of the transformer


class HubertKmeans:
    """A HuBERT up to `layer`, and centres [K, D]. `units` is K, `frame_samples` the samples from frame to frame."""

    def __init__(self, model: HubertModel, centres: Tensor, layer: int = LAYER) -> None:
        if not 1 <= layer <= len(model.encoder.layers):
            raise ConfigError(f"layer: found {layer}; this HuBERT has {len(model.encoder.layers)}, counted from 1")
        if centres.shape[1] != model.config.hidden_size:
            raise CheckpointError(f"k-means centres: {centres.shape[1]} wide; expected {model.config.hidden_size}, "
                                  "as this HuBERT's features")
        self.model, self.centres, self.layer = model, centres.float().to(model.device), layer
        self.units = len(centres)
        self.frame_samples = 1
        self._reach = 1  # samples that a frame is made of
        for kernel, stride in zip(model.config.conv_kernel, model.config.conv_stride, strict=True):
            self._reach += (kernel - 1) * self.frame_samples
            self.frame_samples *= stride
        del model.encoder.layers[layer:]  # nobody reads those
        self._seen: list[Tensor] = []
        model.encoder.layers[-1].register_forward_hook(self._keep)  # before a last norm, which some kinds have

    @classmethod
    def load(cls, model: str | Path, centres: str | Path, layer: int = LAYER, device: str = "cpu") -> HubertKmeans:
        """model: as `load_hubert` takes it; centres: a file for `load_centres`. Raises CheckpointError, ConfigError."""
        return cls(load_hubert(model).to(device), load_centres(Path(centres)), layer)  # type: ignore[arg-type]

    def _keep(self, _: Any, __: Any, output: Any) -> None:
        self._seen.append(output[0] if isinstance(output, tuple) else output)

    @torch.no_grad()
    def features(self, waves: Sequence[Tensor]) -> list[Tensor]:
        """Features [T, D] of each waveform [N] at 16 kHz; T = (N - 400) // 320 + 1 for the published convolutions,
        a little less past 100 s, 0 if there are too few samples for a frame."""
        pieces = [(index, piece) for index, wave in enumerate(waves) for piece in wave.float().split(MAX_SAMPLES)
                  if len(piece) >= self._reach]
        found: list[list[Tensor]] = [[] for _ in waves]
        for batch in _batches(pieces):
            for (index, _), features in zip(batch, self._pass([piece for _, piece in batch]), strict=True):
                found[index].append(features)
        empty = self.centres.new_zeros(0, self.centres.shape[1])
        return [torch.cat([empty, *parts]) for parts in found]

    def _pass(self, pieces: list[Tensor]) -> list[Tensor]:
        model = self.model
        rows = [model.feature_extractor(piece[None].to(model.device))[0].T for piece in pieces]
        projected = model.feature_projection(pad_sequence(rows, batch_first=True))
        lengths = torch.tensor([len(row) for row in rows], device=projected.device)
        mask = torch.arange(projected.shape[1], device=projected.device) < lengths[:, None]
        self._seen.clear()
        model.encoder(projected, attention_mask=mask)
        [seen] = self._seen
        return [row[:length] for row, length in zip(seen, lengths.tolist(), strict=True)]

    def nearest(self, features_TD: Tensor) -> Tensor:
        """Index [T] of the centre nearest to each row of features, on the CPU."""
        bias = self.centres.square().sum(1)
        labels = [torch.argmin(bias - 2 * block @ self.centres.T, 1) for block in features_TD.split(_BLOCK)]
        return torch.cat(labels).cpu()

    def encode_many(self, waves: Sequence[Tensor]) -> list[Tensor]:
        """Units [T] int64 of each waveform [N] at 16 kHz, repeats not merged."""
        return [self.nearest(features) for features in self.features(waves)]

    def encode(self, wave: Tensor) -> Tensor:
        """Units [T] int64 of one waveform [N]."""
        return self.encode_many([wave])[0]


def _batches(pieces: list[tuple[int, Tensor]]) -> Iterator[list[tuple[int, Tensor]]]:
    """Neighbours that are together, padding included, no longer than `_BATCH_SAMPLES`; one is always enough."""
    batch: list[tuple[int, Tensor]] = []
    longest = 0
    for piece in pieces:
        longest = max(longest, len(piece[1]))
        if batch and longest * (len(batch) + 1) > _BATCH_SAMPLES:
            yield batch
            batch, longest = [], len(piece[1])
        batch.append(piece)
    if batch:
        yield batch
