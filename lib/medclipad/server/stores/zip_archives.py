"""A zip of DICOM files as images of a studies folder: one for each series that is a volume."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from medclipad.errors import VolumeError
from medclipad.server.security.upload_limits import check_room
from medclipad.server.stores.folder import INCOMING, StudyDatastore
from medclipad.volume import read_volume
from medclipad.volume.dicom.files import may_be_dicom, others_note
from medclipad.volume.dicom.series import headers_of, series_of
from medclipad.volume.readers.archives import unpack_dicom, unpacked_size

ARCHIVE = ".zip"


def add_archive(store: StudyDatastore, archive: Path, image: str, info: dict[str, Any]) -> dict[str, Any]:
    """Unpack an archive into the studies, as `image`, or as `image`_1, `image`_2 ... where it holds several series.

    Returns {"image": the first id, "images": all ids, "left_out": [why a series is no image, ...]}. Nothing is added
    if nothing can be read. Raises VolumeError for an archive without a readable series, RequestError 409 for a taken
    id.
    """
    check_room(store.folder, unpacked_size(archive))
    with tempfile.TemporaryDirectory(prefix=INCOMING, dir=store.folder) as aside:
        unpacked, sorted_out = Path(aside) / "unpacked", Path(aside) / "series"
        unpacked.mkdir()
        files = unpack_dicom(archive, unpacked, also=may_be_dicom)
        folders, left_out = [], others_note(files)
        groups = series_of(headers_of(files, False, archive.name))
        for number, group in enumerate(groups.values()):
            folder = sorted_out / str(number)
            folder.mkdir(parents=True)
            for file in group:
                shutil.move(file, folder / file.name)
            try:
                read_volume(folder)
                folders.append(folder)
            except VolumeError as error:
                left_out.append(_named(str(error), group))
        if not folders:
            raise VolumeError(f"{archive.name}: none of its {len(groups)} series is a volume. {' '.join(left_out)}")
        ids = [image] if len(folders) == 1 else [f"{image}_{number}" for number in range(1, len(folders) + 1)]
        store.add_series(dict(zip(ids, folders, strict=True)), info)
    return {"image": ids[0], "images": ids, "left_out": left_out}


def _named(sentence: str, group: dict[Path, Any]) -> str:
    """An error about a file or folder of ours, as one about the series in it."""
    description = next(iter(group.values())).get("SeriesDescription") or "a series without description"
    return f"{description}: {sentence.partition(': ')[2]}"
