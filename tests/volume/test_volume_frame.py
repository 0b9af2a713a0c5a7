"""The square frame keeps positions and the range of values."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import center_of_mass

from medclipad.errors import VolumeError
from medclipad.volume import SquareFrame

shapes = st.tuples(st.integers(1, 70), st.integers(1, 70))
spacings = st.tuples(st.floats(0.4, 4), st.floats(0.4, 4))


@settings(max_examples=60, deadline=None)
@given(shape=shapes, spacing=spacings, size=st.integers(1, 64), mode=st.sampled_from(("bilinear", "bicubic")))
def test_shape_and_range(shape, spacing, size, mode):
    rng = np.random.default_rng(0)
    images = rng.uniform(0.25, 1, (2, *shape)).astype(np.float32)
    frame = SquareFrame(shape, spacing, size, mode=mode)
    squares = frame.apply(images)
    assert squares.shape == (2, size, size)
    assert squares.dtype == np.float32
    assert squares.min() >= 0
    assert squares.max() <= images.max() + 1e-6
    back = frame.invert(squares)
    assert back.shape == images.shape
    assert back.min() >= squares.min() - 1e-6
    assert back.max() <= squares.max() + 1e-6


@pytest.mark.parametrize("size", [60, 97, 224])
@pytest.mark.parametrize(("shape", "spacing"), [((120, 121), (1, 1)), ((31, 120), (4, 1)), ((120, 80), (0.5, 0.9))])
def test_a_linear_ramp_survives(shape, spacing, size):
    """Away from the padded border, the result differs by no more than a tenth of the step between pixels."""
    rows, columns = np.indices(shape, dtype=np.float32)
    frame = SquareFrame(shape, spacing, size)
    reach = [int(np.ceil(2.5 * max(1, p / size))) for p in frame.padded]  # of both filters together
    inside = (0, *(slice(r, -r) for r in reach))
    for image in (rows + 5, columns + 5, 0.3 * rows - 0.7 * columns + 90):
        back = frame.invert(frame.apply(image[None]))
        np.testing.assert_allclose(back[inside], image[None][inside], atol=0.1)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(40, 90), st.integers(40, 90)),
    spacing=st.tuples(st.floats(0.5, 2), st.floats(0.5, 2)),
    size=st.integers(40, 128),
    place=st.tuples(st.floats(0.3, 0.7), st.floats(0.3, 0.7)),
)
def test_a_blob_stays_where_it_is(shape, spacing, size, place):
    centre = [p * (n - 1) for p, n in zip(place, shape, strict=True)]
    rows, columns = np.indices(shape)
    blob = np.exp(-((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2) / 18).astype(np.float32)
    frame = SquareFrame(shape, spacing, size)
    square = frame.apply(blob[None])
    # In the square: where the pixel centre of the padded image falls.
    scales = [size / p for p in frame.padded]
    before = [(p - n) // 2 for p, n in zip(frame.padded, shape, strict=True)]
    expected = [(c + b + 0.5) * s - 0.5 for c, b, s in zip(centre, before, scales, strict=True)]
    np.testing.assert_allclose(center_of_mass(square[0]), expected, atol=0.5)
    np.testing.assert_allclose(center_of_mass(frame.invert(square)[0]), centre, atol=0.5)


@settings(max_examples=60, deadline=None)
@given(shape=shapes, spacing=spacings)
def test_the_frame_is_a_square_in_millimetres(shape, spacing):
    frame = SquareFrame(shape, spacing, 32)
    sides = [p * mm for p, mm in zip(frame.padded, spacing, strict=True)]
    assert abs(sides[0] - sides[1]) <= max(spacing)
    for padded, n in zip(frame.padded, shape, strict=True):
        assert padded >= n
    assert frame.padded[0] == shape[0] or frame.padded[1] == shape[1]


def test_a_slice_that_fits_is_left_alone():
    images = np.random.default_rng(0).random((3, 48, 48), dtype=np.float32)
    frame = SquareFrame((48, 48), (1.0, 1.0), 48)
    assert np.array_equal(frame.apply(images), images)
    assert np.array_equal(frame.invert(images), images)


def test_padding_is_centred_and_zero():
    frame = SquareFrame((10, 40), (1.0, 1.0), 40)
    square = frame.apply(np.ones((1, 10, 40), dtype=np.float32))[0]
    assert (square[15:25] == 1).all()
    assert not square[:15].any()
    assert not square[25:].any()


def test_shrinking_is_anti_aliased():
    """A one-pixel checkerboard becomes even grey; without a filter it would become stripes or one of its two values."""
    board = (np.indices((128, 128)).sum(axis=0) % 2).astype(np.float32)[None]
    small = SquareFrame((128, 128), (1.0, 1.0), 43).apply(board)
    assert small[:, 1:-1, 1:-1].std() < 0.02
    maps = SquareFrame((43, 43), (1.0, 1.0), 128).invert(board)
    assert maps[:, 1:-1, 1:-1].std() < 0.02


def test_an_empty_batch_stays_empty():
    frame = SquareFrame((10, 12), (1.0, 1.0), 16)
    assert frame.apply(np.empty((0, 10, 12), dtype=np.float32)).shape == (0, 16, 16)
    assert frame.invert(np.empty((0, 16, 16), dtype=np.float32)).shape == (0, 10, 12)


def test_importing_the_package_does_not_import_torch():
    """`medclipad --help` must stay fast."""
    program = "import sys, medclipad.volume; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_errors_name_the_fault():
    with pytest.raises(VolumeError, match="too unequal to be shown as a square; choose another plane"):
        SquareFrame((10, 10), (0.001, 10.0), 32)
    with pytest.raises(ValueError, match="neither 'bilinear' nor 'bicubic'"):
        SquareFrame((10, 10), (1.0, 1.0), 32, mode="nearest")
    with pytest.raises(ValueError, match=r"expected \(B, 10, 12\), got \(1, 12, 10\)"):
        SquareFrame((10, 12), (1.0, 1.0), 16).apply(np.zeros((1, 12, 10)))
