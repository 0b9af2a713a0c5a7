"""Gantry tilt, resampled: every voxel has the value of the tilted slices at its position."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_erosion

from medclipad.volume import read_volume
from medclipad.volume.dicom.tilt import is_tilted, resample_upright, tilt_degrees
from tests.volume.format_case import shared
from tests.volume.volume_cases import affine_of, world


def slanted(shape, along, across, affine):
    """Return an affine whose third axis leans by `along` and `across` mm per slice."""
    tilted = affine.copy()
    unit = affine[:3, :2] / np.linalg.norm(affine[:3, :2], axis=0)
    tilted[:3, 2] += unit @ (along, across)
    return tilted


@settings(max_examples=15, deadline=None)
@given(
    along=st.floats(-4, 4),
    across=st.floats(-4, 4),
    degrees=st.tuples(*[st.floats(-180, 180)] * 3),
    flip=st.sampled_from((1, -1)),
)
def test_a_linear_field_comes_out_exactly(along, across, degrees, flip):
    """Linear interpolation is exact for values that grow linearly over the patient."""
    shape, slope = (9, 8, 7), np.array((3.0, -5.0, 7.0))
    affine = affine_of(signs=(1, 1, flip), spacing=(0.8, 1.1, 4), degrees=degrees, origin=(5, -9, 30))
    tilted = slanted(shape, along, across, affine)
    field = world(tilted, np.moveaxis(np.indices(shape), 0, -1)) @ slope
    array, moved = resample_upright(field, tilted)
    there = world(np.linalg.inv(tilted), world(moved, np.moveaxis(np.indices(array.shape), 0, -1)))
    inside = ((there > -1e-9) & (there < np.array(shape) - 1 + 1e-9)).all(axis=-1)
    assert (array >= field.min() - 1e-9).all()  # in the gaps at the border too
    expected = world(moved, np.moveaxis(np.indices(array.shape), 0, -1)) @ slope
    np.testing.assert_allclose(array[inside], expected[inside], atol=1e-6)
    assert inside.sum() >= 6 * 5 * 7  # a row and a column less if the shift is not a whole pixel
    np.testing.assert_allclose(moved[:3, :2].T @ moved[:3, 2], 0, atol=1e-9)
    np.testing.assert_allclose(moved[:3, :2], tilted[:3, :2])
    assert not is_tilted(moved, 7)


def test_an_upright_stack_is_unchanged():
    affine = affine_of(spacing=(0.8, 1.1, 4), degrees=(10, 20, 30))
    field = np.random.default_rng(0).normal(size=(9, 8, 7))
    array, moved = resample_upright(field, affine)
    np.testing.assert_allclose(moved, affine, atol=1e-12)
    np.testing.assert_allclose(array, field)
    assert not is_tilted(affine, 7)
    assert tilt_degrees(slanted((9, 8, 7), 0, 4, affine)) == pytest.approx(45)


def test_a_real_series_agrees_with_itk(tmp_path):
    """Each slice on its own, at the position in its header, is resampled by ITK onto our grid."""
    folder = shared("dicom_edge_cases/dicom2nifti_gantrytilting/001")(tmp_path)
    volume = read_volume(folder, tilt="resample")
    assert "instances" not in volume.metadata["dicom"] or not volume.metadata["dicom"]["instances"]
    flip = np.diag((-1, -1, 1))
    lines = [np.array((0, 0, k, 1)) for k in range(volume.shape[2])]
    slices = [SimpleITK.ReadImage(str(file)) for file in sorted(folder.iterdir())]
    depth = np.cross(*np.reshape(slices[0].GetDirection(), (3, 3)).T[:2])
    slices.sort(key=lambda image: np.dot(image.GetOrigin(), depth))
    for k, image in enumerate(slices):
        grid = SimpleITK.Image(volume.shape[0], volume.shape[1], 1, SimpleITK.sitkFloat32)
        grid.SetSpacing((*volume.spacing[:2], 1.0))
        grid.SetDirection((flip @ volume.direction).ravel().tolist())
        grid.SetOrigin((flip @ (volume.affine @ lines[k])[:3]).tolist())
        low = float(volume.array.min())
        theirs = SimpleITK.GetArrayFromImage(
            SimpleITK.Resample(image, grid, SimpleITK.Transform(), SimpleITK.sitkLinear, low, SimpleITK.sitkFloat32)
        )[0].T
        # Beyond the border each continues in its own way.
        within = np.asarray(binary_erosion(theirs != low, iterations=2)).astype(bool)
        assert within.mean() > 0.8
        np.testing.assert_allclose(volume.array[..., k][within], theirs[within], atol=0.05)
