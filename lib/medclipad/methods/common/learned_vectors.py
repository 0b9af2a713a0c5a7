"""Learned vectors in place of text features, for encoders without a text tower."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LearnedVectors(nn.Module):
    """Two learned vectors that take the place of text features.

    Unlike text features they are not normalised: their length acts as the temperature of the softmax, and is learned
    too.

    Parameters
    ----------
    embed_dim
        Width of the vectors.

    Attributes
    ----------
    vectors
        float32 (embed_dim, 2); column 0 normal, column 1 abnormal.
    """

    vectors: nn.Parameter

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(embed_dim, 2))

    def forward(self) -> Tensor:
        """Return the vectors (embed_dim, 2)."""
        return self.vectors
