"""Frozen image encoders with tapped stages: the papers' CLIP ViT and one that works offline.

`load_encoder` keeps the encoders in use, so that all detectors of a process share one copy.
"""

from __future__ import annotations

import threading
from weakref import WeakValueDictionary

import torch

from medclipad.encoders.base import N_STAGES, ImageEncoder, TextTower
from medclipad.encoders.download import Progress
from medclipad.encoders.precision import PRECISIONS, resolve_precision

__all__ = ["N_STAGES", "PRECISIONS", "ImageEncoder", "TextTower", "default_device", "load_encoder"]

_encoders: WeakValueDictionary[tuple, ImageEncoder] = WeakValueDictionary()
_lock = threading.Lock()


def default_device() -> torch.device:
    """The first CUDA device if there is one, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_encoder(
    name: str = "embedded",
    image_size: int | None = None,
    device: torch.device | str | None = None,
    progress: Progress | None = None,
    precision: str = "float32",
) -> ImageEncoder:
    """The frozen encoder `name` for square images of `image_size` pixels, shared within the process.

    `name` is "embedded", or an open_clip architecture with a pretrained tag or checkpoint path joined by "/", such as
    "ViT-L-14-336/openai". `progress("download", MiB done, MiB in all, {})` is told of a tag's first download; without
    it a bar is drawn on standard error. `precision` is that of weights and tokens: "float32" as in the reference codes,
    "bfloat16", or "auto", which is bfloat16 for a CLIP encoder on a device that has instructions for it. Raises
    DetectorError if it is unknown or its weights cannot be loaded.
    """
    device = torch.device(device) if device is not None else default_device()
    if name == "embedded" and precision == "auto":  # a small CNN gains nothing
        precision = "float32"
    dtype = resolve_precision(precision, device)
    key = (name, image_size, str(device), dtype)
    with _lock:
        encoder = _encoders.get(key)
        if encoder is None:
            if name == "embedded":
                from medclipad.encoders.embedded import EmbeddedEncoder

                encoder = EmbeddedEncoder(image_size or 224, dtype).to(device)
            else:
                from medclipad.encoders.openclip import ClipEncoder

                encoder = ClipEncoder(name, image_size, progress, dtype, device)
            # Asked for without a size or with the size that it has, it is the same.
            encoder = _encoders[key] = _encoders.setdefault((name, encoder.image_size, *key[2:]), encoder)
        return encoder
