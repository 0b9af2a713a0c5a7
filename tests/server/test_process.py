"""The server as a process: who may use it, how it ends, what it keeps."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import requests
from live_server import Server, fill, free_port, head

import monailabel_app
from medclipad.client import Client, ServerError
from medclipad.errors import MedCLIPADError
from medclipad.server.launch import ServerSettings, serve
from medclipad.volume import write_volume

TOKEN = "correct-horse-battery"


def test_token_restart_and_sigterm(trained: list[dict], server: Server, tmp_path: Path) -> None:
    """From start to kill: only clients with the token are served; trainings end with the server; versions stay."""
    studies, models = fill(tmp_path / "studies"), tmp_path / "detectors"
    shutil.copytree(server.studies / "models", models)
    endless = {"normal": ["normal_1"], "epochs": 10_000, "memory_share": 0.5, "name": "lost"}

    first = Server(studies, "--models", str(models), MEDCLIPAD_TOKEN=TOKEN)
    for wrong in (None, "correct-horse-batterz", "ö" * 20, ""):
        header = {} if wrong is None else {"Authorization": f"Bearer {wrong}".encode()}
        answer = requests.get(f"{first.url}/info/", headers=header, timeout=10)
        assert answer.status_code == 401 and "token" in answer.json()["detail"]
    assert requests.get(f"{first.url}/openapi.json", timeout=10).status_code == 401
    with pytest.raises(ServerError, match="requires an access token"):
        Client(first.url, "correct-horse-batterz").info()
    client = Client(first.url, TOKEN)
    before = client.info()["train_stats"]
    assert before["mediclip"]["current"] in before["mediclip"]["versions"]
    client.train("mediclip", endless)
    child = wait_for_child(first.process.pid)
    with pytest.raises(ServerError, match="cancelled"), inference_of_seconds(client, tmp_path):
        started = time.monotonic()
        first.stop()
    assert time.monotonic() - started < 20, "the server waited for an inference"
    assert not child.is_running(), "the server did not end its training first"
    for secret in (TOKEN, "normal_1", "large", "Traceback"):
        assert secret not in first.log, first.log

    second = Server(studies, "--models", str(models), "--token", TOKEN)
    client = Client(second.url, TOKEN)
    assert client.info()["train_stats"] == before
    _, scores = client.infer("mediclip", "lesion_1")
    assert scores["detector"] == before["mediclip"]["current"]
    client.train("mediclip", endless)
    child = wait_for_child(second.process.pid)
    second.stop(signal.SIGKILL)
    assert gone(child), "the training outlived its killed server"
    assert not (models / "mediclip" / "lost").exists()


@pytest.mark.parametrize("origin", ["https://evil.example", "null"])
def test_pages_of_other_sites_are_refused(server: Server, origin: str) -> None:
    answer = requests.post(f"{server.url}/train/mediclip", json={}, headers={"Origin": origin}, timeout=10)
    assert answer.status_code == 403 and "access-control-allow-origin" not in answer.headers


def test_another_host_name_is_refused(server: Server) -> None:
    answer = requests.get(f"{server.url}/info/", headers={"Host": "evil.example"}, timeout=10)
    assert answer.status_code == 400


def test_a_huge_body_is_refused_before_it_is_sent(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=10) as connection:
        connection.sendall(
            b"PUT /datastore/image HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999999999\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n\r\n"
        )
        answer = b"".join(iter(lambda: connection.recv(4096), b""))  # until the server closes
    assert b" 413 " in answer


@pytest.mark.parametrize("path", ["model/mediclip", "proxy/dicom/x", "batch/infer/mvfa", "logs/", "ohif/", "reload"])
def test_stock_endpoints_that_make_no_sense_here_are_not_there(server: Server, path: str) -> None:
    for method in ("GET", "POST", "PUT"):
        assert requests.request(method, f"{server.url}/{path}", timeout=10).status_code == 404


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"host": "0.0.0.0"}, "token"),
        ({"host": "0.0.0.0", "token": "short"}, "16 printable ASCII characters"),
        ({"studies": "nowhere"}, "Studies folder nowhere was not found"),
        ({"host": "host.invalid", "token": TOKEN}, "Cannot listen"),
        ({"port": 70000}, "70000 is not a valid port"),
    ],
)
def test_serve_refuses_what_it_cannot_do(tmp_path: Path, options: dict, says: str) -> None:
    with pytest.raises(MedCLIPADError, match=says):
        serve(ServerSettings(**{"studies": tmp_path, "port": 0, **options}))


def test_a_taken_port_is_named(tmp_path: Path, server: Server) -> None:
    with pytest.raises(MedCLIPADError, match="choose another port with --port"):
        serve(ServerSettings(tmp_path, port=int(server.url.rpartition(":")[2])))


@pytest.mark.parametrize("way", ["our routes", "its own endpoints", "our entry"])
def test_monai_labels_own_command_serves_the_app(way: str, tmp_path: Path, trained: list[dict], server: Server) -> None:
    """`monailabel start_server --app monailabel_app`, with our routes, with its own endpoints, and through our entry.

    Its endpoints import pydicom_seg before any app is loaded, which fails on pydicom 3: there the remedy has to come
    first, as `medclipad-monailabel` does it.
    """
    from monailabel.client import MONAILabelClient

    app = tmp_path / "monailabel_app"  # a copy: the command makes folders in the app
    shutil.copytree(Path(monailabel_app.__file__).parent, app, ignore=shutil.ignore_patterns("__pycache__"))
    url = f"http://127.0.0.1:{free_port()}"
    options = {
        "--app": [app],
        "--studies": [fill(tmp_path / "studies")],
        "--host": ["127.0.0.1"],
        "--port": [url.rpartition(":")[2]],
        "--conf": ["models", server.studies / "models"],
    }
    remedy = "import pydicom.uid, sys; sys.modules['pydicom._storage_sopclass_uids'] = pydicom.uid; "
    run = "from monailabel.main import Main; Main().run()"
    if way == "our routes":
        remedy, options["--uvicorn_app"] = "", ["medclipad.server.app:app"]
    flags = [str(word) for flag, values in options.items() for word in (flag, *values)]
    if way == "our entry":
        remedy, run = "", "from medclipad.server.monai_label import main; main()"
    command = [sys.executable, "-c", remedy + run, "start_server", *flags]
    with open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=tmp_path)
    try:
        wait_for_info(url)
        stock = MONAILabelClient(url, tmpdir=str(tmp_path))
        assert stock.info()["models"]["mediclip"]["type"] == "segmentation"
        file, params = stock.infer("mediclip", "lesion_1", {"result_extension": ".nrrd"})
        assert file is not None and params is not None
        if way == "our entry":
            assert "normal_1" not in (tmp_path / "log").read_text() and "lesion_1" not in (tmp_path / "log").read_text()
        assert file.endswith(".nrrd") and params["detector"] in stock.info()["train_stats"]["mediclip"]["versions"]
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def inference_of_seconds(client: Client, folder: Path) -> Iterator[None]:
    """The block runs while a large volume is analysed, for minutes; the inference's error is raised after it."""
    small, _ = head(11)
    write_volume(type(small)(small.array.repeat(120, axis=2), small.affine), folder / "large.nii.gz")
    analysing = threading.Event()

    def look(report: dict) -> None:
        if report["phase"] == "detect" and report["done"]:
            analysing.set()

    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(client.infer, "mediclip", "large", progress=look, file=folder / "large.nii.gz")
        assert analysing.wait(60)
        yield
        work.result(30)


