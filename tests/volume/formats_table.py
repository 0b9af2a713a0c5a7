"""Write docs/reference/formats.md from the cases of the tests: `python -m tests.volume.formats_table`."""

from __future__ import annotations

from pathlib import Path

from tests.volume import (
    format_cases_dicom,
    format_cases_files,
    format_cases_itk,
    format_cases_odd_dicom,
    format_cases_pictures,
)

SECTIONS = {
    "NIfTI and Analyze": format_cases_files.NIFTI,
    "NRRD and MetaImage": format_cases_itk.NRRD_AND_META,
    "DICOM: which images are the volume": format_cases_dicom.SERIES,
    "DICOM: pixels": format_cases_dicom.PIXELS,
    "DICOM: odd and damaged": format_cases_odd_dicom.ODD,
    "DICOM: real files": format_cases_dicom.REAL,
    "Pictures": format_cases_pictures.PICTURES,
    "Voxels": format_cases_pictures.VOXELS,
    "Other files": format_cases_files.OTHER,
}
TEXT = """# File formats

How each kind of file is read. `python -m tests.volume.formats_table` writes this page from the cases that
`tests/volume/test_volume_formats.py` runs: each file, made or real, must be read or refused as the table says. The
programs in the last column put the voxels of a file at the same positions: 1,000 random voxels agree with theirs to
0.001 mm, and in value. A refusal is one sentence with file, fault and remedy; a note is printed on the terminal and
kept in `volume.notes`. A map that is written as `.nii`, `.nii.gz`, `.nrrd` or `.mha` on any of these grids has its
hottest voxel at the same position in nibabel, SimpleITK and 3D Slicer, except on NIfTI files that ITK, as their row
says, places differently. [Fuzzing](../explanation/fuzz.md) reports on mutants of such files,
[memory](../explanation/memory.md) on the memory that they need.
"""


def table() -> str:
    """Return the whole document."""
    parts = [TEXT]
    for section, cases in SECTIONS.items():
        rows = [f"| {case.name} | {case.happens} | {', '.join(case.readers)} |" for case in cases]
        head = (f"\n## {section}\n", "| file | what happens | agrees with |", "|---|---|---|")
        parts.append("\n".join((*head, *rows, "")))
    return "".join(parts)


if __name__ == "__main__":
    Path("docs/reference/formats.md").write_text(table(), encoding="utf-8")
