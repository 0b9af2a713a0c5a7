"""One server on synthetic heads, shared by the tests of a session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from live_server import SMALL, Server, fill

from medclipad.client import Client
from medclipad.compat import ensure_pydicom_storage_uids, ensure_torchvision

ensure_pydicom_storage_uids()
ensure_torchvision()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(fill(tmp_path_factory.mktemp("served") / "studies"))
    yield running
    running.stop()
    assert "Traceback" not in running.log, running.log


@pytest.fixture(scope="session")
def client(server: Server) -> Client:
    return server.client


@pytest.fixture(scope="session")
def trained(client: Client) -> list[dict]:
    """Progress reports of a first MediCLIP training on the session's server."""
    reports: list[dict] = []
    client.train("mediclip", {**SMALL, "normal": ["normal_1", "normal_2"], "name": "first"})
    client.wait_trained(reports.append, 120)
    return reports
