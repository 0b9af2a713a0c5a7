"""Sample study on disk: formats, grids, truth, the same voxels each time, and nothing made twice."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK

from medclipad.errors import Cancelled, MedCLIPADError
from medclipad.volume import read_volume, require_same_grid
from sample_data import make_study as module
from sample_data.cases import CASES
from sample_data.make_study import make_study, read_study

COARSE = 3.5  # mm


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    make_study(folder, resolution=COARSE)
    return folder


@pytest.fixture(scope="module")
def study(out):
    return {case.id: case for case in read_study(out)}


def test_study_is_complete(out, study):
    kinds = [case.kind for case in study.values()]
    assert kinds.count("normal") >= 6 and len(set(kinds) - {"normal"}) == 5
    suffixes = {"".join(case.image.suffixes) if case.image.is_file() else "DICOM" for case in study.values()}
    assert suffixes == {".nii.gz", ".nrrd", "DICOM"}
    index = json.loads((out / "study.json").read_text("utf-8"))
    assert index["simulated"] is True and index["seed"] == 0
    assert {path.name for path in (out / "images").iterdir()} == {case.image.name for case in study.values()}
    assert {path.name for path in (out / "truth").iterdir()} == {f"{c.id}.nii.gz" for c in study.values() if c.truth}


def test_grids_include_thick_and_oblique_slices():
    grids = {case.id: case.grid for case in CASES}
    assert (1, 1, 5) in {case.grid.spacing for case in CASES if case.kind != "normal"}
    assert any(any(case.grid.tilt) for case in CASES if case.kind != "normal")
    direction = grids["dysplasia"].affine(np.zeros(3))[:3, :3] / np.array(grids["dysplasia"].spacing)
    np.testing.assert_allclose(direction @ direction.T, np.eye(3), atol=1e-12)
    assert 0.2 < np.abs(direction - np.round(direction)).max() < 0.4


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_reads_back_on_its_grid_with_its_truth(case, study):
    made = study[case.id]
    volume = read_volume(made.image)
    assert (volume.name, volume.array.dtype) == (case.id, np.dtype(case.dtype))
    grid = case.grid.coarser(COARSE)
    assert volume.shape == grid.shape
    np.testing.assert_allclose(volume.spacing, grid.spacing, rtol=1e-5)
    centre = volume.affine[:3, :3] @ ((np.array(grid.shape) - 1) / 2) + volume.origin
    np.testing.assert_allclose(volume.affine, grid.affine(centre), atol=1e-3)
    brain = volume.array > 0
    litres = brain.sum() * np.prod(volume.spacing) / 1e6
    assert 1.3 < litres < 2.5
    for axis in range(3):
        assert not brain.take([0, -1], axis).any(), "the head leaves the field of view"
    values = volume.array[brain]
    assert 0.6 * case.white < np.median(values) < 1.1 * case.white
    assert (values == np.iinfo(case.dtype).max).mean() < 0.001
    if case.kind == "normal":
        assert made.truth is None
        return
    truth = read_volume(made.truth)
    require_same_grid(truth, volume)
    assert set(np.unique(truth.array)) == {0, 1}
    assert brain[truth.array > 0].all()
    assert 2 < truth.array.sum() * np.prod(volume.spacing) / 1000 < 60  # ml


def test_people_differ(study):
    volumes = [read_volume(case.image) for case in study.values() if case.image.suffix == ".gz"]
    same_grid = [v.array.astype(float) for v in volumes if v.shape == volumes[0].shape]
    assert len(same_grid) >= 2
    assert np.corrcoef(same_grid[0].ravel(), same_grid[1].ravel())[0, 1] < 0.97


def test_same_seed_same_voxels_other_seed_other_people(out, study, tmp_path):
    wanted = ["dark-mass", "small-lesions", "large-ventricle"]
    again = make_study(tmp_path / "again", cases=wanted, resolution=COARSE)
    other = make_study(tmp_path / "other", seed=1, cases=wanted[:1], resolution=COARSE)
    for case in again:
        first = study[case.id]
        np.testing.assert_array_equal(read_volume(case.image).array, read_volume(first.image).array)
        np.testing.assert_array_equal(read_volume(case.image).affine, read_volume(first.image).affine)
        np.testing.assert_array_equal(read_volume(case.truth).array, read_volume(first.truth).array)
    series = tmp_path / "again" / "images" / "large-ventricle"
    for path in series.iterdir():
        assert path.read_bytes() == (out / "images" / "large-ventricle" / path.name).read_bytes()
    assert not np.array_equal(read_volume(other[0].image).array, read_volume(study["dark-mass"].image).array)


def test_dicom_is_a_valid_series(study):
    case = study["large-ventricle"]
    files = sorted(case.image.iterdir())
    slices = [pydicom.dcmread(path) for path in files]
    for path, image in zip(files, slices, strict=True):
        assert pydicom.misc.is_dicom(path)
        assert image.SOPClassUID == pydicom.uid.MRImageStorage
        for uid in (image.SOPInstanceUID, image.SeriesInstanceUID, image.StudyInstanceUID, image.FrameOfReferenceUID):
            assert uid.is_valid
        assert image.SOPInstanceUID == image.file_meta.MediaStorageSOPInstanceUID
        assert "SIMULATED" in str(image.PatientName)
        assert image.pixel_array.dtype == np.uint16
    assert len({image.SOPInstanceUID for image in slices}) == len(slices)
    assert len({(i.SeriesInstanceUID, i.StudyInstanceUID, i.FrameOfReferenceUID) for i in slices}) == 1
    heights = [float(image.ImagePositionPatient[2]) for image in slices]
    assert heights != sorted(heights) and heights != sorted(heights, reverse=True), "names must not give the order"
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(case.image)))
    itk = reader.Execute()
    volume, truth = read_volume(case.image), SimpleITK.ReadImage(str(case.truth))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(itk).transpose(2, 1, 0), volume.array)
    np.testing.assert_allclose(itk.GetOrigin(), truth.GetOrigin(), atol=1e-4)
    np.testing.assert_allclose(itk.GetSpacing(), truth.GetSpacing(), rtol=1e-6)


def test_finished_study_is_not_made_again(tmp_path, monkeypatch):
    first = make_study(tmp_path, cases=["normal-5", "dark-mass"], resolution=6)
    (tmp_path / "images" / "labels").mkdir()
    (tmp_path / "images" / "labels" / "mine.txt").write_text("kept")
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nii.gz")}
    calls = []
    again = make_study(tmp_path, 0, lambda *a: calls.append(a), cases=["normal-5", "dark-mass"], resolution=6)
    assert again == first and not calls
    assert stamps == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nii.gz")}
    first[1].truth.unlink()
    make_study(tmp_path, 0, lambda *a: calls.append(a), cases=["normal-5", "dark-mass"], resolution=6)
    assert first[1].truth.exists()
    assert [(done, total) for _, done, total, _ in calls] == [(0, 2), (1, 2), (2, 2)]
    assert (tmp_path / "images" / "labels" / "mine.txt").read_text() == "kept"
    monkeypatch.setattr(module, "write_case", lambda case, seed, out: calls.append(case.id))
    make_study(tmp_path, 1, cases=["normal-5", "dark-mass"], resolution=6)
    assert {"normal-5", "dark-mass"} <= set(calls[3:])


def test_stopping_leaves_no_finished_study(tmp_path):
    def stop(phase, done, total, info):
        if done:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        make_study(tmp_path, 0, stop, cases=["normal-5", "normal-6", "dark-mass"], resolution=8)
    with pytest.raises(MedCLIPADError, match="no finished sample study"):
        read_study(tmp_path)


def test_unknown_case_is_refused(tmp_path):
    with pytest.raises(MedCLIPADError, match=re.escape("there is no sample case broken")):
        make_study(tmp_path, cases=["broken", "normal-1"])
    assert not list(tmp_path.iterdir())


def test_command(tmp_path, monkeypatch, capsys):
    case = next(case for case in CASES if case.id == "normal-5")
    monkeypatch.setattr(module, "CASES", (module.replace(case, grid=case.grid.coarser(6)),))
    monkeypatch.setattr(sys, "argv", ["make_study", str(tmp_path / "made"), "--seed", "3"])
    module.main()
    assert "1 simulated cases" in capsys.readouterr().out
    assert json.loads((tmp_path / "made" / "study.json").read_text())["seed"] == 3
