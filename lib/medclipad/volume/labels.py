"""Label maps and images, told apart: the one given in place of the other is a mistake that looks plausible."""

from __future__ import annotations

import numpy as np

from medclipad.errors import VolumeError
from medclipad.volume.blocks import blocks, finite_sample
from medclipad.volume.volume import Volume, require_same_grid

_SAMPLE = 100_000
_MOST = 256  # label maps have no more values
_FEW = 16  # masks with so few values are not doubted
_FLAT = 0.8  # of the neighbours within a labelled region share its label, at least
_GRAINY = 0.5


def label_note(volume: Volume) -> str | None:
    """A sentence if an image looks like a label map: few whole numbers from 0, in regions of one value each."""
    values = np.unique(finite_sample(volume.array, _SAMPLE))
    if not 2 <= len(values) <= _MOST or values[0] != 0 or (values % 1).any() or _flatness(volume.array) < _FLAT:
        return None
    named = ", ".join(f"{value:g}" for value in values[:4]) + (", ..." if len(values) > 4 else "")
    return f"it looks like a label map (only the values {named} in regions of one value each); pass the image itself"


def require_mask(volume: Volume, mask: Volume) -> None:
    """Raise VolumeError unless `mask` lies on the grid of `volume` and holds whole numbers, as label maps do."""
    require_same_grid(volume, mask)
    values = np.unique(finite_sample(mask.array, _SAMPLE))
    name = mask.name or "the mask"
    if (values % 1).any():
        raise VolumeError(
            f"{name}: the mask of {volume.name or 'the volume'} holds fractions ({values[values % 1 > 0][0]:.4g}); "
            "pass its label map, resampled by nearest neighbour if at all."
        )
    if len(values) > _MOST or (len(values) > _FEW and _flatness(mask.array) < _GRAINY):
        raise VolumeError(
            f"{name}: the mask of {volume.name or 'the volume'} holds {len(values)} values, as an image does; "
            "pass its label map."
        )


def _flatness(array: np.ndarray) -> float:
    """Part of the neighbours along the fastest axis, the first of them not 0, that have the same value."""
    same = pairs = 0
    for (block,) in blocks(array):
        first, second = block[..., :-1], block[..., 1:]
        pairs += np.count_nonzero(first)
        same += np.count_nonzero((first == second) & (first != 0))
    return same / pairs if pairs else 0.0
