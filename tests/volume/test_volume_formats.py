"""Every kind of file in the table of docs/reference/formats.md: how it is read, and what other programs see in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medclipad.volume import read_volume, write_volume
from tests.volume.format_case import Case
from tests.volume.formats_table import SECTIONS, table
from tests.volume.readers import grids
from tests.volume.volume_cases import fault, world

CASES = [case for cases in SECTIONS.values() for case in cases]
READ = [case for case in CASES if not case.refused]
VOXELS = 1000
MILLIMETRES = 1e-3


def test_the_documented_table_is_current():
    file = Path(__file__).parents[2] / "docs" / "reference" / "formats.md"
    assert file.read_text(encoding="utf-8") == table(), "run: python -m tests.volume.formats_table"


def test_names_of_cases_are_unique():
    names = [(section, case.name) for section, cases in SECTIONS.items() for case in cases]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_file_is_read_or_refused_as_documented(case, tmp_path):
    source = case.make(tmp_path)
    if case.refused:
        assert case.refused in fault(source, **case.options)
        return
    volume = read_volume(source, **case.options)
    if case.note:
        assert any(case.note in note for note in volume.notes), volume.notes
    else:
        assert volume.notes == ()


@pytest.mark.parametrize(
    ("case", "reader"),
    [(case, reader) for case in READ for reader in case.readers],
    ids=lambda value: value.name if isinstance(value, Case) else value,
)
def test_other_programs_see_the_same_values_at_the_same_positions(case, reader, tmp_path):
    """1,000 random voxels: within 1e-3 mm of a voxel of theirs, with its value; together they cover their grids."""
    source = case.make(tmp_path)
    volume = read_volume(source, **case.options)
    index = np.random.default_rng(0).integers(0, volume.shape, (VOXELS, 3))
    places, values = world(volume.affine, index), volume.array[tuple(index.T)]
    unseen, count = np.ones(VOXELS, dtype=bool), 0
    for array, affine in grids(reader, source):
        there = np.linalg.solve(affine, np.column_stack([places, np.ones(VOXELS)]).T)[:3].T
        nearest = np.round(there).astype(int)
        inside = ((nearest >= 0) & (nearest < array.shape)).all(axis=1)
        inside &= np.linalg.norm((there - nearest) @ affine[:3, :3].T, axis=1) < MILLIMETRES
        theirs = array[tuple(nearest[inside].T)]
        np.testing.assert_allclose(values[inside].astype(float), theirs.astype(float), rtol=1e-6)
        unseen &= ~inside
        count += array.size
    assert not unseen.any()
    assert count == volume.array.size


@pytest.mark.parametrize("suffix", [pytest.param(".nii", marks=pytest.mark.long), ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("case", [case for case in READ if not case.name.startswith("real")], ids=lambda c: c.name)
def test_a_written_map_has_its_hottest_voxel_at_the_same_position(case, suffix, tmp_path):
    """A map on the case's grid is written by us and read by every program that reads the format."""
    (tmp_path / "case").mkdir()
    volume = read_volume(case.make(tmp_path / "case"), **case.options)
    hottest = tuple(np.random.default_rng(1).integers(0, volume.shape))
    heat = np.zeros(volume.shape, dtype=np.float32)
    heat[hottest] = 1
    write_volume(volume.with_array(heat), tmp_path / f"map{suffix}")
    place = world(volume.affine, np.array(hottest))
    for reader in ("nibabel", "SimpleITK", "Slicer") if "nii" in suffix else ("SimpleITK", "Slicer"):
        if reader in case.misplaced:
            continue
        ((array, affine),) = grids(reader, tmp_path / f"map{suffix}")
        theirs = world(affine, np.argwhere(array == array.max()).astype(float))
        assert array.max() == 1
        np.testing.assert_allclose(theirs, place[None], atol=MILLIMETRES)
