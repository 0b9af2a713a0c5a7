"""Written volumes come back on exactly their grid; and the properties of a volume."""

from __future__ import annotations

import os
import re
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medclipad.errors import VolumeError
from medclipad.volume import Volume, read_volume, require_same_grid, write_volume
from tests.volume.volume_cases import ORIENTATIONS, affine_of, itk_positions, load_nifti, ramp, volumes

FILES = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
NUMBERS = ["u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8"]


@FILES
@given(
    volume=volumes(),
    dtype=st.sampled_from([*NUMBERS, "i8", "u8"]),
    suffix=st.sampled_from((".nii", ".nii.gz", ".nrrd", ".mha")),
)
def test_written_volumes_are_read_back_unchanged(tmp_path, volume, dtype, suffix):
    path = tmp_path / f"{suffix.replace('.', '-')}{suffix}"
    volume = Volume((volume.array % 120).astype(dtype), volume.affine)
    write_volume(volume, path)
    read = read_volume(path)
    assert read.array.dtype == np.dtype(dtype)
    assert np.array_equal(read.array, volume.array)
    if "nii" in suffix:
        assert np.array_equal(read.affine, volume.affine.astype(np.float32))
        assert load_nifti(path).header.get_xyzt_units()[0] == "mm"
    else:
        np.testing.assert_allclose(read.affine, volume.affine, rtol=1e-14, atol=1e-12)
    theirs, ours, _, _ = itk_positions(path, read)
    np.testing.assert_allclose(ours, theirs, atol=2e-3)


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_a_map_of_a_nifti_file_lies_exactly_on_it(tmp_path, order, signs):
    affine = affine_of(order, signs, (0.9, 1.1, 3.3), (11, -23, 5), (-88.7, 31.3, 12.9))
    image = nib.Nifti1Image(ramp((3, 4, 5)), affine)
    image.set_qform(affine, code=1)
    image.to_filename(tmp_path / "case.nii.gz")
    source = read_volume(tmp_path / "case.nii.gz")
    write_volume(source.with_array(source.array.astype(np.float32) / 60), tmp_path / "map.nii.gz")
    read = read_volume(tmp_path / "map.nii.gz")
    assert np.array_equal(read.affine, source.affine)
    one, other = load_nifti(tmp_path / "case.nii.gz").header, load_nifti(tmp_path / "map.nii.gz").header
    assert np.array_equal(one.get_qform(), other.get_qform())
    assert (one["sform_code"], one["qform_code"]) == (other["sform_code"], other["qform_code"])
    places = [SimpleITK.ReadImage(str(tmp_path / name)).GetDirection() for name in ("case.nii.gz", "map.nii.gz")]
    assert places[0] == places[1]


@pytest.mark.parametrize("kind", ["qform only", "neither", "torn", "NIfTI-2", "sheared"])
def test_unusual_nifti_geometry_comes_back_bit_for_bit(tmp_path, kind):
    affine = affine_of((1, 2, 0), (1, -1, 1), (0.9, 1.1, 3.3), (11, -23, 5), (-88.7, 31.3, 12.9))
    image = (nib.Nifti2Image if kind == "NIfTI-2" else nib.Nifti1Image)(ramp((3, 4, 5)), None)
    image.header["pixdim"][1:4] = (0.9, 1.1, 3.3)
    if kind in ("qform only", "torn"):
        image.header.set_qform(affine, code=1)
    if kind == "torn":
        image.header.set_sform(affine_of(origin=(1, 2, 3)), code=4)
    if kind == "NIfTI-2":
        image.header.set_sform(affine, code=2)
    if kind == "sheared":
        affine[0, 2] += 0.6
        image.header.set_sform(affine, code=2)
    image.to_filename(tmp_path / "case.nii.gz")
    source = read_volume(tmp_path / "case.nii.gz")
    for suffix in (".nii.gz", ".nii"):
        write_volume(source.with_array(np.ones(source.shape, dtype=np.uint8)), tmp_path / f"map{suffix}")
        one, other = load_nifti(tmp_path / "case.nii.gz"), load_nifti(tmp_path / f"map{suffix}")
        assert type(one) is type(other)
        assert np.array_equal(one.affine, other.affine)
        assert np.array_equal(read_volume(tmp_path / f"map{suffix}").affine, source.affine)
        for field in ("sform_code", "qform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x"):
            assert one.header[field] == other.header[field]


def test_a_moved_volume_does_not_keep_the_position_of_its_source(tmp_path):
    nib.Nifti1Image(ramp((3, 4, 5)), affine_of(origin=(1, 2, 3))).to_filename(tmp_path / "case.nii")
    moved = replace(read_volume(tmp_path / "case.nii"), affine=affine_of((1, 0, 2), origin=(9, 2, 3)))
    write_volume(moved, tmp_path / "moved.nii")
    header = load_nifti(tmp_path / "moved.nii").header
    assert np.array_equal(header.get_sform(), moved.affine)
    np.testing.assert_allclose(header.get_qform(), moved.affine, atol=1e-6)


