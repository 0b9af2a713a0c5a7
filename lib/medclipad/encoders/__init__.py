"""Frozen image encoders with tapped stages: the papers' CLIP ViT, ViTs of timm, a small CNN that works offline.

What needs torch is imported on first use, so that the command line can ask the registry for names and help texts
without waiting for it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from medclipad.encoders.precision import PRECISIONS
from medclipad.encoders.registry import (
    EncoderFamily,
    default_encoder,
    encoder_examples,
    encoder_families,
    encoder_family,
    encoder_usage,
    register_encoder,
    unregister_encoder,
)

if TYPE_CHECKING:
    from medclipad.encoders.base import N_STAGES, ImageEncoder, TextTower
    from medclipad.encoders.loading import default_device, load_encoder

__all__ = [
    "N_STAGES",
    "PRECISIONS",
    "EncoderFamily",
    "ImageEncoder",
    "TextTower",
    "default_device",
    "default_encoder",
    "encoder_examples",
    "encoder_families",
    "encoder_family",
    "encoder_usage",
    "load_encoder",
    "register_encoder",
    "unregister_encoder",
]

_LAZY = {
    "N_STAGES": "medclipad.encoders.base",
    "ImageEncoder": "medclipad.encoders.base",
    "TextTower": "medclipad.encoders.base",
    "default_device": "medclipad.encoders.loading",
    "load_encoder": "medclipad.encoders.loading",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
