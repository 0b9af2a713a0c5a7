"""A fit on files: the same detector as on volumes in memory, and memory that does not grow with their number."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from medclipad.detection.fit import fit
from medclipad.volume import Volume, read_volume, write_volume

SMALL = {"image_size": 64, "shots": 12}


@pytest.mark.parametrize("options", [{"planes": "all"}, {"planes": "axial", "method": "mvfa", "epochs": 1}])
def test_files_give_the_same_detector_as_volumes(head, lesion, tmp_path, options):
    files = [tmp_path / f"head{seed}.nii.gz" for seed in range(4)]
    for seed, file in enumerate(files):
        write_volume(head(seed), file)
    write_volume(head(0, True), tmp_path / "sick.nii.gz")
    write_volume(lesion, tmp_path / "mask.nii.gz")
    pair = tmp_path / "sick.nii.gz", tmp_path / "mask.nii.gz"
    ours = fit(normal=files, abnormal=[pair], **SMALL, **options)
    both = read_volume(pair[0]), read_volume(pair[1])
    expected = fit(normal=[read_volume(file) for file in files], abnormal=[both], **SMALL, **options)
    assert ours.info.calibration == expected.info.calibration and ours.info.acquisition == expected.info.acquisition
    for plane, model in ours.models.items():
        other = expected.models[plane].head_state()
        assert all(torch.equal(value, other[name]) for name, value in model.head_state().items())
    maps = [detector.detect(head(9)).anomaly_map.array for detector in (ours, expected)]
    assert np.array_equal(*maps)


def test_memory_does_not_grow_with_the_number_of_files(tmp_path):
    _peak(tmp_path / "first", 2)  # what is loaded once
    few, many = (_peak(tmp_path / str(count), count) for count in (4, 20))
    assert many - few < 3e6, f"16 volumes more, of 1.5 MB with what is known of each, took {many - few} bytes"


def _peak(folder: Path, count: int) -> int:
    """Return the most bytes that numpy and Python held while a detector was fit on so many files."""
    folder.mkdir()
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in (80, 80, 40)), indexing="ij", sparse=True)
    for seed in range(count):
        noise = np.random.default_rng(seed).normal(size=(80, 80, 40))
        array = np.where(x**2 + y**2 + z**2 < 0.8, 500 + 50 * noise, 0).astype(np.float32)
        write_volume(Volume(array, np.diag((2.0, 2.0, 4.0, 1.0))), folder / f"{seed}.nii.gz")
    tracemalloc.start()
    try:
        fit(normal=folder, planes="axial", shots=4, image_size=64, smoothing=0)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
