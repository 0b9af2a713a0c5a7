"""What a MedCLIPAD server can be asked for. Every method raises ServerError; slice numbers are those of grid.py."""

from __future__ import annotations

import json
import threading
import uuid
from pathlib import Path
from typing import Any, Callable
from urllib.parse import quote

from MedCLIPADLib.errors import Cancelled, ModuleError, ServerError
from MedCLIPADLib.transport import QUICK, Transport, form_parts, not_medclipad

Json = dict  # of str to anything that JSON has
POLL = 0.25  # seconds between two questions for progress


class Client:
    """`token` may be empty. Not to be shared by threads: `twin()` gives another one for another thread."""

    def __init__(self, url: str, token: str = "") -> None:
        self._http = Transport(url, token)
        self.url, self.token = self._http.url, token

    def twin(self) -> Client:
        return Client(self.url, self.token)

    # --- what there is ---
    def info(self, wait: float = QUICK) -> Json:
        """Models, trainers with their parameters' schema, strategies. ServerError if it is another kind of server."""
        answer = self._http.json("GET", "/info/", timeout=wait)
        if not isinstance(answer, dict) or "medclipad" not in answer:
            raise not_medclipad(self.url)
        return answer

    def versions(self) -> Json:
        """{method: {"current": name or None, "versions": [{"name", "plane", "intensity", ...}, newest first]}}."""
        return self._http.json("GET", "/versions/")

    def select(self, method: str, version: str) -> Json:
        """Let a version serve: use a new one, or roll back to an old one."""
        return self._http.json("PUT", f"/versions/{_part(method)}/current", json={"name": version})

    def delete_version(self, method: str, version: str) -> Json:
        return self._http.json("DELETE", f"/versions/{_part(method)}/{_part(version)}")

    # --- images ---
    def find(self, sha256: str) -> str | None:
        """Id of the image with this content, or None if the server lacks it."""
        try:
            return self._http.json("GET", f"/datastore/hash/{sha256}")["image"]
        except ServerError as error:
            if error.status == 404:
                return None
            raise

    def has(self, image: str) -> bool:
        """Whether there is an image with this id."""
        try:
            self._http.request("HEAD", "/datastore/image", params={"image": image})
        except ServerError as error:
            if error.status == 404 or error.cause == "not medclipad":  # HEAD answers carry no sentence
                return False
            raise
        return True

    def upload(self, path: Path, image: str, sha256: str, report: Callable[[int, int], None] | None = None) -> str:
        """Add a volume file to the studies; returns its id. `report(done, total)`: bytes; what it raises stops it."""
        query = {"image": image, "sha256": sha256}
        return self._http.upload("/datastore/image", query, "file", path, report)["image"]

    def download(self, image: str, folder: Path, report: Callable[[int, int], None] | None = None) -> Path:
        """Save an image's file in `folder`; a DICOM series comes as NIfTI."""
        path = folder / "volume"
        self._http.download("/datastore/image", {"image": image}, path, report)
        return path.rename(path.with_name("volume" + _volume_suffix(path)))

    # --- inference ---
    def infer(
        self, method: str, image: str, params: Json, report: Callable[[Json], None], cancelled: Callable[[], bool]
    ) -> tuple[Json, bytes]:
        """(scores, .nii.gz file with the float32 map). `report(progress)` is called from another thread.

        Raises Cancelled soon after `cancelled()` turned true; the server is told so.
        """
        asked = {"result": "map", "request_id": uuid.uuid4().hex, **params}
        with _Watch(self.twin(), asked["request_id"], report, cancelled):
            try:
                response = self._http.request(
                    "POST",
                    f"/infer/{_part(method)}",
                    params={"image": image},
                    data={"params": json.dumps(asked)},
                    timeout=self._http.patience,
                )
            except ServerError:
                if cancelled():
                    raise Cancelled from None
                raise
        scores, _, content = form_parts(response)
        return scores, content

    def progress(self, request_id: str) -> Json:
        return self._http.json("GET", f"/progress/{_part(request_id)}")

    def cancel(self, request_id: str) -> None:
        self._http.json("DELETE", f"/progress/{_part(request_id)}")

    # --- labels and marks ---
    def save_label(self, image: str, path: Path) -> str:
        """Save a mask on its image's grid as the label that trainings read."""
        return self._http.upload("/datastore/label", {"image": image, "tag": "final"}, "label", path)["label"]

    def marks(self, image: str) -> Json:
        """{"plane": name or None, "normal": [slice numbers], "abnormal": [...]}."""
        return self._http.json("GET", "/marks", params={"image": image})

    def save_marks(self, image: str, marks: Json) -> None:
        self._http.json("PUT", "/marks", params={"image": image}, json=marks)

    # --- training ---
    def train(self, method: str, params: Json) -> Json:
        return self._http.json("POST", f"/train/{_part(method)}", json=params)

    def train_progress(self) -> Json:
        """status, phase, done, total, fraction, loss, history, remaining; once DONE, outcome."""
        return self._http.json("GET", "/train/progress")

    def stop_training(self) -> None:
        self._http.json("DELETE", "/train/")

    # --- active learning ---
    def next_sample(self, strategy: str, method: str = "") -> Json:
        """{"id", "reason", "slices", ...} of the image to label next; {} when all are labelled."""
        return self._http.json("POST", f"/activelearning/{_part(strategy)}", json={"method": method} if method else {})


class _Watch:
    """While its block lasts, asks for the progress of a request, and cancels it when asked to."""

    def __init__(
        self, client: Client, request_id: str, report: Callable[[Json], None], cancelled: Callable[[], bool]
    ) -> None:
        self._client, self._id, self._report, self._cancelled = client, request_id, report, cancelled
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="MedCLIPAD progress", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: Any) -> None:
        self._over.set()
        self._thread.join(QUICK)

    def _watch(self) -> None:
        while not self._over.wait(POLL):
            try:
                if self._cancelled():
                    self._client.cancel(self._id)  # again and again, should the request not have arrived yet
                else:
                    self._report(self._client.progress(self._id))
            except (ModuleError, Cancelled):
                continue  # not there yet, or the answer is already under way


def _part(name: str) -> str:
    return quote(name, safe="")


def _volume_suffix(path: Path) -> str:
    """Suffix of a volume file, by its first bytes: the server sends the file as it has it."""
    with open(path, "rb") as stream:
        head = stream.read(16)
    if head[:2] == b"\x1f\x8b":
        return ".nii.gz"
    if head[:4] == b"NRRD":
        return ".nrrd"
    return ".mha" if head[:10] == b"ObjectType" or b"=" in head else ".nii"
