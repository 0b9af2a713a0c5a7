"""Load encoders, one copy a process: all detectors share it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import torch

from medclipad.encoders.base import ImageEncoder
from medclipad.encoders.precision import resolve_precision
from medclipad.encoders.registry import default_encoder, encoder_family

if TYPE_CHECKING:
    from medclipad.volume.progress import Progress

_encoders: WeakValueDictionary[tuple, ImageEncoder] = WeakValueDictionary()
_lock = threading.Lock()


def default_device() -> torch.device:
    """Return the first CUDA device if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_encoder(
    name: str | None = None,
    image_size: int | None = None,
    device: torch.device | str | None = None,
    progress: Progress | None = None,
    precision: str = "float32",
) -> ImageEncoder:
    """Load a frozen encoder, or return the copy that this process has.

    Parameters
    ----------
    name
        "embedded", or an open_clip architecture with a pretrained tag or checkpoint path joined by "/", such as
        "ViT-L-14-336/openai", or "timm:" and a ViT of timm, or an encoder of an installed family. Default that of
        `default_encoder`.
    image_size
        Side of the square input in pixels; default the encoder's own.
    device
        Default the first CUDA device if there is one, else the CPU.
    progress
        Called as `progress("download", MiB done, MiB in all, {})` while weights are downloaded for the first time.
        Without it a bar is drawn on standard error.
    precision
        Precision of weights and tokens: "float32" as in the reference codes, "bfloat16", or "auto", which is bfloat16
        for an encoder that gains from it on a device with instructions for it.

    Raises
    ------
    DetectorError
        If the encoder is unknown, the size is not possible, or the weights cannot be loaded.

    Examples
    --------
    >>> encoder = load_encoder("embedded", 64)
    >>> encoder.grids
    (16, 8, 4, 2)
    """
    name = default_encoder() if name is None else name
    device = torch.device(device) if device is not None else default_device()
    family = encoder_family(name)
    if precision == "auto" and not family.gains_from_bfloat16:
        precision = "float32"
    dtype = resolve_precision(precision, device)
    key = (name, image_size, str(device), dtype)
    with _lock:
        encoder = _encoders.get(key)
        if encoder is None:
            with torch.inference_mode(False):  # the encoder outlives the caller's mode, and adapters train through it
                encoder = family.load(name, image_size, dtype, device, progress)
            # Asked for without a size or with the size that it has, it is the same encoder.
            encoder = _encoders[key] = _encoders.setdefault((name, encoder.image_size, *key[2:]), encoder)
        return encoder
