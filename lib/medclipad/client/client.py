"""The methods of a MedCLIPAD server, as a user calls them."""

from __future__ import annotations

import json
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import requests

from medclipad.client.failures import ServerError, not_medclipad
from medclipad.client.progress import POLL_INTERVAL, Json, Progress, ProgressWatcher
from medclipad.client.transport import SHORT_TIMEOUT, ByteProgress, FormBody, Transport, parse_multipart
from medclipad.files import atomic_file

SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha")


class Client:
    """A client of one server, for one thread; `copy` makes one for another thread.

    Every method raises ServerError if its request fails. Slice numbers are those of `medclipad.volume.Slicing`.

    Parameters
    ----------
    url : str
        Address of the server, for example ``"http://127.0.0.1:8000"``.
    token : str, optional
        Access token, if the server requires one.
    timeout : float
        Seconds to wait for an inference or a file.

    Attributes
    ----------
    url : str
        The address, without a slash at its end.
    timeout : float
        As passed in.

    Raises
    ------
    ServerError
        If `url` is not an HTTP address.

    Examples
    --------
    >>> client = Client("http://127.0.0.1:8000")
    >>> sorted(client.info()["models"])  # doctest: +SKIP
    ['mediclip', 'mvfa']
    """

    def __init__(self, url: str, token: str | None = None, timeout: float = 600.0) -> None:
        self._http = Transport(url, token, timeout)
        self.url, self.timeout = self._http.url, timeout

    def copy(self) -> Client:
        """Return a client of the same server for another thread."""
        return Client(self.url, self._http.token, self.timeout)

    # --- any request ---
    def request(self, method: str, address: str, **options: Any) -> requests.Response:
        """Send any request of the HTTP API and return its response.

        Parameters
        ----------
        method : str
            HTTP method.
        address : str
            Path on the server, beginning with "/".
        **options
            Options of `requests.Session.request`; `timeout` is in seconds.
        """
        return self._http.request(method, address, **options)

    def json(self, method: str, address: str, **options: Any) -> Any:
        """Send any request of the HTTP API and return the JSON of its answer; see `request`."""
        return self._http.json(method, address, **options)

    # --- server ---
    def info(self, timeout: float = SHORT_TIMEOUT) -> Json:
        """Return models, trainers with their JSON schemas, strategies, and counts of images and labels.

        Raises
        ------
        ServerError
            If the server does not answer within `timeout` seconds, or the address belongs to another program.
        """
        answer = self.json("GET", "/info/", timeout=timeout)
        if not isinstance(answer, dict) or "medclipad" not in answer:
            raise not_medclipad(self.url)
        return answer

    def wait_ready(self, seconds: float = 60.0) -> Json:
        """Return `info()` as soon as the server answers; raise the last error if it does not in time."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                return self.info()
            except ServerError as error:
                hopeless = error.status is not None or error.cause in ("address", "certificate", "not medclipad")
                if hopeless or time.monotonic() > deadline:
                    raise
            time.sleep(POLL_INTERVAL)

    # --- inference ---
    def infer(
        self,
        model: str,
        image: str,
        params: Json | None = None,
        folder: str | Path | None = None,
        progress: Progress | None = None,
        file: str | Path | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> tuple[Path, Json]:
        """Compute the labelmap or the anomaly map of one image, and save it.

        Parameters
        ----------
        model : str
            Name of a model, see `info`.
        image : str
            Id of the image.
        params : dict, optional
            Parameters of the inference, see `info`; ``{"result": "map"}`` asks for the float32 map.
        folder : path, optional
            Where to save the result, as the image's id with the suffix that ``params["result_extension"]`` names
            (default ``.nii.gz``). Default: a new temporary folder.
        progress : callable, optional
            Called with what `progress` returns, from another thread.
        file : path, optional
            A volume that is not in the studies: the server analyses it and does not keep it. `image` then only names
            the result.
        cancelled : callable, optional
            Asked regularly, from another thread, whether to cancel the inference.

        Returns
        -------
        path : Path
            The saved result.
        scores : dict
            Volume score, slice scores, threshold and more.

        Raises
        ------
        Cancelled
            Soon after `cancelled()` became true; the server stops as well.
        Exception
            What `progress` or `cancelled` raised; the server stops as well.
        """
        request = {"request_id": uuid.uuid4().hex, **(params or {})}
        with ProgressWatcher(self.copy(), request["request_id"], progress, cancelled) as watcher:
            address = "/infer/" + _quoted(model)
            if file is None:
                fields = {"params": json.dumps(request)}
                response = self.request("POST", address, params={"image": image}, data=fields, timeout=self.timeout)
            else:
                with open(file, "rb") as stream:
                    texts = {"params": json.dumps(request)}
                    body = FormBody("file", Path(file).name, stream, texts, lambda *_: watcher.check())
                    response = self._http.send_file("POST", address, {}, body)
        scores, name, content = parse_multipart(response)
        suffix = next((suffix for suffix in SUFFIXES if name.endswith(suffix)), ".nii.gz")
        target = Path(folder) if folder else Path(tempfile.mkdtemp(prefix="medclipad-"))
        target.mkdir(parents=True, exist_ok=True)
        path = target / (Path(image).name + suffix)
        with atomic_file(path) as temp_path:
            temp_path.write_bytes(content)
        return path, scores

    def progress(self, request_id: str) -> Json:
        """Return the progress of the inference with this ``params["request_id"]``.

        Returns
        -------
        dict
            state (queued, running, done, failed or cancelled), phase, done, total and fraction.
        """
        return self.json("GET", "/progress/" + _quoted(request_id))

    def cancel(self, request_id: str) -> Json:
        """Cancel an inference and return its progress; its `infer` raises ServerError with status 409."""
        return self.json("DELETE", "/progress/" + _quoted(request_id))

    # --- training ---
    def train(self, model: str, params: Json | None = None) -> Json:
        """Start a training and return at once.

        Parameters
        ----------
        model : str
            Name of a trainer, see `info`.
        params : dict, optional
            Its parameters; their JSON schema is in ``info()["trainers"][model]``.
        """
        return self.json("POST", "/train/" + _quoted(model), json=params or {})

    def train_status(self) -> Json:
        """Return the last training as MONAI Label shows it: status, request, details, and error if it failed."""
        return self.json("GET", "/train/")

    def train_progress(self) -> Json:
        """Return the progress of the last training.

        Returns
        -------
        dict
            status, phase, done, total, fraction, seconds, remaining, epoch, epochs, loss and history. Once status is
            DONE also outcome: which version is in use now, and the figures of both versions.
        """
        return self.json("GET", "/train/progress")

    def stop_training(self) -> Json:
        """Stop the running training, if there is one; the version in use stays in use."""
        return self.json("DELETE", "/train/")

    def wait_trained(self, callback: Progress | None = None, seconds: float = 3600.0) -> Json:
        """Wait for the end of the training and return its last progress.

        Parameters
        ----------
        callback : callable, optional
            Called with each new `train_progress()`.
        seconds : float
            Longest time to wait.

        Raises
        ------
        ServerError
            If the training fails, is stopped, or takes longer than `seconds`.
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
            time.sleep(POLL_INTERVAL)

    # --- versions ---
    def versions(self) -> Json:
        """Return the versions of each method's detector, newest first.

        Returns
        -------
        dict
            ``{method: {"current": name or None, "versions": [{"name", "created", "metrics", ...}]}}``.
        """
        return self.json("GET", "/versions/")

    def select_version(self, method: str, name: str) -> Json:
        """Put a version in use from the next request on; return the method's entry of `versions`."""
        return self.json("PUT", f"/versions/{_quoted(method)}/current", json={"name": name})

    def delete_version(self, method: str, name: str) -> Json:
        """Delete a version that is not in use; return the method's entry of `versions`."""
        return self.json("DELETE", f"/versions/{_quoted(method)}/{_quoted(name)}")

    # --- images ---
    def images(self) -> list[str]:
        """Return the ids of all images of the studies."""
        return sorted(self.json("GET", "/datastore/", params={"output": "all"})["objects"])

    def find_image(self, sha256: str) -> str | None:
        """Return the id of the image with a content hash, or None; see `medclipad.volume.fingerprint`."""
        try:
            return self.json("GET", "/datastore/hash/" + _quoted(sha256))["image"]
        except ServerError as error:
            if error.status == 404:
                return None
            raise

    def has_image(self, image: str) -> bool:
        """Return whether the server has an image with this id."""
        try:
            self.request("HEAD", "/datastore/image", params={"image": image})
        except ServerError as error:
            if error.status == 404 or error.cause == "not medclipad":  # an answer to HEAD carries no sentence
                return False
            raise
        return True

    def upload_image(self, path: str | Path, image: str | None = None, progress: ByteProgress | None = None) -> str:
        """Add a volume file to the studies and return its id.

        Parameters
        ----------
        path : path
            The file.
        image : str, optional
            Id of the new image; default: the file's name without suffix.
        progress : callable, optional
            Called with the bytes sent and their total; an exception that it raises stops the upload.
        """
        query = {"image": image} if image else {}
        return self._http.upload("/datastore/image", query, "file", Path(path), progress)["image"]

    def download_image(self, image: str, path: str | Path, progress: ByteProgress | None = None) -> Path:
        """Save an image's file and return its path; a DICOM series comes as NIfTI.

        Parameters
        ----------
        image : str
            Id of the image.
        path : path
            File to write.
        progress : callable, optional
            Called with the bytes received and their total (0 if not known); an exception that it raises stops the
            download.
        """
        self._http.download("/datastore/image", {"image": image}, Path(path), progress)
        return Path(path)

    def delete_image(self, image: str) -> None:
        """Delete an image and its labels from the studies."""
        self.json("DELETE", "/datastore/image", params={"id": image})

    def image_info(self, image: str) -> Json:
        """Return what is known of an image."""
        return self.json("GET", "/datastore/image/info", params={"image": image})

    def set_image_info(self, image: str, info: Json) -> None:
        """Add to what is known of an image; ``{"normal": True}`` lets trainings take it as free of lesions."""
        self.json("PUT", "/datastore/image/info", params={"image": image}, data={"info": json.dumps(info)})

    # --- labels and marks ---
    def save_label(self, image: str, path: str | Path, tag: str = "final") -> str:
        """Save a mask on the image's grid as its label and return the label's id; trainings read the tag final."""
        return self._http.upload("/datastore/label", {"image": image, "tag": tag}, "label", Path(path))["label"]

    def download_label(self, image: str, tag: str, path: str | Path) -> Path:
        """Save a label's file and return its path."""
        self._http.download("/datastore/label", {"label": image, "tag": tag}, Path(path))
        return Path(path)

    def marks(self, image: str) -> Json:
        """Return the slices of an image that a reader marked.

        Returns
        -------
        dict
            ``{"plane": name or None, "normal": [slice, ...], "abnormal": [slice, ...]}``.
        """
        return self.json("GET", "/marks", params={"image": image})

    def set_marks(
        self, image: str, plane: str | None = None, normal: Sequence[int] = (), abnormal: Sequence[int] = ()
    ) -> Json:
        """Replace the marks of an image, which trainings learn from, and return them as `marks` does."""
        body = {"plane": plane, "normal": list(normal), "abnormal": list(abnormal)}
        return self.json("PUT", "/marks", params={"image": image}, json=body)

    # --- active learning ---
    def next_sample(self, strategy: str = "random", params: Json | None = None) -> Json:
        """Return the image to label next: id, score, slices, reason and more; {} when all have a label."""
        return self.json("POST", "/activelearning/" + _quoted(strategy), json=params or {})

    def scoring(self) -> Json:
        """Return how many images the detector in use has scored for `next_sample`: done, total, running and more."""
        return self.json("GET", "/scoring/")


def _quoted(name: str) -> str:
    """Return a name as one part of a path."""
    return quote(name, safe="")