def wait_for_info(url: str) -> None:
    """Wait until a server describes itself, whatever program it is."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return requests.get(f"{url}/info/", timeout=30).raise_for_status()
        except requests.RequestException:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.3)


def wait_for_child(pid: int) -> psutil.Process:
    """The training process of a server."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        children = psutil.Process(pid).children()
        if children:
            return children[0]
        time.sleep(0.1)
    raise AssertionError("no training process")


def gone(process: psutil.Process) -> bool:
    """Whether a process ends within some seconds; one that ended unattended may linger as a zombie."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    return False


def test_what_is_loaded_at_the_start_is_kept_from_the_garbage_collector(tmp_path: Path) -> None:
    """A collection that looks at all of it stops every answer: nothing that a benchmark alone should notice."""
    code = (
        "import asyncio, gc\n"
        "from medclipad.server.app import app\n"
        "async def main():\n"
        "    async with app.router.lifespan_context(app):\n"
        "        print('frozen', gc.get_freeze_count())\n"
        "asyncio.run(main())\n"
    )
    paths = {"APP_DIR": Path(monailabel_app.__file__).parent, "STUDIES": fill(tmp_path / "studies")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {f"MONAI_LABEL_{name}": str(path) for name, path in paths.items()},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.rpartition("frozen ")[2]) > 100_000
