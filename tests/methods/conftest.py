"""Encoders for the tests of the methods."""

from __future__ import annotations

import json

import pytest
import torch
from discs import SIZE

from medclipad.compat import ensure_torchvision
from medclipad.encoders import ImageEncoder, load_encoder


@pytest.fixture(scope="session")
def embedded() -> ImageEncoder:
    return load_encoder("embedded", SIZE, "cpu")


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> ImageEncoder:
    """Return a CLIP with 4 blocks and random weights."""
    ensure_torchvision()
    import open_clip

    folder = tmp_path_factory.mktemp("clip")
    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 56, "layers": 4, "width": 32, "head_width": 16, "patch_size": 14},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
    }
    (folder / "tiny-method-test.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    torch.manual_seed(0)
    torch.save(open_clip.CLIP(**config).state_dict(), folder / "tiny.pt")
    return load_encoder(f"tiny-method-test/{folder / 'tiny.pt'}", SIZE, "cpu")
