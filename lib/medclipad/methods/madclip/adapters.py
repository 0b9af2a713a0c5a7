"""MadCLIP's adapter: a layer shared by both tasks, and one each for detection and segmentation."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from medclipad.methods.common.layers import TokenLinear

Head = Literal["det", "seg"]
"""Task: image scores (detection), or pixel maps (segmentation)."""

HEADS: tuple[Head, ...] = ("det", "seg")
EPSILON = 1e-5  # of the normalisation, torch's default


class BranchAdapter(nn.Module):
    """Adapter of one branch, normal or abnormal, at one stage.

    h = norm(LeakyReLU(x W₁ᵀ)); o_det = LeakyReLU(h W₂ᵀ); o_seg = LeakyReLU(h W₃ᵀ). No layer has a bias.

    Parameters
    ----------
    width
        Width of the tokens x and of h.
    embed_dim
        Width of the features o.

    Notes
    -----
    Shiri et al. 2025: a shared linear map bridges natural and medical images, then one for each task. The reference
    code normalises with `InstanceNorm1d` on tensors (tokens, B, width), which torch takes as (batch, channels, length):
    so each token is normalised over its own features, as by a layer norm without weights.
    """

    def __init__(self, width: int, embed_dim: int) -> None:
        super().__init__()
        self.shared = TokenLinear(width, width, bias=False)
        self.det = TokenLinear(width, embed_dim, bias=False)
        self.seg = TokenLinear(width, embed_dim, bias=False)

    def forward(self, x: Tensor, heads: Collection[Head] = HEADS) -> dict[Head, Tensor]:
        """Return the features (..., embed_dim) of tokens (..., width) for some heads, not normalised."""
        hidden = F.leaky_relu(self.shared(x))
        hidden = F.layer_norm(hidden, hidden.shape[-1:], eps=EPSILON)
        layers: dict[Head, TokenLinear] = {"det": self.det, "seg": self.seg}
        return {head: F.leaky_relu(layers[head](hidden)) for head in heads}
