"""Which voxels are body, so that empty slices can be skipped."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_fill_holes
from skimage.filters import threshold_multiotsu, threshold_otsu

from medclipad.volume.blocks import blocks, finite_range, finite_sample
from medclipad.volume.intensity import IntensityPreset
from medclipad.volume.slicing import Slicing
from medclipad.volume.volume import Volume

MINIMUM_FOREGROUND = 0.01
"""A slice with less foreground than this fraction of its area is skipped."""

AIR_LIMIT = -500.0
"""Hounsfield units: the limit between air and tissue."""

_SPIKE = 0.05  # a value in more than this fraction of the voxels may be a background that was set
_SAMPLE = 100_000


def foreground_mask(volume: Volume, preset: IntensityPreset) -> np.ndarray:
    """Return a mask of the body or head, with the holes in its axial slices filled.

    Parameters
    ----------
    volume
        Volume of any real dtype. NaN and infinite voxels count as background.
    preset
        Intensity preset; only its `kind` matters.

    Returns
    -------
    numpy.ndarray
        Bool (I, J, K), True inside. A constant or empty volume has no foreground.

    Notes
    -----
    With CT presets the foreground is above -500 HU. With other presets: if one value was set as background
    (skull-stripped and z-scored data, where the brain may lie on both sides of it), all other values are foreground;
    otherwise it is what lies above Otsu's threshold between air and tissue (Otsu 1979).

    Examples
    --------
    >>> from medclipad.volume import parse_preset
    >>> array = np.zeros((6, 6, 6))
    >>> array[1:5, 1:5, 1:5] = 100
    >>> int(foreground_mask(Volume(array, np.eye(4)), parse_preset("mr")).sum())
    64
    """
    array = volume.array
    ends = finite_range(array)
    mask = np.zeros_like(array, dtype=bool, subok=False)
    if ends is None or ends[0] == ends[1]:
        return mask
    sample = None if preset.kind == "ct" else finite_sample(array, _SAMPLE)
    background = None if sample is None else _background_value(sample)
    limit = AIR_LIMIT if sample is None else _air_threshold(sample) if background is None else None
    for values, body in blocks(array, mask):
        body[:] = values != background if limit is None else values > limit
        body &= np.isfinite(values)
    for axial_slice in Slicing(volume, "axial").slices(mask):
        axial_slice[:] = binary_fill_holes(axial_slice)
    return mask


def slice_foreground(mask: np.ndarray, slicing: Slicing) -> np.ndarray:
    """Return the fraction of each slice's area that is foreground.

    Parameters
    ----------
    mask
        Bool (I, J, K), as from `foreground_mask`.
    slicing
        Slices of the mask's grid.

    Returns
    -------
    numpy.ndarray
        (n_slices,) float64 in [0, 1].
    """
    return slicing.slices(mask).mean(axis=(1, 2), dtype=np.float64)


def _background_value(sample: np.ndarray) -> float | None:
    """Return the value that was set as background, or None if the background is air with noise.

    A set value stands out like a spike: it fills more than 5 % of the voxels, and at least twice as many as all the
    values close to it together. This distinguishes it from the most frequent grey of noisy air in 8-bit images.
    """
    candidates, counts = np.unique(sample, return_counts=True)
    spike = candidates[counts.argmax()]
    filled = counts.max() / sample.size
    others = sample[sample != spike]
    if filled <= _SPIKE or others.size == 0:
        return None
    near = 0.01 * np.ptp(np.percentile(others, (1, 99)))
    close = np.count_nonzero(abs(others - spike) <= near) / sample.size
    return float(spike) if filled >= 2 * close else None


def _air_threshold(values: np.ndarray) -> float:
    """Return the threshold between noisy air and tissue.

    With bright fat or contrast agent Otsu's single threshold separates dark from bright tissue; the lower of two then
    separates air from tissue, unless it only splits the air: then the two darkest classes are not two peaks.
    """
    # A few extreme voxels (metal, 1e30) would leave all tissue in one bin of the histogram.
    low, high = np.percentile(values, (0.1, 99.9))
    kept = values[(values >= low) & (values <= high)]
    levels = len(np.unique(kept))
    if levels < 2:
        return float(values.min())
    if levels > 3:
        lower, upper = threshold_multiotsu(kept, classes=3)
        air, tissue = kept[kept <= lower], kept[(kept > lower) & (kept <= upper)]
        # The halves of one bell, or of a flat distribution, lie less than 2 standard deviations apart.
        if tissue.size and tissue.mean() - air.mean() > 2 * (air.std() + tissue.std()):
            return float(lower)
    return float(threshold_otsu(kept))
