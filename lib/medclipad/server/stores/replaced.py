"""Labels, marks and info of an image whose file was replaced by another image: they are kept, but no longer count.

They belong to what they were made on. A file with another date is read and hashed once; if its content is the same, all
of it stays. Otherwise the labels move to `labels/<tag>/.replaced-<hash of the earlier image>/`, and what was known is
kept under "replaced" in the image's info.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from medclipad.errors import MedCLIPADError
from medclipad.server.security.upload_limits import READ_SLOTS, read_image
from medclipad.server.stores.file_state import file_state
from medclipad.volume.fingerprint import content_sha256

KEPT = ("name", "ts", "strategy", "replaced")  # what is known of a file that is not about its content
_HASH = ("sha256", "sha256_of")


def is_about_content(info: dict[str, Any]) -> bool:
    """Return whether anything but the hash is known about the content of an image."""
    return any(value and key not in (*KEPT, *_HASH) for key, value in info.items())


def is_same_image(path: str, info: dict[str, Any]) -> bool:
    """Return whether a file still holds the image that its info was recorded for, and record its new state.

    An image without a recorded hash, or one that cannot be read, counts as the same: nothing shows that it is not.

    Parameters
    ----------
    path
        The image.
    info
        What is known about it; "sha256" and "sha256_of", see `stores.content`.
    """
    if not info.get("sha256"):
        return True
    state = file_state(path)
    if info.get("sha256_of") == state:
        return True
    try:
        with READ_SLOTS:
            digest = content_sha256(read_image(path))
    except MedCLIPADError:
        return True
    if digest == info["sha256"]:
        info["sha256_of"] = state
    return digest == info["sha256"]


def set_aside(labels: dict[str, Path], info: dict[str, Any]) -> dict[str, Any]:
    """Move the labels of an earlier image aside and return the info of the new one.

    Parameters
    ----------
    labels
        File of each label, by tag.
    info
        What was known about the earlier image.
    """
    digest = str(info["sha256"])[:16]
    for file in labels.values():
        folder = file.parent / f".replaced-{digest}"
        folder.mkdir(exist_ok=True)
        if file.exists():
            os.replace(file, folder / file.name)
    earlier = {
        **{key: value for key, value in info.items() if key not in KEPT},
        "labels": sorted(labels),
        "until": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    kept = {key: value for key, value in info.items() if key in KEPT}
    return {**kept, "replaced": [*kept.get("replaced", []), earlier]}
