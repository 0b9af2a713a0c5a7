"""Checkpoints as the reference codes of MVFA and MediCLIP save them, for a small encoder."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from medclipad.detection.reference_checkpoints import import_checkpoint, read_checkpoint
from medclipad.errors import DetectorError

ARCHITECTURE = "tiny-checkpoint-test"
WIDTH, TEXT_WIDTH, EMBED = 32, 16, 12
CONFIG = {
    "embed_dim": EMBED,
    "vision_cfg": {"image_size": 56, "layers": 4, "width": WIDTH, "head_width": 16, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": TEXT_WIDTH, "heads": 2, "layers": 1},
}
SIZE = 56


def mvfa_state(width: int = WIDTH) -> dict:
    """What MVFA's reference code saves, for this encoder."""
    generator = torch.Generator().manual_seed(3)
    return {
        part: OrderedDict(
            (f"{level}.fc{n}.0.weight", torch.randn(shape, generator=generator) * 0.2)
            for level in range(4)
            for n, shape in ((1, (EMBED, width)), (2, (width, EMBED)))
        )
        for part in ("seg_adapters", "det_adapters")
    }


def mediclip_state() -> dict:
    """What MediCLIP's reference code saves, for this encoder."""
    generator = torch.Generator().manual_seed(4)
    adapters = OrderedDict()
    for level in range(3):
        adapters[f"{level}_adapter.0.weight"] = torch.randn(EMBED, WIDTH, 1, 1, generator=generator) * 0.2
        adapters[f"{level}_adapter.0.bias"] = torch.randn(EMBED, generator=generator) * 0.1
    prompts = OrderedDict(
        (f"ctx.{kind}_end", torch.randn(n, 8, TEXT_WIDTH, generator=generator) * 0.02)
        for kind, n in (("abnormal", 11), ("normal", 10))
    )
    return {"adapter_state_dict": adapters, "prompt_state_dict": prompts}


STATES = {"mvfa": mvfa_state, "mediclip": mediclip_state}
FILES = {"mvfa": "Brain.pth", "mediclip": "checkpoint.pth"}


def one_sentence(text: str, file: Path) -> None:
    assert "\n" not in text and text.endswith(".") and len(text) < 600, text
    assert str(file) in text and ": " in text, text


def refused(file: Path, words: str, encoder: str = "", **given) -> None:
    with pytest.raises(DetectorError, match=words) as caught:
        if encoder:
            import_checkpoint(file, encoder=encoder, **given)
        else:
            read_checkpoint(file)
    one_sentence(str(caught.value), file)
