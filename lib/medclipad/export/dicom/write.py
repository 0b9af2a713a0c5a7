"""Write results as DICOM files."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from pydicom.dataset import Dataset

from medclipad.detection.result import AnomalyResult
from medclipad.errors import VolumeError
from medclipad.export.dicom.key_slices import key_slice_images
from medclipad.export.dicom.parametric_map import parametric_map
from medclipad.export.dicom.report import score_report
from medclipad.export.dicom.segmentation import segmentation
from medclipad.export.dicom.source import DicomSource, read_source
from medclipad.files import atomic_file
from medclipad.volume import Volume
from medclipad.volume.read_errors import reason

KINDS = ("segmentation", "map", "report", "key-slices")


def dicom_objects(source: DicomSource, volume: Volume, result: AnomalyResult, kind: str) -> list[Dataset]:
    """Return a result as DICOM objects of one kind.

    Parameters
    ----------
    source
        Source of the volume.
    volume
        Volume that was analysed.
    result
        What the detector found.
    kind
        One of KINDS. Key slices are several objects, the others one.

    Raises
    ------
    VolumeError
        If the kind is unknown, or the result cannot be written without identifying the patient.
    """
    if kind == "key-slices":
        return key_slice_images(source, volume, result)
    if kind == "map":
        return [parametric_map(source, result)]
    if kind == "report":
        return [score_report(source, result)]
    if kind == "segmentation":
        description = f"Anomalies, {result.plane}, above {result.threshold:g}, peak above {result.region_limit():.3f}"
        return [segmentation(source, result.segmentation(), result.detector, description)]
    raise VolumeError(f"{kind!r} is not a kind of DICOM result: choose one of {', '.join(KINDS)}.")


def write_dicom(
    folder: Path,
    path: str | Path | Sequence[str | Path],
    volume: Volume,
    result: AnomalyResult,
    kinds: Collection[str] = KINDS,
    deidentify: bool = False,
) -> list[Path]:
    """Write <name>_segmentation.dcm, _map.dcm, _report.dcm and _key-slices_1.dcm, ... into a folder.

    Parameters
    ----------
    folder
        Folder to write to; it must exist.
    path
        What `volume` was read from.
    volume
        Volume that was analysed; its name is the name of the files.
    result
        What the detector found.
    kinds
        Which of KINDS to write; all by default.
    deidentify
        Keep nothing of the source's headers but geometry, modality and new UIDs. The files are still named after the
        volume.

    Returns
    -------
    list of pathlib.Path
        The files written.

    Raises
    ------
    VolumeError
        If the volume does not come from DICOM, or a file cannot be written.
    """
    source = read_source(path, volume, deidentify)
    files = []
    for kind in kinds:
        objects = dicom_objects(source, volume, result, kind)
        for number, dataset in enumerate(objects, 1):
            suffix = f"_{number}" if kind == "key-slices" else ""
            files.append(folder / f"{volume.name}_{kind}{suffix}.dcm")
            _save(dataset, files[-1])
    return files


def _save(dataset: Dataset, path: Path) -> None:
    try:
        with atomic_file(path) as temp_path:
            dataset.save_as(temp_path, enforce_file_format=True)
    except OSError as error:
        raise VolumeError(f"{path} cannot be written ({reason(error)}): check space and permissions.") from error
