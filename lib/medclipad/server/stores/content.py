"""Find the image of the studies with a given content, so that no client uploads it a second time."""

from __future__ import annotations

import threading
import time
from typing import Any, cast

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.exception import ImageNotFoundException

from medclipad.errors import MedCLIPADError
from medclipad.server.security.upload_limits import READ_SLOTS, read_image
from medclipad.server.stores.file_state import file_state
from medclipad.server.stores.folder import StudyDatastore
from medclipad.volume.fingerprint import content_sha256

MAX_SECONDS = 5.0  # that one request may spend on hashing images; what is left is hashed by the next one
_hashing = threading.Lock()


def hash_content(datastore: Datastore, image: str) -> str | None:
    """Return the SHA-256 of an image's content, computed again only if its file changed, and store it in its info.

    Returns None if the image cannot be read.
    """
    path = datastore.get_image_uri(image)
    if not path:
        return None
    try:
        info, state = datastore.get_image_info(image), file_state(path)
        if info.get("sha256_of") == state:
            return info.get("sha256")
        try:
            with READ_SLOTS:
                digest = content_sha256(read_image(path))
        except MedCLIPADError:
            digest = None
        datastore.update_image_info(image, {"sha256": digest, "sha256_of": state})
        return digest
    except (FileNotFoundError, ImageNotFoundException):  # removed meanwhile
        return None


def find_content(datastore: Datastore, digest: str) -> str | None:
    """Return the id of an image with the given content; None if none is known.

    Images of a local folder that have no hash yet are read, for at most `MAX_SECONDS`. Those of an archive would have
    to be fetched, and are known by their UIDs anyway.

    Parameters
    ----------
    datastore
        The studies.
    digest
        SHA-256 from `medclipad.volume.fingerprint.content_sha256`.
    """
    objects = cast(dict[str, Any], datastore.json())["objects"]  # MONAI Label declares no type for it
    for image, entry in objects.items():
        if entry["image"]["info"].get("sha256") == digest and hash_content(datastore, image) == digest:
            return image
    if not isinstance(datastore, StudyDatastore):
        return None
    deadline = time.monotonic() + MAX_SECONDS
    with _hashing:  # two clients must not read the same images twice
        for image, entry in objects.items():
            if time.monotonic() > deadline:
                return None
            if "sha256_of" not in entry["image"]["info"] and hash_content(datastore, image) == digest:
                return image
    return None
