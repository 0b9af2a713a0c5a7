"""A client of a running `medclipad serve`. Needs requests and the standard library only, on Python 3.9 or later.

>>> client = Client("http://127.0.0.1:8000")  # doctest: +SKIP
>>> client.train("mediclip", {"normal": ["healthy_1", "healthy_2"]})  # doctest: +SKIP
>>> client.wait_trained(print)  # doctest: +SKIP
>>> path, scores = client.infer("mediclip", "case_7", {"result": "map"})  # doctest: +SKIP
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import requests

from medclipad.errors import MedCLIPADError

Json = dict[str, Any]
Report = Callable[[Json], None]

POLL = 0.3  # seconds between two questions for progress
QUICK = 30.0  # seconds that a server may take for anything but inference and files
SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha")


class ServerError(MedCLIPADError):
    """The server cannot be reached or refused; `status` is its HTTP status, or None if there was no answer."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class Client:
    """`timeout` is the longest wait for an inference or a file, in seconds. Every method raises ServerError."""

    def __init__(self, url: str, token: str | None = None, timeout: float = 600.0) -> None:
        self.url = url.rstrip("/")
        self.timeout = timeout
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy between us and a server that is named by its address
        if token:
            self._session.headers["Authorization"] = "Bearer " + token

    # --- what there is ---
    def info(self) -> Json:
        """Models, trainers with the schema of their parameters, strategies, counts of images and labels."""
        return self._json("GET", "/info/")

    def images(self) -> list[str]:
        """Ids of all images of the studies."""
        return sorted(self._json("GET", "/datastore/", params={"output": "all"})["objects"])

    def wait_ready(self, seconds: float = 60.0) -> Json:
        """`info()` as soon as the server answers; the last error if it does not in time."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                return self.info()
            except ServerError as error:
                if error.status is not None or time.monotonic() > deadline:
                    raise
            time.sleep(POLL)

    # --- inference ---
    def infer(
        self,
        model: str,
        image: str,
        params: Json | None = None,
        folder: str | Path | None = None,
        progress: Report | None = None,
        file: str | Path | None = None,
    ) -> tuple[Path, Json]:
        """(file, scores) of one image. params: see `info()`; {"result": "map"} asks for the float32 map.

        `file` is sent along to be analysed and forgotten, for a volume that is not in the studies; `image` then only
        names the result. The result goes to `folder` (default: a new temporary one) as <image>.nii.gz, or with the
        suffix that params.result_extension says.
        `progress` is called with `self.progress(...)` from another thread while the server works.
        """
        asked = dict(params or {})
        asked.setdefault("request_id", uuid.uuid4().hex)
        with contextlib.ExitStack() as stack:
            files = {"file": (Path(file).name, stack.enter_context(open(file, "rb")))} if file else None
            stack.enter_context(_Watch(self, asked["request_id"], progress))
            response = self._request(
                "POST",
                "/infer/" + quote(model, safe=""),
                params={} if file else {"image": image},
                data={"params": json.dumps(asked)},
                files=files,
                timeout=self.timeout,
            )
        scores, name, content = _parts(response)
        suffix = next((suffix for suffix in SUFFIXES if name.endswith(suffix)), ".nii.gz")
        target = Path(folder) if folder else Path(tempfile.mkdtemp(prefix="medclipad-"))
        target.mkdir(parents=True, exist_ok=True)
        path = target / (Path(image).name + suffix)
        path.write_bytes(content)
        return path, scores

    def progress(self, request_id: str) -> Json:
        """state (queued, running, done, failed, cancelled), phase, done, total and fraction of an inference."""
        return self._json("GET", "/progress/" + quote(request_id, safe=""))

    def cancel(self, request_id: str) -> Json:
        """Cancel an inference; the `infer` that waits for it raises ServerError with status 409."""
        return self._json("DELETE", "/progress/" + quote(request_id, safe=""))

    # --- training ---
    def train(self, model: str, params: Json | None = None) -> Json:
        """Start a training; returns at once. params: see the schema in `info()["trainers"][model]`."""
        return self._json("POST", "/train/" + quote(model, safe=""), json=params or {})

    def train_status(self) -> Json:
        """The last training as MONAI Label shows it: status, request, details, and error if it failed."""
        return self._json("GET", "/train/")

    def train_progress(self) -> Json:
        """status, phase, done, total, fraction, seconds, remaining, epoch, epochs, loss, history of the last training.

        When it is done, also outcome: which version serves now, and what both versions' figures are.
        """
        return self._json("GET", "/train/progress")

    def stop_training(self) -> Json:
        """Stop the training, if one runs; what served before goes on serving."""
        return self._json("DELETE", "/train/")

    def wait_trained(self, callback: Report | None = None, seconds: float = 3600.0) -> Json:
        """Wait for the training and return its last progress; info["version"] is the new detector.

        `callback` is called with each new `train_progress()`. Raises ServerError if it fails, is stopped, or takes
        longer than `seconds`.
        """
        deadline, last = time.monotonic() + seconds, {}
        while True:
            now = self.train_progress()
            if callback and now != last:
                callback(now)
            last = now
            if now["status"] == "DONE":
                return now
            if now["status"] == "STOPPED":
                raise ServerError("The training was stopped.")
            if now["status"] == "ERROR":
                raise ServerError(now.get("error") or self.train_status().get("error") or "The training failed.")
            if time.monotonic() > deadline:
                raise ServerError(f"The training takes longer than {seconds:g} seconds.")
            time.sleep(POLL)

    # --- versions ---
    def versions(self) -> Json:
        """{method: {"current": name or None, "versions": [{"name", "created", "metrics", ...}, ...]}}, newest first."""
        return self._json("GET", "/versions/")

    def select_version(self, method: str, name: str) -> Json:
        """Let a version serve from the next request on; returns the method's entry of `versions()`."""
        return self._json("PUT", "/versions/" + quote(method, safe="") + "/current", json={"name": name})

    def delete_version(self, method: str, name: str) -> Json:
        """Delete a version that does not serve; returns the method's entry of `versions()`."""
        return self._json("DELETE", "/versions/" + quote(method, safe="") + "/" + quote(name, safe=""))

    # --- images and labels ---
    def find_image(self, sha256: str) -> str | None:
        """Id of the image with this content (`content_sha256` in `medclipad.volume.fingerprint`), or None."""
        try:
            return self._json("GET", "/datastore/hash/" + quote(sha256, safe=""))["image"]
        except ServerError as error:
            if error.status == 404:
                return None
            raise

    def marks(self, image: str) -> Json:
        """{"plane", "normal": [slice, ...], "abnormal": [slice, ...]} that a reader marked in an image."""
        return self._json("GET", "/marks", params={"image": image})

    def set_marks(self, image: str, plane: str, normal: Sequence[int] = (), abnormal: Sequence[int] = ()) -> Json:
        """Replace the marks of an image; trainings learn from them."""
        body = {"plane": plane, "normal": list(normal), "abnormal": list(abnormal)}
        return self._json("PUT", "/marks", params={"image": image}, json=body)

    def upload_image(self, path: str | Path, image: str | None = None) -> str:
        """Add a volume file to the studies; returns its id."""
        return self._upload("/datastore/image", "file", path, {"image": image} if image else {})["image"]

    def download_image(self, image: str, path: str | Path) -> Path:
        """Save an image's file; a DICOM series comes as NIfTI."""
        return self._download("/datastore/image", {"image": image}, path)

    def set_image_info(self, image: str, info: Json) -> None:
        """Add to what is known of an image; {"normal": true} lets trainings take it as free of lesions."""
        self._json("PUT", "/datastore/image/info", params={"image": image}, data={"info": json.dumps(info)})

    def save_label(self, image: str, path: str | Path, tag: str = "final") -> str:
        """Save a label file on its image's grid; trainings read the tag final. Returns the label's id."""
        return self._upload("/datastore/label", "label", path, {"image": image, "tag": tag})["label"]

    def download_label(self, image: str, tag: str, path: str | Path) -> Path:
        """Save a label's file."""
        return self._download("/datastore/label", {"label": image, "tag": tag}, path)

    def next_sample(self, strategy: str = "random", params: Json | None = None) -> Json:
        """The image to label next: {"id", "score", "slices", "reason", ...}, or {} when all have a label."""
        return self._json("POST", "/activelearning/" + quote(strategy, safe=""), json=params or {})

    def scoring(self) -> Json:
        """How many images the current detector has scored for `next_sample`: {"done", "total", "running", ...}."""
        return self._json("GET", "/scoring/")

    # --- transport ---
    def _upload(self, address: str, field: str, path: str | Path, query: Json) -> Json:
        with open(path, "rb") as stream:
            files = {field: (Path(path).name, stream)}
            return self._json("PUT", address, params=query, files=files, timeout=self.timeout)

    def _download(self, address: str, query: Json, path: str | Path) -> Path:
        response = self._request("GET", address, params=query, timeout=self.timeout, stream=True)
        with response, open(path, "wb") as stream:
            for block in response.iter_content(1024 * 1024):
                stream.write(block)
        return Path(path)

    def _json(self, method: str, address: str, **options: Any) -> Json:
        try:
            return self._request(method, address, **options).json()
        except ValueError:
            raise ServerError(f"{self.url} does not answer like a MedCLIPAD server: check the address.") from None

    def _request(self, method: str, address: str, **options: Any) -> requests.Response:
        wait = options.setdefault("timeout", QUICK)
        try:
            response = self._session.request(method, self.url + address, **options)
        except requests.Timeout:
            raise ServerError(f"{self.url} did not answer within {wait:g} seconds.") from None
        except (requests.RequestException, ValueError) as error:
            reason = "no server listens there" if isinstance(error, requests.ConnectionError) else str(error)
            raise ServerError(
                f"Cannot reach {self.url} ({reason}): start medclipad serve, or check the address."
            ) from None
        if response.status_code >= 400:
            raise ServerError(_reason(response), response.status_code)
        return response


