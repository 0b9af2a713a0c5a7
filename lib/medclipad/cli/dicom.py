"""The command `medclipad series`, and the DICOM results of `medclipad detect`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class DicomResult(StrEnum):
    """What `medclipad.export.dicom` writes."""

    SEGMENTATION = "segmentation"
    MAP = "map"
    REPORT = "report"
    KEY_SLICES = "key-slices"


def series(
    source: Annotated[Path, typer.Argument(metavar="DIR", help="Folder, zip or DICOMDIR of DICOM files.")],
) -> None:
    """List the DICOM series in a folder: UID, description, size and spacing, or what keeps it from being a volume."""
    from medclipad.volume import list_series

    for one in list_series(source):  # plain lines: a UID is there to be copied
        print(f"{one.uid}  {one.modality}  {one.description or 'without description'}: {one.images} images")
        if one.size and one.spacing:
            size, spacing = " x ".join(map(str, one.size)), " x ".join(f"{mm:.4g}" for mm in one.spacing)
            print(f"    {size} voxels of {spacing} mm")
        else:
            print(f"    {one.problem}")
