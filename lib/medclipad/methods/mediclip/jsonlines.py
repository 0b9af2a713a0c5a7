"""Data sets as MediCLIP's reference code has them: samples/{train,test}.json, one JSON object a line, and images."""

from __future__ import annotations

import json
from pathlib import Path

from medclipad.errors import VolumeError
from medclipad.methods.common.labelled_images import LabelledImage, few, require_both


def dataset_folder(data: Path, name: str) -> Path:
    """The folder of a data set: DATA/NAME, or DATA itself if it is of that name or its lines have that clsname.

    Raises VolumeError if there is none.
    """
    for folder in (data / name, data):
        if (folder / "samples").is_dir():
            known = [line.get("clsname") for line in _lines(folder, "test")]
            if folder.name == name or name in known:
                return folder
    there = ", ".join(sorted(path.parent.name for path in data.glob("*/samples"))) or "none"
    raise VolumeError(
        f'There is no data set "{name}" in {data} (there: {there}): it must hold {name}/samples/train.json, '
        f"{name}/samples/test.json and {name}/images."
    )


def train_pictures(folder: Path) -> list[LabelledImage]:
    """The normal training pictures in the file's order; raises VolumeError if one is missing or there is none."""
    pictures = [one for one in _pictures(folder, "train") if not one.label]
    if not pictures:
        raise VolumeError(f"{folder}/samples/train.json names no normal picture: MediCLIP learns from these.")
    return pictures


def test_pictures(folder: Path, limit: int | None = None) -> list[LabelledImage]:
    """The test pictures in the file's order, at most `limit` of each kind; raises VolumeError without both kinds."""
    pictures = _pictures(folder, "test")
    require_both(pictures, folder)
    return few(pictures, limit)


def _pictures(folder: Path, part: str) -> list[LabelledImage]:
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
    try:
        return path.is_file()
    except OSError:  # a name that no file can have
        return False


def _lines(folder: Path, part: str) -> list[dict]:
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
