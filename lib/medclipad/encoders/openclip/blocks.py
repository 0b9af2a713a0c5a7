"""Residual attention blocks of open_clip, computed so that they are fast with frozen weights."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def through(
    block: Any, x: Tensor, causal: bool = False, keys: Tensor | None = None, only: Tensor | None = None
) -> Tensor:
    """Return the output of a residual block of open_clip.

    Parameters
    ----------
    block
        The block.
    x
        Tokens (B, L, width).
    causal
        Whether a token sees only itself and those before it.
    keys
        bool (B, L): the tokens that may be seen; None for all.
    only
        Position (B,) of one token in each row, whose output alone is computed.

    Returns
    -------
    Tensor
        (B, L, width), with `only` (B, 1, width).
    """
    # Not the block's own `forward`: where gradients are wanted, its nn.MultiheadAttention copies the frozen weights for
    # each image, and takes 15 times as long for 4 images in bfloat16.
    attention = block.attn
    qkv = F.linear(block.ln_1(x), attention.in_proj_weight, attention.in_proj_bias)
    q, k, v = qkv.unflatten(2, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    places = torch.arange(x.shape[1], device=x.device)
    queries = places[None] if only is None else only[:, None]
    mask = None if keys is None else keys[:, None, None]
    if causal and (only is not None or mask is not None):
        before = (places <= queries[..., None])[:, None]
        mask, causal = before if mask is None else mask & before, False
    if only is not None:
        rows = torch.arange(len(x), device=x.device)
        x, q = x[rows, only, None], q[rows, :, only, None]
    mixed = scaled_dot_product(q, k, v, mask, causal).transpose(1, 2).flatten(2)
    x = x + block.ls_1(attention.out_proj(mixed))
    return x + block.ls_2(block.mlp(block.ln_2(x)))


def scaled_dot_product(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """Return the attention of heads (B, H, L, d), whose gradients are as fast as torch can compute them."""
    # torch's own is several times slower on a CPU where gradients are wanted in bfloat16.
    slow = q.requires_grad and q.dtype == torch.bfloat16 and q.device.type == "cpu"
    if slow and mask is None and not causal:
        return (q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)).softmax(dim=-1) @ v
    return F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal)
