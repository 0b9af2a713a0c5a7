"""CLIP ViT of open_clip, tapped after each quarter of its blocks, with its text tower."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from medclipad.encoders.base import N_STAGES, ImageEncoder, TextTower
from medclipad.encoders.download import fetch
from medclipad.encoders.openclip.architectures import check_image_size, model_config
from medclipad.encoders.openclip.weights import load_part
from medclipad.encoders.registry import encoder_usage
from medclipad.encoders.weight_errors import not_downloaded
from medclipad.errors import DetectorError, MedCLIPADError
from medclipad.files import sha256_of_file

if TYPE_CHECKING:
    from medclipad.volume.progress import Progress

_VISION = ("visual.",)
_TEXT = ("token_embedding.", "positional_embedding", "transformer.", "ln_final.", "text_projection")


class ClipEncoder(ImageEncoder):
    """Image tower of an open_clip CLIP model whose tokens are batch first and start with a class token.

    The weights of a pretrained tag are downloaded on first use. The text tower is loaded when it is first used.

    Parameters
    ----------
    name
        An open_clip architecture and a pretrained tag or the path of a checkpoint, joined by "/".
    image_size
        Side of the square input in pixels. A size other than the architecture's resizes the positional embedding
        (bicubic, antialiased).
    progress
        Called as `progress("download", MiB done, MiB in all, {})`. With None, a bar is drawn on standard error.
    dtype
        Type of weights and tokens.
    device
        Where the encoder computes.

    Raises
    ------
    DetectorError
        If the architecture is unknown, or the weights cannot be downloaded, read or fitted.

    Notes
    -----
    As in open_clip, "ViT-L-14-336/openai" computes with GELU and "ViT-L-14-336-quickgelu/openai" with QuickGELU. MVFA's
    reference code used the former, MediCLIP's the latter.
    """

    n_prefix = 1

    def __init__(
        self,
        name: str,
        image_size: int | None = None,
        progress: Progress | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        import open_clip

        architecture, _, pretrained = name.partition("/")
        config = model_config(name)
        if config is None:
            raise DetectorError(f'Encoder "{architecture}" is not known: use {encoder_usage()}.')
        weights = _weights_file(architecture, pretrained, progress)
        if image_size is not None:
            check_image_size(architecture, config, image_size)
            config["vision_cfg"]["image_size"] = image_size
        with torch.device("meta"):
            model: Any = open_clip.CLIP(**config)
        load_part(model, weights, _VISION, dtype, torch.device(device))
        if not model.visual.transformer.batch_first or model.visual.attn_pool is not None:
            raise DetectorError(
                f'Encoder "{architecture}" does not have the vision tower of OpenAI\'s ViT: choose a ViT-*.'
            )

        self._visual: Any = model.visual  # open_clip's modules have no types
        blocks = model.visual.transformer.resblocks
        if len(blocks) % N_STAGES:
            raise DetectorError(
                f'Encoder "{architecture}" has {len(blocks)} blocks, which cannot be divided into four stages.'
            )
        self._blocks_per_stage = len(blocks) // N_STAGES
        self.name = name
        self.quick_gelu = bool(config.get("quick_gelu"))
        self.sha256 = sha256_of_file(weights)
        self.image_size = model.visual.image_size[0]
        width, grid = model.visual.class_embedding.shape[0], model.visual.grid_size[0]
        self.widths, self.grids = (width,) * N_STAGES, (grid,) * N_STAGES
        self.embed_dim = model.text_projection.shape[1]
        self.mean, self.std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
        self.text = ClipText(architecture, config, weights, dtype, torch.device(device))
        self.freeze()

    def stem(self, images: Tensor) -> Tensor:
        """Return the class token and the patch tokens, with their positions added."""
        return self._visual._embeds(images.to(self.dtype))

    def stage(self, state: Tensor, level: int) -> Tensor:
        """Return the tokens after a quarter of the blocks."""
        first = level * self._blocks_per_stage
        for block in self._visual.transformer.resblocks[first : first + self._blocks_per_stage]:
            state = _through(block, state)
        return state

    def tokens(self, state: Tensor) -> Tensor:
        """Return the state itself: it is the tokens."""
        return state

    def with_tokens(self, state: Tensor, tokens: Tensor) -> Tensor:
        """Return the tokens as the new state."""
        return tokens

    def project(self, tokens: Tensor) -> Tensor:
        """Normalise tokens of the last stage and map them into the space shared with the text tower."""
        return self._visual.ln_post(tokens) @ self._visual.proj


class ClipText(TextTower):
    """Text tower of an open_clip CLIP model, loaded when it is first used: a trained detector does not need it."""

    def __init__(
        self, architecture: str, config: dict, weights: Path, dtype: torch.dtype, device: torch.device
    ) -> None:
        self._architecture, self._config, self._weights = architecture, config, weights
        self._dtype, self._device = dtype, device
        self.context_length, self.width = config["text_cfg"]["context_length"], config["text_cfg"]["width"]

    @cached_property
    def _tokenizer(self) -> Callable[..., Tensor]:
        import open_clip

        return open_clip.get_tokenizer(self._architecture)

    @cached_property
    def _model(self) -> Any:
        import open_clip

        with torch.device("meta"):
            model: Any = open_clip.CLIP(**self._config)
        load_part(model, self._weights, _TEXT, self._dtype, self._device)
        del model.visual  # never loaded here
        return model.eval().requires_grad_(False)

    def tokenize(self, texts: list[str]) -> Tensor:
        """Return token ids, int64 (n, context_length)."""
        return self._tokenizer(texts, context_length=self.context_length)

    def token_embedding(self, tokens: Tensor) -> Tensor:
        """Return the embeddings (n, L, width) of token ids (n, L)."""
        return self._model.token_embedding(tokens.to(self._device))

    def encode(self, embeddings: Tensor, end: Tensor, causal: bool) -> Tensor:
        """Return text features (n, embed_dim), float32; see `TextTower.encode`."""
        x = embeddings.to(self._dtype) + self._model.positional_embedding[: embeddings.shape[1]]
        *blocks, last = self._model.transformer.resblocks
        for block in blocks:
            x = _through(block, x, causal)
        x = self._model.ln_final(_through(last, x, causal, end.to(x.device))[:, 0])
        return (x @ self._model.text_projection).float()


def _through(block: Any, x: Tensor, causal: bool = False, only: Tensor | None = None) -> Tensor:
    """Return the output of a residual block of open_clip for tokens (B, L, width).

    With `only`, the positions (B,) of one token in each row, the output is theirs alone, (B, 1, width).
    """
    # Not the block's own `forward`: where gradients are wanted, its nn.MultiheadAttention copies the frozen weights for
    # each image, and takes 15 times as long for 4 images in bfloat16.
    attention, mask = block.attn, None
    qkv = F.linear(block.ln_1(x), attention.in_proj_weight, attention.in_proj_bias)
    q, k, v = qkv.unflatten(2, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    if only is not None:
        rows = torch.arange(len(x), device=x.device)
        x, q = x[rows, only, None], q[rows, :, only, None]
        if causal:
            mask, causal = (torch.arange(k.shape[2], device=x.device) <= only[:, None])[:, None, None], False
    mixed = _attention(q, k, v, mask, causal).transpose(1, 2).flatten(2)
    x = x + block.ls_1(attention.out_proj(mixed))
    return x + block.ls_2(block.mlp(block.ln_2(x)))


def _attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """Return the scaled dot product attention of heads (B, H, L, d)."""
    # torch's own is several times slower on a CPU where gradients are wanted in bfloat16.
    slow = q.requires_grad and q.dtype == torch.bfloat16 and q.device.type == "cpu"
    if slow and mask is None and not causal:
        return (q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)).softmax(dim=-1) @ v
    return F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal)


def _weights_file(architecture: str, pretrained: str, progress: Progress | None) -> Path:
    """Return the weights file of a pretrained tag, downloaded on first use, or of a path."""
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    if not pretrained:
        raise DetectorError(
            f'Encoder "{architecture}" lacks its weights: add a tag or a file, as in "{architecture}/openai".'
        )
    config = get_pretrained_cfg(architecture, pretrained)
    if not config:
        if Path(pretrained).is_file():
            return Path(pretrained)
        tags = ", ".join(list_pretrained_tags_by_model(architecture)) or "none"
        raise DetectorError(
            f'"{pretrained}" is neither a file nor a pretrained tag of {architecture} (its tags: {tags}).'
        )
    try:
        return fetch(config, progress)
    except MedCLIPADError:  # the file is not what it should be, or the user cancelled
        raise
    except Exception as error:  # a dozen classes of requests and the hub mean the same to the user
        raise not_downloaded(pretrained, architecture, error) from error
