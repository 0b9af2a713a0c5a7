"""One analysis from the voxels to the map, in a thread: look up, upload if need be, infer, read the answer."""

from __future__ import annotations

import gzip
import re
import tempfile
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from slicer.i18n import tr as _

from MedCLIPADLib.client import Client, Json
from MedCLIPADLib.errors import ModuleError, ServerError
from MedCLIPADLib.files import content_hash, read_volume, write_nrrd
from MedCLIPADLib.jobs import Job
from MedCLIPADLib.volumes import Source, new_image

_TOLERANCE = 1e-2  # mm by which a corner of the map may miss the volume's, from float32 numbers in its file


@dataclass(frozen=True)
class Request:
    """What to ask for. detector: name of a version, or "current". plane: a plane, or "default"."""

    method: str
    detector: str = "current"
    plane: str = "default"


@dataclass(frozen=True)
class Answer:
    """What came back. map: vtkImageData float32 in [0, 1] on the volume's grid. scores: the server's own words."""

    image: str
    sha256: str
    server: str
    scores: Json
    map: Any
    highest: float
    uploaded: bool


def ensure_image(client: Client, source: Source, job: Job, limit: int | None = None) -> tuple[str, str, bool]:
    """(id, content hash, whether it was uploaded) of the volume at the server; uploads it only if the server lacks it.

    limit: bytes that the server takes in one request.
    """
    reading, compressing, uploading = _("Reading voxels"), _("Compressing"), _("Uploading")
    sha256 = content_hash(source.array, source.affine, lambda done, total: job.report(reading, done, total))
    job.report(_("Asking the server for the volume"))
    image = client.find(sha256)
    if image is None and source.image and (source.server, source.sha256) == (client.url, sha256):
        image = source.image if client.has(source.image) else None  # fetched from there: its file may differ in type
    if image is not None:
        return image, sha256, False
    with tempfile.TemporaryDirectory(prefix="medclipad-") as folder:
        path = Path(folder) / "volume.nrrd"
        write_nrrd(path, source.array, source.affine, lambda done, total: job.report(compressing, done, total))
        if limit and path.stat().st_size > limit - 4096:
            raise ModuleError(
                _(
                    "The volume is too large: {size} MiB compressed, and the server takes {limit} MiB; crop it with "
                    "the module Crop Volume."
                ).format(size=round(path.stat().st_size / 2**20), limit=round(limit / 2**20))
            )
        name = image_name(source.name, sha256)
        try:
            image = client.upload(path, name, sha256, lambda done, total: job.report(uploading, done, total))
        except ServerError as error:
            if error.status != 409:
                raise
            image = name  # the name holds the hash: someone else has just sent the same volume
    return image, sha256, True


def image_name(name: str, sha256: str) -> str:
    """Id for a volume at the server: its name in plain letters, made unique by its content."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", plain).strip("-_")[:80]
    return f"{plain or 'volume'}-{sha256[:8]}"


def analyse(client: Client, source: Source, request: Request, job: Job, limit: int | None = None) -> Answer:
    """Run the request; reports phases to `job`. Raises ModuleError with one sentence, or Cancelled."""
    image, sha256, uploaded = ensure_image(client, source, job, limit)
    job.report(_("Waiting for the server"))
    params = {"detector": request.detector, "plane": request.plane}
    scores, content = client.infer(
        request.method, image, params, lambda seen: _report(job, seen), lambda: job.cancelled
    )
    job.report(_("Reading the map"))
    array = read_map(content, source)
    job.check()
    return Answer(image, sha256, client.url, scores, new_image(array), float(array.max()), uploaded)


def read_map(content: bytes, source: Source) -> np.ndarray:
    """The map [k, j, i] float32 out of a .nii.gz file; ModuleError if it is not on the volume's own grid."""
    with tempfile.TemporaryDirectory(prefix="medclipad-") as folder:
        path = Path(folder) / "map.nii.gz"
        path.write_bytes(content)
        try:
            array, affine = read_volume(path)
        except (OSError, gzip.BadGzipFile) as error:
            raise ModuleError(_("The map that the server sent is damaged: try again.")) from error
    corners = np.array([[i, j, k, 1] for i in (0, 1) for j in (0, 1) for k in (0, 1)], dtype=float)
    corners[:, :3] *= np.array(source.array.shape[::-1]) - 1
    if array.shape != source.array.shape or np.abs(corners @ (affine - source.affine).T).max() > _TOLERANCE:
        raise ModuleError(
            _("The map that the server sent is not on the volume's grid: its version may not suit this module.")
        )
    return np.ascontiguousarray(array, dtype=np.float32)


def _report(job: Job, seen: Json) -> None:
    """A server's progress in words."""
    if seen["state"] == "queued":
        job.report(_("Waiting for other requests"))
    elif seen["phase"] == "load":
        job.report(_("Loading the detector"))
    elif seen["state"] == "running":
        done, total = seen["done"], seen["total"]
        phase = _("Analysing slices: {done} of {total}") if total else _("Analysing slices")
        job.report(phase.format(done=done, total=total), done, total)
