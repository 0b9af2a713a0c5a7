"""Distinguish label maps from images: confusing the two gives results that look plausible."""

from __future__ import annotations

import numpy as np

from medclipad.errors import VolumeError
from medclipad.volume.blocks import blocks, finite_sample
from medclipad.volume.volume import Volume, require_same_grid

_SAMPLE = 100_000
_MAX_LABELS = 256  # label maps have no more values
_MAX_MASK_VALUES = 16  # a mask with no more values than this is not questioned
_FLAT = 0.8  # in a label map, at least this fraction of neighbours within a region share a label
_GRAINY = 0.5  # in an image, less than this fraction of neighbours share a value


def label_note(volume: Volume) -> str | None:
    """Return a sentence for the user if an image looks like a label map, else None.

    Parameters
    ----------
    volume
        Volume that was given as an image. It looks like a label map if it holds few whole numbers, the lowest of them
        0, in regions of one value each.

    Examples
    --------
    >>> label_note(Volume(np.kron([[[0, 1], [1, 2]]], np.ones((6, 6, 6))), np.eye(4))).split(" (")[0]
    'it looks like a label map'
    """
    values = np.unique(finite_sample(volume.array, _SAMPLE))
    if not 2 <= len(values) <= _MAX_LABELS or values[0] != 0 or (values % 1).any() or _flatness(volume.array) < _FLAT:
        return None
    named = ", ".join(f"{value:g}" for value in values[:4]) + (", ..." if len(values) > 4 else "")
    return f"it looks like a label map (only the values {named} in regions of one value each); pass the image itself"


def require_mask(volume: Volume, mask: Volume) -> None:
    """Raise VolumeError unless a mask lies on the grid of a volume and holds labels.

    Parameters
    ----------
    volume
        Image.
    mask
        Its label map: whole numbers, 0 for background.

    Raises
    ------
    VolumeError
        If the grids differ, or if a voxel of the mask is a fraction, negative, NaN or infinite, or if the mask holds as
        many values as an image.
    """
    require_same_grid(volume, mask)
    name, whose = mask.name or "the mask", f"the mask of {volume.name or 'the volume'}"
    lowest = 0.0
    for (block,) in blocks(mask.array):  # all of it: a sample would miss a small lesion
        if block.dtype.kind == "f" and not np.isfinite(block).all():
            raise VolumeError(f"{name}: {whose} holds NaN or infinity; pass its label map, with 0 for background.")
        if block.dtype.kind == "f" and (fractions := block[block % 1 != 0]).size:
            raise VolumeError(
                f"{name}: {whose} holds fractions ({fractions[0]:.4g}); pass its label map; "
                "resample it only by nearest neighbour."
            )
        lowest = min(lowest, float(block.min()))
    values = np.unique(finite_sample(mask.array, _SAMPLE))
    if len(values) > _MAX_LABELS or (len(values) > _MAX_MASK_VALUES and _flatness(mask.array) < _GRAINY):
        raise VolumeError(f"{name}: {whose} holds {len(values)} values, as an image does; pass its label map.")
    if lowest < 0:
        raise VolumeError(
            f"{name}: {whose} holds negative values ({lowest:g}); pass its label map, with 0 for background and "
            "positive whole numbers for lesions."
        )


def _flatness(array: np.ndarray) -> float:
    """Return the fraction of neighbours along the fastest axis, the first of them not 0, with the same value."""
    same = pairs = 0
    for (block,) in blocks(array):
        first, second = block[..., :-1], block[..., 1:]
        pairs += np.count_nonzero(first)
        same += np.count_nonzero((first == second) & (first != 0))
    return same / pairs if pairs else 0.0
