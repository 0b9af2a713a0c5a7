"""NIfTI, NRRD and MetaImage: every reader puts every voxel at the same position."""

from __future__ import annotations

import gzip
import struct

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.spatial.transform import Rotation

from medclipad.errors import VolumeError
from medclipad.volume import Volume, case_name, read_volume, write_volume
from tests.volume.volume_cases import TO_RAS, affine_of, fault, itk_positions, load_nifti, ramp, volumes

FILES = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
NUMBERS = ["u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8"]


@FILES
@given(volume=volumes(), dtype=st.sampled_from(NUMBERS), order=st.sampled_from("<>"), packed=st.booleans())
def test_nifti_agrees_with_nibabel_and_itk(tmp_path, volume, dtype, order, packed):
    # Two stems: if a.nii lies beside a.nii.gz, ITK reads the voxels of the latter from the former.
    path = tmp_path / ("packed.nii.gz" if packed else "plain.nii")
    header = nib.Nifti1Header(endianness=order)
    image = nib.Nifti1Image((volume.array % 120).astype(dtype), volume.affine, header)
    image.set_data_dtype(dtype)
    image.set_qform(volume.affine, code=1)
    image.set_sform(volume.affine, code=1)
    nib.save(image, path)
    read = read_volume(path)
    again = load_nifti(path)
    assert again.header.endianness == order
    assert read.affine.dtype == np.float64
    assert np.array_equal(read.affine, again.affine)
    assert read.array.dtype == np.dtype(dtype)
    assert np.array_equal(read.array, np.asarray(again.dataobj))
    assert read.notes == ()
    theirs, ours, their_values, our_values = itk_positions(path, read)
    np.testing.assert_allclose(ours, theirs, atol=2e-3)  # ITK goes through float32 directions
    assert np.array_equal(our_values, their_values)


@pytest.mark.parametrize("axis", [[1, 0, 0], [0, 1, 0], [1, 2, 3]])
@pytest.mark.parametrize("degrees", [178.9, 179.5, 179.95, 180])
@pytest.mark.parametrize("header", [nib.Nifti1Image, nib.Nifti2Image])
def test_a_turn_of_nearly_half_a_circle_is_not_rounded_to_it(tmp_path, axis, degrees, header):
    """By the qform alone, whose real part is then small: 1.1 degrees are 2 mm at the edge of a head."""
    turn = np.radians(degrees) * np.array(axis) / np.linalg.norm(axis)
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_rotvec(turn).as_matrix() * [1, 1.2, 3]
    image = header(np.arange(2000, dtype=np.int16).reshape(20, 10, 10), affine)
    image.set_sform(None, code=0)
    image.set_qform(affine, code=1)
    nib.save(image, tmp_path / "turned.nii")
    read = read_volume(tmp_path / "turned.nii")
    np.testing.assert_allclose(read.affine, affine, atol=2e-3)
    if header is nib.Nifti1Image:
        theirs, ours, _, _ = itk_positions(tmp_path / "turned.nii", read)
        np.testing.assert_allclose(ours, theirs, atol=5e-3)


@FILES
@given(
    volume=volumes(),
    dtype=st.sampled_from(NUMBERS),
    suffix=st.sampled_from((".nrrd", ".nhdr", ".mha", ".mhd")),
    packed=st.booleans(),
)
def test_nrrd_and_metaimage_agree_with_itk(tmp_path, volume, dtype, suffix, packed):
    path = tmp_path / f"case{suffix}"
    image = SimpleITK.GetImageFromArray((volume.array % 120).astype(dtype).T)
    image.SetSpacing(volume.spacing)
    image.SetDirection((np.diag(TO_RAS) @ volume.direction).ravel())
    image.SetOrigin(TO_RAS * volume.origin)
    SimpleITK.WriteImage(image, str(path), packed)
    read = read_volume(path)
    np.testing.assert_allclose(read.affine, volume.affine, atol=1e-9)
    assert read.array.dtype == np.dtype(dtype)
    assert np.array_equal(read.array, volume.array % 120)
    theirs, ours, _, _ = itk_positions(path, read)
    np.testing.assert_allclose(ours, theirs, atol=1e-9)


@pytest.mark.parametrize("dtype", ["i2", "u1", "i4", "f4"])
def test_nifti_scaling(tmp_path, dtype):
    path = tmp_path / "scaled.nii.gz"
    image = nib.Nifti1Image(np.arange(60).reshape(3, 4, 5).astype(dtype), np.eye(4))
    image.header.set_slope_inter(0.25, -7)
    image.to_filename(path)
    read = read_volume(path)
    assert read.array.dtype == (np.float64 if dtype == "i4" else np.float32)
    np.testing.assert_allclose(read.array, np.arange(60).reshape(3, 4, 5) * 0.25 - 7)
    np.testing.assert_allclose(read.array, load_nifti(path).get_fdata(), rtol=1e-6)


