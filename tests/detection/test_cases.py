"""Volumes that are given as files, folders, globs, pairs or CSV."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medclipad.detection.cases import Reading, list_cases, read_cases
from medclipad.errors import VolumeError
from medclipad.volume import Volume, write_volume
from tests.volume.volume_cases import series


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    for number, name in enumerate(("a", "b", "c")):
        write_volume(Volume(np.full((4, 5, 6), number, np.float32), np.eye(4)), folder / f"{name}.nii.gz")
    write_volume(Volume(np.ones((4, 5, 6), np.uint8), np.eye(4)), folder / "mask.nrrd")
    (folder / "notes.txt").write_text("not a volume")
    return folder


def names(sources) -> list[tuple[str, str | None]]:
    return [(Path(image).name, mask and Path(mask).name) for image, mask in list_cases(sources)]


def test_files_folders_and_globs(study):
    assert names(str(study / "a.nii.gz")) == [("a.nii.gz", None)]
    assert names(study / "a.nii.gz") == [("a.nii.gz", None)]
    assert names(str(study / "*.nii.gz")) == [(f"{name}.nii.gz", None) for name in "abc"]
    assert names(str(study)) == [("a.nii.gz", None), ("b.nii.gz", None), ("c.nii.gz", None), ("mask.nrrd", None)]
    assert names([str(study / "[ab].nii.gz"), study / "c.nii.gz"]) == [(f"{name}.nii.gz", None) for name in "abc"]


def test_masks(study):
    image, mask = study / "a.nii.gz", study / "mask.nrrd"
    assert names([f"{image}:{mask}", (image, mask), (image, None)]) == [("a.nii.gz", "mask.nrrd")] * 2 + [
        ("a.nii.gz", None)
    ]
    ((volume, outline),) = read_cases([f"{image}:{mask}"], need_mask=True)
    assert volume.name == "a" and outline is not None and outline.array.all()
    with pytest.raises(VolumeError, match="lacks its mask"):
        read_cases([image], need_mask=True)


def test_volumes_stay_what_they_are():
    volumes = [Volume(np.zeros((2, 2, 2), np.float32), np.eye(4), name=name) for name in "ab"]
    assert [case[0] for case in read_cases(volumes)] == volumes
    assert [case[0] for case in read_cases(tuple(volumes))] == volumes, "a tuple of volumes is no pair"
    assert read_cases(volumes[0]) == [(volumes[0], None)]
    assert read_cases(()) == []


def test_csv(study):
    (study / "cases.csv").write_text("\ufeffimage,mask,age\na.nii.gz,mask.nrrd,3\nb.nii.gz,,4\n", encoding="utf-8")
    assert names(study / "cases.csv") == [("a.nii.gz", "mask.nrrd"), ("b.nii.gz", None)]
    assert read_cases(str(study / "cases.csv"))[1][0].array.max() == 1, "paths are relative to the CSV file"


@pytest.mark.parametrize(("text", "words"), [
    ("", "first line"), ("file,mask\na,b\n", 'the column "image"'),
    ("image,mask\n,b\n", "line 2: the image is missing"),
    ("\udcff", "cannot be read as CSV"),
])  # fmt: skip
def test_a_csv_file_that_cannot_be_used(tmp_path, text, words):
    (tmp_path / "cases.csv").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(VolumeError, match=words):
        list_cases(tmp_path / "cases.csv")


def test_a_glob_that_matches_nothing(study):
    with pytest.raises(VolumeError, match=r"\*.mha matches no file: check the folder and the pattern"):
        list_cases(str(study / "*.mha"))


def test_a_series_by_its_number(tmp_path):
    for value, heights in ((1, (0, 2, 4)), (2, (0, 3, 6, 9))):
        series(tmp_path / "dicom" / str(value), heights, SeriesInstanceUID=f"1.2.3.{value}")
    with pytest.raises(VolumeError, match="has no series 3: `medclipad series` lists 1 to 2"):
        Reading(series="3").read(tmp_path / "dicom")
    assert Reading(series="2").read(tmp_path / "dicom").shape[2] == 4
    assert Reading(series="1.2.3.1").read(tmp_path / "dicom").shape[2] == 3
