"""Image towers of open_clip, run stage by stage: its own ViT, and a ViT of timm with a head."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from medclipad.encoders.base import quarter
from medclipad.encoders.openclip.blocks import through
from medclipad.encoders.timm.tapped import TappedViT


def image_tower(visual: Any) -> OpenClipViT | TimmTower:
    """Return the image tower of a model of open_clip, given its module with weights."""
    return TimmTower(visual) if hasattr(visual, "trunk") else OpenClipViT(visual)


class OpenClipViT(nn.Module):
    """ViT of open_clip. It is pooled by its class token, the mean of its tokens, or CoCa's attentional pooler.

    Parameters
    ----------
    visual
        open_clip's module, with its weights.

    Attributes
    ----------
    image_size, width, grid, n_prefix : int
        As of `ImageEncoder`; width and grid are those of every stage.
    """

    n_prefix = 1

    def __init__(self, visual: Any) -> None:
        super().__init__()
        self.visual: Any = visual  # open_clip's modules have no types
        self.image_size, self.grid = visual.image_size[0], visual.grid_size[0]
        self.width = visual.class_embedding.shape[0]

    def stem(self, images: Tensor) -> Tensor:
        """Return the class token and the patch tokens, with their positions added."""
        return self.visual._embeds(images)

    def stage(self, state: Tensor, level: int) -> Tensor:
        """Return the tokens after a quarter of the blocks."""
        blocks = self.visual.transformer.resblocks
        for number in quarter(len(blocks), level):
            state = through(blocks[number], state)
        return state

    def project(self, tokens: Tensor) -> Tensor:
        """Return tokens (..., width) in the space shared with the text tower; see `ClipEncoder.project`."""
        pooler = self.visual.attn_pool
        if pooler is not None:  # a query that sees one token alone gives that token's value
            attention, width = pooler.attn, pooler.attn.embed_dim
            weight = attention.in_proj_weight if attention.v_proj_weight is None else attention.v_proj_weight
            value = F.linear(pooler.ln_k(tokens), weight[-width:], attention.in_proj_bias[-width:])
            tokens = attention.out_proj(value)
        return self.visual.ln_post(tokens) @ self.visual.proj


class TimmTower(TappedViT):
    """ViT of timm as the image tower of an open_clip model, with the head that follows it.

    Parameters
    ----------
    visual
        open_clip's module, with its weights.
    """

    def __init__(self, visual: Any) -> None:
        super().__init__(visual.trunk)
        self.head: Any = visual.head

    def project(self, tokens: Tensor) -> Tensor:
        """Return tokens (..., width) in the space shared with the text tower; see `ClipEncoder.project`."""
        tokens = self.vit.norm(tokens)
        if self.vit.attn_pool is not None:  # pools sequences of one token
            pooled = self.vit.attn_pool(tokens.reshape(-1, 1, self.width))
            tokens = pooled.unflatten(0, tokens.shape[:-1])
        return self.head(self.vit.head(self.vit.fc_norm(tokens)))
