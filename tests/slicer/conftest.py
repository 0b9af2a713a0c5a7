"""Fixtures for tests of the Slicer module. The harness starts with the first test that needs it."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Callable, Iterator
from ctypes.util import find_library
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # `import harness`, also for a test run from another folder

from hands import detected, panel  # noqa: F401  fixtures
from served import MODULE, session, study, trained_study  # noqa: F401


@pytest.fixture(scope="session")
def slicer_app() -> Any:
    """`slicer.app` of the running harness."""
    for package in ("slicer", "PySide6"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs the Python package {package}: make setup")
    if sys.platform == "linux":
        missing = [name for name in ("EGL", "GL", "xkbcommon", "fontconfig") if find_library(name) is None]
        if missing:
            pytest.skip(f"needs Debian packages with the libraries {', '.join(missing)}: make system")
    import harness

    return harness.start()


@pytest.fixture
def problems(slicer_app: Any) -> Iterator[Any]:
    """Fail the test for every error that Slicer would only print."""
    from harness.problems import problems as collected

    with collected.watched():
        yield collected


@pytest.fixture
def scene(slicer_app: Any, problems: Any) -> Iterator[Any]:
    """`slicer.mrmlScene`, empty, with no setting, address or unsent item of another test."""
    import slicer
    from MedCLIPADLib.settings import Settings

    shutil.rmtree(Settings().folder, ignore_errors=True)
    slicer_app.userSettings().remove("MedCLIPAD")
    slicer.mrmlScene.Clear(0)
    slicer_app.messages.clear()
    slicer_app.answers.clear()
    yield slicer.mrmlScene
    slicer_app.processEvents()
    slicer.mrmlScene.Clear(0)


@pytest.fixture
def load_module(scene: Any) -> Iterator[Callable[[Path], tuple[Any, Any]]]:
    """`load_module(path)` returns (Python module, widget); both are cleaned up at the end."""
    import harness

    loaded = []

    def load(path: Path) -> tuple[Any, Any]:
        loaded.append(harness.load(path))
        return loaded[-1]

    yield load
    for _, widget in loaded:
        harness.unload(widget)


@pytest.fixture
def medclipad(load_module: Callable[[Path], tuple[Any, Any]]) -> Any:
    """The MedCLIPAD module's widget, set up and entered."""
    if not MODULE.exists():
        pytest.skip(f"no module at {MODULE}")
    return load_module(MODULE)[1]
