"""Client of a MedCLIPAD server, on the packages that Slicer ships."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable
from urllib.parse import quote

from MedCLIPADLib.errors import Cancelled, ModuleError, ServerError
from MedCLIPADLib.transport import (
    LONG_TIMEOUT,
    SHORT_TIMEOUT,
    ByteReport,
    Transport,
    not_medclipad,
    parse_multipart,
)

Json = dict  # of str to any JSON value
POLL_INTERVAL = 0.25  # seconds between two requests for progress


class Client:
    """A client for one thread; every method raises ServerError if its request fails.

    Slice numbers are those of `MedCLIPADLib.grid.Slicing`.

    Parameters
    ----------
    url : str
        Address of the server; ServerError if it is not an HTTP address.
    token : str
        Access token, or "".
    ca_file : str
        File with the certificates of the authorities to trust, or "".

    Attributes
    ----------
    url, token, ca_file : str
        The address, without a slash at its end, the token and the file.
    """

    def __init__(self, url: str, token: str = "", ca_file: str = "") -> None:
        self._http = Transport(url, token, ca_file)
        self.url, self.token, self.ca_file = self._http.url, token, self._http.ca_file

    def copy(self) -> Client:
        """Return a client of the same server for another thread."""
        return Client(self.url, self.token, self.ca_file)

    # --- server ---
    def info(self, timeout: float = SHORT_TIMEOUT) -> Json:
        """Return models, trainers with their JSON schemas, and strategies.

        Raises ServerError if the address belongs to another program.
        """
        answer = self._http.json("GET", "/info/", timeout=timeout)
        if not isinstance(answer, dict) or "medclipad" not in answer:
            raise not_medclipad(self.url)
        return answer

    def versions(self) -> Json:
        """Return the versions of each method's detector, newest first.

        Returns
        -------
        dict
            ``{method: {"current": name or None, "versions": [{"name", "plane", "intensity", ...}]}}``.
        """
        return self._http.json("GET", "/versions/")

    def select_version(self, method: str, version: str) -> Json:
        """Put a version in use, and return the method's entry of `versions`."""
        return self._http.json("PUT", f"/versions/{_quoted(method)}/current", json={"name": version})

    def delete_version(self, method: str, version: str) -> Json:
        """Delete a version from the server; return the method's entry of `versions`."""
        return self._http.json("DELETE", f"/versions/{_quoted(method)}/{_quoted(version)}")

    # --- images ---
    def find_image(self, sha256: str) -> str | None:
        """Return the id of the image with a content hash, or None."""
        try:
            return self._http.json("GET", f"/datastore/hash/{sha256}")["image"]
        except ServerError as error:
            if error.status == 404:
                return None
            raise

    def has_image(self, image: str) -> bool:
        """Return whether the server has an image with this id."""
        try:
            self._http.request("HEAD", "/datastore/image", params={"image": image})
        except ServerError as error:
            if error.status == 404 or error.cause == "not medclipad":  # an answer to HEAD carries no sentence
                return False
            raise
        return True

    def upload_image(self, path: Path, image: str, report: ByteReport | None = None) -> str:
        """Add a volume file to the studies and return its id.

        An exception that `report` raises stops the upload.
        """
        return self._http.upload("/datastore/image", {"image": image}, "file", path, report)["image"]

    def download_image(self, image: str, folder: Path, report: ByteReport | None = None) -> Path:
        """Save an image's file in a folder and return its path.

        The server sends a DICOM series as NIfTI.
        """
        path = folder / "volume"
        self._http.download("/datastore/image", {"image": image}, path, report)
        return path.rename(path.with_name("volume" + _volume_suffix(path)))

    # --- inference ---
    def infer(
        self, method: str, image: str, params: Json, report: Callable[[Json], None], cancelled: Callable[[], bool]
    ) -> tuple[Json, bytes]:
        """Compute the anomaly map of an image.

        Parameters
        ----------
        method : str
            Name of the method.
        image : str
            Id of the image.
        params : dict
            Parameters of the inference, for example ``{"detector": "current", "plane": "axial"}``.
        report : callable
            Called with the server's progress, from another thread.
        cancelled : callable
            Asked regularly whether to cancel the inference.

        Returns
        -------
        scores : dict
            Volume score, slice scores, threshold and more.
        content : bytes
            The float32 map as a .nii.gz file.

        Raises
        ------
        Cancelled
            Soon after `cancelled()` became true; the server stops as well.
        """
        request = {"result": "map", "request_id": uuid.uuid4().hex, **params}
        with _ProgressWatcher(self.copy(), request["request_id"], report, cancelled):
            try:
                response = self._http.request(
                    "POST",
                    f"/infer/{_quoted(method)}",
                    params={"image": image},
                    data={"params": json.dumps(request)},
                    timeout=LONG_TIMEOUT,
                )
            except ServerError:
                if cancelled():
                    raise Cancelled from None
                raise
        scores, _, content = parse_multipart(response)
        return scores, content

    def progress(self, request_id: str) -> Json:
        """Return the progress of an inference: state, phase, done, total."""
        return self._http.json("GET", f"/progress/{_quoted(request_id)}")

    def cancel(self, request_id: str) -> None:
        """Cancel an inference."""
        self._http.json("DELETE", f"/progress/{_quoted(request_id)}")

    # --- labels and marks ---
    def save_label(self, image: str, path: Path) -> str:
        """Save a mask as the label that trainings learn from, and return its id.

        The mask is on the image's grid.
        """
        return self._http.upload("/datastore/label", {"image": image, "tag": "final"}, "label", path)["label"]

    def marks(self, image: str) -> Json:
        """Return the marks of an image, as in `MedCLIPADLib.marks`."""
        return self._http.json("GET", "/marks", params={"image": image})

    def set_marks(
        self, image: str, plane: str | None = None, normal: Sequence[int] = (), abnormal: Sequence[int] = ()
    ) -> None:
        """Replace the marks of an image."""
        marks = {"plane": plane, "normal": list(normal), "abnormal": list(abnormal)}
        self._http.json("PUT", "/marks", params={"image": image}, json=marks)

    # --- training ---
    def train(self, method: str, params: Json) -> Json:
        """Start a training."""
        return self._http.json("POST", f"/train/{_quoted(method)}", json=params)

    def train_progress(self) -> Json:
        """Return the progress of the last training.

        Its keys are status, phase, done, total, fraction, loss, history and remaining; also outcome once status is
        DONE.
        """
        return self._http.json("GET", "/train/progress")

    def stop_training(self) -> None:
        """Stop the running training."""
        self._http.json("DELETE", "/train/")

    # --- active learning ---
    def next_sample(self, strategy: str, params: Json | None = None) -> Json:
        """Return id, reason and slices of the image to label next; {} if there is none."""
        return self._http.json("POST", f"/activelearning/{_quoted(strategy)}", json=params or {})


class _ProgressWatcher:
    """Context manager that polls a request's progress, and cancels it when asked to."""

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
        self._thread.join(SHORT_TIMEOUT)

    def _watch(self) -> None:
        while not self._over.wait(POLL_INTERVAL):
            try:
                if self._cancelled():
                    self._client.cancel(self._id)  # repeatedly, in case the request has not arrived yet
                else:
                    self._report(self._client.progress(self._id))
            except (ModuleError, Cancelled):
                continue  # the request has not arrived yet, or its answer is on the way


def _quoted(name: str) -> str:
    """Return a name as one part of a path."""
    return quote(name, safe="")


def _volume_suffix(path: Path) -> str:
    """Return the suffix of a volume file by its first bytes."""
    with open(path, "rb") as stream:
        head = stream.read(16)
    if head[:2] == b"\x1f\x8b":
        return ".nii.gz"
    if head[:4] == b"NRRD":
        return ".nrrd"
    return ".mha" if head[:10] == b"ObjectType" or b"=" in head else ".nii"
