"""Text towers of open_clip: those inside a CLIP, and those of their own that SigLIP, EVA-02, PE and CoCa have."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medclipad.encoders.base import TextTower
from medclipad.encoders.openclip.architectures import build
from medclipad.encoders.openclip.blocks import through
from medclipad.encoders.openclip.tokenizers import Tokenizer, load_tokenizer
from medclipad.encoders.openclip.weights import load_part

_IN_CLIP = ("token_embedding.", "positional_embedding", "transformer.", "ln_final.", "text_projection")
_OF_ITS_OWN = ("text.",)


class ClipText(TextTower):
    """Text tower of an open_clip model, loaded when it is first used: a trained detector does not need it.

    Parameters
    ----------
    architecture
        Name of the architecture.
    config
        Its configuration.
    weights
        File of the whole model's weights.
    dtype
        Type of the weights and of the token embeddings.
    device
        Where the tower computes.
    """

    def __init__(
        self, architecture: str, config: dict[str, Any], weights: Path, dtype: torch.dtype, device: torch.device
    ) -> None:
        self._architecture, self._config, self._weights = architecture, config, weights
        self._dtype, self._device = dtype, device
        self._options: dict[str, Any] = config["text_cfg"]
        self.context_length, self.width = self._options["context_length"], self._options["width"]
        self._has_mask = not self._options.get("no_causal_mask")
        self._pool = "last" if self._options.get("embed_cls") else self._options.get("pool_type", "argmax")
        self.needs_padding = not self._has_mask or self._pool == "last"

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return load_tokenizer(self._architecture, self._options, self._weights.parent)

    @cached_property
    def _model(self) -> Any:
        model = build(self._config, None)
        has_own = hasattr(model, "text")
        load_part(model, self._weights, _OF_ITS_OWN if has_own else _IN_CLIP, self._dtype, self._device)
        if not has_own:
            del model.visual  # never loaded here
        tower = model.text if has_own else model
        return tower.eval().requires_grad_(False)

    @property
    def n_start(self) -> int:
        """Tokens before a text's words; see `TextTower.n_start`."""
        return self._tokenizer.n_start

    def tokenize(self, texts: list[str]) -> Tensor:
        """Return token ids, int64 (n, context_length).

        Raises
        ------
        DetectorError
            If the tokenizer's files are neither here nor can be downloaded.
        """
        return self._tokenizer(texts)

    def ends(self, tokens: Tensor) -> Tensor:
        """Return the position (n,) of each text's end token."""
        return self._tokenizer.ends(tokens)

    def token_embedding(self, tokens: Tensor) -> Tensor:
        """Return the embeddings (n, L, width) of token ids (n, L)."""
        return self._model.token_embedding(tokens.to(self._device))

    def encode(self, embeddings: Tensor, end: Tensor, causal: bool) -> Tensor:
        """Return text features (n, embed_dim), float32; see `TextTower.encode`."""
        model, x, end = self._model, embeddings.to(self._dtype), end.to(self._device)
        keys = None
        if self._options.get("embed_cls"):
            x = torch.cat([x, model.cls_emb.expand(len(x), 1, -1)], dim=1)
            if causal:  # the padding is hidden but for its first token, as open_clip trained CoCa
                keys = torch.arange(x.shape[1], device=x.device) <= end[:, None] + 1
        x = x + model.positional_embedding[: x.shape[1]]
        pooled = {"first": torch.zeros_like(end), "last": torch.full_like(end, x.shape[1] - 1)}.get(self._pool, end)
        *blocks, last = model.transformer.resblocks
        for block in blocks:
            x = through(block, x, causal and self._has_mask, keys)
        x = model.ln_final(through(last, x, causal and self._has_mask, keys, pooled)[:, 0])
        return _projected(x, model.text_projection).float()


def _projected(x: Tensor, projection: nn.Linear | Tensor | None) -> Tensor:
    """Return features in the space shared with the images."""
    if projection is None:
        return x
    return projection(x) if isinstance(projection, nn.Linear) else x @ projection
