"""The two clients behind one set of tests, a real server for them, and a server with faults."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / "server"), str(Path(__file__).parent)]  # live_server; bindings, fault_server

from bindings import TOKEN, Binding, python_binding, slicer_binding  # noqa: E402
from fault_server import FaultServer  # noqa: E402
from live_server import SMALL, Server, fill  # noqa: E402

from medclipad.client import Client  # noqa: E402


def _slicer_conftest() -> Any:
    """Return the module with the fixtures of the Slicer module's tests."""
    spec = importlib.util.spec_from_file_location("slicer_conftest", TESTS / "slicer" / "conftest.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


slicer_app = _slicer_conftest().slicer_app  # the harness, whose i18n the Slicer module's sentences go through


@pytest.fixture(scope="session", params=["python", "slicer"])
def binding(request: pytest.FixtureRequest) -> Binding:
    """Each of the two clients."""
    if request.param == "python":
        return python_binding()
    request.getfixturevalue("slicer_app")
    return slicer_binding()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that requires a token, with synthetic heads and the MediCLIP detector "first"."""
    running = Server(fill(tmp_path_factory.mktemp("client") / "studies"), MEDCLIPAD_TOKEN=TOKEN)
    try:
        admin = running.client = Client(running.url, TOKEN, timeout=300)
        admin.train("mediclip", {**SMALL, "normal": ["normal_1", "normal_2"], "select": "always", "name": "first"})
        admin.wait_trained(None, 300)
        yield running
    finally:
        running.stop()
    assert "Traceback" not in running.log, running.log


@pytest.fixture(scope="session")
def client(binding: Binding, server: Server) -> Any:
    """Each client, connected to the real server."""
    return binding.connect(server.url, TOKEN)


@pytest.fixture
def faulty() -> Iterator[FaultServer]:
    """A server that answers as a test plans."""
    with FaultServer() as running:
        yield running
