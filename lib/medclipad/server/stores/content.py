"""Which image of the studies holds a given content, so that nobody uploads what is there already."""

from __future__ import annotations

import threading
import time

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.exception import ImageNotFoundException

from medclipad.errors import MedCLIPADError
from medclipad.server.inference.result_cache import file_state
from medclipad.server.security.upload_limits import READING
from medclipad.server.stores.folder import StudyDatastore
from medclipad.volume import read_volume
from medclipad.volume.fingerprint import content_sha256

PATIENCE = 5.0  # seconds that one question may spend on reading images that nobody has read yet
_reading = threading.Lock()


def state_of(datastore: Datastore, image: str) -> str | None:
    """Changes when the image does; None if there is no file. Nothing is fetched: a DICOM series never changes."""
    if not isinstance(datastore, StudyDatastore):
        return "series"
    path = datastore.get_image_uri(image)
    try:
        return file_state(path) if path else None
    except OSError:
        return None


def note_content(datastore: Datastore, image: str) -> str | None:
    """SHA-256 of an image's content, kept in its info; read anew only if its file changed. None if it is unreadable."""
    path = datastore.get_image_uri(image)
    if not path:
        return None
    try:
        info, state = datastore.get_image_info(image), file_state(path)
        if info.get("sha256_of") == state:
            return info.get("sha256")
        try:
            with READING:
                digest = content_sha256(read_volume(path))
        except MedCLIPADError:
            digest = None
        datastore.update_image_info(image, {"sha256": digest, "sha256_of": state})
        return digest
    except (FileNotFoundError, ImageNotFoundException):  # removed meanwhile
        return None


def find_content(datastore: Datastore, digest: str) -> str | None:
    """Id of an image with this content; images whose content is not known yet are read, for `PATIENCE` seconds.

    Only of images in a local folder: those of a DICOMweb server would have to be fetched, and are known by their UIDs.
    """
    objects = datastore.json()["objects"]
    for image, known in objects.items():
        if known["image"]["info"].get("sha256") == digest and note_content(datastore, image) == digest:
            return image
    if not isinstance(datastore, StudyDatastore):
        return None
    deadline = time.monotonic() + PATIENCE
    with _reading:  # two clients must not read the same images twice
        for image, known in objects.items():
            if time.monotonic() > deadline:
                return None
            if "sha256_of" not in known["image"]["info"] and note_content(datastore, image) == digest:
                return image
    return None
