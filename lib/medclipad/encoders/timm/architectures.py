"""Models of timm: which of them are ViTs that can be tapped, and the image sizes that they take."""

from __future__ import annotations

from functools import cache
from typing import Any

from medclipad.compat import ensure_torchvision
from medclipad.encoders.registry import encoder_usage
from medclipad.errors import DetectorError

PREFIX = "timm:"
CLASSES = ("VisionTransformer", "Eva")
"""timm's classes of plain ViTs: patches, blocks of one width, prefix tokens; Eva has rotary positions."""


def split_name(name: str) -> tuple[str, str, str]:
    """Return model, tag and weights file of an encoder's name; of tag and file, at most one is not empty.

    Examples
    --------
    >>> split_name("timm:vit_small_patch14_dinov2.lvd142m")
    ('vit_small_patch14_dinov2', 'lvd142m', '')
    >>> split_name("timm:vit_small_patch14_dinov2/weights.safetensors")
    ('vit_small_patch14_dinov2', '', 'weights.safetensors')
    """
    model, _, file = name.removeprefix(PREFIX).partition("/")
    model, _, tag = model.partition(".")
    return model, tag, file


def build(name: str, image_size: int) -> Any:
    """Return the model of an encoder's name with random weights, for square images of a size.

    Raises
    ------
    DetectorError
        If timm has no such model, it is no plain ViT, or the size is no multiple of its patch.
    """
    check_image_size(name, image_size)
    import timm

    return timm.create_model(split_name(name)[0], num_classes=0, img_size=image_size)


def check_image_size(name: str, image_size: int) -> None:
    """Raise DetectorError unless timm has the model, and an image size is a multiple of its patch."""
    model = split_name(name)[0]
    patch = _known_patch_size(model)
    if image_size % patch or image_size < patch:
        raise DetectorError(
            f"{PREFIX}{model} takes image sizes that are multiples of its patch, {patch} pixels: {image_size} is none; "
            f"give {max(1, round(image_size / patch)) * patch}."
        )


@cache
def patch_size(model: str) -> int | None:
    """Return the side of the patches of a model of timm in pixels, or None if the model is no plain ViT."""
    ensure_torchvision()
    import timm
    import torch

    with torch.device("meta"):
        built: Any = timm.create_model(model, num_classes=0)
    if type(built).__name__ not in CLASSES:
        return None
    size, grid = built.patch_embed.img_size, built.patch_embed.grid_size  # of convolutions before a ViT too
    return size[0] // grid[0] if size[0] == size[1] and grid[0] == grid[1] else None


def _known_patch_size(model: str) -> int:
    """Return the side of a model's patches in pixels; DetectorError if timm has no such plain ViT."""
    ensure_torchvision()
    import timm

    if not timm.is_model(model):
        similar = ", ".join(timm.list_models(f"{model[:12]}*")[:5])
        hint = f"; similar ones are {similar}" if similar else ""
        raise DetectorError(f'timm has no model "{model}"{hint}: use {encoder_usage()}.')
    patch = patch_size(model)
    if patch is None:
        raise DetectorError(f"{PREFIX}{model} is no plain ViT: choose a vit_*, deit* or eva02_* of timm.")
    return patch
