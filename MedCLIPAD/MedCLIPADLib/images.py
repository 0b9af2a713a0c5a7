"""Which image on a server is a volume: found by its content, never by its name alone.

Another server may have another volume under the same id, at the same address too.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from MedCLIPADLib.client import Client
from MedCLIPADLib.errors import ModuleError
from MedCLIPADLib.files import content_hash, read_volume


def find(client: Client, sha256: str, image: str = "", server: str = "") -> str | None:
    """Return the id of a volume on a server, or None if the server does not have it.

    Parameters
    ----------
    client : Client
        The server.
    sha256 : str
        Content hash of the volume.
    image, server : str
        The id that the volume had on a server, and the address of that server; or "". A volume that was downloaded from
        there may be stored with another voxel type, and so have another hash: then it is downloaded and compared.
    """
    found = client.find_image(sha256)
    if found is None and image and client.url == server and client.has_image(image):
        found = image if _content_of(client, image) == sha256 else None
    return found


def _content_of(client: Client, image: str) -> str:
    """Return the content hash of an image as this computer reads it; "" if it cannot."""
    with tempfile.TemporaryDirectory(prefix="medclipad-") as folder:
        try:
            array, affine = read_volume(client.download_image(image, Path(folder)))
        except ModuleError:
            return ""
        return content_hash(array, affine) if array.ndim == 3 else ""
