"""A detector small enough for a benchmark that is only tried."""

from __future__ import annotations

from pathlib import Path

import pytest

from medclipad.detection.fit import fit


@pytest.fixture(scope="session")
def cohort_detector(head, tmp_path_factory) -> Path:
    """A detector of two heads, on its folder."""
    folder = tmp_path_factory.mktemp("detectors") / "tried"
    fit(normal=[head(1), head(2)], planes="axial", shots=4, image_size=64).save(folder)
    return folder
