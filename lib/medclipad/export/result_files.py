"""Write results as files: maps, scores, summaries, pictures."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

from pydantic_core import to_json

from medclipad import files
from medclipad.detection.result import AnomalyResult
from medclipad.errors import MedCLIPADError
from medclipad.volume import Volume, write_volume


def write_result(
    folder: Path,
    volume: Volume,
    result: AnomalyResult,
    png: bool = False,
    segmentation: bool = False,
    false_per_scan: float | None = None,
) -> list[Path]:
    """Write <name>_anomaly.nii.gz, <name>_scores.csv and <name>.json, and on request a mask and a picture.

    Parameters
    ----------
    folder
        Folder to write to; it is made if it does not exist.
    volume
        Volume that was analysed; its name is the name of the files.
    result
        What the detector found.
    png
        Also write <name>_anomaly.png, the key slices with the map over them.
    segmentation
        Also write <name>_segmentation.nii.gz, the mask of the regions.
    false_per_scan
        Which regions are listed and drawn; see `AnomalyResult.regions`.

    Returns
    -------
    list of pathlib.Path
        The files written.

    Raises
    ------
    VolumeError, MedCLIPADError
        If a file cannot be written.
    """
    name = volume.name
    paths = [folder / f"{name}_anomaly.nii.gz", folder / f"{name}_scores.csv", folder / f"{name}.json"]
    _make_folder(folder)
    write_volume(result.anomaly_map, paths[0])
    write_text(paths[1], _scores_csv(result))
    chosen = {} if false_per_scan is None else result.chosen(false_per_scan)
    write_json(paths[2], {**result.summary(), **chosen})
    if segmentation:
        paths.append(folder / f"{name}_segmentation.nii.gz")
        write_volume(result.segmentation(false_per_scan=false_per_scan), paths[-1])
    if png:
        from medclipad.evaluation.drawing import save_png  # matplotlib takes a second to load, and most calls need none

        paths.append(folder / f"{name}_anomaly.png")
        try:
            save_png(paths[-1], volume, result)
        except OSError as error:
            raise _unwritable(paths[-1], error) from error
    return paths


def write_json(path: Path, content: object) -> None:
    """Write JSON in one step; nan and infinity become null.

    Parameters
    ----------
    path
        File to write; its folder is made if it does not exist.
    content
        What JSON can hold, pydantic models and dataclasses included.

    Raises
    ------
    MedCLIPADError
        If the file cannot be written.
    """
    write_text(path, to_json(content, indent=1, inf_nan_mode="null").decode() + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file in one step, making its folder; raise MedCLIPADError if it cannot be written."""
    _make_folder(path.parent)
    try:
        files.write_text(path, text)
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> MedCLIPADError:
    return MedCLIPADError(f"{path} cannot be written ({error.strerror}): free some space, or choose another folder.")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MedCLIPADError(f"{folder} cannot be made ({error.strerror}): choose another folder.") from error


def _scores_csv(result: AnomalyResult) -> str:
    """Return a line for each slice: number, array index, position in RAS mm, score (empty where skipped)."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["slice", "index", "R_mm", "A_mm", "S_mm", "score"])
    for n, score in enumerate(result.slice_scores.tolist()):
        position = (f"{value:.3f}" for value in result.slicing.position(n))
        rows.writerow([n, result.slicing.index(n), *position, "" if math.isnan(score) else f"{score:.6f}"])
    return text.getvalue()
