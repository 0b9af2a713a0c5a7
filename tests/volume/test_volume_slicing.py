"""Slices do not depend on the axis order of the file, and go back to exactly where they came from."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from medclipad.errors import VolumeError
from medclipad.volume import PLANES, Slicing, Volume
from tests.volume.volume_cases import ORIENTATIONS, affine_of, ramp, volumes, world

# Direction in (R, A, S) of: the next slice, the next row (down), the next column (to the right).
DISPLAY = {
    "axial": ((0, 0, 1), (0, -1, 0), (-1, 0, 0)),
    "coronal": ((0, 1, 0), (0, 0, -1), (-1, 0, 0)),
    "sagittal": ((1, 0, 0), (0, 0, -1), (0, -1, 0)),
}


def check_slices(volume: Volume, plane: str) -> None:
    """Check the round trip and the position of every voxel, from the values alone."""
    slicing = Slicing(volume, plane)
    stack = slicing.slices(volume.array)
    indices = np.stack(np.unravel_index(stack, volume.shape), axis=-1)  # (N, H, W, 3), which voxel each pixel is
    assert stack.shape == (len(slicing), *slicing.shape)
    assert np.array_equal(slicing.stack(stack), volume.array)
    assert np.array_equal(slicing.stack(np.array(stack, dtype=np.float32)), volume.array)
    places = world(volume.affine, indices)
    for n in range(len(slicing)):
        picture = slicing.slice(volume.array, n)
        assert np.array_equal(picture, stack[n])
        assert np.shares_memory(picture, volume.array)
        assert (indices[n, ..., slicing.axis] == slicing.index(n)).all()
        np.testing.assert_allclose(slicing.position(n), places[n].mean(axis=(0, 1)), atol=1e-8)
    for axis, spacing in ((1, slicing.pixel_spacing[0]), (2, slicing.pixel_spacing[1])):
        np.testing.assert_allclose(np.linalg.norm(np.diff(places, axis=axis), axis=-1), spacing)


def check_display(volume: Volume, plane: str) -> None:
    """Check that each array axis of the stack of slices runs mainly along its direction on the display."""
    slicing = Slicing(volume, plane)
    indices = np.stack(np.unravel_index(slicing.slices(volume.array), volume.shape), axis=-1)
    places = world(volume.affine, indices)
    for axis, direction in enumerate(DISPLAY[slicing.plane]):
        for step in np.diff(places, axis=axis).reshape(-1, 3):
            assert step @ direction > 0
            assert np.argmax(np.abs(step)) == np.argmax(np.abs(direction))


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_every_orientation_round_trips_and_displays(order, signs, plane):
    volume = Volume(ramp((3, 4, 5)), affine_of(order, signs, (0.7, 1.1, 2.9), (12, -9, 17), (5, -60, 33)))
    check_slices(volume, plane)
    check_display(volume, plane)


@settings(max_examples=150, deadline=None)
@given(volume=volumes(), plane=st.sampled_from(PLANES))
def test_any_grid_round_trips(volume, plane):
    check_slices(volume, plane)


@settings(max_examples=150, deadline=None)
@given(volume=volumes(tilt=14, sides=(2, 5)), plane=st.sampled_from(PLANES))
def test_oblique_grids_display_as_the_closest_anatomical_plane(volume, plane):
    check_display(volume, plane)


@pytest.mark.parametrize("spacing", [(1, 1, 1), (1, 1, 5), (5, 1, 1), (1, 3, 3), (2, 2, 0.5), (0.8, 2.5, 0.7)])
@pytest.mark.parametrize("plane", PLANES)
def test_slices_do_not_depend_on_the_axis_order_of_the_file(plane, spacing):
    """The same anatomy, reoriented by nibabel in all 48 ways."""
    rng = np.random.default_rng(3)
    affine = affine_of(spacing=spacing, degrees=(8, -11, 5))
    image = nib.Nifti1Image(rng.random((4, 6, 5), dtype=np.float32), affine)
    reference = Slicing(Volume(image.get_fdata(), affine), plane)
    pictures = reference.slices(image.get_fdata())
    for order, signs in ORIENTATIONS:
        codes = ["RAS"[w] if sign > 0 else "LPI"[w] for w, sign in zip(order, signs, strict=True)]
        other = image.as_reoriented(ornt_transform(io_orientation(affine), axcodes2ornt(codes)).tolist())
        other_affine = np.asarray(other.affine)
        assert nib.aff2axcodes(other_affine) == tuple(codes)
        slicing = Slicing(Volume(other.get_fdata(), other_affine), plane)
        assert slicing.plane == reference.plane
        assert np.array_equal(slicing.slices(other.get_fdata()), pictures)
        np.testing.assert_allclose(slicing.pixel_spacing, reference.pixel_spacing)
        np.testing.assert_allclose(
            [slicing.position(n) for n in range(len(slicing))],
            [reference.position(n) for n in range(len(reference))],
            atol=1e-5,
        )


@pytest.mark.parametrize(
    ("plane", "n", "mark", "row", "column"),
    [
        ("axial", 4, "right", slice(None), 0),
        ("axial", 0, "anterior", 0, slice(None)),
        ("coronal", 3, "right", slice(None), 0),
        ("coronal", 0, "superior", 0, slice(None)),
        ("sagittal", 2, "anterior", slice(None), 0),
        ("sagittal", 0, "superior", 0, slice(None)),
    ],
)
def test_radiological_display(plane, n, mark, row, column):
    """An LPS file (DICOM's order), marked by hand."""
    array = np.zeros((3, 4, 5), dtype=np.uint8)
    array[{"right": np.s_[0], "anterior": np.s_[:, 0], "superior": np.s_[:, :, 4]}[mark]] = 1
    slicing = Slicing(Volume(array, np.diag((-1.0, -1.0, 1.0, 1.0))), plane)
    picture = slicing.slice(array, n)
    expected = np.zeros_like(picture)
    expected[row, column] = 1
    assert np.array_equal(picture, expected)


def test_slices_grow_towards_right_anterior_superior():
    volume = Volume(ramp((3, 4, 5)), np.diag((-1.0, -1.0, -1.0, 1.0)))
    for plane, axis in (("sagittal", 0), ("coronal", 1), ("axial", 2)):
        slicing = Slicing(volume, plane)
        assert slicing.index(0) == volume.shape[axis] - 1
        assert [slicing.position(n)[axis] for n in range(len(slicing))] == list(range(1 - volume.shape[axis], 1))


@pytest.mark.parametrize(
    ("shape", "spacing", "plane"),
    [
        ((4, 4, 4), (1, 1, 5), "axial"),
        ((4, 4, 4), (5, 1, 1), "sagittal"),
        ((4, 4, 4), (1, 5, 1), "coronal"),
        ((4, 4, 4), (1, 1, 1), "axial"),
        ((4, 4, 4), (1, 1.0000001, 1), "axial"),  # a tie up to float32
        ((4, 4, 4), (2, 2, 1), "coronal"),
        ((1, 9, 9), (1, 1, 1), "sagittal"),  # a single slice stays whole
        ((9, 9, 1), (2, 2, 1), "axial"),
        ((1, 9, 1), (1, 1, 3), "axial"),
        ((1, 1, 1), (1, 4, 1), "coronal"),
    ],
)
def test_acquisition_plane(shape, spacing, plane):
    for order, signs in ORIENTATIONS:
        in_file = [shape[w] for w in order]
        volume = Volume(ramp(in_file), affine_of(order, signs, [spacing[w] for w in order]))
        slicing = Slicing(volume, "acquisition")
        assert slicing.plane == plane
        assert slicing.axis == order.index(["sagittal", "coronal", "axial"].index(plane))


def test_writing_into_a_slice_writes_into_the_array():
    volume = Volume(np.zeros((3, 4, 5)), affine_of((2, 0, 1), (1, -1, 1)))
    slicing = Slicing(volume, "coronal")
    slicing.slice(volume.array, 1)[:] = 7
    assert np.count_nonzero(volume.array == 7) == np.prod(slicing.shape)
    assert (volume.array.take(slicing.index(1), slicing.axis) == 7).all()


def test_errors_name_the_fault():
    slicing = Slicing(Volume(ramp((3, 4, 5)), np.eye(4)), "axial")
    with pytest.raises(VolumeError, match=r"'frontal' is not a plane; choose one of axial, coronal, sagittal, acq"):
        Slicing(Volume(ramp((3, 4, 5)), np.eye(4)), "frontal")
    for n in (-1, 5):
        with pytest.raises(VolumeError, match=rf"axial slice {n} does not exist; the volume has slices 0 to 4"):
            slicing.slice(np.zeros((3, 4, 5)), n)
    with pytest.raises(VolumeError, match=r"shape \(5, 4, 3\) does not fit the volume's grid \(3, 4, 5\)"):
        slicing.slices(np.zeros((5, 4, 3)))
    with pytest.raises(VolumeError, match=r"do not fill the volume"):
        slicing.stack(np.zeros((5, 3, 4)))
