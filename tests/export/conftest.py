"""Series of each type, read once, with all their DICOM results."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from dicom_cases import make_result, make_series

from medclipad.detection.result import AnomalyResult
from medclipad.export.dicom import write_dicom
from medclipad.volume import Volume, read_volume


@dataclass(frozen=True)
class Written:
    """A series, and the DICOM results written for it."""

    series: Path
    volume: Volume
    result: AnomalyResult
    files: dict[str, Path]  # by the part of the file name after the case's name


LATER = [pytest.param(series_type, marks=pytest.mark.long) for series_type in ("sagittal", "compressed")]


@pytest.fixture(scope="session", params=["axial", "oblique", "enhanced", *LATER])
def written(request, tmp_path_factory) -> Written:
    """Write all results of a series of one type."""
    series = make_series(tmp_path_factory.mktemp("dicom"), request.param)
    volume = read_volume(series)
    result = make_result(volume, "coronal" if request.param == "axial" else "acquisition")
    out = series.parent / "out"
    out.mkdir()
    files = write_dicom(out, series, volume, result)
    return Written(series, volume, result, {file.stem.split("_", 1)[1]: file for file in files})


@pytest.fixture(scope="session")
def dciodvfy() -> str:
    """Return the path of dciodvfy, or skip the test."""
    found = shutil.which("dciodvfy")
    if found is None:
        pytest.skip("dciodvfy is not installed (Debian package dicom3tools)")
    return found
