"""An archive that hangs, and one with series that it cannot send: neither stops what does not need them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
import requests
from live_server import Server
from pydicom.dataset import Dataset

from medclipad.server.errors import RequestError
from medclipad.server.stores import archive_list
from medclipad.server.stores.archive_labels import ArchiveLabels
from medclipad.server.stores.pacs import Pacs, RemoteSeries

IMAGE, GOOD, BAD = "1.2.3.5", "1.2.3.7", "1.2.3.8"
PATIENT = "Mustermann"


def _tag(vr: str, value: Any) -> dict[str, Any]:
    return {"vr": vr, "Value": [value]}


class Archive(ThreadingHTTPServer):
    """A DICOMweb archive of two image series and two labels, whose faults a test switches on.

    Attributes
    ----------
    broken
        Whether it answers 500 for the header of one label, and for the objects of one image.
    hanging
        Whether it takes requests and never answers.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.broken, self.hanging, self.over = False, False, Event()
        Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/dicom-web"

    def answer(self, path: str, query: dict[str, list[str]]) -> list[dict[str, Any]] | None:
        """Return what it answers; None for an error."""
        parts = path.strip("/").split("/")
        if int(query.get("offset", ["0"])[0]):
            return []
        if parts[-1] == "series":
            seg = "SEG" in (query.get("Modality") or query.get("00080060") or [])
            listed = [self._series(uid, "SEG", "MedCLIPAD label final") for uid in (GOOD, BAD)]
            images = [self._series(uid, "MR", "T1") for uid in (IMAGE, f"{IMAGE}.1")]
            strange = [{"0020000D": _tag("UI", "x/../../y"), "0020000E": _tag("UI", "../evil")}, {"0020000E": 5}]
            return [*(listed if seg else images), *(strange if self.broken else [])]
        if parts[-1] == "metadata":
            if self.broken and BAD in parts:
                return None
            header = {
                "0008103E": _tag("LO", "MedCLIPAD label final"),
                "00100010": {"vr": "PN", "Value": [{"Alphabetic": f"{PATIENT}^Max"}]},
                "00100030": _tag("DA", f"24.12.1950 {PATIENT}"),
                "00100040": _tag("CS", f"male ({PATIENT}, Max), born 1950"),
                "00080023": _tag("DA", "20260101"),
                "00080033": _tag("TM", "120000"),
                "00081115": {"vr": "SQ", "Value": [{"0020000E": _tag("UI", IMAGE if GOOD in parts else f"{IMAGE}.1")}]},
            }
            return [header]
        if parts[-1] == "instances":
            if self.broken and f"{IMAGE}.1" in parts:
                return None
            return [{"00080018": _tag("UI", "1.2.3.9"), "00080016": _tag("UI", "1.2.840.10008.5.1.4.1.1.4")}]
        return None

    def _series(self, uid: str, modality: str, description: str) -> dict[str, Any]:
        entry = {"0020000D": _tag("UI", "1.2.3.4"), "0020000E": _tag("UI", uid), "00080060": _tag("CS", modality)}
        return entry if modality == "SEG" else {**entry, "0008103E": _tag("LO", description)}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Archive

    def log_message(self, format: str, *args: Any) -> None:
        """Stay silent."""

    def do_GET(self) -> None:
        if self.server.hanging:
            self.server.over.wait(120)
            return
        address = urlsplit(self.path)
        found = self.server.answer(address.path, parse_qs(address.query))
        body = json.dumps(found).encode()
        self.send_response(500 if found is None else 200)
        self.send_header("Content-Type", "application/dicom+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def archive() -> Iterator[Archive]:
    running = Archive()
    yield running
    running.over.set()
    running.shutdown()
    running.server_close()


def seconds(url: str, status: int) -> float:
    """Return how long a GET takes; its status must be the given one."""
    started = time.monotonic()
    answer = requests.get(url, timeout=120)
    assert answer.status_code == status, (url, answer.status_code, answer.text)
    return time.monotonic() - started


def test_an_archive_that_hangs_is_said_and_stops_nothing_else(archive: Archive, tmp_path: Path) -> None:
    server = Server(archive.url, "--models", str(tmp_path / "models"))
    try:
        assert len(server.client.images()) == 2
        assert server.client.info()["datastore"]["reachable"]
        archive.hanging = True
        time.sleep(3.1)  # until the list counts as old
        waits = [seconds(f"{server.url}{path}", 200) for path in ("/info/", "/versions/", "/docs", "/health/live") * 3]
        assert max(waits) < 1 and sorted(waits)[len(waits) // 2] < 0.1, waits
        time.sleep(5)
        assert seconds(f"{server.url}/health", 503) < 1
        assert server.client.info()["datastore"] == {
            "total": 2, "completed": 2, "label_tags": {"final": 2}, "reachable": False, "unreadable": 0,
        }  # fmt: skip
    finally:
        server.stop()
    assert "Traceback" not in server.log, server.log


def test_an_archive_is_asked_again_less_and_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """While it hangs nobody waits for it; when it answers again, so does the list."""
    for name, value in {"FRESH_SECONDS": 0.1, "STALE_SECONDS": 0.3, "PATIENCE": 0.2, "RETRY_PATIENCE": 0.1,
                        "HANGING": 0.2, "BACK_OFF": (0.5, 2.0)}.items():  # fmt: skip
        monkeypatch.setattr(archive_list, name, value)
    hanging, asked = Event(), []

    def load() -> int:
        asked.append(time.monotonic())
        if hanging.is_set():
            time.sleep(0.4)
            raise RequestError("The archive does not answer.", 503)
        return len(asked)

    def wait() -> float:
        started = time.monotonic()
        with pytest.raises(RequestError, match="does not answer"):
            archive.get()
        return time.monotonic() - started

    archive = archive_list.ArchiveList(load)
    assert archive.get() == 1 == archive.get() and archive.reachable
    hanging.set()
    time.sleep(0.35)
    assert 0.1 < wait() < 0.35, "the first request finds out"
    assert max(wait() for _ in range(5)) < 0.05 and not archive.reachable
    until = time.monotonic() + 4
    while time.monotonic() < until:
        wait()
        time.sleep(0.02)
    assert 3 <= len(asked) <= 6 and np.all(np.diff(np.diff(asked[1:])) > 0), "the pauses grow"
    hanging.clear()
    until = time.monotonic() + 3
    while not archive.reachable and time.monotonic() < until:
        time.sleep(0.05)
    assert archive.get() == len(asked) and archive.reachable


def test_a_list_that_changed_through_this_server_is_requested_anew() -> None:
    numbers = iter(range(100))
    archive = archive_list.ArchiveList(lambda: next(numbers))
    assert archive.get() == archive.get() == 0
    archive.invalidate()
    assert archive.get() == archive.get() == 1


@pytest.mark.parametrize(
    ("times", "newest"),
    [
        ((("20260101", "120000", "+0900"), ("20260101", "040000", "+0000")), 1),  # 03:00 and 04:00 in UTC
        ((("20261025", "023000.5", "+0200"), ("20261025", "020000", "+0100")), 1),  # the end of daylight saving
        ((("20260101", "120000", "+0000"), ("20260101", "130000", "+0200")), 0),
        ((("", "", None), ("20260101", "120000", "+0000")), 1),
    ],
)
def test_the_later_label_counts_in_whatever_zone_it_was_made(
    times: tuple[tuple[str, str, str | None], ...], newest: int
) -> None:
    series = [RemoteSeries(f"1.{number}", "1", "SEG", "MedCLIPAD label final") for number in range(len(times))]

    class Made(Pacs):
        """An archive with these labels."""

        def __init__(self) -> None:
            pass

        def segmentations(self) -> list[RemoteSeries]:
            return series

        def header(self, series: RemoteSeries) -> Dataset:
            header, image = Dataset(), Dataset()
            image.SeriesInstanceUID = IMAGE
            header.SeriesDescription, header.ReferencedSeriesSequence = "MedCLIPAD label final", [image]
            header.ContentDate, header.ContentTime, zone = times[int(series.uid[2:])]
            if zone:
                header.TimezoneOffsetFromUTC = zone
            return header

    labels = ArchiveLabels(Made())
    assert [label.series for label in labels.newest({IMAGE}, set())] == [series[newest]]
    replaced = labels.newest({IMAGE}, {series[newest].uid})  # as saving a label notes of the one before it
    assert [label.series for label in replaced] == [series[1 - newest]]
    assert len(labels.of(IMAGE, "final")) == 2


def test_an_archive_that_hangs_from_the_start_lets_the_server_start(archive: Archive, tmp_path: Path) -> None:
    archive.hanging = True
    server = Server(archive.url, "--models", str(tmp_path / "models"))
    try:
        assert seconds(f"{server.url}/info/", 200) < 1
        assert seconds(f"{server.url}/datastore/", 503) < 7
        assert seconds(f"{server.url}/datastore/", 503) < 0.5
    finally:
        server.stop()


def test_one_bad_series_hides_no_other_and_no_patient_gets_into_the_log(archive: Archive, tmp_path: Path) -> None:
    archive.broken = True
    server = Server(archive.url, "--models", str(tmp_path / "models"))
    try:
        objects = server.client.json("GET", "/datastore/", params={"output": "all"})["objects"]
        assert set(objects) == {IMAGE, f"{IMAGE}.1"}
        assert set(objects[IMAGE]["labels"]) == {"final"} and not objects[f"{IMAGE}.1"]["labels"]
        assert server.client.info()["datastore"]["unreadable"] == 1
    finally:
        server.stop()
    assert PATIENT not in server.log and "evil" not in server.log and "Traceback" not in server.log, server.log
