"""The BMAD benchmark as MVFA's reference code lays it out: {Class}_AD/{valid,test}/{good,Ungood}/img and seed files."""

from __future__ import annotations

from pathlib import Path

from medclipad.errors import VolumeError
from medclipad.methods.common.labelled_images import LabelledImage, few, require_both
from medclipad.methods.mvfa.prompts import CLASS_NAMES

CLASSES = tuple(CLASS_NAMES)
MASKED = ("Brain", "Liver", "Retina_RESC")
"""Classes with lesion masks: pixel figures, and the image score is the map's maximum."""

_KINDS = ("good", "Ungood")


def check_class(class_name: str) -> None:
    """Raises VolumeError for a class that BMAD has not."""
    if class_name not in CLASSES:
        raise VolumeError(f'BMAD has no class "{class_name}": choose one of {", ".join(CLASSES)}.')


def test_pictures(data: Path, class_name: str, limit: int | None = None) -> list[LabelledImage]:
    """The test set of a class: good, then Ungood, each sorted by name; at most `limit` of each.

    Raises VolumeError for an unknown class, a missing folder or mask, and a set without both kinds.
    """
    check_class(class_name)
    folder = data / f"{class_name}_AD" / "test"
    pictures = [
        LabelledImage(path, label, _mask(path) if label and class_name in MASKED else None)
        for label, kind in enumerate(_KINDS)
        for path in _files(folder / kind / "img")
    ]
    require_both(pictures, folder)
    return few(pictures, limit)


def shots(data: Path, seeds: Path, class_name: str, k: int, iterate: int = 0) -> list[LabelledImage]:
    """The k normal and then the k abnormal shots that the seed file names, in its order.

    seeds: folder of {Class}/{k}-shot.txt, with lines "n-0: NAME …" and "a-0: NAME …" in either order; `iterate` is the
    number after the dash. Raises VolumeError if the file, a line of it, or a named picture is missing.
    """
    check_class(class_name)
    file = seeds / class_name / f"{k}-shot.txt"
    try:
        lines = [line.split() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        there = ", ".join(sorted(one.name for one in file.parent.glob("*-shot.txt"))) or "none"
        raise VolumeError(
            f"There is no readable seed file {file} (there: {there}): copy the reference project's fewshot_seed "
            "folder, or choose a number of shots that it has."
        ) from error
    named = {line[0]: line[1:] for line in lines}
    if len(named) < len(lines):
        raise VolumeError(f"{file} has two lines that begin alike: restore the file.")
    pictures = []
    for label, (kind, letter) in enumerate(zip(_KINDS, "na", strict=True)):
        names = named.get(f"{letter}-{iterate}:", [])
        if len(names) != k:
            raise VolumeError(
                f'{file} names {len(names)} pictures after "{letter}-{iterate}:" instead of {k}: restore the file.'
            )
        folder = data / f"{class_name}_AD" / "valid" / kind / "img"
        there = {path.name: path for path in _files(folder)}
        for name in names:
            if name not in there:
                raise VolumeError(f"{file} names {name}, which is not in {folder}: fetch the data set again.")
            pictures.append(
                LabelledImage(there[name], label, _mask(there[name]) if label and class_name in MASKED else None)
            )
    return pictures


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise VolumeError(
            f"{folder} is missing: --data must be the folder that holds BMAD's Brain_AD and its like, each with "
            "valid and test, good and Ungood, img and anomaly_mask."
        )
    paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    for path in paths:
        if not path.is_file():
            raise VolumeError(f"{path} is no file, and {folder} may hold pictures only: take it out.")
    return paths


def _mask(path: Path) -> Path:
    mask = path.parent.parent / "anomaly_mask" / path.name
    if not mask.is_file():
        raise VolumeError(f"{path} has no mask {mask}: fetch the data set again.")
    return mask
