"""What only the library's client does; what both clients do is in test_conformance.py."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from bindings import TOKEN
from fault_server import HANG, Answer, FaultServer
from live_server import SHAPE, Server, free_port, head

from medclipad.client import Client, ServerError
from medclipad.errors import Cancelled
from medclipad.volume import Volume, read_volume, write_volume

LIBRARY = Path(__file__).parents[2] / "lib" / "medclipad"


@pytest.fixture(scope="session")
def client(server: Server) -> Client:
    return Client(server.url, TOKEN, timeout=120)


@pytest.fixture
def tall(tmp_path: Path) -> Path:
    """A volume that the server does not have, large enough to be cancelled, with a name to quote."""
    volume, _ = head(12)
    path = tmp_path / 'my "tall" ö volume.nii.gz'
    write_volume(Volume(volume.array.repeat(8, axis=2), volume.affine), path)
    return path


def test_a_file_is_analysed_with_progress(client: Client, tall: Path, tmp_path: Path) -> None:
    reports: list[dict] = []
    options: dict[str, Any] = {"folder": tmp_path / "new" / "folder", "progress": reports.append, "file": tall}
    path, scores = client.infer("mediclip", "result", {"result": "map"}, **options)
    assert path == tmp_path / "new" / "folder" / "result.nii.gz"
    assert read_volume(path).shape == (*SHAPE[:2], 8 * SHAPE[2]) and scores["slice_scores"]
    assert reports and reports[-1]["total"] >= 1
    assert "result" not in client.images(), "the server kept the file"


def test_cancel_before_the_file_is_sent(client: Client, tall: Path, tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(Cancelled, match="was cancelled"):
        client.infer("mediclip", "result", folder=tmp_path / "result", file=tall, cancelled=lambda: True)
    assert time.monotonic() - started < 60 and not (tmp_path / "result").exists()


def test_an_error_of_the_callback_stops_the_inference(client: Client, tall: Path, tmp_path: Path) -> None:
    def broken(_: dict) -> None:
        raise KeyError("a fault of the caller")

    with pytest.raises(KeyError, match="a fault of the caller"):
        client.infer("mediclip", "result", folder=tmp_path / "result", file=tall, progress=broken)
    assert not (tmp_path / "result").exists()


def test_the_timeout_is_that_of_inferences(faulty: FaultServer) -> None:
    faulty.plan = HANG
    with pytest.raises(ServerError, match=r"did not answer within 0\.5 seconds"):
        Client(faulty.url, timeout=0.5).infer("mediclip", "a")


def test_a_failed_download_leaves_the_old_file(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "kept.nii.gz"
    path.write_text("old")

    def stop(done: int, total: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        client.download_image("normal_1", path, stop)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_missing_file_is_not_a_fault_of_the_server(client: Client, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        client.upload_image(tmp_path / "nothing.nii.gz")
    with pytest.raises(FileNotFoundError):
        client.infer("mediclip", "a", file=tmp_path / "nothing.nii.gz")


def test_wait_ready_waits_for_a_server(faulty: FaultServer) -> None:
    late = FaultServer()
    late.plan = Answer(200, b'{"medclipad": "0.1.0"}')
    threading.Timer(0.7, late.__enter__).start()
    assert Client(late.url).wait_ready(20)["medclipad"] == "0.1.0"
    late.__exit__()
    faulty.plan = Answer(404)
    started = time.monotonic()
    with pytest.raises(ServerError, match="not a MedCLIPAD server"):
        Client(faulty.url).wait_ready(20)
    assert time.monotonic() - started < 10, "another program does not become ours"
    with pytest.raises(ServerError, match="No server is running"):
        Client(f"http://127.0.0.1:{free_port()}").wait_ready(0.5)


def test_what_is_known_of_an_image(client: Client) -> None:
    client.set_image_info("normal_1", {"normal": True})
    assert client.image_info("normal_1")["normal"] is True


def test_it_runs_on_python_39() -> None:
    """Slicer and many a workstation have no newer Python."""
    files = [*sorted((LIBRARY / "client").glob("*.py")), LIBRARY / "__init__.py", LIBRARY / "errors.py"]
    vermin = Path(sys.executable).with_name("vermin")
    # hashlib.file_digest is newer; of `medclipad.files`, the client uses `atomic_file` alone.
    command = [str(vermin), "-t=3.9-", "--no-tips", "--violations", "--exclude", "hashlib.file_digest"]
    found = subprocess.run([*command, *map(str, files), str(LIBRARY / "files.py")], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout
