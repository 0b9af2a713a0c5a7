"""A head small enough that a detector is trained on it in a second."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import nibabel
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from medclipad.volume import Volume
from tests.slicer.harness import slicer_source

SHAPE = (40, 44, 20)
AFFINE = np.array([[2.1, 0, 0, -41.3], [0, 1.9, 0, -40.7], [0, 0, 3.3, -30.1], [0, 0, 0, 1]])
BLOB = (26, 15, 11)  # voxel in the middle of the lesion


def pytest_report_header() -> str:
    """Say which of Slicer's own Python files the Slicer module's tests load."""
    return slicer_source.header()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Say it with `-q` too, which leaves out the header."""
    if session.config.option.verbose < 0 and slicer_source.folder() is not None:
        session.config.get_terminal_writer().line(slicer_source.header())


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads what another version of the code left in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDCLIPAD_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def head() -> Callable[..., Volume]:
    """`head(seed, blob=False)`: smooth anatomy float32, black outside, with a bright blob or without."""

    @cache
    def make(seed: int, blob: bool = False) -> Volume:
        rng = np.random.default_rng(seed)
        x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij", sparse=True)
        radius = np.sqrt((x / 0.85) ** 2 + (y / 0.9) ** 2 + (z / 0.95) ** 2)
        ventricles = np.exp(-(((abs(x) - 0.2) / 0.1) ** 2) - (y / 0.35) ** 2 - (z / 0.5) ** 2)
        texture = gaussian_filter(rng.normal(size=SHAPE), 1.5) * 0.3
        array = (0.6 - 0.2 * radius - 0.35 * ventricles + 0.1 * np.cos(9 * radius) + texture) * 900
        if blob:
            distance = np.linalg.norm((np.indices(SHAPE).T - BLOB) * AFFINE.diagonal()[:3], axis=-1).T
            array[distance < 7] += 500
        array[radius > 1] = 0
        return Volume(array.astype(np.float32), AFFINE, name=f"head{seed}")

    return make


@pytest.fixture(scope="session")
def blob() -> tuple[int, int, int]:
    """Voxel in the middle of the blob."""
    return BLOB


@pytest.fixture(scope="session")
def lesion(head) -> Volume:
    """Mask of the blob."""
    changed = head(0, True).array != head(0).array
    return head(0).with_array(changed.astype(np.uint8))


@pytest.fixture(scope="session")
def reordered() -> Callable[[Volume, str], Volume]:
    """`reordered(volume, "LPS")`: the same volume with its file axes in another order."""

    def reorder(volume: Volume, codes: str) -> Volume:
        image = nibabel.Nifti1Image(volume.array, volume.affine)
        turn = nibabel.orientations.ornt_transform(
            nibabel.io_orientation(volume.affine), nibabel.orientations.axcodes2ornt(codes)
        )
        turned = image.as_reoriented(turn)
        return Volume(np.asarray(turned.dataobj), turned.affine, name=volume.name)

    return reorder
