"""The two clients behind one interface: the library's, and the Slicer module's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TOKEN = "correct-horse-battery"  # of the real server


@dataclass(frozen=True)
class Binding:
    """What differs between the two clients.

    Attributes
    ----------
    connect
        Called with the address, or the address and the token, of a server.
    server_error, cancelled
        Their exceptions.
    infer
        Called with a client, a model, an image, and the callbacks for progress and Cancel; returns scores and map.
    download
        Called with a client, an image, a folder and a callback; returns the path of the file.
    """

    connect: Callable[..., Any]
    server_error: type[Exception]
    cancelled: type[Exception]
    infer: Callable[..., tuple[dict, bytes]]
    download: Callable[..., Path]


def python_binding() -> Binding:
    from medclipad.client import Client, ServerError
    from medclipad.errors import Cancelled

    def infer(client: Client, model: str, image: str, progress: Any, cancelled: Any) -> tuple[dict, bytes]:
        path, scores = client.infer(model, image, {"result": "map"}, progress=progress, cancelled=cancelled)
        return scores, path.read_bytes()

    def download(client: Client, image: str, folder: Path, progress: Any = None) -> Path:
        return client.download_image(image, folder / "volume.nii.gz", progress)

    return Binding(Client, ServerError, Cancelled, infer, download)


def slicer_binding() -> Binding:
    from MedCLIPADLib.client import Client
    from MedCLIPADLib.errors import Cancelled, ServerError

    def infer(client: Client, model: str, image: str, progress: Any, cancelled: Any) -> tuple[dict, bytes]:
        return client.infer(model, image, {}, progress, cancelled)

    return Binding(Client, ServerError, Cancelled, infer, Client.download_image)
