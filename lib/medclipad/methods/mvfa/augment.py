"""The reference's images: squares in [0, 1] and the ten augmentations of each shot."""

from __future__ import annotations

from math import cos, pi, sin

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor


def _rotation(angle: float) -> list[list[float]]:
    return [[cos(angle), sin(-angle), 0.0], [sin(angle), cos(angle), 0.0]]


# Matrices of `affine_grid`: output coordinates in [-1, 1] -> input coordinates.
TRANSFORMS = (
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]],
    *(_rotation(angle) for angle in (-pi / 8, -pi / 16, pi / 16, pi / 8)),
    *([[1.0, 0.0, x], [0.0, 1.0, y]] for x, y in ((0.1, 0.1), (-0.1, 0.1), (-0.1, -0.1), (0.1, -0.1))),
    [[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]],  # left-right
    [[1.0, 0.0, 0.0], [0.0, -1.0, 0.0]],  # up-down
)


def augment(images: Tensor) -> Tensor:
    """Images (11 n, ..., S, S) of images (n, ..., S, S): the images themselves, then all of them in each transform.

    Bilinear, reflected at the border. Masks go through it too and are thresholded at 0.5 afterwards.
    """
    flat = images.flatten(1, -3) if images.ndim > 3 else images[:, None]
    out = [flat]
    for matrix in TRANSFORMS[1:]:
        theta = torch.tensor(matrix, dtype=flat.dtype, device=flat.device).expand(len(flat), 2, 3)
        grid = F.affine_grid(theta, list(flat.shape), align_corners=False)
        out.append(F.grid_sample(flat, grid, mode="bilinear", padding_mode="reflection", align_corners=False))
    return torch.cat(out).reshape(-1, *images.shape[1:])


def square(image: Image.Image | np.ndarray, size: int, mask: bool = False) -> Tensor:
    """A picture as the reference loads it: float32 RGB (3, size, size) in [0, 1]; a mask: (size, size).

    Pillow resizes the 8-bit picture (bicubic; masks: nearest), so values are multiples of 1/255. CLIP's mean and
    standard deviation are not applied.
    """
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    resampling = Image.Resampling.NEAREST if mask else Image.Resampling.BICUBIC
    image = image.convert("L" if mask else "RGB").resize((size, size), resampling)
    values = torch.from_numpy(np.asarray(image, dtype=np.float32) / 255)
    return values if mask else values.permute(2, 0, 1).contiguous()
