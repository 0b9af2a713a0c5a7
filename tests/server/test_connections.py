"""Limits before resources: connections, headers and bodies that come slowly, or never end."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
import requests
from live_server import Server, fill
from PIL import Image
from raw_client import ask, connect, received, seconds_until_closed

TOKEN = "correct-horse-battery"
CLIENT = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a token that may open as few files as a service usually may."""
    studies = fill(tmp_path_factory.mktemp("guarded") / "studies")
    running = Server(studies, prefix=("prlimit", "--nofile=256"), MEDCLIPAD_TOKEN=TOKEN, MEDCLIPAD_SCORING="off")
    yield running
    running.stop()
    assert "Traceback" not in running.log, running.log


@pytest.mark.parametrize("sent", [b"", b"GET /info/ HTTP/1.1\r\nHost: x\r\nX-A: ", b"\x16\x03\x01"])
def test_half_sent_requests_keep_nobody_out(guarded: Server, sent: bytes) -> None:
    """More connections than the server may open files, all without a token, from the address of an honest client."""
    logged = len(guarded.log)
    with contextlib.ExitStack() as stack:
        for _ in range(400):
            connection = stack.enter_context(connect(guarded.url))
            connection.sendall(sent)
        assert psutil.Process(guarded.process.pid).num_fds() < 256
        started = time.monotonic()
        assert requests.get(f"{guarded.url}/info/", headers=CLIENT, timeout=10).status_code == 200
        assert time.monotonic() - started < 2
    assert len(guarded.log) - logged < 2000, "a client can fill the log"


def test_headers_and_answered_connections_have_a_time_limit(guarded: Server) -> None:
    """Also if a byte comes now and then: what counts is when the header ends."""
    with connect(guarded.url) as silent, connect(guarded.url) as dripping, connect(guarded.url) as answered:
        dripping.sendall(b"GET /info/ HTTP/1.1\r\n")
        answered.sendall(b"PUT /datastore/image HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nx")
        over = threading.Event()

        def drip() -> None:
            with contextlib.suppress(OSError):
                while not over.wait(1):
                    dripping.sendall(b"X-A: b\r\n")

        dropper = threading.Thread(target=drip)
        dropper.start()
        assert b" 401 " in answered.recv(4096)
        assert seconds_until_closed(answered, 20) < 13, "its body is never awaited"
        assert seconds_until_closed(dripping, 20) < 13
        assert seconds_until_closed(silent, 20) < 13
        over.set()
        dropper.join()


def test_a_body_that_stops_is_408_and_frees_its_place(guarded: Server) -> None:
    with connect(guarded.url, 60) as stopped:
        stopped.sendall(
            f"PUT /datastore/image/info?image=normal_1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
            "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 1000\r\n\r\ninfo=".encode()
        )
        answer = received(stopped)
    assert b" 408 " in answer and b"stopped in the middle" in answer, answer


def test_a_client_that_takes_no_answer_is_dropped(guarded: Server) -> None:
    """Its connection, and the file that was being sent, are given back."""
    large = guarded.studies / "large.mha"
    large.write_bytes(bytes(64 * 1024**2))
    process = psutil.Process(guarded.process.pid)
    with connect(guarded.url) as idle:
        idle.sendall(
            f"GET /datastore/image?image=large HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
        )
        deadline = time.monotonic() + 20
        while not any(file.path == str(large) for file in process.open_files()):
            assert time.monotonic() < deadline, "the download did not begin"
            time.sleep(0.1)
        deadline = time.monotonic() + 80
        while any(file.path == str(large) for file in process.open_files()):
            assert time.monotonic() < deadline, "the file stays open as long as the client likes"
            time.sleep(0.5)
    large.unlink()


def test_what_waits_for_volumes_keeps_nobody_else_out(tmp_path: Path) -> None:
    """Sixty downloads that must be converted: the routes that read no volume answer at once."""
    studies = fill(tmp_path / "studies")
    pixels = np.random.default_rng(0).integers(0, 255, (2000, 2000)).astype(np.uint8)
    Image.fromarray(pixels).save(studies / "picture.png")
    server = Server(studies, MEDCLIPAD_SCORING="off")
    try:
        with ThreadPoolExecutor(60) as pool:
            address = f"{server.url}/datastore/image?image=picture"
            downloads = [pool.submit(requests.get, address, timeout=300) for _ in range(60)]
            time.sleep(1)
            times = []
            while not all(download.done() for download in downloads):
                for path in ("/info/", "/health", "/versions/"):
                    started = time.monotonic()
                    assert requests.get(f"{server.url}{path}", timeout=60).status_code == 200
                    times.append(time.monotonic() - started)
            assert {download.result().status_code for download in downloads} == {200}
        assert len(times) > 10 and np.median(times) < 0.1 and max(times) < 1, sorted(times)[-5:]
    finally:
        server.stop()


def test_who_sends_too_many_requests_is_told_by_the_socket_not_by_a_header(tmp_path: Path) -> None:
    """A header of the client's own makes no new address of it, unless a configured proxy sends it."""
    for options, other in (((), 429), (("--proxy", "127.0.0.1"), 200)):
        server = Server(
            fill(tmp_path / f"studies{other}"),
            *options,
            MEDCLIPAD_TOKEN=TOKEN,
            MEDCLIPAD_RATE="1",
            MEDCLIPAD_SCORING="off",
        )
        try:
            access = f"Authorization: Bearer {TOKEN}"
            first = [ask(server.url, "/health", "Host: x", access, "X-Forwarded-For: 10.0.0.1")[0] for _ in range(8)]
            assert first[0] == 200 and first[-1] == 429
            assert ask(server.url, "/health", "Host: x", access, "X-Forwarded-For: 10.0.0.2")[0] == other
        finally:
            server.stop()
