"""The study's table: which case is what, and on which grid and in which format it is stored."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation

FIELD_OF_VIEW = {"R": 172.0, "L": 172.0, "A": 212.0, "P": 212.0, "S": 182.0, "I": 182.0}  # mm
DIRECTIONS = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}


@dataclass(frozen=True)
class Grid:
    """axes: where each array axis points, e.g. "LPS".  spacing: mm along them.  tilt: degrees about x, y, z."""

    axes: str
    spacing: tuple[float, float, float]
    tilt: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def shape(self) -> tuple[int, int, int]:
        return tuple(int(np.ceil(FIELD_OF_VIEW[a] / s)) for a, s in zip(self.axes, self.spacing, strict=True))

    def affine(self, centre: np.ndarray) -> np.ndarray:
        """Voxel index -> RAS+ mm, with the middle of the grid at `centre`; the origin in whole micrometres."""
        rotation = Rotation.from_euler("xyz", self.tilt, degrees=True).as_matrix()
        matrix = rotation @ np.array([DIRECTIONS[a] for a in self.axes], float).T * np.array(self.spacing)
        affine = np.eye(4)
        affine[:3, :3] = matrix
        affine[:3, 3] = np.round(centre - matrix @ ((np.array(self.shape) - 1) / 2), 3)
        return affine

    def coarser(self, resolution: float) -> Grid:
        """The same grid with no spacing finer than `resolution` mm."""
        return replace(self, spacing=tuple(max(s, resolution) for s in self.spacing))

    def describe(self) -> str:
        text = " × ".join(f"{s:g}" for s in self.spacing) + f" mm, {self.axes}"
        return text + (", oblique" if any(self.tilt) else "")


@dataclass(frozen=True)
class Case:
    """kind: "normal" or a key of lesions.LESIONS.  suffix: ".nii.gz", ".nrrd", or "" for a DICOM folder.
    white: stored value of white matter; dtype: the unsigned or signed integers of the file."""

    id: str
    kind: str
    grid: Grid
    suffix: str
    dtype: str
    white: float
    description: str


TILT = (-16.0, 6.0, 4.0)

CASES = (
    Case("normal-1", "normal", Grid("RAS", (1, 1, 1)), ".nii.gz", "int16", 620, "Isotropic voxels"),
    Case("normal-2", "normal", Grid("LAS", (1, 1, 1.5)), ".nii.gz", "uint16", 340, "Stored in radiological order"),
    Case("normal-3", "normal", Grid("LPS", (1.2, 1.2, 1.2)), ".nrrd", "int16", 900, "Isotropic voxels"),
    Case("normal-4", "normal", Grid("PIR", (1, 1, 1.2)), ".nii.gz", "int16", 480, "Acquired in sagittal slices"),
    Case("normal-5", "normal", Grid("LAS", (1, 1, 5)), ".nii.gz", "uint16", 410, "Thick axial slices"),
    Case("normal-6", "normal", Grid("RAS", (1.1, 1.1, 1.5), TILT), ".nii.gz", "uint8", 168, "Head and slices tilted"),
    Case("bright-mass", "bright mass", Grid("RAS", (1, 1, 1)), ".nii.gz", "int16", 560,
         "Like a haematoma some weeks old: bright, dark rim, mass effect; right frontal"),
    Case("dark-mass", "dark mass", Grid("LAS", (1, 1, 5)), ".nii.gz", "uint16", 380,
         "Like a glioma: dark core, bright rim, oedema, mass effect; left parietal"),
    Case("small-lesions", "small lesions", Grid("LPS", (1, 1, 1.5)), ".nrrd", "int16", 700,
         "Like multiple sclerosis: thirteen dark spots of 6 to 12 mm in white matter"),
    Case("dysplasia", "texture", Grid("RAS", (1, 1, 2), TILT), ".nii.gz", "uint16", 450,
         "Like focal cortical dysplasia: thick cortex, blurred grey-white border; right central"),
    Case("large-ventricle", "large ventricle", Grid("LPS", (1, 1, 3)), "", "uint16", 520,
         "Left lateral ventricle enlarged, a deformation only"),
)  # fmt: skip
