"""Make the Slicer module's sample volume from a sample study: `python -m sample_data.make_slicer_sample STUDY`."""

from __future__ import annotations

import argparse
import gzip
import hashlib
from pathlib import Path

import nibabel
import numpy as np

CASE = "dark-mass"
TARGET = Path(__file__).parents[1] / "MedCLIPAD" / "Resources" / "SampleData" / "MedCLIPAD-sample.nii.gz"


def make(study: Path, target: Path = TARGET) -> None:
    """Write the case as uint8 (highest value 255), the same bytes each time, and a file with its SHA-256."""
    case = nibabel.Nifti1Image.from_filename(study / "images" / f"{CASE}.nii.gz")
    array = np.asarray(case.dataobj, dtype=np.float64)
    image = nibabel.Nifti1Image(np.round(array * (255 / array.max())).astype(np.uint8), case.affine)
    image.header.set_xyzt_units("mm")
    target.write_bytes(gzip.compress(image.to_bytes(), 9, mtime=0))
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    target.with_name(f"{target.name}.sha256").write_text(f"{digest}  {target.name}\n", encoding="ascii")


def main() -> None:
    """Make the sample volume from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m sample_data.make_slicer_sample",
        description="Make the Slicer module's sample volume from a sample study.",
    )
    parser.add_argument("study", type=Path, help="folder of a finished sample study")
    make(parser.parse_args().study)


if __name__ == "__main__":
    main()
