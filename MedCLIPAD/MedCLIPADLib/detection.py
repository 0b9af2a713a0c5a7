"""One analysis in a thread, from the voxels to the map.

The volume is looked up on the server and uploaded if needed; then the map is computed and read.
"""

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

from MedCLIPADLib import images
from MedCLIPADLib.client import Client, Json
from MedCLIPADLib.errors import ModuleError, ServerError
from MedCLIPADLib.files import content_hash, read_volume, write_nrrd
from MedCLIPADLib.jobs import Job
from MedCLIPADLib.volumes import Source, new_image

_TOLERANCE = 1e-2  # mm between the corners of map and volume that float32 numbers in the map's file may cause
_FORM_OVERHEAD = 4096  # bytes of an upload beside the file, at most


@dataclass(frozen=True)
class Request:
    """What to analyse a volume with.

    Attributes
    ----------
    method : str
        Name of the method.
    detector : str
        Name of a version, or "current".
    plane : str
        Plane of the slices, or "default" for the plane that the detector was trained on.
    component, time_point : int
        Which component, or time point of a sequence, to analyse.
    """

    method: str
    detector: str = "current"
    plane: str = "default"
    component: int = 0
    time_point: int = 0


@dataclass(frozen=True)
class Answer:
    """The outcome of an analysis.

    Attributes
    ----------
    image : str
        Id of the volume on the server.
    sha256 : str
        Content hash of the volume.
    server : str
        Address of the server.
    scores : dict
        The server's answer: volume score, slice scores, threshold and more.
    map : vtkImageData
        The map, float32 in [0, 1], on the volume's grid.
    highest : float
        Its highest value.
    uploaded : bool
        Whether the volume was uploaded.
    """

    image: str
    sha256: str
    server: str
    scores: Json
    map: Any
    highest: float
    uploaded: bool


def ensure_image(client: Client, source: Source, job: Job, limit: int | None = None) -> tuple[str, str, bool]:
    """Upload a volume if the server does not have it.

    Parameters
    ----------
    client : Client
        The server.
    source : Source
        The volume.
    job : Job
        Gets the progress.
    limit : int, optional
        Bytes that the server accepts in one request.

    Returns
    -------
    image : str
        Id of the volume on the server.
    sha256 : str
        Its content hash.
    uploaded : bool
        Whether it was uploaded.

    Raises
    ------
    ModuleError
        If the volume is too large for the server.
    """
    reading, compressing, uploading = _("Reading voxels"), _("Compressing"), _("Uploading")
    sha256 = content_hash(source.array, source.affine, lambda done, total: job.report(reading, done, total))
    job.report(_("Looking up the volume on the server"))
    known = source.image if source.sha256 == sha256 else ""
    image = images.find(client, sha256, known, source.server)
    if image is not None:
        return image, sha256, False
    with tempfile.TemporaryDirectory(prefix="medclipad-") as folder:
        path = Path(folder) / "volume.nrrd"
        write_nrrd(path, source.array, source.affine, lambda done, total: job.report(compressing, done, total))
        if limit and path.stat().st_size > limit - _FORM_OVERHEAD:
            raise ModuleError(
                _(
                    "The volume is too large: {size} MiB compressed, and the server accepts {limit} MiB; crop it with "
                    "the module Crop Volume."
                ).format(size=round(path.stat().st_size / 2**20), limit=round(limit / 2**20))
            )
        name = image_name(source.name, sha256)
        try:
            image = client.upload_image(path, name, lambda done, total: job.report(uploading, done, total))
        except ServerError as error:
            if error.status != 409:
                raise
            image = name  # the name contains the hash: someone else has just uploaded the same volume
    return image, sha256, True


def image_name(name: str, sha256: str) -> str:
    """Return an id for a volume on the server.

    It is the volume's name in ASCII letters, made unique by the content hash.
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", plain).strip("-_")[:80]
    return f"{plain or 'volume'}-{sha256[:8]}"


def analyse(client: Client, source: Source, request: Request, job: Job, limit: int | None = None) -> Answer:
    """Analyse a volume and return the answer.

    Parameters
    ----------
    client : Client
        The server.
    source : Source
        The volume.
    request : Request
        What to analyse it with.
    job : Job
        Gets the progress, and says whether to cancel.
    limit : int, optional
        Bytes that the server accepts in one request.

    Raises
    ------
    ModuleError
        If the analysis fails.
    Cancelled
        If the job was cancelled.
    """
    image, sha256, uploaded = ensure_image(client, source, job, limit)
    job.report(_("Waiting for the server"))
    params = {"detector": request.detector, "plane": request.plane}
    scores, content = client.infer(
        request.method, image, params, lambda progress: _report(job, progress), lambda: job.cancelled
    )
    job.report(_("Reading the map"))
    array = read_map(content, source)
    job.check()
    return Answer(image, sha256, client.url, scores, new_image(array), float(array.max()), uploaded)


def read_map(content: bytes, source: Source) -> np.ndarray:
    """Return the map in a .nii.gz file, float32 [k, j, i].

    Raises ModuleError if it is not on the volume's grid.
    """
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
            _("The map that the server sent does not match the volume's grid: its version may not match this module.")
        )
    return np.ascontiguousarray(array, dtype=np.float32)


def _report(job: Job, progress: Json) -> None:
    """Report a server's progress in words."""
    if progress["state"] == "queued":
        job.report(_("Waiting for other requests"))
    elif progress["phase"] == "load":
        job.report(_("Loading the detector"))
    elif progress["state"] == "running":
        done, total = progress["done"], progress["total"]
        phase = _("Analysing slices: {done} of {total}") if total else _("Analysing slices")
        job.report(phase.format(done=done, total=total), done, total)
