"""A real MedCLIPAD server with small volumes, and helpers for tests without widgets."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
MODULE = Path(os.environ.get("MEDCLIPAD_SLICER_MODULE", ROOT / "MedCLIPAD" / "MedCLIPAD.py"))  # or of faults.py
TESTS = ROOT / "tests"
sys.path[:0] = [
    str(MODULE.parent),
    str(TESTS / "server"),
    str(TESTS / "export"),
]  # the library; live_server; dicom_cases

SMALL = {"planes": "axial", "shots": 8, "epochs": 2, "memory_share": 0.9}  # as little training as shows that it works
SHAPE = (36, 32, 20)  # I, J, K
SPACING = (3.0, 3.5, 5.0)


def run(jobs: Any, until: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Drain the jobs' queue, as the module's timer does, until `until()` is true; return its value."""
    deadline = time.monotonic() + seconds
    while True:
        jobs.drain()
        found = until()
        if found:
            return found
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.005)


class Calls(list):
    """Records what a callback was called with."""

    def __call__(self, *arguments: Any) -> None:
        self.append(arguments)


def grid(rotation: tuple[float, float, float] = (0, 0, 0), spacing: Any = SPACING, codes: str = "RAS") -> np.ndarray:
    """Return a voxel-to-RAS matrix; rotation in degrees, codes: directions of the axes."""
    x, y, z = np.radians(rotation)
    turn = (
        np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
        @ np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
        @ np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    )
    order = np.zeros((3, 3))
    for axis, code in enumerate(codes):
        order["LPS".find(code) if code in "LPS" else "RAI".find(code), axis] = -1 if code in "LPI" else 1
    affine = np.eye(4)
    affine[:3, :3] = turn @ order * spacing
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(SHAPE) - 1) / 2) + [4.0, -7.0, 11.0]
    return affine


def head(affine: np.ndarray, lesion: bool = True, seed: int = 3, shape: Any = SHAPE) -> tuple[np.ndarray, np.ndarray]:
    """Return (voxels int16, lesion mask uint8), both [k, j, i]: a textured ellipsoid, perhaps with a bright ball.

    The anatomy is fixed in space: whatever the grid, it is the same head.
    """
    rng = np.random.default_rng(seed)
    index = np.indices(shape).reshape(3, -1)
    x, y, z = (affine[:3, :3] @ index + affine[:3, 3:]).reshape(3, *shape) - np.reshape([4.0, -7.0, 11.0], (3, 1, 1, 1))
    inside = (x / 44) ** 2 + (y / 46) ** 2 + (z / 45) ** 2 < 1
    texture = 400 + 40 * np.sin(x / 7 + seed) + 40 * np.cos(y / 8 - seed) + rng.normal(0, 6, shape)
    ball = ((x - 15) ** 2 + (y - 10) ** 2 + (z - 12) ** 2 < 13**2) & lesion
    array = (inside * np.where(ball, 900, texture)).astype(np.int16)
    return np.ascontiguousarray(array.T), np.ascontiguousarray((ball & inside).astype(np.uint8).T)


def add_volume(name: str, array: np.ndarray, affine: np.ndarray) -> Any:
    """Add a volume to the scene as Slicer would load it, and return its node."""
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass(
        "vtkMRMLScalarVolumeNode" if array.ndim == 3 else "vtkMRMLVectorVolumeNode", name
    )
    slicer.util.updateVolumeFromArray(node, array)
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(affine))
    node.CreateDefaultDisplayNodes()
    return node


@pytest.fixture(scope="session")
def trained_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two normal heads and one with a lesion, and the detector "first" trained on the normal ones."""
    from live_server import Server

    from medclipad.volume import Volume, write_volume

    studies = tmp_path_factory.mktemp("trained") / "studies"
    (studies / "labels" / "final").mkdir(parents=True)
    for name, seed, lesion in (("normal_1", 1, False), ("normal_2", 2, False), ("case_1", 5, True)):
        array, mask = head(grid(), lesion, seed)
        write_volume(Volume(np.ascontiguousarray(array.T), grid()), studies / f"{name}.nii.gz")
        if lesion:
            write_volume(Volume(np.ascontiguousarray(mask.T), grid()), studies / "labels" / "final" / f"{name}.nii.gz")
    server = Server(studies)
    first = {**SMALL, "normal": ["normal_1", "normal_2"], "select": "always", "name": "first"}
    try:
        server.client.train("mediclip", first)
        server.client.wait_trained(None, 300)
    finally:
        server.stop()
    assert "Traceback" not in server.log, server.log
    return studies


@pytest.fixture(scope="module")
def study(trained_study: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server of the file's own: what another file leaves behind would make the order of the files count."""
    from live_server import Server

    server = Server(shutil.copytree(trained_study, tmp_path_factory.mktemp("slicer") / "studies"))
    yield server
    server.stop()
    assert "Traceback" not in server.log, server.log


@pytest.fixture
def session(scene: Any, study: Any, tmp_path: Path) -> Iterator[Any]:
    """A Session connected to the server."""
    from MedCLIPADLib.session import Session

    session = Session(tmp_path / "settings")
    done, failed = Calls(), Calls()
    session.connect(study.url, "", done, failed)
    run(session.jobs, lambda: done or failed, 20)
    assert not failed, failed
    yield session
    session.jobs.cancel_all()