def test_a_sheared_affine_gets_no_qform(tmp_path):
    affine = affine_of(spacing=(1, 1, 2))
    affine[0, 2] = 0.75
    for suffix in (".nii.gz", ".nrrd", ".mha"):
        write_volume(Volume(ramp((3, 4, 5)), affine), tmp_path / f"shear{suffix}")
        np.testing.assert_allclose(read_volume(tmp_path / f"shear{suffix}").affine, affine, atol=1e-12)
    header = load_nifti(tmp_path / "shear.nii.gz").header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 0)


def test_types_that_files_do_not_have(tmp_path):
    for suffix in (".nii.gz", ".nrrd", ".mha"):
        for given_, held in (
            (bool, np.uint8),
            (np.float16, np.float32),
            (np.longdouble, np.float64),
            (">f4", np.float32),
        ):
            write_volume(Volume((ramp((3, 4, 5)) % 2).astype(given_), np.eye(4)), tmp_path / f"typed{suffix}")
            read = read_volume(tmp_path / f"typed{suffix}")
            assert read.array.dtype == held
            assert np.array_equal(read.array, ramp((3, 4, 5)) % 2)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "map.nii.gz"
    write_volume(Volume(ramp((3, 4, 5)), np.eye(4)), path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(VolumeError, match=r"map.nii.gz: it cannot be written .*No space left on device"):
        write_volume(Volume(np.zeros((3, 4, 5)), np.eye(4)), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_unsupported_suffixes_and_missing_folders_are_refused(tmp_path):
    volume = Volume(ramp((3, 4, 5)), np.eye(4))
    with pytest.raises(VolumeError, match=r"map.nhdr: volumes are written as .nii.gz, .nii, .nrrd, .mha; choose one"):
        write_volume(volume, tmp_path / "map.nhdr")
    with pytest.raises(VolumeError, match=r"the folder .*none does not exist; create it first"):
        write_volume(volume, tmp_path / "none" / "map.nii")
    (tmp_path / "map.nii").mkdir()
    with pytest.raises(VolumeError, match=r"map.nii: it cannot be written \(.*Is a directory"):
        write_volume(volume, tmp_path / "map.nii")
    assert [path.name for path in tmp_path.iterdir()] == ["map.nii"]


def test_an_axis_too_long_for_nifti_1(tmp_path):
    volume = Volume(ramp((40000, 1, 2)), affine_of(spacing=(0.1, 1, 2)))
    write_volume(volume, tmp_path / "long.nii.gz")
    assert np.array_equal(read_volume(tmp_path / "long.nii.gz").array, volume.array)


def test_volume_properties():
    volume = Volume(ramp((3, 4, 5)), affine_of((2, 0, 1), (1, -1, 1), (1, 2, 3), origin=(7, 8, 9)), name="x")
    assert volume.shape == (3, 4, 5)
    assert volume.spacing == (1, 2, 3)
    assert volume.origin.tolist() == [7, 8, 9]
    np.testing.assert_array_equal(volume.direction * volume.spacing, volume.affine[:3, :3])
    other = volume.with_array(np.zeros((3, 4, 5)))
    assert other.affine.tobytes() == volume.affine.tobytes()
    assert other.name == "x"
    with pytest.raises(ValueError, match="read-only"):
        volume.affine[0, 0] = 3
    with pytest.raises(VolumeError, match=re.escape("x: an array of shape (5, 4, 3) does not fit the grid (3, 4, 5)")):
        volume.with_array(np.zeros((5, 4, 3)))


@pytest.mark.parametrize(
    ("array", "why"),
    [
        (np.zeros((3, 4)), "is not a volume"),
        (np.zeros((3, 0, 4)), "is not a volume"),
        (np.zeros((3, 4, 5, 2)), "is not a volume"),
        (np.zeros((3, 4, 5), complex), "are not real numbers"),
        (np.zeros((3, 4, 5), object), "are not real numbers"),
    ],
)
def test_arrays_that_are_not_a_volume_are_refused(array, why):
    with pytest.raises(VolumeError, match=why):
        Volume(array, np.eye(4))


@pytest.mark.parametrize("affine", [np.eye(3), np.ones((4, 4)), np.zeros((4, 4))])
def test_matrices_that_are_not_an_affine_are_refused(affine):
    with pytest.raises(VolumeError, match="with last row 0 0 0 1"):
        Volume(ramp((3, 4, 5)), affine)


def test_require_same_grid():
    volume = Volume(ramp((3, 4, 5)), affine_of(spacing=(1, 1, 3)), name="case")
    require_same_grid(volume, Volume(volume.array, volume.affine.astype(np.float32) + 1e-6 * np.eye(4, k=3)))
    with pytest.raises(VolumeError, match=r"mask and case have different sizes, \(3, 4, 6\) and \(3, 4, 5\); resample"):
        require_same_grid(volume, Volume(ramp((3, 4, 6)), volume.affine, name="mask"))
    with pytest.raises(VolumeError, match="mask and case lie up to 2 mm apart in space; resample"):
        require_same_grid(volume, Volume(volume.array, affine_of(spacing=(1, 1, 3), origin=(0, 2, 0)), name="mask"))
    with pytest.raises(VolumeError, match="apart in space"):
        require_same_grid(volume, Volume(volume.array, affine_of(spacing=(1, 1, 3), degrees=(4, 0, 0)), name="mask"))
