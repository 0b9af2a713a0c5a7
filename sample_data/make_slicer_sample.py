"""python -m sample_data.make_slicer_sample STUDY: the sample volume that the Slicer module ships, from a made study."""

from __future__ import annotations

import gzip
import hashlib
import sys
from pathlib import Path

import nibabel
import numpy as np

CASE = "dark-mass"
TARGET = Path(__file__).parents[1] / "MedCLIPAD" / "Resources" / "SampleData" / "MedCLIPAD-sample.nii.gz"


def make(study: Path, target: Path = TARGET) -> None:
    """Write the case `dark-mass` as uint8 (highest value 255), byte for byte the same each time, and its SHA-256."""
    case = nibabel.load(study / "images" / f"{CASE}.nii.gz")
    array = np.asarray(case.dataobj, dtype=np.float64)
    image = nibabel.Nifti1Image(np.round(array * (255 / array.max())).astype(np.uint8), case.affine)
    image.header.set_xyzt_units("mm")
    target.write_bytes(gzip.compress(image.to_bytes(), 9, mtime=0))
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    target.with_name(f"{target.name}.sha256").write_text(f"{digest}  {target.name}\n", encoding="ascii")


if __name__ == "__main__":
    make(Path(sys.argv[1]))
