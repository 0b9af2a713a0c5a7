"""Results as files: maps, scores, summaries, pictures."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from medclipad import files
from medclipad.detection.result import AnomalyResult
from medclipad.errors import MedCLIPADError
from medclipad.volume import Volume, write_volume


def write_result(
    folder: Path, volume: Volume, result: AnomalyResult, png: bool = False, segmentation: bool = False
) -> list[Path]:
    """Write <name>_anomaly.nii.gz, <name>_scores.csv and <name>.json, and on demand the mask and a picture.

    Returns the paths. Raises VolumeError or MedCLIPADError if the folder cannot be written.
    """
    name = volume.name
    paths = [folder / f"{name}_anomaly.nii.gz", folder / f"{name}_scores.csv", folder / f"{name}.json"]
    _make(folder)
    write_volume(result.anomaly_map, paths[0])
    write_text(paths[1], _scores_csv(result))
    write_json(paths[2], result.summary())
    if segmentation:
        paths.append(folder / f"{name}_segmentation.nii.gz")
        write_volume(result.segmentation(), paths[-1])
    if png:
        from medclipad.evaluation.report import save_png

        paths.append(folder / f"{name}_anomaly.png")
        try:
            save_png(paths[-1], volume, result)
        except OSError as error:
            raise _unwritable(paths[-1], error) from error
    return paths


def write_json(path: Path, content: object) -> None:
    """Write JSON atomically; pydantic models and dataclasses by their fields."""
    from pydantic_core import to_json

    write_text(path, to_json(content, indent=1, inf_nan_mode="null").decode() + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically. Raises MedCLIPADError if it cannot be written."""
    _make(path.parent)
    try:
        files.write_text(path, text)
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> MedCLIPADError:
    return MedCLIPADError(f"{path} cannot be written ({error.strerror}): free space, or choose another folder.")


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MedCLIPADError(f"{folder} cannot be made ({error.strerror}): choose another folder.") from error


def _scores_csv(result: AnomalyResult) -> str:
    """One line a slice: its number, array index, place in RAS mm, score (empty where skipped)."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["slice", "index", "R_mm", "A_mm", "S_mm", "score"])
    for n, score in enumerate(result.summary()["slice_scores"]):
        place = (f"{value:.3f}" for value in result.slicing.position(n))
        rows.writerow([n, result.slicing.index(n), *place, "" if score is None else f"{score:.6f}"])
    return text.getvalue()
