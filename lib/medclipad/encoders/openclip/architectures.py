"""Architectures of open_clip: which of them are CLIP ViTs, and the image sizes that they take."""

from __future__ import annotations

from typing import Any

from medclipad.compat import ensure_torchvision
from medclipad.errors import DetectorError


def model_config(name: str) -> dict[str, Any] | None:
    """Return open_clip's configuration of an encoder's architecture, or None if it is not a CLIP ViT."""
    ensure_torchvision()
    import open_clip

    architecture = name.partition("/")[0]
    if ":" in architecture:  # open_clip would look for an architecture such as "hf-hub:..." on the network
        return None
    config = open_clip.get_model_config(architecture)
    if config is None or "custom_text" in config or isinstance(config["vision_cfg"].get("layers"), list):
        return None
    return config


def check_image_size(architecture: str, config: dict[str, Any], image_size: int) -> None:
    """Raise DetectorError for an image size under one patch of an architecture."""
    patch = config["vision_cfg"].get("patch_size", 16)
    if image_size < patch:
        raise DetectorError(
            f"An image size of {image_size} pixels is under one patch of {architecture}: give {patch} or more."
        )
