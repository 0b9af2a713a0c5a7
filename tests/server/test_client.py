"""The client's own part: what it says when a server is not there, or is not ours."""

from __future__ import annotations

import ast
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from live_server import SHAPE, Server, free_port, head

import medclipad.client
from medclipad.client import Client, ServerError
from medclipad.volume import read_volume, write_volume


@pytest.fixture
def stranger() -> Iterator[str]:
    """A web server that is not ours: a page for GET, silence for POST, a bare 502 for PUT."""
    release = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>")

        def do_POST(self) -> None:
            release.wait(10)

        def do_PUT(self) -> None:
            self.send_response(502)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    release.set()
    server.shutdown()


def test_nobody_there() -> None:
    with pytest.raises(ServerError, match="start medclipad serve") as caught:
        Client(f"http://127.0.0.1:{free_port()}").info()
    assert caught.value.status is None


@pytest.mark.parametrize("url", ["no address", "http://", "ftp://127.0.0.1"])
def test_no_address_at_all(url: str) -> None:
    with pytest.raises(ServerError, match="Cannot reach"):
        Client(url).info()


def test_another_server(stranger: str) -> None:
    with pytest.raises(ServerError, match="does not answer like a MedCLIPAD server"):
        Client(stranger).info()
    with pytest.raises(ServerError, match="HTTP status 502") as caught:
        Client(stranger).set_image_info("a", {})
    assert caught.value.status == 502


def test_a_server_that_does_not_answer_in_time(stranger: str) -> None:
    with pytest.raises(ServerError, match=r"did not answer within 0\.5 seconds"):
        Client(stranger, timeout=0.5).infer("mediclip", "a")


def test_progress_is_called_while_the_server_works_on_a_sent_file(
    trained: list[dict], client: Client, server: Server, tmp_path: Path
) -> None:
    volume, _ = head(12)
    large = type(volume)(volume.array.repeat(8, axis=2), volume.affine)
    write_volume(large, tmp_path / "mine.nii.gz")
    reports: list[dict] = []
    path, _ = client.infer(
        "mediclip", "result", {"result": "map"}, folder=tmp_path, progress=reports.append, file=tmp_path / "mine.nii.gz"
    )
    assert path == tmp_path / "result.nii.gz" and read_volume(path).shape == (*SHAPE[:2], 8 * SHAPE[2])
    assert reports and reports[-1]["total"] >= 1


def test_it_parses_on_python_3_9() -> None:
    """3D Slicer's Python is that old, and is to share this module."""
    ast.parse(Path(medclipad.client.__file__).read_text(encoding="utf-8"), feature_version=(3, 9))
