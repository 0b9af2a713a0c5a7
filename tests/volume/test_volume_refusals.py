"""Files that are not one volume at one position: the sentence that refuses each."""

from __future__ import annotations

import gzip
import re

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from medclipad.volume import Volume, read_volume, write_volume
from tests.volume.volume_cases import fault, ramp


def test_missing_empty_and_unknown_files(tmp_path):
    assert "there is no such file or folder; check the path" in fault(tmp_path / "none.nii.gz")
    for name, why in {
        "empty.nii.gz": "the file is empty",
        "empty.nrrd": "the file is empty",
        "notes.txt": "not a known volume format; pass .nii, .nii.gz, .nrrd, .nhdr, .mha, .mhd, .png",
        "scan.img": "Analyze files do not say which side is left",
        "scan.hdr": "Analyze files do not say which side is left",
    }.items():
        (tmp_path / name).write_bytes(b"" if "empty" in name else b"some text" * 100)
        assert why in fault(tmp_path / name)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "case.nii.gz").write_bytes(b"x")
    assert "it holds no DICOM images; pass a folder or a list" in fault(tmp_path / "folder")


@pytest.mark.parametrize("name", ["case.nii", "case.nii.gz", "case.nrrd", "case.mha", "case.nhdr", "case.mhd"])
def test_text_in_place_of_an_image(tmp_path, name):
    (tmp_path / name).write_bytes(b"this is not an image\n" * 50)
    assert "the file is damaged or not what its name says" in fault(tmp_path / name)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_truncated_files(tmp_path, suffix):
    array = np.random.default_rng(0).integers(0, 999, (30, 31, 32)).astype(np.int16)
    write_volume(Volume(array, np.eye(4)), tmp_path / f"whole{suffix}")
    data = (tmp_path / f"whole{suffix}").read_bytes()
    for part in (0.02, 0.3, 0.7, 0.99):
        path = tmp_path / f"part{suffix}"
        path.write_bytes(data[: int(part * len(data))])
        assert "the file is damaged or not what its name says" in fault(path)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_compressed_files_broken_in_the_middle(tmp_path, suffix):
    """A wrong bit anywhere in a compressed stream is detected, even if it still inflates to the right length."""
    array = np.random.default_rng(0).integers(0, 999, (30, 31, 32)).astype(np.int16)
    write_volume(Volume(array, np.eye(4)), tmp_path / f"whole{suffix}")
    data = (tmp_path / f"whole{suffix}").read_bytes()
    for place in np.linspace(0.1, 0.99, 25):
        broken = bytearray(data)
        broken[int(place * len(data))] ^= 0x10
        path = tmp_path / f"broken{suffix}"
        path.write_bytes(broken)
        assert "the file is damaged or not what its name says" in fault(path)


def test_damaged_detached_data(tmp_path):
    array = np.random.default_rng(0).integers(0, 999, (30, 31, 32)).astype(np.int16)
    for header, data in (("a.mhd", "a.zraw"), ("a.nhdr", "a.raw.gz")):
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array), str(tmp_path / header), True)
        assert read_volume(tmp_path / header).shape == (32, 31, 30)
        whole = bytearray((tmp_path / data).read_bytes())
        whole[len(whole) // 2] ^= 0x10
        (tmp_path / data).write_bytes(whole)
        assert "the file is damaged" in fault(tmp_path / header)
        (tmp_path / data).unlink()
        assert "the file is damaged" in fault(tmp_path / header)


@pytest.mark.parametrize("size", [-1, 10, 1000, 10**13])
def test_detached_data_of_another_size_than_the_header_says(tmp_path, size):
    """If the header gives too few bytes ITK makes noise of them; if too many, it allocates them all."""
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(ramp((4, 5, 6))), str(tmp_path / "a.mhd"), True)
    header = (tmp_path / "a.mhd").read_text()
    (tmp_path / "a.mhd").write_text(re.sub(r"CompressedDataSize = \d+", f"CompressedDataSize = {size}", header))
    assert "its compressed voxels are" in fault(tmp_path / "a.mhd")


