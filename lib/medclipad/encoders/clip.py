"""The papers' encoder: a CLIP ViT of open_clip, tapped after each quarter of its blocks, with its text tower."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from medclipad.compat import ensure_torchvision
from medclipad.encoders.archive import is_archive, read_archive
from medclipad.encoders.base import N_STAGES, ImageEncoder, TextTower
from medclipad.encoders.download import Progress, fetch
from medclipad.errors import DetectorError, MedCLIPADError

# What OpenAI's archives carry beside the weights.
_NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size")


class ClipEncoder(ImageEncoder):
    """The image tower of an open_clip CLIP model whose tokens are batch first and start with a class token."""

    n_prefix = 1

    def __init__(self, name: str, image_size: int | None = None, progress: Progress | None = None) -> None:
        """Load `name`, an open_clip architecture and a pretrained tag or the path of a checkpoint, joined by "/".

        `image_size` (pixels) other than the architecture's resizes the positional embedding (bicubic, antialiased).
        "ViT-L-14-336/openai" computes with GELU and "ViT-L-14-336-quickgelu/openai" with QuickGELU, as open_clip has
        it: MVFA's reference code used the former, MediCLIP's the latter. Weights of a tag are downloaded on first use,
        told to `progress` or drawn as a bar on standard error.

        Raises DetectorError if the architecture is unknown, or the weights cannot be had, read or fitted.
        """
        super().__init__()
        ensure_torchvision()
        import open_clip

        architecture, _, pretrained = name.partition("/")
        # open_clip would look for an architecture such as "hf-hub:..." on the network.
        config = None if ":" in architecture else open_clip.get_model_config(architecture)
        if config is None or "custom_text" in config or isinstance(config["vision_cfg"].get("layers"), list):
            raise DetectorError(
                f'Encoder "{architecture}" is not known: use "embedded", or a CLIP ViT of open_clip and its weights, '
                'such as "ViT-L-14-336/openai".'
            )
        weights = _weights_file(architecture, pretrained, progress)
        if image_size is not None:
            patch = config["vision_cfg"].get("patch_size", 16)
            if image_size < patch:
                raise DetectorError(
                    f"An image size of {image_size} pixels is under one patch of {architecture}: give {patch} or more."
                )
            config["vision_cfg"]["image_size"] = image_size
        model = open_clip.CLIP(**config)
        _load_weights(model, weights)
        if not model.visual.transformer.batch_first or model.visual.attn_pool is not None:
            raise DetectorError(
                f'Encoder "{architecture}" has another vision tower than OpenAI\'s ViT: choose a ViT-*.'
            )

        self._visual = model.visual
        blocks = model.visual.transformer.resblocks
        if len(blocks) % N_STAGES:
            raise DetectorError(f'Encoder "{architecture}" has {len(blocks)} blocks, which four stages cannot share.')
        self._blocks_per_stage = len(blocks) // N_STAGES
        self.name = name
        self.quick_gelu = bool(config.get("quick_gelu"))
        self.sha256 = _sha256(weights)
        self.image_size = model.visual.image_size[0]
        width, grid = model.visual.class_embedding.shape[0], model.visual.grid_size[0]
        self.widths, self.grids = (width,) * N_STAGES, (grid,) * N_STAGES
        self.embed_dim = model.text_projection.shape[1]
        self.mean, self.std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
        self._text_model = model  # registered, so that .to(device) moves the text tower too
        self.text = ClipText(model, open_clip.get_tokenizer(architecture))
        self.freeze()

    def stem(self, images: Tensor) -> Tensor:
        return self._visual._embeds(images)

    def stage(self, state: Tensor, level: int) -> Tensor:
        first = level * self._blocks_per_stage
        for block in self._visual.transformer.resblocks[first : first + self._blocks_per_stage]:
            state = block(state)
        return state

    def tokens(self, state: Tensor) -> Tensor:
        return state

    def with_tokens(self, state: Tensor, tokens: Tensor) -> Tensor:
        return tokens

    def project(self, tokens: Tensor) -> Tensor:
        return self._visual.ln_post(tokens) @ self._visual.proj


class ClipText(TextTower):
    """The text tower of an open_clip CLIP model."""

    def __init__(self, model: torch.nn.Module, tokenizer) -> None:
        self._model, self._tokenizer = model, tokenizer
        self.context_length, self.width = model.positional_embedding.shape

    def tokenize(self, texts: list[str]) -> Tensor:
        return self._tokenizer(texts, context_length=self.context_length)

    def token_embedding(self, tokens: Tensor) -> Tensor:
        return self._model.token_embedding(tokens.to(self._model.positional_embedding.device))

    def encode(self, embeddings: Tensor, end: Tensor, causal: bool) -> Tensor:
        length = embeddings.shape[1]
        x = embeddings + self._model.positional_embedding[:length]
        mask = self._model.attn_mask[:length, :length] if causal else None
        x = self._model.ln_final(self._model.transformer(x, attn_mask=mask))
        return x[torch.arange(len(x), device=x.device), end.to(x.device)] @ self._model.text_projection


def _weights_file(architecture: str, pretrained: str, progress: Progress | None) -> Path:
    """The local weights file of a pretrained tag (downloaded on first use, with a progress bar) or path."""
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
    except MedCLIPADError:  # of a file that is not what it should be, or of a user who cancels
        raise
    except Exception as error:  # requests and the hub raise a dozen kinds; each means the same to the user
        raise DetectorError(
            f'The weights "{pretrained}" of {architecture} could not be downloaded ({_reason(error)}): connect to the '
            f'network, or download the file elsewhere and name it as "{architecture}/FILE".'
        ) from error


def _load_weights(model: torch.nn.Module, path: Path) -> None:
    """Load a state dict or OpenAI's TorchScript archive, in float32 before the positional embedding is resized."""
    from open_clip.factory import load_state_dict, resize_pos_embed

    try:
        state = read_archive(path) if is_archive(path) else load_state_dict(str(path), weights_only=True)
        state = {key: value.float() for key, value in state.items() if key not in _NOT_WEIGHTS}
        if not all(value.isfinite().all() for value in state.values()):
            raise ValueError("some values are not finite")
        resize_pos_embed(state, model)
        model.load_state_dict(state)
    except Exception as error:  # a damaged or hostile file can raise nearly anything from inside torch
        raise DetectorError(
            f"The checkpoint {path.name} does not hold weights of this encoder ({_reason(error)}): choose the file "
            "that belongs to it, or fetch it again."
        ) from error


def _reason(error: Exception) -> str:
    """Kind and first line of an error from another library, which may have no words at all."""
    return ": ".join([type(error).__name__, *str(error).splitlines()[:1]])[:200]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
