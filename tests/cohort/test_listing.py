"""What a folder, a BIDS dataset and a table hold."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from medclipad.cohort.listing import list_scans
from medclipad.cohort.outputs import bids_prefix, write_dataset
from medclipad.detection.cases import AS_IS
from medclipad.errors import MedCLIPADError
from medclipad.volume import Volume, read_volume, write_volume
from sample_data.dicom import write_series


@pytest.fixture(scope="module")
def small() -> Volume:
    array = np.arange(6 * 7 * 4, dtype=np.uint16).reshape(6, 7, 4)
    return Volume(array, np.diag((2.0, 2.0, 3.0, 1.0)), name="small")


def test_a_folder_is_searched_with_those_below_it(small, tmp_path):
    for part in ("a/1.nii.gz", "a/b/2.nrrd", ".hidden/3.nii.gz", "results/4.nii.gz"):
        (tmp_path / part).parent.mkdir(parents=True, exist_ok=True)
        write_volume(small, tmp_path / part)
    (tmp_path / "a" / "notes.txt").write_text("not an image")
    (tmp_path / "c").mkdir()
    write_series(small, tmp_path / "c" / "series", "one", seed=0)
    scans = list_scans(str(tmp_path), without=tmp_path / "results")
    assert [scan.name for scan in scans] == ["a_1", "a_b_2", "c_series"]
    for scan in scans:
        volume = scan.read(AS_IS)
        assert volume.name == scan.name and volume.array.sum() == small.array.sum()


def test_each_series_of_a_folder_is_a_scan(small, tmp_path):
    for name in ("first", "second"):
        write_series(Volume(small.array, small.affine, name=name), tmp_path / name, name, seed=0)
    (tmp_path / "both").mkdir()
    for name in ("first", "second"):
        for file in (tmp_path / name).iterdir():
            shutil.copy(file, tmp_path / "both" / f"{name}-{file.name}")
    scans = list_scans(str(tmp_path / "both"))
    uids = {read_volume(tmp_path / name).metadata["dicom"]["SeriesInstanceUID"] for name in ("first", "second")}
    assert len(uids) == 2 and {scan.series for scan in scans} == uids
    assert all(scan.read(AS_IS).array.shape for scan in scans)


def test_a_bids_dataset_gives_one_kind_of_image_with_groups(small, tmp_path):
    (tmp_path / "dataset_description.json").write_text(json.dumps({"Name": "raw", "BIDSVersion": "1.10.0"}))
    for path in ("sub-01/anat/sub-01_T1w", "sub-01/anat/sub-01_FLAIR", "sub-02/ses-x/anat/sub-02_ses-x_T1w",
                 "derivatives/other/sub-01/anat/sub-01_T1w"):  # fmt: skip
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        write_volume(small, tmp_path / f"{path}.nii.gz")
    (tmp_path / "participants.tsv").write_text("participant_id\tgroup\nsub-01\tcontrol\nsub-02\tpatient\n")
    with pytest.raises(MedCLIPADError, match="FLAIR, T1w: choose one with --suffix"):
        list_scans(str(tmp_path))
    scans = list_scans(str(tmp_path), suffix="T1w")
    assert [(scan.name, scan.group) for scan in scans] == [
        ("sub-01_T1w", "control"),
        ("sub-02_ses-x_T1w", "patient"),
    ]
    assert [bids_prefix(scan) for scan in scans] == ["sub-01/anat/sub-01", "sub-02/ses-x/anat/sub-02_ses-x"]
    write_dataset(tmp_path / "out", scans, "small")
    described = json.loads((tmp_path / "out" / "dataset_description.json").read_text())
    assert described["DatasetLinks"] == {"raw": tmp_path.resolve().as_uri()}


@pytest.mark.parametrize(("suffix", "tab"), [(".csv", ","), (".tsv", "\t")])
def test_a_table_names_images_masks_and_groups(small, tmp_path, suffix, tab):
    write_volume(small, tmp_path / "x.nii.gz")
    lines = ["image,mask,group,name", "x.nii.gz,m.nii.gz,patient,one", "x.nii.gz,,,two/2"]
    table = tmp_path / f"cases{suffix}"
    table.write_text("\n".join(lines).replace(",", tab))
    first, second = list_scans(str(table))
    assert (first.name, first.group, first.mask) == ("one", "patient", str(tmp_path / "m.nii.gz"))
    assert (second.name, second.group, second.mask) == ("two_2", "", "")


def test_a_change_of_a_file_is_seen(small, tmp_path):
    write_volume(small, tmp_path / "x.nii.gz")
    (before,) = list_scans(str(tmp_path))
    write_volume(small.with_array(small.array + 1), tmp_path / "x.nii.gz")
    (after,) = list_scans(str(tmp_path))
    assert before.name == after.name and before.state != after.state


@pytest.mark.parametrize(
    ("files", "source", "sentence"),
    [
        ({}, "nowhere", "is no folder, CSV or TSV file"),
        ({"note.txt": "x"}, "", "holds no volume"),
        ({"a.csv": "image\na/x.nii\nb/x.nii"}, "a.csv", '2 scans are called "x"'),
        ({"a.csv": "picture\nx"}, "a.csv", 'column "image"'),
        ({}, "http://reader:secret@archive/dicom-web", "MEDCLIPAD_PACS_USER"),
    ],
)
def test_mistakes_are_refused_in_a_sentence(files, source, sentence, tmp_path):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    given = source if source.startswith("http") else str(tmp_path / source)
    with pytest.raises(MedCLIPADError, match=sentence) as caught:
        list_scans(given)
    assert str(caught.value).endswith(".") and "secret" not in str(caught.value)


def test_names_that_bids_cannot_tell_apart_are_refused(small, tmp_path):
    for name in ("a-1", "a1"):
        write_volume(small, tmp_path / f"{name}.nii.gz")
    with pytest.raises(MedCLIPADError, match="--layout flat"):
        write_dataset(tmp_path / "out", list_scans(str(tmp_path)), "small")
