"""CLIP weights by recipe: pseudo-random, of the published shapes and realistic spread, the same on every machine.

They stand in for OpenAI's weights where those cannot be downloaded: for parity with what the reference code computed
from the same numbers, and for speed and memory at full size. Maps computed with them mean nothing.
"""

from __future__ import annotations

import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medclipad.compat import ensure_torchvision

SEED = 20240612
_SPREAD = 73.9  # standard deviation of uniform int8


def recipe_array(key: str, shape: tuple[int, ...], std: float, seed: int, mean: float = 0) -> torch.Tensor:
    """Return pseudo-random numbers that are the same on every machine.

    Parameters
    ----------
    key
        Name of the tensor; another name gives other numbers.
    shape
        Shape of the tensor.
    std, mean
        Approximate standard deviation, and mean.
    seed
        Seed, combined with the name.

    Returns
    -------
    torch.Tensor
        float16, on a power-of-two grid.
    """
    n = int(np.prod(shape))
    raw = np.random.PCG64(zlib.crc32(key.encode()) ^ seed).random_raw(-(-n // 8)).view(np.int8)[:n]
    values = raw.astype(np.float32) * np.float32(2.0 ** -round(np.log2(_SPREAD / std))) + np.float32(mean)
    return torch.from_numpy(values.reshape(shape).astype(np.float16))


def recipe_state(architecture: str, seed: int = SEED) -> dict[str, torch.Tensor]:
    """Return the state dict, float16, of a CLIP ViT of open_clip such as "ViT-L-14-336"."""
    ensure_torchvision()
    import open_clip

    config: Any = open_clip.get_model_config(architecture)
    with torch.device("meta"):
        model: Any = open_clip.CLIP(**config)
    vision, text = model.visual.class_embedding.shape[0], model.token_embedding.weight.shape[1]
    state = {}
    for key, value in model.state_dict().items():
        if key == "logit_scale":
            state[key] = torch.tensor(0.0)
        else:
            std, mean = _std_and_mean(key, vision, text)
            state[key] = recipe_array(key, tuple(value.shape), std, seed, mean)
    return state


def recipe_file(architecture: str, path: Path, seed: int = SEED) -> str:
    """Save the weights to `path`; return the name of the encoder, for `load_encoder`."""
    torch.save(recipe_state(architecture, seed), path)
    return f"{architecture}/{path}"


def _std_and_mean(key: str, vision_width: int, text_width: int) -> tuple[float, float]:
    """Return standard deviation and mean of a tensor of OpenAI's state dict."""
    width = vision_width if key.startswith("visual.") else text_width
    table = (
        (r"ln_\w+\.weight$", 0.1, 1.0),
        (r"bias$", 0.05, 0.0),
        (r"attn\.in_proj_weight$", 1.6 * width**-0.5, 0.0),
        (r"attn\.out_proj\.weight$", 0.35 * width**-0.5, 0.0),
        (r"mlp\.c_fc\.weight$", width**-0.5, 0.0),
        (r"mlp\.c_proj\.weight$", 0.35 * (4 * width) ** -0.5, 0.0),
        (r"^visual\.(class|positional)_embedding$", 0.3, 0.0),
        (r"^visual\.conv1\.weight$", 2 * 588**-0.5, 0.0),
        (r"^(text_projection|visual\.proj)$", width**-0.5, 0.0),
        (r"^positional_embedding$", 0.2, 0.0),
        (r"^token_embedding\.weight$", 0.6, 0.0),
    )
    return next((std, mean) for pattern, std, mean in table if re.search(pattern, key))
