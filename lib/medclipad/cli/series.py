"""The command `medclipad series`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from medclipad.volume.dicom.series_info import SeriesInfo, VolumeInfo


def series(
    source: Annotated[Path, typer.Argument(metavar="DIR", help="Folder, zip or DICOMDIR of DICOM files.")],
) -> None:
    """List the DICOM series in a folder and the volumes in each, or what keeps a series from being a volume.

    `--series` of the other commands takes the number of a row, `--component` that of a volume, or what it says.
    """
    from medclipad.cli.terminal import print_table
    from medclipad.volume import list_untrusted_series

    rows, several = [], []
    for number, found in enumerate(list_untrusted_series(source), start=1):
        what = _grid(found)
        if found.volumes:
            what = f"{len(found.volumes)} volumes, see below"
            several.append((number, found.volumes))
        description = found.description or "without description"
        rows.append((str(number), found.modality, description, str(found.images), what, found.uid))
    print_table(("", "modality", "description", "images", "volume", "UID"), rows)
    for number, volumes in several:
        print(f"\nVolumes of series {number}: --component takes the number of one, or what tells it apart.")
        print_table(
            ("", "what tells it apart", "volume"),
            [(str(index), volume.label, _grid(volume)) for index, volume in enumerate(volumes)],
        )


def _grid(found: SeriesInfo | VolumeInfo) -> str:
    """Return size and spacing, or what keeps the images from being a volume."""
    if found.size is None or found.spacing is None:
        return found.problem or ""
    size, spacing = " x ".join(map(str, found.size)), " x ".join(f"{mm:.4g}" for mm in found.spacing)
    return f"{size} voxels of {spacing} mm"
