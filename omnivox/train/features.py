"""What is frozen is computed once: encoder frames of a corpus, augmented a few times over, kept in memory as float16.

Shapes: B batch, T mel frames, S encoder frames, E encoder width.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from omnivox.model.encoder import Encoder
from omnivox.nano.rooms import augment
from omnivox.train.loop import fast_precision
from omnivox.train.recognise import MelBatches, Spoken, pad

BABBLE = 4  # other utterances that may be heard behind one


class Features:
    """Encoder frames [S, E] of (utterance, copy) pairs; each copy is the utterance in another room, by another head.

    Copy 0 is the plain recording. Computed when first asked for; the same after a restart.
    """

    def __init__(self, corpus: Sequence[Spoken], encoder: Encoder, mels: MelBatches, copies: int, seed: int) -> None:
        self.corpus, self.encoder, self.mels, self.copies, self.seed = corpus, encoder.eval(), mels, copies, seed
        self._kept: dict[tuple[int, int], Tensor] = {}

    def rows(self, keys: Sequence[tuple[int, int]]) -> list[Tensor]:
        """Frames of each (utterance, copy), float32."""
        missing = [key for key in dict.fromkeys(keys) if key not in self._kept]
        if missing:
            mel, length = pad([self._mel(*key) for key in missing])
            with torch.no_grad(), fast_precision():
                frames, lengths = self.encoder(mel, length)
            for b, key in enumerate(missing):
                self._kept[key] = frames[b, : lengths[b]].half()
        return [self._kept[key].float() for key in keys]

    def _mel(self, index: int, copy: int) -> Tensor:
        wave = self._wave(index)
        if copy == 0:
            return self.mels.mel(wave)
        rng = random.Random(f"{self.seed} {index} {copy}")
        strength = rng.random() ** 0.5  # mostly strong, sometimes nearly clean
        others = [self._wave(rng.randrange(len(self.corpus))) for _ in range(BABBLE)]
        wave = augment(wave, torch.Generator().manual_seed(rng.getrandbits(60)), strength, others)
        return self.mels.mel(wave, rng, strength)

    def _wave(self, index: int) -> Tensor:
        return torch.from_numpy(np.asarray(self.corpus[index].audio))
