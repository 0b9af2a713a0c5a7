"""Where the shared test images lie; tests that use them skip when they are absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

DATA = Path(os.environ.get("MEDCLIPAD_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not DATA.is_dir():
        pytest.skip("the shared test images are not here (MEDCLIPAD_DATA)")
    return DATA
