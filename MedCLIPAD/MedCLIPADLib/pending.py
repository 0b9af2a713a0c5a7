"""Labels and marks that have not been sent yet.

They are kept on disk until the server has them, so that none is lost.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from slicer.i18n import tr as _

from MedCLIPADLib import images
from MedCLIPADLib.client import Client
from MedCLIPADLib.errors import ModuleError, ServerError
from MedCLIPADLib.files import write_nrrd

_ITEM = "item.json"
_LABEL = "label.nrrd"


@dataclass(frozen=True)
class Item:
    """A label or the marks of one volume.

    Attributes
    ----------
    kind : str
        "label" or "marks".
    server : str
        Address of the server.
    image, sha256 : str
        Id of the volume on the server, and its content hash.
    volume : str
        Name of the volume, for the reader.
    marks : dict or None
        The marks, as in `MedCLIPADLib.marks`.
    name : str
        Name of the item's folder.
    """

    kind: str
    server: str
    image: str
    sha256: str
    volume: str
    marks: dict | None = None
    name: str = field(default_factory=lambda: f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:8]}")

    @property
    def title(self) -> str:
        """The item in words, for the reader."""
        words = _("label of {volume}") if self.kind == "label" else _("marks of {volume}")
        return words.format(volume=self.volume)


class Pending:
    """The items in a folder, with a sub-folder for each. For any thread.

    Parameters
    ----------
    folder : Path
        The folder; created when the first item is added.

    Attributes
    ----------
    folder : Path
        As passed in.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def add(self, item: Item, label: np.ndarray | None = None, affine: np.ndarray | None = None) -> Item:
        """Keep an item, in place of older ones of the same kind, server and volume.

        Parameters
        ----------
        item : Item
            The item.
        label : (K, J, I) uint8 array, optional
            The mask, for a label.
        affine : (4, 4) array, optional
            Its voxel-to-RAS matrix.
        """
        older = [other for other in self.items() if _key(other) == _key(item)]
        temp_path = self.folder / f".{item.name}"
        temp_path.mkdir(parents=True)
        if label is not None and affine is not None:
            write_nrrd(temp_path / _LABEL, label, affine)
        (temp_path / _ITEM).write_text(json.dumps(asdict(item)), encoding="utf-8")
        os.replace(temp_path, self.folder / item.name)  # all of it or nothing
        for other in older:
            self.remove(other)
        return item

    def items(self) -> list[Item]:
        """Return all items, oldest first."""
        found = []
        for path in sorted(self.folder.glob(f"[!.]*/{_ITEM}")):
            try:
                found.append(Item(**json.loads(path.read_text(encoding="utf-8"))))
            except (OSError, ValueError, TypeError):
                continue  # just removed, or not an item
        return found

    def has(self, item: Item) -> bool:
        """Return whether an item is still there."""
        return (self.folder / item.name / _ITEM).is_file()

    def remove(self, item: Item) -> None:
        """Remove an item."""
        shutil.rmtree(self.folder / item.name, ignore_errors=True)

    def has_marks(self, server: str, sha256: str) -> bool:
        """Return whether marks of a volume wait to be sent to a server."""
        return any((item.kind, item.server, item.sha256) == ("marks", server, sha256) for item in self.items())

    def send(self, item: Item, client: Client) -> None:
        """Send an item to its server, as its volume's, and remove it.

        Raises ModuleError if that fails, also if the client is one of another server; the item stays.
        """
        if client.url != item.server:
            raise ModuleError(
                _("The {item} belongs to the server {server}: connect to it, then send it.").format(
                    item=item.title, server=item.server
                )
            )
        image = images.find(client, item.sha256, item.image, item.server)
        if image is None:
            raise ServerError(
                _("The server no longer has the volume {volume}: analyse it again, then send the {item}.").format(
                    volume=item.volume, item=item.title
                )
            )
        if item.kind == "label":
            client.save_label(image, self.folder / item.name / _LABEL)
        else:
            client.set_marks(image, **(item.marks or {}))
        self.remove(item)


def _key(item: Item) -> tuple:
    return item.kind, item.server, item.sha256
