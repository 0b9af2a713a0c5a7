"""Data sets as MediCLIP's reference code has them: samples/{train,test}.json, one JSON object a line, and images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from medclipad.errors import VolumeError
from medclipad.methods.common.labelled_images import LabelledImage, first_of_each_label, require_both_labels


def dataset_folder(data: Path, name: str) -> Path:
    """Return the folder of a data set.

    Parameters
    ----------
    data
        Folder that holds the data set's folder; or the data set's folder itself, which is called `name` or whose lines
        have that "clsname".
    name
        Name of the data set.

    Raises
    ------
    VolumeError
        If there is none.
    """
    for folder in (data / name, data):
        if (folder / "samples").is_dir():
            known = [line.get("clsname") for line in _lines(folder, "test")]
            if folder.name == name or name in known:
                return folder
    existing = ", ".join(sorted(path.parent.name for path in data.glob("*/samples"))) or "none"
    raise VolumeError(
        f'There is no data set "{name}" in {data} (there: {existing}): it must hold {name}/samples/train.json, '
        f"{name}/samples/test.json and {name}/images."
    )


def train_pictures(folder: Path) -> list[LabelledImage]:
    """Return the normal training pictures of a data set, in the file's order.

    Raises
    ------
    VolumeError
        If a picture is missing, or there is none.
    """
    pictures = [picture for picture in _pictures(folder, "train") if not picture.label]
    if not pictures:
        raise VolumeError(f"{folder}/samples/train.json names no normal picture: MediCLIP learns from these.")
    return pictures


def test_pictures(folder: Path, limit: int | None = None) -> list[LabelledImage]:
    """Return the test pictures of a data set, in the file's order.

    Parameters
    ----------
    folder
        Folder of the data set.
    limit
        Pictures of each kind, at most; None for all.

    Raises
    ------
    VolumeError
        If a picture is missing, or the set lacks normal or abnormal pictures.
    """
    pictures = _pictures(folder, "test")
    require_both_labels(pictures, folder)
    return first_of_each_label(pictures, limit)


def _pictures(folder: Path, part: str) -> list[LabelledImage]:
    """Return the pictures of samples/{part}.json; raise VolumeError if a line is invalid or a file missing."""
    pictures = []
    for number, line in enumerate(_lines(folder, part), 1):
        where = f"Line {number} of {folder}/samples/{part}.json"
        filename, mask = line.get("filename"), line.get("mask") or ""
        named = isinstance(filename, str) and filename and isinstance(mask, str)
        if not named or line.get("label") not in (0, 1):
            raise VolumeError(f'{where} needs a "filename", a "label" of 0 or 1, and for a "mask" a file name or null.')
        files = [folder / "images" / name for name in (filename, mask) if name]
        for file in files:
            if not _is_file(file):
                raise VolumeError(f"{where} names {str(file)[:300]}, which is missing: fetch the data set again.")
        pictures.append(LabelledImage(files[0], int(line["label"]), *files[1:]))
    return pictures


def _is_file(path: Path) -> bool:
    """Return whether there is such a file; False for a name that no file can have."""
    try:
        return path.is_file()
    except OSError:
        return False


def _lines(folder: Path, part: str) -> list[dict[str, Any]]:
    """Return the JSON objects of samples/{part}.json; raise VolumeError if they cannot be read."""
    file = folder / "samples" / f"{part}.json"
    try:
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise VolumeError(f"{file} cannot be read ({error.strerror}): fetch the data set again.") from error
    except (ValueError, RecursionError) as error:
        raise VolumeError(f"{file} is not a list of JSON objects, one a line ({error}): fetch it again.") from error
    if not lines:
        raise VolumeError(f"{file} is empty: fetch the data set again.")
    if not all(isinstance(line, dict) for line in lines):
        raise VolumeError(f"{file} holds lines that are not JSON objects: fetch the data set again.")
    return lines
