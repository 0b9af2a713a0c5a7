"""Notice that an image of the studies has changed, without reading its voxels."""

from __future__ import annotations

from collections.abc import Iterator

from monailabel.interfaces.datastore import Datastore

from medclipad.server.stores.file_state import file_state
from medclipad.server.stores.folder import StudyDatastore


def image_state(datastore: Datastore, image: str) -> str | None:
    """Return a text that changes when an image of the studies does; None if it has no file.

    Nothing is fetched from an archive: a DICOM series never changes.
    """
    if not isinstance(datastore, StudyDatastore):
        return "series"
    return _state(datastore.get_image_uri(image))


def image_states(datastore: Datastore) -> Iterator[tuple[str, str | None]]:
    """Yield the id and the state of each image, as `image_state` returns it; each is looked at when it is its turn."""
    if isinstance(datastore, StudyDatastore):
        yield from ((image, _state(path)) for image, path in datastore.image_paths().items())
    else:
        yield from ((image, image_state(datastore, image)) for image in datastore.list_images())


def _state(path: str) -> str | None:
    try:
        return file_state(path) if path else None
    except OSError:
        return None
