"""Cases of the sample study: what each shows, on which grid and in which format."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation

FIELD_OF_VIEW = {"R": 172.0, "L": 172.0, "A": 212.0, "P": 212.0, "S": 182.0, "I": 182.0}  # mm
DIRECTIONS = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}


@dataclass(frozen=True)
class Grid:
    """Voxel grid of a case.

    Attributes
    ----------
    axes : str
        Direction of each array axis, such as "LPS".
    spacing : tuple of float
        Millimetres along each axis.
    tilt : tuple of float
        Degrees by which the grid is turned about x, y and z.
    """

    axes: str
    spacing: tuple[float, float, float]
    tilt: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along each axis, enough for the whole brain."""
        i, j, k = (int(np.ceil(FIELD_OF_VIEW[a] / s)) for a, s in zip(self.axes, self.spacing, strict=True))
        return i, j, k

    def affine(self, centre: np.ndarray) -> np.ndarray:
        """Return the matrix (4, 4) from voxel index to RAS+ mm.

        The middle of the grid is at `centre` (3,) in mm; the origin is rounded to micrometres.
        """
        rotation = Rotation.from_euler("xyz", self.tilt, degrees=True).as_matrix()
        matrix = rotation @ np.array([DIRECTIONS[a] for a in self.axes], float).T * np.array(self.spacing)
        affine = np.eye(4)
        affine[:3, :3] = matrix
        affine[:3, 3] = np.round(centre - matrix @ ((np.array(self.shape) - 1) / 2), 3)
        return affine

    def coarser(self, resolution: float) -> Grid:
        """Return the same grid with no spacing finer than `resolution` mm."""
        i, j, k = (max(spacing, resolution) for spacing in self.spacing)
        return replace(self, spacing=(i, j, k))

    def describe(self) -> str:
        """Return spacing and orientation in words."""
        text = " × ".join(f"{s:g}" for s in self.spacing) + f" mm, {self.axes}"
        return text + (", oblique" if any(self.tilt) else "")


@dataclass(frozen=True)
class Case:
    """Case of the study.

    Attributes
    ----------
    id : str
        Name of its files.
    kind : str
        "normal" or a key of `sample_data.lesions.LESIONS`.
    grid : Grid
        Grid that it is stored on.
    suffix : str
        ".nii.gz", ".nrrd", or "" for a DICOM folder.
    dtype : str
        Integer type of the stored values.
    white : float
        Stored value of white matter.
    description : str
        What it shows, for the report.
    """

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
