"""Add a zip of DICOM files to a studies folder: one image for each series that is a volume."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from medclipad.errors import VolumeError
from medclipad.server.security.upload_limits import FIRST, check_free_space, read_image
from medclipad.server.stores.folder import INCOMING, StudyDatastore
from medclipad.volume.dicom.files import may_be_dicom, others_note
from medclipad.volume.dicom.series import headers_of, series_of
from medclipad.volume.readers.archives import unpack_dicom, unpacked_size

ARCHIVE = ".zip"


def add_archive(store: StudyDatastore, archive: Path, image: str, info: dict[str, Any]) -> dict[str, Any]:
    """Unpack an archive into the studies.

    Parameters
    ----------
    store
        The studies.
    archive
        The zip.
    image
        Id of the image; an archive with several series becomes `image`_1, `image`_2, ...
    info
        What to store about each image.

    Returns
    -------
    dict
        "image", the first id; "images", all ids; "left_out", a sentence for each series that is not an image.

    Raises
    ------
    VolumeError
        If no series of the archive can be read; nothing is added then.
    RequestError
        409 if an id is in use.
    """
    check_free_space(store.folder, unpacked_size(archive))
    with tempfile.TemporaryDirectory(prefix=INCOMING, dir=store.folder) as temp_folder:
        unpacked, series_root = Path(temp_folder) / "unpacked", Path(temp_folder) / "series"
        unpacked.mkdir()
        files = unpack_dicom(archive, unpacked, also=may_be_dicom)
        headers, without_image = headers_of(files, False, archive.name)
        folders, left_out = [], others_note(files) + without_image
        groups = series_of(headers)
        for index, group in enumerate(groups.values()):
            folder = series_root / str(index)
            folder.mkdir(parents=True)
            for file in group:
                shutil.move(file, folder / file.name)
            try:
                read_image(folder, FIRST)
                folders.append(folder)
            except VolumeError as error:
                left_out.append(_about_series(str(error), group))
        if not folders:
            raise VolumeError(f"{archive.name}: none of its {len(groups)} series is a volume. {' '.join(left_out)}")
        ids = [image] if len(folders) == 1 else [f"{image}_{number}" for number in range(1, len(folders) + 1)]
        store.add_series(dict(zip(ids, folders, strict=True)), info)
    return {"image": ids[0], "images": ids, "left_out": left_out}


def _about_series(message: str, group: dict[Path, Any]) -> str:
    """Return an error message about a file or folder of ours as one about the series in it."""
    description = next(iter(group.values())).get("SeriesDescription") or "a series without description"
    return f"{description}: {message.partition(': ')[2]}"
