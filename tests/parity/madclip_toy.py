"""The toy CLIP, weights and pictures of MadCLIP's parity arrays, the same for recorder and test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.recipe import recipe_array, recipe_state

SEED = 20251129
SIZE = 60  # pixels: not a multiple of the patches' 14, as 240 is not, and another grid than the toy's own
LEVELS, STEPS = 4, 3
CLASS = "Chest"  # of BMAD, with several words
CLASS_NAME = "Chest X-ray film"
ARCHITECTURE = "toy-madclip"
CONFIG: dict[str, Any] = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": 84, "layers": 24, "width": 16, "head_width": 8, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}


def toy_state(folder: Path) -> dict[str, Tensor]:
    """Return the toy CLIP's weights, float32, by OpenAI's names; open_clip reads its configuration from the folder."""
    from medclipad.compat import ensure_torchvision

    ensure_torchvision()
    import open_clip

    (folder / f"{ARCHITECTURE}.json").write_text(json.dumps(CONFIG))
    open_clip.add_model_config(folder)
    return {key: value.float() for key, value in recipe_state(ARCHITECTURE, SEED).items()}


def adapter_weight(key: str, shape: tuple[int, ...]) -> Tensor:
    """Return a weight of an adapter, by its name in the reference's checkpoint."""
    return recipe_array(key, shape, shape[1] ** -0.5, SEED).float()


def context(key: str, shape: tuple[int, ...]) -> Tensor:
    """Return a context, by its name in the reference's checkpoint; large, so that its place matters."""
    return recipe_array(key, shape, 0.5, SEED).float()


def pictures() -> tuple[Tensor, Tensor, Tensor]:
    """Return grey pictures (4, S, S) in [0, 1], labels (4,) and masks (4, S, S): two normal, two abnormal."""
    rng = np.random.default_rng(SEED)
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    images = np.stack([0.5 + 0.3 * np.sin(k * x + 2 * y) for k in (3, 7, 5, 9)]) + rng.uniform(0, 0.1, (4, SIZE, SIZE))
    masks = np.zeros((4, SIZE, SIZE), np.float32)
    masks[2, 10:30, 20:45] = masks[3, 35:50, 5:20] = 1
    images = np.round((images + 0.3 * masks).clip(0, 1) * 255) / 255
    return torch.from_numpy(images.astype(np.float32)), torch.tensor([0.0, 0, 1, 1]), torch.from_numpy(masks)
