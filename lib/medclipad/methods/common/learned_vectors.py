"""Learned vectors in place of text features, for encoders without a text tower."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LearnedVectors(nn.Module):
    """Two vectors of the shared space, learned as the prompts would be: column 0 normal, column 1 abnormal.

    Unlike text features they are not normalised: their length is the temperature of the softmax, and is learned too.
    """

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(embed_dim, 2))

    def forward(self) -> Tensor:
        """Features (embed_dim, 2) in the place of a text tower's."""
        return self.vectors
