"""Labels and marks on their way to the server, kept on disk until it has them: nothing that was labelled is lost."""

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

from MedCLIPADLib.client import Client
from MedCLIPADLib.errors import ServerError
from MedCLIPADLib.files import write_nrrd

_ABOUT = "about.json"
_LABEL = "label.nrrd"


@dataclass(frozen=True)
class Item:
    """What waits. kind: label or marks. volume: name for the reader. marks: as the server has them."""

    kind: str
    server: str
    image: str
    sha256: str
    volume: str
    marks: dict | None = None
    name: str = field(default_factory=lambda: f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:8]}")

    @property
    def what(self) -> str:
        words = _("label of {volume}") if self.kind == "label" else _("marks of {volume}")
        return words.format(volume=self.volume)


class Pending:
    """A folder with one sub-folder for each item. Its methods may be called from threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def add(self, item: Item, label: np.ndarray | None = None, affine: np.ndarray | None = None) -> Item:
        """Keep an item; it replaces an older one of the same kind, server and image."""
        older = [other for other in self.items() if _key(other) == _key(item)]
        aside = self.folder / f".{item.name}"
        aside.mkdir(parents=True)
        if label is not None:
            write_nrrd(aside / _LABEL, label, affine)
        (aside / _ABOUT).write_text(json.dumps(asdict(item)), encoding="utf-8")
        os.replace(aside, self.folder / item.name)  # whole or not at all
        for other in older:
            self.remove(other)
        return item

    def items(self) -> list[Item]:
        """What waits, oldest first."""
        found = []
        for about in sorted(self.folder.glob(f"[!.]*/{_ABOUT}")):
            try:
                found.append(Item(**json.loads(about.read_text(encoding="utf-8"))))
            except (OSError, ValueError, TypeError):
                continue  # removed in this moment, or not ours
        return found

    def has(self, item: Item) -> bool:
        return (self.folder / item.name / _ABOUT).is_file()

    def remove(self, item: Item) -> None:
        shutil.rmtree(self.folder / item.name, ignore_errors=True)

    def send(self, item: Item, client: Client) -> None:
        """Send an item and forget it; it stays if that fails. Another server is asked for the image by its hash."""
        image = item.image
        if client.url != item.server or not client.has(image):
            image = client.find(item.sha256) or ""
        if not image:
            raise ServerError(
                _("The server has no volume {volume} any more: analyse it again, then send the {item}.").format(
                    volume=item.volume, item=item.what
                )
            )
        if item.kind == "label":
            client.save_label(image, self.folder / item.name / _LABEL)
        else:
            client.save_marks(image, item.marks or {})
        self.remove(item)


def _key(item: Item) -> tuple:
    return item.kind, item.server, item.sha256
