"""A volume of another modality than an intensity preset is for is refused, by its DICOM modality or its values."""

from __future__ import annotations

import numpy as np
import pytest

from medclipad.errors import VolumeError
from medclipad.volume import Volume, require_modality

GRID = np.eye(4)
RNG = np.random.default_rng(0)


def ct(padding: float | None = None) -> np.ndarray:
    """Return a head in Hounsfield units in air, with corners of a padding value outside of the scanned circle."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, 32),) * 3, indexing="ij")
    values = np.where(x**2 + y**2 + z**2 < 0.5, 40, -1000) + RNG.normal(0, 10, x.shape)
    if padding is not None:
        values[x**2 + y**2 > 1.2] = padding
    return values.astype(np.int16)


def mr() -> np.ndarray:
    return np.abs(RNG.normal(200, 80, (32, 32, 32))).astype(np.int16)


def refused(preset: str, array: np.ndarray, modality: str | None = None) -> str:
    with pytest.raises(VolumeError) as caught:
        require_modality(preset, Volume(array, GRID, "case", modality), "do this")
    return str(caught.value)


@pytest.mark.parametrize(
    ("preset", "modality", "other"),
    [("mr", "CT", "MR"), ("ct:brain", "MR", "CT"), ("ct:40,80", "PT", "CT"), ("mr", "US", "MR")],
)
def test_the_dicom_modality_decides(preset, modality, other):
    assert refused(preset, mr() if modality == "CT" else ct(), modality) == (
        f"case: it is {modality} by its DICOM modality, but the intensity preset {preset} is for {other}; do this."
    )


@pytest.mark.parametrize("padding", [None, -32768, -3024, -2000, -1024])
def test_hounsfield_units_are_known_by_their_values(padding):
    assert "it is CT by its values (in Hounsfield units, air at -1000)" in refused("mr", ct(padding))
    require_modality("ct:brain", Volume(ct(padding), GRID), "")


def test_values_without_any_below_zero_are_no_ct():
    assert "it is no CT by its values (0 to " in refused(
        "ct:brain", np.append(mr(), np.zeros((1, 32, 32), np.int16), 0)
    )


@pytest.mark.parametrize(
    "array",
    [
        mr(),
        (mr() - 200) / 80,  # z-scores
        RNG.uniform(-4096, 4095, (32, 32, 32)).astype(np.int16),  # a phase image
        RNG.uniform(-3142, 3142, (32, 32, 32)),
        np.zeros((4, 4, 4)),
        np.full((4, 4, 4), np.nan),
        -np.abs(mr()),
    ],
)
def test_what_is_no_ct_by_its_values_is_not_called_one(array):
    require_modality("mr", Volume(array, GRID), "")


@pytest.mark.parametrize(
    ("preset", "array", "modality"),
    [
        ("raw", ct(), "CT"), ("raw", mr(), None), ("auto", ct(), "CT"), ("mr", ct(), "MR"), ("mr", mr(), "OT"),
        ("ct:brain", ct().clip(0), "CT"), ("ct:brain", ct().clip(-200), None), ("ct:brain", np.zeros((4, 4, 4)), None),
    ],
)  # fmt: skip
def test_what_fits_or_cannot_be_told_is_accepted(preset, array, modality):
    require_modality(preset, Volume(array, GRID, modality=modality), "")
