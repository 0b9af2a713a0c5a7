"""MONAI Label's datastore_v2.json: a copy of the last good one, which takes the place of one that is damaged."""

from __future__ import annotations

import logging
import shutil
from datetime import UTC, datetime
from pathlib import Path

from monailabel.datastore.local import LocalDatastoreModel

from medclipad.files import atomic_file

logger = logging.getLogger(__name__)
DATASTORE_FILE = "datastore_v2.json"
_COPY = ".datastore_v2.last-good.json"


def restore_if_damaged(file: Path) -> None:
    """Put the last good copy in place of a datastore file that is damaged, or make a copy of a good one.

    The damaged file is kept under another name. Without a copy, the images and labels are listed anew from their
    folders: marks and info are then in the damaged file alone.

    Parameters
    ----------
    file
        The datastore file; it need not exist.
    """
    copy = file.with_name(_COPY)
    if _is_good(file):
        _copy(file, copy)
        return
    if not file.exists():
        return
    aside = file.with_name(f"{DATASTORE_FILE}.damaged-{datetime.now(UTC).strftime('%Y%m%dT%H%M%SZ')}")
    file.rename(aside)
    if _is_good(copy):
        _copy(copy, file)
        logger.error(
            "%s was damaged; the copy of the last start is used, the damaged file is %s.", DATASTORE_FILE, aside.name
        )
    else:
        logger.error(
            "%s was damaged, and there is no copy: images and labels are listed anew; marks and info are in %s.",
            DATASTORE_FILE,
            aside.name,
        )


def _is_good(file: Path) -> bool:
    try:
        LocalDatastoreModel.model_validate_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def _copy(source: Path, target: Path) -> None:
    with atomic_file(target) as temp_path:
        shutil.copyfile(source, temp_path)
