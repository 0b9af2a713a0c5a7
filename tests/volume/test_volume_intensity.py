"""Presets, windows and foreground, for ordinary and for extreme values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from medclipad.errors import VolumeError
from medclipad.volume import (
    MINIMUM_FOREGROUND,
    Slicing,
    Volume,
    foreground_mask,
    parse_preset,
    resolve_preset,
    slice_foreground,
    to_unit,
)
from tests.volume.volume_cases import ORIENTATIONS, affine_of

MR = parse_preset("mr")
BRAIN = parse_preset("ct:brain")


def volume_of(array, **more):
    return Volume(np.asarray(array), np.eye(4), name="case", **more)


def ball(shape=(24, 26, 22), radius=8.0):
    place = np.indices(shape) - (np.reshape(shape, (3, 1, 1, 1)) - 1) / 2
    return np.sqrt((place**2).sum(axis=0)) < radius


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("ct:brain", 0, 80),
        ("ct:lung", -1350, 150),
        ("ct:abdomen", -150, 250),
        ("ct:bone", -500, 1300),
        ("ct:40,80", 0, 80),
        ("ct:-600.5,1500", -1350.5, 149.5),
    ],
)
def test_ct_windows(text, low, high):
    preset = parse_preset(text)
    assert str(preset) == text
    assert parse_preset(str(preset)) == preset
    assert preset.window(volume_of(np.zeros((2, 2, 2))), np.ones((2, 2, 2), bool)) == (low, high)


@pytest.mark.parametrize("text", ["mr", "raw", "auto", " MR ", "CT:Brain", "ct: 40 , 80"])
def test_preset_text_round_trips(text):
    preset = parse_preset(text)
    assert parse_preset(str(preset)) == preset


@pytest.mark.parametrize(
    "text", ["", "ct", "ct:", "brain", "ct:liver", "ct:40", "ct:40,", "ct:nan,80", "ct:1,2,3", "pet"]
)
def test_unknown_presets(text):
    with pytest.raises(VolumeError, match="is not an intensity preset; choose ct:brain, ct:lung"):
        parse_preset(text)


@pytest.mark.parametrize("text", ["ct:40,0", "ct:40,-80"])
def test_width_must_be_positive(text):
    with pytest.raises(VolumeError, match="the width of a CT window must be above 0"):
        parse_preset(text)


def test_auto_is_resolved_by_modality_and_values():
    hounsfield = np.full((4, 4, 4), -1000, dtype=np.int16)
    hounsfield[1:3, 1:3, 1:3] = 60
    for modality in ("CT", None):
        with pytest.raises(VolumeError, match="case holds CT numbers, for which 'auto' has no window; choose ct:brain"):
            resolve_preset("auto", volume_of(hounsfield, modality=modality))
    assert str(resolve_preset("auto", volume_of(hounsfield, modality="MR"))) == "mr"
    assert str(resolve_preset("auto", volume_of(hounsfield.clip(0), modality="CT"))) == "mr"
    assert str(resolve_preset("auto", volume_of(hounsfield.clip(0)))) == "mr"
    assert str(resolve_preset("auto", volume_of(np.full((2, 2, 2), np.nan)))) == "mr"
    assert str(resolve_preset(parse_preset("ct:40,80"), volume_of(hounsfield))) == "ct:40,80"
    with pytest.raises(VolumeError, match="'auto' has no window of its own"):
        parse_preset("auto").window(volume_of(hounsfield), hounsfield > 0)


def test_mr_window_covers_the_foreground_of_the_whole_volume():
    rng = np.random.default_rng(0)
    array = np.where(ball(), rng.uniform(100, 200, ball().shape), 0)
    array[0, 0, 0] = 1e9  # one voxel does not move percentiles
    low, high = MR.window(volume_of(array), ball())
    assert 100 <= low < 102
    assert 198 < high <= 200


def test_raw_window_covers_all_finite_values():
    array = np.array([-3.0, 5.0, np.nan, np.inf, -np.inf, 2.0]).reshape(1, 2, 3)
    assert parse_preset("raw").window(volume_of(array), np.zeros(array.shape, bool)) == (-3.0, 5.0)


@pytest.mark.parametrize("text", ["mr", "raw"])
@pytest.mark.parametrize(
    "array",
    [
        np.zeros((3, 3, 3)),
        np.full((3, 3, 3), 7, np.uint8),
        np.full((3, 3, 3), -1e30),
        np.full((3, 3, 3), 1e30, np.float32),
        np.full((3, 3, 3), np.nan),
        np.full((3, 3, 3), np.inf),
        np.full((1, 1, 1), 5.0),
        ball().astype(np.uint8),
        ball(),
    ],
)
def test_any_volume_has_a_window_with_low_below_high(text, array):
    volume = volume_of(array)
    mask = foreground_mask(volume, MR)
    low, high = parse_preset(text).window(volume, mask)
    assert np.isfinite([low, high]).all()
    assert low < high
    unit = to_unit(array, low, high)
    assert unit.min() >= 0
    assert unit.max() <= 1


def test_a_binary_image_keeps_its_contrast():
    volume = volume_of(ball().astype(np.uint8) * 200)
    unit = to_unit(volume.array, *MR.window(volume, foreground_mask(volume, MR)))
    assert (unit[ball()] == 1).all()
    assert (unit[~ball()] == 0).all()


@given(
    array=hnp.arrays(
        st.sampled_from([np.float32, np.float64, np.int16, np.uint8, np.int32, np.float16, np.bool_]), (2, 3, 2)
    ),
    low=st.floats(-1e6, 1e6),
    width=st.floats(1e-2, 1e6),
)
def test_to_unit(array, low, width):
    untouched = array.copy()
    unit = to_unit(array, low, low + width)
    assert unit.dtype == np.float32
    values = array.astype(np.float64)
    expected = np.where(np.isnan(values), 0, np.clip((np.clip(values, -1e300, 1e300) - low) / width, 0, 1))
    # float32 input has 24 bits: far from zero a narrow window has fewer steps
    step = 4 * max(abs(low), abs(low + width)) * np.finfo(np.float32).eps / width
    np.testing.assert_allclose(unit, expected, atol=1e-6 + step)
    assert np.array_equal(array, untouched, equal_nan=array.dtype.kind == "f")


def test_to_unit_of_nan_and_infinity():
    unit = to_unit(np.array([np.nan, -np.inf, np.inf, -1.0, 0.5, 1e30]), 0, 1)
    assert unit.tolist() == [0, 0, 1, 0, 0.5, 1]


def test_to_unit_keeps_the_precision_of_wide_types():
    array = np.array([1e9, 1e9 + 1, 1e9 + 2])
    for dtype in (np.float64, np.int32):
        assert to_unit(array.astype(dtype), 1e9, 1e9 + 2).tolist() == [0, 0.5, 1]


@pytest.mark.parametrize(
    "array",
    [np.zeros((4, 4, 4)), np.full((4, 4, 4), 80, np.uint8), np.full((4, 4, 4), np.nan), np.full((1, 1, 1), 3.0)],
)
@pytest.mark.parametrize("preset", [MR, BRAIN, parse_preset("raw")])
def test_constant_and_empty_volumes_have_no_foreground(array, preset):
    mask = foreground_mask(volume_of(array), preset)
    assert mask.dtype == bool
    assert mask.shape == array.shape
    assert not mask.any()


def noisy_head(rng):
    return np.where(ball(), rng.normal(500, 60, ball().shape), abs(rng.normal(0, 12, ball().shape)))


def fat_head(rng):
    """Return a head that is half bright: one threshold would separate fat from brain."""
    head = noisy_head(rng)
    head[ball() & (np.indices(ball().shape)[1] > 12)] *= 6
    return head


def even_head(rng):
    """Return a head with less contrast than the noise in the air: a lower threshold would split the air."""
    return np.where(ball(), rng.normal(500, 3, ball().shape), abs(rng.normal(0, 60, ball().shape)))


def z_scored(rng):
    """Return a brain whose values lie on both sides of its background of exactly 0."""
    return np.where(ball(), rng.normal(0, 1, ball().shape), 0)


def eight_bit(rng):
    """Return a head in air of few values, each of them in more than 5 % of the voxels."""
    return (
        np.where(ball(), rng.normal(120, 20, ball().shape), rng.integers(0, 4, ball().shape))
        .clip(0, 255)
        .astype(np.uint8)
    )


@pytest.mark.parametrize("make", [noisy_head, fat_head, even_head, z_scored, eight_bit])
def test_mr_foreground_is_the_head(make):
    array = make(np.random.default_rng(1))
    mask = foreground_mask(volume_of(array), MR)
    assert (mask == ball()).mean() > 0.999


def test_skull_stripped_brain_is_exact_and_its_holes_are_filled():
    array = np.where(ball() & ~ball(radius=3), 300.0, 0.0)
    assert np.array_equal(foreground_mask(volume_of(array), MR), ball())


def test_ct_foreground_is_denser_than_air_and_includes_the_lungs():
    array = np.where(ball(), 40, -1000).astype(np.int16)
    array[ball(radius=4)] = -850
    assert np.array_equal(foreground_mask(volume_of(array), BRAIN), ball())
    array[ball()] = -499
    array[0, 0, 0] = -500
    assert np.array_equal(foreground_mask(volume_of(array), BRAIN), ball())


def test_nan_and_infinity_are_background():
    array = noisy_head(np.random.default_rng(1))
    array[:6] = np.nan
    array[-3:] = np.inf
    for preset in (MR, BRAIN):
        mask = foreground_mask(volume_of(array), preset)
        assert not mask[:6].any()
        assert not mask[-3:].any()
    assert (foreground_mask(volume_of(array), MR) == (ball() & np.isfinite(array))).mean() > 0.999


def test_one_extreme_voxel_does_not_hide_the_head():
    array = noisy_head(np.random.default_rng(1))
    array[12, 12, 12] = 1e30
    assert (foreground_mask(volume_of(array), MR) == ball()).mean() > 0.999


def test_holes_are_filled_in_axial_slices_for_any_axis_order():
    """A tube along S is closed in axial slices and open in all others."""
    tube = np.zeros((9, 8, 7), dtype=np.float32)
    tube[2:7, 2:6] = 100
    tube[4, 3:5] = 0
    for order, signs in ORIENTATIONS:
        array = tube.transpose(order)[tuple(slice(None, None, s) for s in signs)]
        mask = foreground_mask(Volume(array, affine_of(order, signs)), MR)
        assert np.count_nonzero(mask) == 5 * 4 * 7


def test_slice_foreground_is_a_fraction_of_each_slice():
    volume = volume_of(np.zeros((4, 5, 3)))
    mask = np.zeros(volume.shape, dtype=bool)
    mask[:, :, 1] = True
    mask[0, 0, 2] = True
    fractions = slice_foreground(mask, Slicing(volume, "axial"))
    assert fractions.dtype == np.float64
    assert fractions.tolist() == [0, 1, 1 / 20]
    assert fractions[2] > MINIMUM_FOREGROUND
