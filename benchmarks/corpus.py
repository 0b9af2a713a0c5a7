"""Read every file and series below a folder, and compare voxels with other readers where they can read them.

    python -m benchmarks.corpus DIR

nibabel and ITK read NIfTI, ITK NRRD and MetaImage, GDCM each slice of a DICOM series, and dcm2niix, if it is installed,
whole series. A volume agrees with a reader if 1,000 random voxels lie within 0.01 mm of a voxel of the reader's, with
its value. The exit code is 1 if a volume differs that was read without a note.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import nibabel as nib
import numpy as np
import pydicom
import SimpleITK
import typer

from benchmarks.pages import markdown_table
from medclipad.errors import VolumeError
from medclipad.volume import SeriesInfo, Volume, list_untrusted_series, read_untrusted
from medclipad.volume.dicom.files import is_dicom
from medclipad.volume.read import SUFFIXES

VOXELS, MILLIMETRES = 1000, 1e-2
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
Grid = tuple[np.ndarray, np.ndarray]
"""(I, J, K) voxels and their (4, 4) affine to RAS mm."""


@dataclass(frozen=True)
class Row:
    """What happened to one file, or to one volume of a series.

    Attributes
    ----------
    name
        File or folder, and which volume of it.
    outcome
        "read", "read with a note" or "refused".
    text
        The notes, or the sentence.
    others
        "agrees", "DIFFERS" or "cannot read it" by reader.
    """

    name: str
    outcome: str
    text: str
    others: dict[str, str]


def rows_of(folder: Path) -> Iterator[Row]:
    """Yield what happens to each file and each volume of each series below a folder."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    for file in files:
        if file.name.lower().endswith(SUFFIXES):
            yield _row(str(file.relative_to(folder)), file, {}, file)
    for home in sorted({file.parent for file in files if not file.name.lower().endswith(SUFFIXES) and is_dicom(file)}):
        own = [file for file in sorted(home.iterdir()) if file.is_file() and is_dicom(file)]
        yield from _series_rows(folder, home, own)


def _series_rows(folder: Path, home: Path, files: list[Path]) -> Iterator[Row]:
    """Yield the rows of the DICOM files directly in a folder."""
    name = str(home.relative_to(folder)) or "."
    try:
        listed = list_untrusted_series(files)
    except VolumeError:  # one file may be damaged, or none be an image: each alone
        for file in files:
            try:
                for series in list_untrusted_series([file]):
                    yield from _volume_rows(f"{name}/{file.name}", [file], series)
            except VolumeError as error:
                yield Row(f"{name}/{file.name}", "refused", str(error), {})
        return
    for series in listed:
        yield from _volume_rows(f"{name} {series.description}".strip(), files, series)


def _volume_rows(name: str, files: list[Path], series: SeriesInfo) -> Iterator[Row]:
    for number in range(max(1, len(series.volumes))):
        label = series.volumes[number].label if series.volumes else ""
        options = {"series": series.uid, "component": number if series.volumes else None}
        yield _row(f"{name} {label}".strip(), files, options, None)


def _row(name: str, source: Path | list[Path], options: dict, file: Path | None) -> Row:
    """Read a volume and compare it with the readers of its format."""
    try:
        volume = read_untrusted(source, **options)
    except VolumeError as error:
        return Row(name, "refused", str(error), {})
    others = _of_file(volume, file) if file is not None else _of_series(volume, source)  # type: ignore[arg-type]
    return Row(name, "read with a note" if volume.notes else "read", "; ".join(volume.notes), others)


def _of_file(volume: Volume, file: Path) -> dict[str, str]:
    readers = {"ITK": _by_itk} | ({"nibabel": _by_nibabel} if ".nii" in file.name.lower() else {})
    found = {}
    for name, read in readers.items():
        try:
            found[name] = "agrees" if agrees(volume, read(file)) else "DIFFERS"
        except Exception:  # a reader that refuses the file, in whatever way
            found[name] = "cannot read it"
    return found


def _of_series(volume: Volume, files: list[Path]) -> dict[str, str]:
    """Compare with GDCM slice by slice, and with what dcm2niix makes of the files."""
    found = {"GDCM": _by_gdcm(volume, files)}
    if shutil.which("dcm2niix"):
        found["dcm2niix"] = _by_dcm2niix(volume, files)
    return found


def _by_nibabel(file: Path) -> Grid:
    image = nib.load(file)
    return np.asarray(image.dataobj), np.asarray(image.affine)  # type: ignore[attr-defined]


def _by_itk(file: Path) -> Grid:
    return _grid(SimpleITK.ReadImage(str(file)))


def _grid(image: SimpleITK.Image) -> Grid:
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return SimpleITK.GetArrayFromImage(image).T, LPS @ affine


