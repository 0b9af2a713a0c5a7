"""Notice that an image has changed, without reading its voxels."""

from __future__ import annotations

import json
import os
from pathlib import Path

from monailabel.interfaces.datastore import Datastore

from medclipad.files import sha256_of_text
from medclipad.server.stores.folder import StudyDatastore


def file_state(path: str | os.PathLike[str]) -> str:
    """Return a text that changes when the file, or a file of the DICOM folder, at `path` does.

    Raises
    ------
    OSError
        If there is no such file or folder.
    """
    path = Path(path)
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    states = [(file.name, (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files]
    return sha256_of_text(json.dumps(states))


def image_state(datastore: Datastore, image: str) -> str | None:
    """Return a text that changes when an image of the studies does; None if it has no file.

    Nothing is fetched from an archive: a DICOM series never changes.
    """
    if not isinstance(datastore, StudyDatastore):
        return "series"
    path = datastore.get_image_uri(image)
    try:
        return file_state(path) if path else None
    except OSError:
        return None