def test_incomplete_detached_data_are_not_allocated(tmp_path, monkeypatch):
    """A header of a few bytes may promise gigabytes."""
    header = "NRRD0004\ntype: short\ndimension: 3\nsizes: 1000 1000 999\nencoding: raw\nendian: little\n"
    (tmp_path / "a.nhdr").write_text(f"{header}data file: a.raw\n\n")
    (tmp_path / "a.raw").write_bytes(bytes(240))
    monkeypatch.setattr(SimpleITK.ImageFileReader, "Execute", lambda _: pytest.fail("ITK was asked"))
    monkeypatch.setattr("medclipad.volume.memory_budget.free_memory", lambda: 2**40)
    assert "its voxels are 240 bytes instead of 1998000000" in fault(tmp_path / "a.nhdr")


def test_metaimage_headers_that_itk_would_misread(tmp_path):
    """Without CompressedDataSize ITK fills the image with noise; with absurd dimensions it crashes the process."""
    write_volume(Volume(ramp((30, 31, 32)), np.eye(4)), tmp_path / "whole.mha")
    whole = (tmp_path / "whole.mha").read_bytes()
    (tmp_path / "size.mha").write_bytes(re.sub(rb"CompressedDataSize = \d+\n", b"", whole))
    assert "its header lacks CompressedDataSize" in fault(tmp_path / "size.mha")
    shorter = re.sub(rb"CompressedDataSize = \d+\n", b"CompressedDataSize = 400\n", whole)
    (tmp_path / "short.mha").write_bytes(shorter)
    assert "its compressed voxels are" in fault(tmp_path / "short.mha")
    (tmp_path / "more.mha").write_bytes(whole.replace(b"DimSize = 30", b"DimSize = 31"))
    assert "its compressed voxels are 119040 bytes instead of 123008" in fault(tmp_path / "more.mha")
    for dimensions in (b"39999", b"0", b"-3", b"many", b""):
        (tmp_path / "dims.mha").write_bytes(whole.replace(b"NDims = 3", b"NDims = " + dimensions))
        assert "its number of dimensions is" in fault(tmp_path / "dims.mha")


def test_metadata_that_is_not_text(tmp_path):
    write_volume(Volume(ramp((3, 4, 5)), np.eye(4)), tmp_path / "whole.mha")
    whole = (tmp_path / "whole.mha").read_bytes()
    (tmp_path / "odd.mha").write_bytes(whole.replace(b"NDims", b"N\xff = \xff\xfe\nModality = MET_MOD_CT\nNDims"))
    assert read_volume(tmp_path / "odd.mha").modality == "CT"


def test_a_header_that_promises_more_than_the_file_holds(tmp_path):
    header = nib.Nifti1Header()
    header.set_data_shape((30000, 30000, 30000))
    header.set_data_dtype(np.float64)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    (tmp_path / "bomb.nii").write_bytes(header.binaryblock + bytes(100))
    (tmp_path / "bomb.nii.gz").write_bytes(gzip.compress(header.binaryblock + bytes(100)))
    fields = (
        "NRRD0004\ntype: double\ndimension: 3\nspace: LPS\nsizes: 30000 30000 30000\nencoding: gzip\nendian: little\n"
    )
    geometry = "space directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\n\n"
    (tmp_path / "bomb.nrrd").write_bytes((fields + geometry).encode() + bytes(100))
    meta = "ObjectType=Image\nNDims=3\nDimSize=30000 30000 30000\nElementType=MET_DOUBLE\nElementDataFile = LOCAL\n"
    (tmp_path / "bomb.mha").write_bytes(meta.encode() + bytes(100))
    for name in ("bomb.nii", "bomb.nii.gz", "bomb.nrrd", "bomb.mha"):
        assert "bytes of voxels, more than the file can hold" in fault(tmp_path / name)


