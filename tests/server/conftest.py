"""A server on synthetic heads for each file of tests; its first training is done once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from live_server import SMALL, Server, fill

from medclipad.client import Client
from medclipad.compat import ensure_monailabel, ensure_torchvision

ensure_monailabel()
ensure_torchvision()


@pytest.fixture(scope="session")
def first_training(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict]]:
    """The models folder of a first MediCLIP training, and what the training reported."""
    server = Server(fill(tmp_path_factory.mktemp("first") / "studies"))
    reports: list[dict] = []
    body = {**SMALL, "normal": ["normal_1", "normal_2"], "select": "always", "name": "first"}
    try:
        server.client.train("mediclip", body)
        server.client.wait_trained(reports.append, 120)
    finally:
        server.stop()
    assert "Traceback" not in server.log, server.log
    return server.studies / "models", reports


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of the file's own: what another file leaves behind would make the order of the files count."""
    running = Server(fill(tmp_path_factory.mktemp("served") / "studies"))
    yield running
    running.stop()
    assert "Traceback" not in running.log, running.log


@pytest.fixture(scope="module")
def client(server: Server) -> Client:
    return server.client


@pytest.fixture(scope="module")
def trained(server: Server, first_training: tuple[Path, list[dict]]) -> list[dict]:
    """Progress reports of a first MediCLIP training, whose detector the file's server has."""
    models, reports = first_training
    shutil.copytree(models, server.studies / "models", dirs_exist_ok=True)
    return reports