def test_nan_infinity_and_huge_values_are_kept(tmp_path):
    array = np.array([np.nan, np.inf, -np.inf, 1e30, -1e300, 0]).reshape(1, 2, 3)
    for suffix in (".nii.gz", ".nrrd", ".mha"):
        write_volume(Volume(array, np.eye(4)), tmp_path / f"odd{suffix}")
        np.testing.assert_array_equal(read_volume(tmp_path / f"odd{suffix}").array, array)


def test_time_points_components_and_singletons(tmp_path):
    array = np.arange(2 * 3 * 4 * 5, dtype=np.int16).reshape(2, 3, 4, 5)
    nib.Nifti1Image(array, np.eye(4)).to_filename(tmp_path / "time.nii.gz")
    nib.Nifti1Image(array[:, :, :, None], np.eye(4)).to_filename(tmp_path / "vector.nii.gz")
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array.T, isVector=False), str(tmp_path / "time.nrrd"))
    vector = SimpleITK.GetImageFromArray(array.transpose(2, 1, 0, 3), isVector=True)
    for name in ("vector.nrrd", "vector.mha"):
        SimpleITK.WriteImage(vector, str(tmp_path / name))
    for name in ("time.nii.gz", "vector.nii.gz", "time.nrrd", "vector.nrrd", "vector.mha"):
        assert f"{name}: it has 5 components or time points; choose one with component=0 to 4 (--component)." == fault(
            tmp_path / name
        )
        assert "component 5 does not exist; choose one of 0 to 4" in fault(tmp_path / name, component=5)
        assert "component -1 does not exist" in fault(tmp_path / name, component=-1)
        for component in range(5):
            assert np.array_equal(read_volume(tmp_path / name, component=component).array, array[..., component])
    nib.Nifti1Image(array[..., :1, None], np.eye(4)).to_filename(tmp_path / "one.nii")
    assert np.array_equal(read_volume(tmp_path / "one.nii").array, array[..., 0])
    assert np.array_equal(read_volume(tmp_path / "one.nii", component=0).array, array[..., 0])
    assert "component 1 does not exist; the image has a single component" in fault(tmp_path / "one.nii", component=1)
    nib.Nifti1Image(np.zeros((2, 2, 2, 3, 4), np.int16), np.eye(4)).to_filename(tmp_path / "five.nii")
    assert "it has 5 dimensions (2 x 2 x 2 x 3 x 4); save one of its time points" in fault(tmp_path / "five.nii")


def test_colour_is_refused_unless_a_channel_is_chosen(tmp_path):
    colours = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)
    rgb = np.ascontiguousarray(colours).view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    nib.Nifti1Image(rgb, np.eye(4)).to_filename(tmp_path / "rgb.nii.gz")
    nib.Nifti1Image(rgb[:, :, 0], np.eye(4)).to_filename(tmp_path / "flat.nii.gz")
    SimpleITK.WriteImage(
        SimpleITK.GetImageFromArray(colours[:, :, 0].swapaxes(0, 1), isVector=True), str(tmp_path / "flat.mha")
    )
    for name in ("rgb.nii.gz", "flat.nii.gz", "flat.mha"):
        assert "it has 3 components or time points; choose one with component=0 to 2" in fault(tmp_path / name)
    assert np.array_equal(read_volume(tmp_path / "rgb.nii.gz", component=1).array, colours[..., 1])
    for name in ("flat.nii.gz", "flat.mha"):
        assert np.array_equal(read_volume(tmp_path / name, component=2).array, colours[:, :, :1, 2])


