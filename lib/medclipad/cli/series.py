"""The command `medclipad series`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def series(
    source: Annotated[Path, typer.Argument(metavar="DIR", help="Folder, zip or DICOMDIR of DICOM files.")],
) -> None:
    """List the DICOM series in a folder, or what keeps a series from being a volume.

    `--series` of the other commands takes the number of a row.
    """
    from medclipad.cli.terminal import print_table
    from medclipad.volume import list_series

    rows = []
    for number, found in enumerate(list_series(source), start=1):
        if found.size and found.spacing:
            size, spacing = " x ".join(map(str, found.size)), " x ".join(f"{mm:.4g}" for mm in found.spacing)
            what = f"{size} voxels of {spacing} mm"
        else:
            what = found.problem or ""
        description = found.description or "without description"
        rows.append((str(number), found.modality, description, str(found.images), what, found.uid))
    print_table(("", "modality", "description", "images", "volume", "UID"), rows)
