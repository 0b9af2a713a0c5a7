"""The ICBM 152 (2009a, symmetric) T1 template and tissue maps that the nilearn package carries, ready to be deformed.

Coordinates: *template millimetres* are the template's own RAS+ space (MNI). The maps are cut to the brain and a margin;
their voxels are 1 mm, so that `index = millimetres - TEMPLATE_ORIGIN`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

import nibabel as nib
import numpy as np
from scipy import ndimage

FILE_SHAPE, FILE_ORIGIN = (197, 233, 189), (-98.0, -134.0, -72.0)
# The file ends where the brain stem does: the margin below must be added, elsewhere it is there and need only be cut.
BOX, BELOW = (slice(14, 183), slice(15, 220), slice(0, 168)), 12
TEMPLATE_SHAPE = (169, 205, 168 + BELOW)
TEMPLATE_ORIGIN = np.array([-98.0 + 14, -134.0 + 15, -72.0 - BELOW])
HEAD_CENTRE = np.array([0.0, -17.0, 9.5])  # middle of the brain's bounding box, template mm
CSF, GREY, WHITE = 79.0, 165.0, 223.0  # median T1 value of the template where each tissue map is sure


@dataclass(frozen=True, eq=False)
class Template:
    """Maps of shape TEMPLATE_SHAPE on 1 mm voxels, all float32.

    t1: quadratic spline coefficients of the sharpened T1 in template units (0..255), continued outside the brain.
    white: probability of white matter, 0..1.  depth: mm from the brain's surface, positive inside, negative outside.
    ventricle: mm outside (positive) or inside (negative) the lateral ventricle on the patient's left.
    """

    t1: np.ndarray
    white: np.ndarray
    depth: np.ndarray
    ventricle: np.ndarray


def _load(name: str) -> np.ndarray:
    source = resources.files("nilearn") / "datasets" / "data" / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
    with resources.as_file(source) as path:
        image = nib.load(path)
    array = np.asarray(image.dataobj, dtype=np.float32)
    if array.shape != FILE_SHAPE or not np.array_equal(image.affine[:3, 3], FILE_ORIGIN):
        raise RuntimeError(f"nilearn's {name} template is not the ICBM 152 2009a that the sample study is made from")
    return np.pad(array[BOX], ((0, 0), (0, 0), (BELOW, 0)))


def _left_ventricle(t1: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Signed distance (mm, negative inside) to the lateral ventricle left of the midline, the largest dark component
    deep inside the left hemisphere. More than 45 mm away it is only known to be far."""
    left = (np.arange(TEMPLATE_SHAPE[0]) + TEMPLATE_ORIGIN[0] < -1)[:, None, None]
    labels, _ = ndimage.label((t1 < 115) & (depth > 14) & left)
    ventricle = labels == np.argmax(np.bincount(labels.ravel())[1:]) + 1
    box = tuple(slice(max(0, s.start - 45), s.stop + 45) for s in ndimage.find_objects(ventricle.astype(np.uint8))[0])
    distance = np.full(TEMPLATE_SHAPE, 45, np.float32)
    distance[box] = np.minimum(_edge_distance(ventricle[box], ndimage.distance_transform_edt(~ventricle[box])), 45)
    return distance


def _edge_distance(mask: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """Distance to the edge between voxels, positive outside, given the distance of outer voxels to the mask."""
    return np.where(mask, 0.5 - ndimage.distance_transform_edt(mask), outside - 0.5).astype(np.float32)


@lru_cache(maxsize=1)
def load_template() -> Template:
    """Read the template once. The T1 is an average of 152 heads: unsharp masking gives back some of one head's edge."""
    t1 = _load("t1")
    brain = t1 > 0
    outside, nearest = ndimage.distance_transform_edt(~brain, return_indices=True)
    depth = -_edge_distance(brain, outside)
    ventricle = _left_ventricle(t1, depth)
    t1 = t1[tuple(nearest)]
    t1 = np.clip(t1 + 0.8 * (t1 - ndimage.gaussian_filter(t1, 1.2)), 40, 250)
    return Template(
        t1=ndimage.spline_filter(t1, order=2, output=np.float32),
        white=_load("wm") / 255,
        depth=depth,
        ventricle=ventricle,
    )


def sample(array: np.ndarray, points: np.ndarray, order: int = 1) -> np.ndarray:
    """Values of a template map at template millimetres.

    array: TEMPLATE_SHAPE; with order 2 it must be spline coefficients.  points: (3, ...) mm.  Returns float32 (...).
    """
    shape = (3,) + (1,) * (points.ndim - 1)
    index = points - TEMPLATE_ORIGIN.reshape(shape).astype(points.dtype)
    return ndimage.map_coordinates(array, index, output=np.float32, order=order, prefilter=False, mode="nearest")
