"""A short run of the fuzzer, its own parts, and its earlier findings, which are now refused."""

from __future__ import annotations

import random
import time
import tracemalloc
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from medclipad.detection.reference_checkpoints import read_checkpoint
from medclipad.detection.storage import read_info
from medclipad.errors import DetectorError
from medclipad.volume import Volume, read_volume, write_volume
from tests.fuzz.mutate import mutated
from tests.fuzz.run import run
from tests.fuzz.second import CannotSay, difference, in_zip, second_view
from tests.volume.volume_cases import affine_of, fault, series

OTHERS = {".pth": read_checkpoint, ".detector": read_info}
"""Readers of files that are not volumes."""

REGRESSIONS = sorted((Path(__file__).parent / "regressions").iterdir())


def test_mutants_are_refused_or_read_as_by_a_second_reader():
    """Reproduce a fault with `python -m tests.fuzz.run --seed 7 --first N --mutants 1`."""
    report = run(300, seed=7)
    assert report.faults == []
    assert sum(report.outcomes.values()) == 300
    assert report.memory < 1000
    by_outcome = Counter()
    for (_, outcome), count in report.outcomes.items():
        by_outcome[outcome] += count
    assert by_outcome["refused"] > 100
    assert by_outcome["read, the same"] > 30


@pytest.mark.parametrize("file", REGRESSIONS, ids=lambda file: file.name)
def test_earlier_findings_of_the_fuzzer_are_refused(file):
    began = time.process_time()
    tracemalloc.start()
    if file.suffix in OTHERS:
        with pytest.raises(DetectorError, match=r"is damaged \(.*: .*\.$"):
            OTHERS[file.suffix](file)
    else:
        fault(file)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert time.process_time() - began < 5
    assert most < 100e6


def test_the_same_number_gives_the_same_mutant():
    data = bytes(range(256)) * 4
    first, again, other = (mutated(data, random.Random(f"0:{n}")) for n in (1, 1, 2))
    assert first == again != other
    assert data not in (first, other)


@pytest.mark.parametrize("name", ["case.nii", "case.nii.gz", "case.nrrd", "case.mha"])
def test_the_second_reader_distinguishes_volumes(name, tmp_path):
    array = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    volume = Volume(array, affine_of((1, 0, 2), (1, -1, 1), (1, 2, 3), (10, 20, 30), (4, 5, 6)))
    write_volume(volume, tmp_path / name)
    seen = second_view(tmp_path / name)
    assert difference(read_volume(tmp_path / name), seen) == ""
    other = array.copy()
    other[1, 2, 3] += 1
    assert difference(volume.with_array(other), seen) == "1 of 60 values"
    assert difference(volume.with_array(array.astype(np.float32)), seen) == ""
    assert "mm apart" in difference(Volume(array, volume.affine + 0.01 * np.eye(4, k=3)), seen)
    assert "shape" in difference(Volume(array[:2], volume.affine), seen)
    (tmp_path / name).write_bytes(b"nothing")
    with pytest.raises(CannotSay):
        second_view(tmp_path / name)


def test_the_second_reader_needs_no_spaces_in_a_header(tmp_path):
    """MetaIO's keys end at the = or :, with or without spaces around it."""
    write_volume(Volume(np.zeros((3, 4, 5), np.int16), affine_of(spacing=(4, 5, 6))), tmp_path / "case.mha")
    data = (tmp_path / "case.mha").read_bytes()
    (tmp_path / "case.mha").write_bytes(data.replace(b"ElementSpacing = ", b"ElementSpacing=").replace(b"t = ", b"t:"))
    volume = read_volume(tmp_path / "case.mha")
    np.testing.assert_allclose(volume.spacing, (4, 5, 6))
    assert difference(volume, second_view(tmp_path / "case.mha")) == ""


def test_archive_members_of_the_same_name_are_all_slices(tmp_path):
    values = series(tmp_path, [0.0, 2.0, 4.0])
    with zipfile.ZipFile(tmp_path / "case.zip", "w") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        for file in sorted(tmp_path.glob("*.dcm")):
            archive.write(file, "slice.dcm")
    volume = read_volume(tmp_path / "case.zip")
    np.testing.assert_array_equal(volume.array, values.transpose(2, 1, 0))
    assert in_zip(volume, tmp_path / "case.zip") == ""
    assert in_zip(volume.with_array(volume.array + 1), tmp_path / "case.zip") != ""
