"""Plain ViT of timm, run a quarter of its blocks at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from medclipad.encoders.base import quarter


class TappedViT(nn.Module):
    """Plain ViT of timm whose state between two stages is its tokens, without the norm after the last one.

    Parameters
    ----------
    vit
        Model of timm with its weights. Its weights may be converted later: rotary positions stay as they are now.

    Attributes
    ----------
    image_size, width, grid, n_prefix : int
        As of `ImageEncoder`; width and grid are those of every stage.
    """

    def __init__(self, vit: Any) -> None:
        super().__init__()
        self.vit: Any = vit.eval()  # timm's models have no types; batch norms must not learn from what follows
        self.image_size, self.width = vit.patch_embed.img_size[0], vit.embed_dim
        self.grid, self.n_prefix = vit.patch_embed.grid_size[0], vit.num_prefix_tokens
        weight = next(vit.parameters())
        with torch.no_grad():  # the same for every image
            images = torch.zeros(1, 3, *vit.patch_embed.img_size, dtype=weight.dtype, device=weight.device)
            self._rotary = self._embedded(images)[1]

    def stem(self, images: Tensor) -> Tensor:
        """Return the prefix and the patch tokens of images (B, 3, S, S), with their learned positions added."""
        return self.vit.norm_pre(self._embedded(images)[0])

    def stage(self, state: Tensor, level: int) -> Tensor:
        """Return the tokens after a quarter of the blocks."""
        for number in quarter(len(self.vit.blocks), level):
            block = self.vit.blocks[number]
            if self._rotary is None:
                state = block(state)
            else:  # mixed rotary positions differ from block to block
                mixed = getattr(self.vit, "rope_mixed", False)
                state = block(state, rope=self._rotary[number] if mixed else self._rotary)
        return state

    def _embedded(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return tokens with learned positions, and the rotary positions of a model that has them."""
        embedded = self.vit._pos_embed(self.vit.patch_embed(images))
        return embedded if isinstance(embedded, tuple) else (embedded, None)