def test_two_dimensional_images(tmp_path):
    picture = np.arange(12, dtype=np.float32).reshape(3, 4)
    nib.Nifti1Image(picture, np.diag((2.0, 3.0, 4.0, 1.0))).to_filename(tmp_path / "flat.nii")
    image = SimpleITK.GetImageFromArray(picture.T)
    image.SetSpacing((2, 3))
    image.SetOrigin((10, 20))
    for suffix in ("nrrd", "mha"):
        SimpleITK.WriteImage(image, str(tmp_path / f"flat.{suffix}"))
        read = read_volume(tmp_path / f"flat.{suffix}")
        assert np.array_equal(read.array, picture[:, :, None])
        assert np.array_equal(read.affine, [[-2, 0, 0, -10], [0, -3, 0, -20], [0, 0, 1, 0], [0, 0, 0, 1]])
        assert "a 2D image has no slice thickness; 1 mm is assumed" in read.notes
    read = read_volume(tmp_path / "flat.nii")
    assert np.array_equal(read.array, picture[:, :, None])
    assert read.spacing == (2, 3, 4)
    for suffix in (".nii.gz", ".nrrd", ".mha"):
        write_volume(read, tmp_path / f"again{suffix}")
        again = read_volume(tmp_path / f"again{suffix}")
        assert np.array_equal(again.array, read.array)
        np.testing.assert_allclose(again.affine, read.affine, atol=1e-12)


def test_assumptions_are_noted(tmp_path):
    image = nib.Nifti1Image(ramp((3, 4, 5)), None)
    image.header["pixdim"][1:4] = 2
    image.to_filename(tmp_path / "nowhere.nii")
    read = read_volume(tmp_path / "nowhere.nii")
    assert "gives no orientation; its axes are assumed to be left, anterior, superior" in read.notes[0]
    assert np.array_equal(read.affine, load_nifti(tmp_path / "nowhere.nii").affine)
    image = nib.Nifti1Image(ramp((3, 4, 5)), np.eye(4))
    image.set_sform(np.eye(4), code=1)
    image.set_qform(affine_of(origin=(0, 0, 25)), code=1)
    image.to_filename(tmp_path / "torn.nii")
    read = read_volume(tmp_path / "torn.nii")
    assert np.array_equal(read.affine, np.eye(4))
    assert "sform and qform lie up to 25 mm apart; the sform is used" in read.notes[0]
    header = "NRRD0004\ntype: short\ndimension: 3\nsizes: 2 3 4\nspacings: 1 2 3\nencoding: raw\nendian: little\n\n"
    (tmp_path / "nowhere.nrrd").write_bytes(header.encode() + bytes(48))
    assert "its axes are assumed to be left, posterior, superior" in read_volume(tmp_path / "nowhere.nrrd").notes[0]


@pytest.mark.parametrize(("space", "signs"), [("left-posterior-superior", "--+"), ("RAS", "+++"), ("LAS", "-++")])
def test_nrrd_spaces(tmp_path, space, signs):
    fields = f"NRRD0004\ntype: short\ndimension: 3\nspace: {space}\nsizes: 2 3 4\nmodality:=MR\n"
    geometry = "space directions: (1,0,0) (0,2,0) (0,0,3)\nspace origin: (5,6,7)\nencoding: raw\nendian: little\n\n"
    (tmp_path / "case.nrrd").write_bytes((fields + geometry).encode() + bytes(48))
    read = read_volume(tmp_path / "case.nrrd")
    sign = np.array([1.0 if s == "+" else -1.0 for s in signs])
    assert np.array_equal(read.affine[:3, :3], np.diag(sign * (1, 2, 3)))
    assert np.array_equal(read.origin, sign * (5, 6, 7))
    assert read.notes == ()
    assert read.modality == "MR"


def test_case_names():
    assert [case_name(p) for p in ("a/b.c.nii.gz", "x.NRRD", "y.seg.mha", "IM0001")] == ["b.c", "x", "y.seg", "IM0001"]


@FILES
@given(
    slope=st.floats(1e-8, 1e8) | st.floats(-1e8, -1e-8),
    intercept=st.floats(-1e9, 1e9),
    first=st.integers(-(2**15), 2**15 - 10),
)
def test_scaling_keeps_neighbouring_values_apart(tmp_path, slope, intercept, first):
    stored = np.arange(first, first + 8, dtype=np.int16)
    image = nib.Nifti2Image(stored.reshape(2, 2, 2), np.eye(4), dtype=np.int16)
    image.header.set_slope_inter(slope, intercept)
    path = tmp_path / "case.nii"
    nib.save(image, path)
    read = read_volume(path).array.ravel()
    data = load_nifti(path).dataobj
    scaled = data.slope * stored.astype(float) + data.inter
    assert len(np.unique(read)) == len(np.unique(scaled))
    np.testing.assert_allclose(read, scaled, rtol=1e-6, atol=abs(slope) / 2)


@pytest.mark.parametrize("name", ["a\nb.nii", "tab\t.mha", "bell\a.dcm", "schön.png", "\u2028.nii.gz", "\udcff.nrrd"])
def test_a_refusal_is_one_line_for_any_file_name(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"not an image" * 30)
    with pytest.raises(VolumeError) as caught:
        read_volume(path)
    text = str(caught.value)
    assert text.isprintable()
    text.encode()
    assert path.suffix in text