def test_unusable_affines_are_refused(tmp_path):
    for name, matrix, why in (
        ("zero", np.diag((1.0, 0, 1, 1)), "its spacing is zero along an axis"),
        ("nan", np.diag((1.0, np.nan, 1, 1)), "its orientation matrix contains NaN or infinity"),
        ("singular", [[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], "its orientation matrix is singular"),
    ):
        path = tmp_path / f"{name}.nii"
        image = nib.Nifti1Image(ramp((3, 4, 5)), None)
        image.header["sform_code"] = 1
        for row, field in enumerate(("srow_x", "srow_y", "srow_z")):
            image.header[field] = np.asarray(matrix)[row]
        image.to_filename(path)
        assert why in fault(path)


@pytest.mark.parametrize(
    ("geometry", "why"),
    [
        ("TransformMatrix = 1 0 0 1 0.0001 0 0 0 1", "its orientation matrix is singular, two axes point the same way"),
        ("TransformMatrix = 1 0 0 1 0 0 0 0 1", "Bad direction, determinant is 0"),  # ITK's own check
        (
            "TransformMatrix = 1 0 0 0 b 0 0 0 1",
            "its transformmatrix is 1 0 0 0 b 0 0 0 1, which is not a list of numbers",
        ),
        ("Offset = nan 0 0", "its offset is nan 0 0, which is not a list of numbers"),
        ("Offset = 1 2 x", "its offset is 1 2 x, which is not a list of numbers"),
        ("DistanceUnits = um", "its spacing is in units of um, not millimetres"),
    ],
)
def test_metaimage_geometry_that_itk_would_guess(tmp_path, geometry, why):
    fields = "ObjectType = Image\nNDims = 3\nDimSize = 2 3 4\nElementType = MET_SHORT\nElementSpacing = 1 1 1\n"
    path = tmp_path / "flat.mha"
    path.write_bytes((fields + geometry + "\nElementDataFile = LOCAL\n").encode() + bytes(48))
    assert why in fault(path)


def test_nrrd_geometry_that_itk_would_guess(tmp_path):
    fields = "NRRD0004\ntype: short\ndimension: 3\nspace: LPS\nsizes: 2 3 4\nencoding: raw\nendian: little\n"
    directions, origin = "space directions: (1,0,0) (0,2,0) (0,0,3)\n", "space origin: (5,6,7)\n"
    path = tmp_path / "case.nrrd"
    for unit, refused in (("um", True), ("mm", False)):
        units = f'space units: "{unit}" "{unit}" "{unit}"\n'
        path.write_bytes((fields + directions + origin + units + "\n").encode() + bytes(48))
        if refused:
            assert "its spacing is in units of um, not millimetres" in fault(path)
        else:
            assert read_volume(path).notes == ()
    path.write_bytes((fields + directions + "\n").encode() + bytes(48))
    assert read_volume(path).notes == ("the file gives no space origin; 0 is assumed",)
    path.write_bytes((fields + origin + "\n").encode() + bytes(48))
    assert read_volume(path).notes == (
        "the file gives no space directions; 1 mm along the axes of its space is assumed",
    )
    assert read_volume(path).spacing == (1, 1, 1)


def test_complex_numbers_and_other_units(tmp_path):
    array = (ramp((3, 4, 5)) + 1j).astype(np.complex64)
    nib.Nifti1Image(array, np.eye(4)).to_filename(tmp_path / "complex.nii")
    assert "its voxels are complex numbers; save their magnitude" in fault(tmp_path / "complex.nii")
    image = nib.Nifti1Image(ramp((3, 4, 5)), np.eye(4))
    image.header.set_xyzt_units("micron")
    image.to_filename(tmp_path / "small.nii")
    assert "its spacing is in units of micron; convert it to millimetres" in fault(tmp_path / "small.nii")