def _by_gdcm(volume: Volume, files: list[Path]) -> str:
    """Compare each slice that is a file of its own with GDCM's pixels and place."""
    instances = volume.metadata["dicom"]["instances"]
    by_uid = {
        str(pydicom.dcmread(file, stop_before_pixels=True, force=True).get("SOPInstanceUID")): file for file in files
    }
    if not instances or len({uid for uid, _ in instances}) < len(instances) or not instances[0][0]:
        return "cannot read it"  # frames of one file, or slices on a new grid
    for k, (uid, _) in enumerate(instances):
        try:
            array, affine = _grid(SimpleITK.ReadImage(str(by_uid[uid]), imageIO="GDCMImageIO"))
        except RuntimeError:
            return "cannot read it"
        place = volume.affine @ [0, 0, k, 1]
        if array.shape != (*volume.shape[:2], 1) or np.linalg.norm(affine[:3, 3] - place[:3]) > MILLIMETRES:
            return "DIFFERS"
        if not np.allclose(array[..., 0], volume.array[..., k], rtol=1e-5, atol=1e-3):
            return "DIFFERS"
    return "agrees"


def _by_dcm2niix(volume: Volume, files: list[Path]) -> str:
    """Return whether one of the volumes that dcm2niix makes of the files is ours (with RescaleSlope, as on display)."""
    with tempfile.TemporaryDirectory() as folder:
        inside, made = Path(folder) / "in", Path(folder) / "out"
        for each in (inside, made):
            each.mkdir()
        for number, file in enumerate(files):
            shutil.copyfile(file, inside / f"{number:05}.dcm")
        subprocess.run(
            ["dcm2niix", "-b", "n", "-z", "n", "-p", "n", "-o", made, inside],
            capture_output=True,
            timeout=300,
            check=False,
        )
        grids = []
        for file in sorted(made.glob("*.nii")):
            array, affine = _by_nibabel(file)
            grids += [(each, affine) for each in np.moveaxis(array, 3, 0)] if array.ndim == 4 else [(array, affine)]
    if not grids:
        return "cannot read it"
    return "agrees" if any(agrees(volume, grid) for grid in grids) else "DIFFERS"


def agrees(volume: Volume, grid: Grid) -> bool:
    """Return whether random voxels of a volume lie on voxels of another grid with the same values."""
    array, affine = grid
    array = array.reshape(array.shape + (1,) * (3 - array.ndim)) if array.ndim < 3 else array
    if array.ndim > 3 or array.size != volume.array.size:
        return False
    index = np.random.default_rng(0).integers(0, volume.shape, (VOXELS, 3))
    places = volume.affine @ np.column_stack([index, np.ones(VOXELS)]).T
    there = np.linalg.solve(affine, places)[:3].T
    nearest = np.round(there).astype(int)
    if (np.linalg.norm((there - nearest) @ affine[:3, :3].T, axis=1) > MILLIMETRES).any():
        return False
    if not ((nearest >= 0) & (nearest < array.shape)).all():
        return False
    ours, theirs = volume.array[tuple(index.T)].astype(float), array[tuple(nearest.T)].astype(float)
    return np.allclose(ours, theirs, rtol=1e-4, atol=1e-3, equal_nan=True)


def summary(rows: list[Row]) -> str:
    """Return tables of outcomes, of agreement by reader, and of what was refused or differs."""
    outcomes = Counter(row.outcome for row in rows)
    readers = sorted({reader for row in rows for reader in row.others})
    said = ("agrees", "DIFFERS", "cannot read it")
    counts = {reader: Counter(row.others[reader] for row in rows if reader in row.others) for reader in readers}
    parts = [
        markdown_table(["volumes", *outcomes], [[str(len(rows)), *map(str, outcomes.values())]]),
        markdown_table(
            ["reader", *said], [[reader, *(str(counts[reader][each]) for each in said)] for reader in readers]
        ),
    ]
    told = [row for row in rows if row.text or "DIFFERS" in row.others.values()]
    cells = ((row.name, row.outcome, ", ".join(f"{k} {v}" for k, v in row.others.items()), row.text) for row in told)
    parts.append(markdown_table(["volume", "outcome", "other readers", "note or sentence"], cells))
    return "\n\n".join(parts)


def main(folder: Annotated[Path, typer.Argument(exists=True, file_okay=False)]) -> None:
    """Print the tables; exit with 1 if a volume that was read without a note is not what another reader reads."""
    warnings.simplefilter("ignore")
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    rows = list(rows_of(folder))
    typer.echo(summary(rows))
    raise typer.Exit(any("DIFFERS" in row.others.values() for row in rows if not row.text))


if __name__ == "__main__":
    typer.run(main)
