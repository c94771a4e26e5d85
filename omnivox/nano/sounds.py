"""Embeddings of words by their sound: what sounds alike lies alike, so that hearing one word teaches others.

A word of phones p₁ … pₙ is Σᵢ v(pᵢ) · exp(jω · (n − i)) over complex vectors v drawn at random, one a phone, with a
frequency ω for each dimension: near places look alike, far ones do not. Positions count from the end, where a listener
knows the word.

Shapes: V words, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from omnivox.nano.speak import PHONES, pronounce
from omnivox.nano.words import BLANK, SPECIAL

TURN = 1.3  # radians a phone, at most


def sound_table(words: Sequence[str], width: int, seed: int = 0) -> Tensor:
    """Embeddings [V, D] of `words`, of unit length; special tokens and punctuation are random. Needs flite."""
    generator = torch.Generator().manual_seed(seed)
    half = width // 2
    angle = 2 * torch.pi * torch.rand(len(PHONES), half, generator=generator)
    turn = TURN * (2 * torch.rand(half, generator=generator) - 1)
    table = torch.randn(len(words), width, generator=generator)
    spoken = [i for i, word in enumerate(words) if word not in SPECIAL and any(c.isalpha() for c in word)]
    place = {phone: i for i, phone in enumerate(PHONES)}
    for i, phones in zip(spoken, pronounce([words[i].lower() for i in spoken]), strict=True):
        angles = torch.stack([angle[place[phone]] + turn * (len(phones) - 1 - k) for k, phone in enumerate(phones)])
        table[i] = torch.cat([angles.cos().sum(0), angles.sin().sum(0)])
    table /= table.norm(dim=1, keepdim=True)
    if BLANK in words:
        table[words.index(BLANK)] *= 1.4  # heard most often, and unlike any word
    return table
