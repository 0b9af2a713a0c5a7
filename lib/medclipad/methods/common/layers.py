"""Layers that learn in float32 and compute in the precision of the frozen encoder's tokens."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class TokenLinear(nn.Linear):
    """A linear map of tokens (..., width) that computes in their precision; its weights stay float32 for Adam."""

    def forward(self, tokens: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(tokens.dtype)
        return F.linear(tokens, self.weight.to(tokens.dtype), bias)