def _reason(response: requests.Response) -> str:
    if response.status_code == 401:
        return "The server wants another token: give the one that it was started with."
    try:
        detail = response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = None
    return detail if isinstance(detail, str) else f"The server answered with HTTP status {response.status_code}."


def _parts(response: requests.Response) -> tuple[Json, str, bytes]:
    """(params, file name, file) of a multipart answer. requests cannot read one; its boundary is a random word."""
    boundary = response.headers.get("Content-Type", "").partition("boundary=")[2].strip('"').encode()
    params, name, content = {}, "", b""
    for part in (b"\r\n" + response.content).split(b"\r\n--" + boundary)[1:-1] if boundary else []:
        head, _, body = part.partition(b"\r\n\r\n")
        if b'name="params"' in head:
            params = json.loads(body)
        elif b'name="image"' in head:
            name, content = head.partition(b'filename="')[2].partition(b'"')[0].decode(), body
    if not name:
        raise ServerError("The server's answer holds no file.")
    return params, name, content


class _Watch:
    """Asks for the progress of an inference in a thread of its own, as long as its block lasts."""

    def __init__(self, client: Client, request_id: str, report: Report | None) -> None:
        self._client, self._id, self._report = client, request_id, report
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        if self._report:
            self._thread.start()

    def __exit__(self, *_: Any) -> None:
        self._over.set()
        if self._report:
            self._thread.join()

    def _watch(self) -> None:
        twin = Client(self._client.url, timeout=self._client.timeout)  # a Session is not for two threads
        twin._session.headers = self._client._session.headers
        while not self._over.wait(POLL):
            try:
                self._report(twin.progress(self._id))
            except ServerError:
                continue  # not there yet, or the answer is already under way
