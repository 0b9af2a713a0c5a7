"""Clients of a server under load, and the book of what it acknowledged to them."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import nibabel as nib
import numpy as np
import requests

from benchmarks.server_hostile import SECONDS, requests_to_refuse
from benchmarks.server_process import head

SHAPE = (48, 48, 16)  # voxels of each volume: what is measured is the server, not the detector
PAUSE = 0.1  # seconds between two requests of one client
TRAINING = {"planes": "axial", "shots": 2, "epochs": 1, "memory_size": 50, "held_out": 0, "select": "never"}
EXPECTED = {  # statuses that are no fault, besides 2xx, whatever the request is
    409: "the server is being stopped, or the id is in use by an attempt that was cut",
    429: "a training runs",
    503: "busy; Retry-After says when",
    507: "disk full",
}


class Faults:
    """What is being done to the server, so that a failed request can be told from a fault of the server."""

    def __init__(self) -> None:
        self.kills: list[tuple[float, float]] = []  # from the signal until it answers again; inf while it does not
        self.full: list[tuple[float, float]] = []  # from when the disk was filled until it was freed

    def killed_during(self, start: float, end: float) -> bool:
        """Return whether the server was down at some moment of a request."""
        return any(first <= end and start <= last for first, last in self.kills)

    def full_during(self, start: float, end: float) -> bool:
        """Return whether the disk was full at some moment of a request."""
        return any(first <= end and start <= last for first, last in self.full)


class Book:
    """What was asked and answered. Thread-safe.

    Attributes
    ----------
    seconds
        Latencies of answered requests, by kind.
    statuses
        Number of answers, by kind and status.
    faults
        Answers that should not have been, in words.
    unanswered
        Requests that got no answer in time although the server ran.
    cut
        Number of requests that a kill cut.
    """

    def __init__(self, faults: Faults) -> None:
        self._lock = threading.Lock()
        self._injected = faults
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.statuses: Counter[tuple[str, int]] = Counter()
        self.faults: Counter[str] = Counter()
        self.unanswered: Counter[str] = Counter()
        self.cut = 0

    def ask(
        self, kind: str, send: Callable[[], requests.Response], also: tuple[int, ...] = (), hostile: bool = False
    ) -> requests.Response | None:
        """Send a request and note what comes of it; return its answer if that is a 2xx.

        Parameters
        ----------
        kind
            Name of the kind of request.
        send
            Sends it.
        also
            Statuses that are right here, beside 2xx and `EXPECTED`.
        hostile
            Whether a 2xx is a fault.
        """
        started, response = time.monotonic(), None
        try:
            response = send()
        except requests.RequestException as error:
            ended = time.monotonic()
            with self._lock:
                if self._injected.killed_during(started, ended):
                    self.cut += 1
                else:
                    self.unanswered[f"{kind}: {type(error).__name__} after {ended - started:.0f} s"] += 1
            time.sleep(0.5)  # as a client waits for a server that is being started
            return None
        ended = time.monotonic()
        with self._lock:
            self.seconds[kind].append(ended - started)
            self.statuses[kind, response.status_code] += 1
            if not self._is_right(response, started, ended, also, hostile):
                self.faults[f"{kind}: {response.status_code} {response.text[:120]}"] += 1
        return response if response.ok else None

    def _is_right(
        self, response: requests.Response, start: float, end: float, also: tuple[int, ...], hostile: bool
    ) -> bool:
        status = response.status_code
        if status == 507:
            return self._injected.full_during(start, end)
        return status in also or status in EXPECTED or (response.ok and not hostile)


class ClientThread(threading.Thread):
    """One client, with images of its own, so that the order of what it saved is known.

    Parameters
    ----------
    number
        Number of the client, from 0; client 0 also trains.
    url
        Address of the server.
    book
        Where answers are noted.
    until
        Moment of `time.monotonic` at which to stop.
    """

    def __init__(self, number: int, url: str, book: Book, until: float) -> None:
        super().__init__(name=f"client-{number}", daemon=True)
        self._number, self._url, self._book, self._until = number, url, book, until
        self._random = random.Random(number)
        self._count = 0
        self.images: dict[str, str] = {}  # acknowledged uploads: id and SHA-256 of the content
        self.removed: set[str] = set()  # acknowledged removals
        self.written: dict[tuple[str, str], Any] = {}  # by (what, image): the last acknowledged value
        self.possible: dict[tuple[str, str], list[Any]] = defaultdict(list)  # attempts since, which may have counted
        self.versions: set[str] = set()
        self.uploaded_bytes = 0
        self._own = volume_bytes(number)

    def run(self) -> None:
        """Send requests until the time is over."""
        kinds = [
            (self._info, 20),
            (self._infer, 10),
            (self._infer_file, 3),
            (self._cancelled, 2),
            (self._next, 8),
            (self._download, 10),
            (self._upload, 10),
            (self._remove, 2),
            (self._label, 12),
            (self._marks, 8),
            (self._image_info, 8),
            (self._list, 2),
            (self._hostile, 4),
            (self._train, 2 if self._number == 0 else 0),
        ]
        tasks, weights = zip(*kinds, strict=True)
        while time.monotonic() < self._until:
            self._random.choices(tasks, weights)[0]()
            time.sleep(PAUSE)

    # --- requests that change nothing ---
    def _info(self) -> None:
        self._get("GET /info/", "/info/")

    def _next(self) -> None:
        strategy = self._random.choice(["random", "most_anomalous", "most_uncertain", "most_diverse"])
        self._send("POST /activelearning", "POST", f"/activelearning/{strategy}", json={})

    def _list(self) -> None:
        self._get("GET /datastore/?output=all", "/datastore/?output=all")

    def _download(self) -> None:
        if image := self._some_image():
            self._get("GET /datastore/image", f"/datastore/image?image={image}")

    def _infer(self) -> None:
        if image := self._some_image():
            self._send("POST /infer", "POST", f"/infer/mediclip?image={image}")

    def _infer_file(self) -> None:
        files = {"file": ("sent.nii.gz", volume_bytes(self._random.randrange(10**6)))}
        self._send("POST /infer, file sent", "POST", "/infer/mediclip?output=json", files=files)

    def _cancelled(self) -> None:
        name = f"c{self._number}-{self._count}"
        self._count += 1
        thread = threading.Timer(0.3, lambda: self._send("DELETE /progress", "DELETE", f"/progress/{name}", (404,)))
        thread.start()
        files = {"file": ("sent.nii.gz", self._own)}
        data = {"params": json.dumps({"request_id": name})}
        self._send("POST /infer, cancelled", "POST", "/infer/mediclip?output=json", files=files, data=data)
        thread.join()

    def _hostile(self) -> None:
        if image := self._some_image():
            name, send = self._random.choice(list(requests_to_refuse(self._url, image, self._own).items()))
            self._book.ask(f"hostile: {name}", send, (400, 403, 404, 413, 415, 422), hostile=True)

    # --- requests that change something ---
    def _upload(self) -> None:
        name = f"scan_{self._number}_{self._count}"
        self._count += 1
        content = volume_bytes(self._number * 10**6 + self._count)
        self.uploaded_bytes += len(content)
        address = f"/datastore/image?image={name}"
        if self._send("PUT /datastore/image", "PUT", address, files={"file": ("scan.nii.gz", content)}):
            self.images[name] = _sha256(content)

    def _remove(self) -> None:
        names = sorted(name for name in self.images if (("label", name) not in self.possible))
        if len(names) > 20:
            name = self._random.choice(names)
            del self.images[name]  # whether or not the answer arrives
            if self._send("DELETE /datastore/image", "DELETE", f"/datastore/image?id={name}", (404,)):
                self.removed.add(name)
            for what in ("marks", "info"):
                self.written.pop((what, name), None)
                self.possible.pop((what, name), None)

    def _label(self) -> None:
        if image := self._some_image():
            self._count += 1
            content = label_bytes(self._number * 10**6 + self._count)
            self.uploaded_bytes += len(content)
            self._write("label", image, _sha256(content), lambda: self._put_label(image, content))

    def _put_label(self, image: str, content: bytes) -> requests.Response | None:
        address = f"/datastore/label?image={image}&tag=final"
        return self._send("PUT /datastore/label", "PUT", address, files={"label": ("label.nii.gz", content)})

    def _marks(self) -> None:
        if image := self._some_image():
            normal = sorted(self._random.sample(range(SHAPE[2]), 3))
            body = {"plane": "axial", "normal": normal, "abnormal": []}
            self._write(
                "marks", image, normal, lambda: self._send("PUT /marks", "PUT", f"/marks?image={image}", json=body)
            )

    def _image_info(self) -> None:
        if image := self._some_image():
            self._count += 1
            data, address = {"info": json.dumps({"n": self._count})}, f"/datastore/image/info?image={image}"
            self._write("info", image, self._count, lambda: self._send("PUT info", "PUT", address, data=data))

    def _train(self) -> None:
        if image := self._some_image():
            body = {**TRAINING, "normal": [image]}
            if self._send("POST /train", "POST", "/train/mediclip", json=body):
                self._wait_trained()

    def _wait_trained(self) -> None:
        while time.monotonic() < self._until:
            time.sleep(0.5)
            answer = self._get("GET /train/progress", "/train/progress", (404,))
            report = answer.json() if answer else {}
            if answer is None or report["status"] not in ("SUBMITTED", "RUNNING"):
                if report.get("status") == "DONE":
                    self.versions.add(report["info"]["version"])
                return

    # --- helpers ---
    def _some_image(self) -> str | None:
        if not self.images:
            self._upload()
            return None
        return self._random.choice(sorted(self.images))

    def _write(self, what: str, image: str, value: Any, send: Callable[[], requests.Response | None]) -> None:
        """Change something of an own image, and remember what may be there afterwards."""
        self.possible[what, image].append(value)
        if send() is not None:
            self.written[what, image], self.possible[what, image] = value, []

    def _get(self, kind: str, address: str, also: tuple[int, ...] = ()) -> requests.Response | None:
        return self._send(kind, "GET", address, also)

    def _send(
        self, kind: str, method: str, address: str, also: tuple[int, ...] = (), **options: Any
    ) -> requests.Response | None:
        return self._book.ask(
            kind, lambda: requests.request(method, f"{self._url}{address}", timeout=SECONDS, **options), also
        )


def lost(client: ClientThread, objects: dict[str, Any], url: str, versions: set[str]) -> list[str]:
    """Return what a client's server acknowledged and does not hold, in words.

    Parameters
    ----------
    client
        The client.
    objects
        Images and labels, from GET /datastore/?output=all.
    url
        Address of the server.
    versions
        Names of the versions that it lists.
    """
    found = [f"version {name}" for name in sorted(client.versions - versions)]
    found += [f"removal of {name}" for name in sorted(client.removed & set(objects))]
    for name, digest in client.images.items():
        if name not in objects:
            found.append(f"image {name}")
        elif _sha256(_content(f"{url}/datastore/image?image={name}")) != digest:
            found.append(f"content of image {name}")
    for (what, name), value in client.written.items():
        if name in objects:
            there = _there(what, name, objects[name], url)
            if there not in [value, *client.possible[what, name]]:
                found.append(f"{what} of {name}: {there} instead of {value}")
    return found


def _there(what: str, name: str, entry: dict[str, Any], url: str) -> Any:
    info = entry["image"]["info"]
    if what == "marks":
        return (info.get("marks") or {}).get("normal")
    if what == "info":
        return info.get("n")
    return _sha256(_content(f"{url}/datastore/label?label={name}&tag=final")) if "final" in entry["labels"] else None


def _content(address: str) -> bytes:
    return requests.get(address, timeout=SECONDS).content


def volume_bytes(seed: int) -> bytes:
    """Return a small head as a compressed NIfTI file, another one for each seed."""
    return _nifti(head(SHAPE, seed)[0])


def label_bytes(seed: int) -> bytes:
    """Return a label map for such a head, another one for each seed."""
    return _nifti((np.random.default_rng(seed).random(SHAPE) < 0.05).astype(np.uint8))


def _nifti(array: np.ndarray) -> bytes:
    return gzip.compress(nib.Nifti1Image(array, np.diag([3.0, 3.0, 3.0, 1.0])).to_bytes(), 1)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
