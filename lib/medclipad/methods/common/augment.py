"""The reference's images: squares in [0, 1], and the ten augmentations of each shot."""

from __future__ import annotations

from math import cos, pi, sin

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor


def _rotation(angle: float) -> list[list[float]]:
    """Return the matrix (2, 3) of a rotation by an angle in radians."""
    return [[cos(angle), sin(-angle), 0.0], [sin(angle), cos(angle), 0.0]]


TRANSFORMS = (
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]],
    *(_rotation(angle) for angle in (-pi / 8, -pi / 16, pi / 16, pi / 8)),
    *([[1.0, 0.0, x], [0.0, 1.0, y]] for x, y in ((0.1, 0.1), (-0.1, 0.1), (-0.1, -0.1), (0.1, -0.1))),
    [[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]],  # left-right
    [[1.0, 0.0, 0.0], [0.0, -1.0, 0.0]],  # up-down
)
"""Matrices for `affine_grid`, from output to input coordinates in [-1, 1]; the first changes nothing."""


def augment(images: Tensor) -> Tensor:
    """Return images together with their ten augmentations.

    Parameters
    ----------
    images
        (n, ..., S, S). Masks are augmented as float images and thresholded at 0.5 afterwards.

    Returns
    -------
    Tensor
        (11 n, ..., S, S): the images themselves, then all of them in each of the other `TRANSFORMS`.

    Notes
    -----
    Rotations by ±22.5° and ±11.25°, four shifts by 5 % of the side, and two flips, as in the reference code: bilinear,
    reflected at the border.
    """
    flat = images.flatten(1, -3) if images.ndim > 3 else images[:, None]
    augmented = [flat]
    for matrix in TRANSFORMS[1:]:
        theta = torch.tensor(matrix, dtype=flat.dtype, device=flat.device).expand(len(flat), 2, 3)
        grid = F.affine_grid(theta, list(flat.shape), align_corners=False)
        augmented.append(F.grid_sample(flat, grid, mode="bilinear", padding_mode="reflection", align_corners=False))
    return torch.cat(augmented).reshape(-1, *images.shape[1:])


def square(image: Image.Image | np.ndarray, size: int, mask: bool = False) -> Tensor:
    """Return a picture or mask as the reference code loads it.

    Parameters
    ----------
    image
        Picture, or uint8 array.
    size
        Side of the result in pixels.
    mask
        Whether it is a mask.

    Returns
    -------
    Tensor
        float32 in [0, 1]: RGB (3, size, size), or a mask (size, size).

    Notes
    -----
    Pillow resizes the 8-bit picture (bicubic; masks: nearest), so values are multiples of 1/255. CLIP's mean and
    standard deviation are not applied.
    """
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    resampling = Image.Resampling.NEAREST if mask else Image.Resampling.BICUBIC
    image = image.convert("L" if mask else "RGB").resize((size, size), resampling)
    values = torch.from_numpy(np.asarray(image, dtype=np.float32) / 255)
    return values if mask else values.permute(2, 0, 1).contiguous()
