"""The folder of shared test images; tests that use them are skipped if it is absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

DATA = Path(os.environ.get("MEDCLIPAD_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of shared test images."""
    if not DATA.is_dir():
        pytest.skip("the shared test images are not here (MEDCLIPAD_DATA)")
    return DATA
