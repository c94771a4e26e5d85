"""The speech adaptor: S = W₂ · relu(W₁ · [h_{ki} ; … ; h_{ki+k−1}] + b₁) + b₂ (LLaMA-Omni, §2.2).

Shapes: B batch, S encoder frames, P = S // k LLM positions, E encoder width, D LLM width.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from omnivox.model.config import AdaptorConfig


class Adaptor(nn.Module):
    """Concatenates k neighbouring frames and maps them to the LLM's width; leftover frames at the end are dropped."""

    def __init__(self, config: AdaptorConfig) -> None:
        super().__init__()
        self.config = config
        self.linear1 = nn.Linear(config.k * config.encoder_width, config.inner_width)
        self.linear2 = nn.Linear(config.inner_width, config.llm_width)

    def forward(self, frames_BSE: Tensor, length_B: Tensor) -> tuple[Tensor, Tensor]:
        """Frames [B, S, E] of the given lengths → positions [B, P, D] and their lengths [B]."""
        k = self.config.k
        groups = frames_BSE.shape[1] // k
        x = frames_BSE[:, : groups * k].reshape(frames_BSE.shape[0], groups, k * frames_BSE.shape[2])
        return self.linear2(F.relu(self.linear1(x))), length_B // k
