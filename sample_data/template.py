"""ICBM 152 (2009a, symmetric) T1 template and tissue maps of the nilearn package, ready to be deformed.

*Template millimetres* are the template's own RAS+ space (MNI). The maps are cut to the brain with a margin. Their
voxels are 1 mm, so that `index = millimetres - TEMPLATE_ORIGIN`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any, cast

import nibabel as nib
import numpy as np
from scipy import ndimage

FILE_SHAPE, FILE_ORIGIN = (197, 233, 189), (-98.0, -134.0, -72.0)
# The file ends where the brain stem does: the margin below is added, elsewhere the file is cut.
BOX, BELOW = (slice(14, 183), slice(15, 220), slice(0, 168)), 12
TEMPLATE_SHAPE = (169, 205, 168 + BELOW)
TEMPLATE_ORIGIN = np.array([-98.0 + 14, -134.0 + 15, -72.0 - BELOW])
HEAD_CENTRE = np.array([0.0, -17.0, 9.5])  # middle of the brain's bounding box, template mm
CSF, GREY, WHITE = 79.0, 165.0, 223.0  # median T1 value of the template where each tissue is certain


@dataclass(frozen=True, eq=False)
class Template:
    """Maps of shape TEMPLATE_SHAPE on 1 mm voxels, all float32.

    Attributes
    ----------
    t1 : numpy.ndarray
        Quadratic spline coefficients of the sharpened T1 in template units (0 to 255), continued outside the brain.
    white : numpy.ndarray
        Probability of white matter.
    depth : numpy.ndarray
        Millimetres from the brain's surface, positive inside.
    ventricle : numpy.ndarray
        Millimetres from the surface of the lateral ventricle on the patient's left, negative inside.
    """

    t1: np.ndarray
    white: np.ndarray
    depth: np.ndarray
    ventricle: np.ndarray


def _load(name: str) -> np.ndarray:
    source = resources.files("nilearn") / "datasets" / "data" / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
    with resources.as_file(source) as path:
        image = nib.Nifti1Image.from_filename(path)
    array = np.asarray(image.dataobj, dtype=np.float32)
    if image.affine is None or array.shape != FILE_SHAPE or not np.array_equal(image.affine[:3, 3], FILE_ORIGIN):
        raise RuntimeError(f"nilearn's {name} template is not the ICBM 152 2009a that the sample study is made from")
    return np.pad(array[BOX], ((0, 0), (0, 0), (BELOW, 0)))


def _left_ventricle(t1: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Return the signed distance (mm, negative inside) to the lateral ventricle left of the midline, at most 45.

    The ventricle is the largest dark component deep inside the left hemisphere.
    """
    left = (np.arange(TEMPLATE_SHAPE[0]) + TEMPLATE_ORIGIN[0] < -1)[:, None, None]
    labelled: Any = ndimage.label((t1 < 115) & (depth > 14) & left)  # a pair; scipy has no types for it
    labels, _ = labelled
    ventricle = labels == np.argmax(np.bincount(labels.ravel())[1:]) + 1
    box = tuple(slice(max(0, s.start - 45), s.stop + 45) for s in ndimage.find_objects(ventricle.astype(np.uint8))[0])
    distance = np.full(TEMPLATE_SHAPE, 45, np.float32)
    distance[box] = np.minimum(_edge_distance(ventricle[box], _distance(~ventricle[box])), 45)
    return distance


def _distance(mask: np.ndarray) -> np.ndarray:
    """Return the distance of each voxel of a mask to the nearest voxel outside it."""
    return np.asarray(ndimage.distance_transform_edt(mask))


def _edge_distance(mask: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """Return the distance to the edge between voxels, positive outside, given that of outer voxels to the mask."""
    return np.where(mask, 0.5 - _distance(mask), outside - 0.5).astype(np.float32)


@lru_cache(maxsize=1)
def load_template() -> Template:
    """Return the template, which is read once.

    The T1 is an average of 152 heads; unsharp masking restores some of the sharpness of a single one.
    """
    t1 = _load("t1")
    brain = t1 > 0
    both: Any = ndimage.distance_transform_edt(~brain, return_indices=True)
    outside, nearest = both
    depth = -_edge_distance(brain, outside)
    ventricle = _left_ventricle(t1, depth)
    t1 = t1[tuple(nearest)]
    t1 = np.clip(t1 + 0.8 * (t1 - ndimage.gaussian_filter(t1, 1.2)), 40, 250)
    return Template(
        t1=ndimage.spline_filter(t1, order=2, output=cast(Any, np.float32)),
        white=_load("wm") / 255,
        depth=depth,
        ventricle=ventricle,
    )


def sample(array: np.ndarray, points: np.ndarray, order: int = 1) -> np.ndarray:
    """Return the values of a template map at points.

    Parameters
    ----------
    array
        Map of shape TEMPLATE_SHAPE; with `order` 2, its spline coefficients.
    points
        Template millimetres (3, ...).
    order
        1 for linear, 2 for quadratic interpolation.

    Returns
    -------
    numpy.ndarray
        Values (...), float32.
    """
    shape = (3,) + (1,) * (points.ndim - 1)
    index = points - TEMPLATE_ORIGIN.reshape(shape).astype(points.dtype)
    return ndimage.map_coordinates(array, index, output=np.float32, order=order, prefilter=False, mode="nearest")
