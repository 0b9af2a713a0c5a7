"""A small cohort: heads, some with a blob, one file that is none, and a detector."""

from __future__ import annotations

from pathlib import Path

import pytest

from medclipad.cohort.outputs import Layout
from medclipad.cohort.worker import Worker, WorkerSettings
from medclipad.detection.fit import fit
from medclipad.volume import write_volume

SICK = ("head7", "head8")


@pytest.fixture(scope="session")
def cohort(head, tmp_path_factory) -> Path:
    """A folder with eight heads, the last two with a blob, and a file that cannot be read."""
    folder = tmp_path_factory.mktemp("cohort")
    for seed in range(1, 9):
        write_volume(head(seed, f"head{seed}" in SICK), folder / f"head{seed}.nii.gz")
    (folder / "broken.nii.gz").write_bytes(b"garbage" * 50)
    return folder


@pytest.fixture(scope="session")
def detector(head, tmp_path_factory) -> Path:
    """A detector of four other heads."""
    folder = tmp_path_factory.mktemp("detectors") / "small"
    fit(normal=[head(seed) for seed in (11, 12, 13, 14)], planes="axial", shots=8, image_size=64, seed=1).save(folder)
    return folder


@pytest.fixture(scope="module")
def worker(detector, tmp_path_factory) -> Worker:
    """A worker in this process, that writes a flat folder."""
    return Worker(WorkerSettings((detector,), tmp_path_factory.mktemp("out"), Layout.FLAT))
