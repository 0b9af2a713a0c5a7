"""Frozen image encoders with tapped stages: the papers' CLIP ViT and one that works offline.

`load_encoder` keeps the encoders in use, so that all detectors of a process share one copy.
"""

from __future__ import annotations

import threading
from weakref import WeakValueDictionary

import torch

from medclipad.encoders.base import N_STAGES, ImageEncoder, TextTower
from medclipad.encoders.download import Progress

__all__ = ["N_STAGES", "ImageEncoder", "TextTower", "default_device", "load_encoder"]

_encoders: WeakValueDictionary[tuple[str, int | None, str], ImageEncoder] = WeakValueDictionary()
_lock = threading.Lock()


def default_device() -> torch.device:
    """The first CUDA device if there is one, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_encoder(
    name: str = "embedded",
    image_size: int | None = None,
    device: torch.device | str | None = None,
    progress: Progress | None = None,
) -> ImageEncoder:
    """The frozen encoder `name` for square images of `image_size` pixels, shared within the process.

    `name` is "embedded", or an open_clip architecture with a pretrained tag or checkpoint path joined by "/", such as
    "ViT-L-14-336/openai". `progress("download", MiB done, MiB in all, {})` is told of a tag's first download; without
    it a bar is drawn on standard error. Raises DetectorError if it is unknown or its weights cannot be loaded.
    """
    device = torch.device(device) if device is not None else default_device()
    key = (name, image_size, str(device))
    with _lock:
        encoder = _encoders.get(key)
        if encoder is None:
            if name == "embedded":
                from medclipad.encoders.embedded import EmbeddedEncoder

                encoder = EmbeddedEncoder(image_size or 224)
            else:
                from medclipad.encoders.clip import ClipEncoder

                encoder = ClipEncoder(name, image_size, progress)
            encoder = _encoders[key] = encoder.to(device)
        return encoder
