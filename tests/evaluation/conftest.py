"""A tiny CLIP with random weights and miniature benchmark data, shared by the protocol tests."""

from __future__ import annotations

import json
from pathlib import Path

import protocol_trees
import pytest
import torch

from medclipad.compat import ensure_torchvision

TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 56, "layers": 4, "width": 32, "head_width": 16, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory) -> str:
    """Return the encoder name of a CLIP with 4 blocks and random weights."""
    ensure_torchvision()
    import open_clip

    folder = tmp_path_factory.mktemp("clip")
    (folder / "tiny-benchmark-test.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(open_clip.CLIP(**TINY).state_dict(), folder / "tiny.pt")
    return f"tiny-benchmark-test/{folder / 'tiny.pt'}"


@pytest.fixture(scope="session")
def bmad_tree(tmp_path_factory) -> Path:
    """Return a miniature of the BMAD data."""
    return protocol_trees.bmad(tmp_path_factory.mktemp("bmad"))


@pytest.fixture(scope="session")
def mediclip_tree(tmp_path_factory) -> Path:
    """Return a miniature of the data that MediCLIP is evaluated on."""
    return protocol_trees.mediclip(tmp_path_factory.mktemp("mediclip"))
