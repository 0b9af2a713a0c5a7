"""Label maps given as images, and images given as masks, are recognised."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, zoom

from medclipad.errors import VolumeError
from medclipad.volume import Volume, label_note, require_mask

REGIONS = np.kron(np.arange(27).reshape(3, 3, 3) % 5, np.ones((6, 6, 6)))
NOISE = np.random.default_rng(0).normal(size=(18, 18, 18))


def volume(array, name="case"):
    return Volume(np.asarray(array), np.eye(4), name=name)


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.float64, np.int64])
def test_label_maps_are_noted(dtype):
    assert label_note(volume(REGIONS.astype(dtype))) == (
        "it looks like a label map (only the values 0, 1, 2, 3, ... in regions of one value each); "
        "pass the image itself"
    )
    assert "only the values 0, 1 in" in str(label_note(volume((REGIONS > 2).astype(dtype))))


@pytest.mark.parametrize(
    "array",
    [
        np.clip(NOISE * 30 + 100, 0, 255).astype(np.uint8),
        np.clip(gaussian_filter(NOISE, 1) * 200 + 100, 0, 255).astype(np.uint8),
        NOISE,
        REGIONS + 0.5,
        REGIONS + 7,
        np.full((4, 4, 4), 3),
        np.zeros((4, 4, 4)),
        np.full((4, 4, 4), np.nan),
    ],
)
def test_images_are_not_taken_for_label_maps(array):
    assert label_note(volume(array)) is None


def test_masks():
    image = volume(NOISE)
    for mask in (REGIONS > 2, REGIONS.astype(np.int32), REGIONS, np.zeros((18, 18, 18)), NOISE > 1, REGIONS * 100):
        require_mask(image, volume(mask, "mask"))
    with pytest.raises(VolumeError, match=r"mask: the mask of case holds fractions \(.*\); pass its label map; res"):
        require_mask(image, volume(zoom(REGIONS[:9], (2, 1, 1), order=1), "mask"))
    with pytest.raises(VolumeError, match=r"mask: the mask of case holds \d+ values, as an image does; pass its label"):
        require_mask(image, volume((NOISE * 1000).astype(np.int16), "mask"))
    with pytest.raises(VolumeError, match=r"mask: the mask of case holds \d+ values, as an image does"):
        require_mask(image, volume(np.clip(NOISE * 30 + 100, 0, 255).astype(np.uint8), "mask"))
    with pytest.raises(VolumeError, match="different sizes"):
        require_mask(image, volume(REGIONS[:5], "mask"))


@pytest.mark.parametrize(
    ("value", "dtype", "why"),
    [
        (-1, np.int8, r"holds negative values \(-1\); pass its label map, with 0 for background"),
        (-1, np.float32, r"holds negative values \(-1\)"),
        (0.5, np.float32, r"holds fractions \(0\.5\)"),
        (-0.5, np.float64, r"holds fractions \(-0\.5\)"),
        (np.nan, np.float32, "holds NaN or infinity"),
        (np.inf, np.float32, "holds NaN or infinity"),
    ],
)
def test_a_single_voxel_that_is_no_label_is_found(value, dtype, why):
    array = np.zeros((64, 64, 64), dtype)
    array[10, 20, 30] = value
    with pytest.raises(VolumeError, match=f"mask: the mask of case {why}"):
        require_mask(volume(np.zeros((64, 64, 64))), volume(array, "mask"))
