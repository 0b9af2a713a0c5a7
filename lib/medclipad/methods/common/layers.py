"""Layers that learn in float32 and compute in the precision of the frozen encoder's tokens."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class TokenLinear(nn.Linear):
    """Linear map of tokens that computes in their precision; its weights stay float32 for Adam."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (..., in_features) to (..., out_features), in their own type."""
        bias = None if self.bias is None else self.bias.to(tokens.dtype)
        return F.linear(tokens, self.weight.to(tokens.dtype), bias)
