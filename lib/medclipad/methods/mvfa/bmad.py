"""The BMAD benchmark as MVFA's reference code lays it out: {Class}_AD/{valid,test}/{good,Ungood}/img and seed files."""

from __future__ import annotations

from pathlib import Path

from medclipad.errors import VolumeError
from medclipad.methods.common.labelled_images import LabelledImage, first_of_each_label, require_both_labels
from medclipad.methods.mvfa.prompts import CLASS_NAMES

CLASSES = tuple(CLASS_NAMES)
MASKED = ("Brain", "Liver", "Retina_RESC")
"""Classes with lesion masks: they have pixel figures, and the image score is the map's maximum."""

_FOLDERS = ("good", "Ungood")  # of normal and of abnormal pictures


def check_class(class_name: str) -> None:
    """Raise VolumeError unless BMAD has the class."""
    if class_name not in CLASSES:
        raise VolumeError(f'BMAD has no class "{class_name}": choose one of {", ".join(CLASSES)}.')


def test_pictures(data: Path, class_name: str, limit: int | None = None) -> list[LabelledImage]:
    """Return the test set of a class: normal pictures, then abnormal ones, each sorted by name.

    Parameters
    ----------
    data
        Folder that holds Brain_AD and the other classes.
    class_name
        One of `CLASSES`.
    limit
        Pictures of each kind, at most; None for all.

    Raises
    ------
    VolumeError
        If the class is unknown, a folder or mask is missing, or the set lacks normal or abnormal pictures.
    """
    check_class(class_name)
    folder = data / f"{class_name}_AD" / "test"
    pictures = [
        _picture(path, label, class_name)
        for label, name in enumerate(_FOLDERS)
        for path in _files(folder / name / "img")
    ]
    require_both_labels(pictures, folder)
    return first_of_each_label(pictures, limit)


def shots(data: Path, seeds: Path, class_name: str, k: int, iterate: int = 0) -> list[LabelledImage]:
    """Return the k normal and then the k abnormal shots that a seed file names, in its order.

    Parameters
    ----------
    data
        Folder that holds Brain_AD and the other classes.
    seeds
        Folder of the seed files {Class}/{k}-shot.txt, with lines "n-0: NAME …" and "a-0: NAME …" in either order.
    class_name
        One of `CLASSES`.
    k
        Pictures of each kind.
    iterate
        Which draw to use: the number after the dash.

    Raises
    ------
    VolumeError
        If the seed file, one of its lines, or a picture that it names is missing.
    """
    check_class(class_name)
    file = seed_file(seeds, class_name, k)
    names = _names(file, k, iterate)
    pictures = []
    for label, name in enumerate(_FOLDERS):
        folder = data / f"{class_name}_AD" / "valid" / name / "img"
        available = {path.name: path for path in _files(folder)}
        for picture in names[label]:
            if picture not in available:
                raise VolumeError(f"{file} names {picture}, which is not in {folder}: fetch the data set again.")
            pictures.append(_picture(available[picture], label, class_name))
    return pictures


def seed_file(seeds: Path, class_name: str, k: int) -> Path:
    """Return the file that names the k shots of a class."""
    return seeds / class_name / f"{k}-shot.txt"


def _names(file: Path, k: int, iterate: int) -> list[list[str]]:
    """Return the names of the normal and of the abnormal pictures in a seed file."""
    try:
        lines = [line.split() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        existing = ", ".join(sorted(path.name for path in file.parent.glob("*-shot.txt"))) or "none"
        raise VolumeError(
            f"There is no readable seed file {file} (there: {existing}): copy the reference project's fewshot_seed "
            "folder, or choose a number of shots that it has."
        ) from error
    named = {line[0]: line[1:] for line in lines}
    if len(named) < len(lines):
        raise VolumeError(f"{file} has two lines that begin alike: restore the file.")
    found = [named.get(f"{letter}-{iterate}:", []) for letter in "na"]
    for letter, names in zip("na", found, strict=True):
        if len(names) != k:
            raise VolumeError(
                f'{file} names {len(names)} pictures after "{letter}-{iterate}:" instead of {k}: restore the file.'
            )
    return found


def _files(folder: Path) -> list[Path]:
    """Return the files of a folder of pictures, sorted by name; raise VolumeError if it holds anything else."""
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


def _picture(path: Path, label: int, class_name: str) -> LabelledImage:
    """Return a picture with its mask, if it is abnormal and the class has masks; raise VolumeError without the mask."""
    if not label or class_name not in MASKED:
        return LabelledImage(path, label)
    mask = path.parent.parent / "anomaly_mask" / path.name
    if not mask.is_file():
        raise VolumeError(f"{path} has no mask {mask}: fetch the data set again.")
    return LabelledImage(path, label, mask)
