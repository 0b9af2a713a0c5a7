"""Requests that a server must refuse: files made to crash, fill or mislead it, and names that lead elsewhere."""

from __future__ import annotations

import gzip
import io
import json
import socket
import zipfile
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import requests

NRRD_HEAD = (
    b"NRRD0004\ntype: uint8\ndimension: 3\nspace: left-posterior-superior\nsizes: 8 8 8\n"
    b"space directions: (1,0,0) (0,1,0) (0,0,1)\nencoding: raw\nspace origin: (0,0,0)\n"
)
SECONDS = 120.0
"""Time for an answer."""


def requests_to_refuse(url: str, image: str, own: bytes) -> dict[str, Callable[[], requests.Response]]:
    """Return requests by name; each is to be answered with a 4xx.

    Parameters
    ----------
    url
        Address of the server.
    image
        Id of an image of the studies.
    own
        The file of that image, compressed NIfTI.
    """

    def send(method: str, address: str, **options: Any) -> Callable[[], requests.Response]:
        return lambda: requests.request(method, f"{url}{address}", timeout=SECONDS, **options)

    def upload(name: str, content: bytes, as_image: str = "hostile") -> Callable[[], requests.Response]:
        return send("PUT", f"/datastore/image?image={as_image}", files={"file": (name, content)})

    def label(name: str, content: bytes, tag: str = "final") -> Callable[[], requests.Response]:
        return send("PUT", f"/datastore/label?image={image}&tag={tag}", files={"label": (name, content)})

    return {
        "MetaImage of -1 dimensions": upload("x.mha", _meta_image(-1)),
        "MetaImage of 100 dimensions": label("x.mha", _meta_image(100)),
        "NRRD with a long field": upload("x.nrrd", NRRD_HEAD + b"a: :=" + b"x" * 500_000 + b"\n\n" + bytes(512)),
        "NRRD of a device": upload("x.nrrd", NRRD_HEAD + b"data file: /dev/zero\n\n"),
        "gzip of zeros": upload("x.nii.gz", own[:64] + gzip.compress(bytes(300_000_000), 9)),
        "half a file": upload("x.nii.gz", own[: len(own) // 2]),
        "zip that leads outside": upload("x.zip", _zip({"../../evil.dcm": bytes(128) + b"DICM"})),
        "zip of zeros": upload("x.zip", _zip({"a.dcm": bytes(100_000_000)})),
        "name that leads outside": upload("x.nii.gz", own, "..%2F..%2Fevil"),
        "tag that leads outside": label("x.nii.gz", own, "..%2Fevil"),
        "image as its own label": label("x.nii.gz", own),
        "text as volume": upload("x.nii", b"not a volume"),
        "unknown suffix": upload("x.exe", own),
        "info that is no JSON": send("PUT", f"/datastore/image/info?image={image}", data={"info": '{"a": NaN}'}),
        "info of 2 MB": send("PUT", f"/datastore/image/info?image={image}", data={"info": json.dumps("x" * 2**21)}),
        "marks of slices that are none": send("PUT", f"/marks?image={image}", json={"plane": "axial", "normal": [-1]}),
        "file of the server": send("POST", "/infer/mediclip?image=/etc/passwd"),
        "training from a file": send("POST", "/train/mediclip", json={"encoder": "ViT-B-32//etc/passwd"}),
        "page of another site": send("GET", "/datastore/?output=all", headers={"Sec-Fetch-Site": "cross-site"}),
        "host of another name": send("GET", "/info/", headers={"Host": "evil.example"}),
    }


def half_sent(url: str, count: int) -> list[socket.socket]:
    """Return connections that have sent half a header, and never send the rest."""
    address = urlsplit(url)
    opened = []
    for _ in range(count):
        try:
            connection = socket.create_connection((address.hostname or "", address.port or 0), timeout=5)
            connection.sendall(b"GET /info/ HTTP/1.1\r\nHost: x\r\nX-A: ")
        except OSError:  # the server is being started again, or has dropped it already
            continue
        opened.append(connection)
    return opened


def _meta_image(dimensions: int) -> bytes:
    header = (
        f"ObjectType = Image\nNDims = {dimensions}\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
        "CompressedData = False\nTransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\nElementSpacing = 1 1 1\n"
        "DimSize = 8 8 8\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
    )
    return header.encode() + bytes(512)


def _zip(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()