def test_a_path_that_is_not_unicode_does_not_crash_the_process(tmp_path):
    """ITK would abort."""
    folder = tmp_path / "\udcff"
    folder.mkdir()
    volume = Volume(ramp((3, 4, 5)), np.eye(4))
    with pytest.raises(VolumeError, match="its path is not valid Unicode; rename the file or its folders"):
        write_volume(volume, folder / "case.mha")
    write_volume(volume, tmp_path / "case.mha")
    (tmp_path / "case.mha").rename(folder / "case.mha")
    assert "its path is not valid Unicode; rename" in fault(folder / "case.mha")
    write_volume(volume, folder / "case.nii.gz")
    assert np.array_equal(read_volume(folder / "case.nii.gz").array, volume.array)
    Image.new("L", (9, 9), 7).save(folder / "case.jpg")
    assert "its path is not valid Unicode; rename" in fault(folder / "case.jpg")


def changed_header(path, offset: int, form: str, *values: float, sform: bool = True) -> np.ndarray:
    """Write a NIfTI whose header has other values at an offset, and return its voxels."""
    array = ramp((4, 5, 6)).astype(np.int16)
    image = nib.Nifti1Image(array, affine_of(spacing=(1.5, 1.5, 2), origin=(-20, -30, -40)))
    image.set_sform(image.affine, code=1 if sform else 0)
    image.set_qform(image.affine, code=1)
    data = bytearray(image.to_bytes())
    struct.pack_into(form, data, offset, *values)
    path.write_bytes(data)
    return array


@pytest.mark.parametrize("sform", [True, False])
def test_a_quaternion_longer_than_one_by_rounding_is_read(tmp_path, sform):
    array = changed_header(tmp_path / "a.nii", 256, "<3f", 0.6000002, 0.8, 0, sform=sform)
    volume = read_volume(tmp_path / "a.nii")
    assert np.array_equal(volume.array, array)
    if not sform:
        theirs, ours, _, _ = itk_positions(tmp_path / "a.nii", volume)
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_a_qform_that_decides_nothing_does_not_make_a_file_damaged(tmp_path):
    array = changed_header(tmp_path / "a.nii", 256, "<3f", 9, 9, 9)
    volume = read_volume(tmp_path / "a.nii")
    assert np.array_equal(volume.array, array) and volume.spacing == (1.5, 1.5, 2)
    assert volume.notes == ("its qform is not valid; the sform is used, other programs may use the qform",)
    write_volume(volume, tmp_path / "b.nii")
    assert np.array_equal(read_volume(tmp_path / "b.nii").affine, volume.affine)


@pytest.mark.parametrize("units", [255, 5, 0, 2])
def test_units_that_stand_for_none_are_as_good_as_none(tmp_path, units):
    array = changed_header(tmp_path / "a.nii", 123, "<B", units)
    assert np.array_equal(read_volume(tmp_path / "a.nii").array, array)


@pytest.mark.parametrize("sform", [True, False])
def test_a_negative_spacing_is_noted(tmp_path, sform):
    changed_header(tmp_path / "a.nii", 80, "<f", -1.5, sform=sform)
    (note,) = read_volume(tmp_path / "a.nii").notes
    assert note == "its spacing is negative along an axis; its size is taken, ITK and 3D Slicer may mirror that axis"


@pytest.mark.parametrize("members", [2, 40])
@pytest.mark.parametrize("end", [b"", b"\0\0"])
def test_gzip_of_several_members(tmp_path, members, end):
    """As bgzip and pigz write; also if a header or checksum is broken over two blocks of the file."""
    array = np.random.default_rng(0).integers(0, 99, (40, 50, 60)).astype(np.int16)
    write_volume(Volume(array, np.eye(4)), tmp_path / "whole.nrrd")
    header, _, packed = (tmp_path / "whole.nrrd").read_bytes().partition(b"\n\n")
    voxels = gzip.decompress(packed)
    size = -(-len(voxels) // members)
    parts = [gzip.compress(voxels[start : start + size]) for start in range(0, len(voxels), size)]
    path = tmp_path / "members.nrrd"
    path.write_bytes(header + b"\n\n" + b"".join(parts) + end)
    assert np.array_equal(read_volume(path).array, array)
    assert np.array_equal(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))).T, array)
    path.write_bytes(header + b"\n\n" + b"".join(parts[:-1]) + end)
    assert "its compressed voxels are" in fault(path)
