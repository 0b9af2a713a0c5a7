"""Each kind of series, read once, with all its DICOM results."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from dicom_cases import make, result_of

from medclipad.detection.result import AnomalyResult
from medclipad.export.dicom import write_dicom
from medclipad.volume import Volume, read_volume


@dataclass(frozen=True)
class Written:
    series: Path
    volume: Volume
    result: AnomalyResult
    files: dict[str, Path]  # by what follows the case's name


LATER = [pytest.param(kind, marks=pytest.mark.long) for kind in ("sagittal", "compressed")]


@pytest.fixture(scope="session", params=["axial", "oblique", "enhanced", *LATER])
def written(request, tmp_path_factory) -> Written:
    series = make(tmp_path_factory.mktemp("dicom"), request.param)
    volume = read_volume(series)
    result = result_of(volume, "coronal" if request.param == "axial" else "acquisition")
    out = series.parent / "out"
    out.mkdir()
    files = write_dicom(out, series, volume, result)
    return Written(series, volume, result, {file.stem.split("_", 1)[1]: file for file in files})


@pytest.fixture(scope="session")
def dciodvfy() -> str:
    found = shutil.which("dciodvfy")
    if found is None:
        pytest.skip("dciodvfy is not installed (Debian package dicom3tools)")
    return found
