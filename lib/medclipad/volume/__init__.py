"""Volumes: read, orient, slice, window, stack and write; nothing here knows of networks.

A volume is never resampled. Its array keeps the file's own axes; `Slicing` shows it as radiological slices by pure
index arithmetic and puts maps back onto exactly the same grid, `SquareFrame` carries slices to an encoder's square and
back. Whatever could end in a plausible picture in the wrong place is a `VolumeError` that names file, fault and remedy.
"""

from __future__ import annotations

from medclipad.volume.dicom.series import SeriesInfo, list_series
from medclipad.volume.foreground import MINIMUM_FOREGROUND, foreground_mask, slice_foreground
from medclipad.volume.intensity import IntensityPreset, parse_preset, resolve_preset, to_unit
from medclipad.volume.labels import label_note, require_mask
from medclipad.volume.read import case_name, read_volume
from medclipad.volume.slicing import PLANES, Slicing
from medclipad.volume.square_frame import SquareFrame
from medclipad.volume.volume import Volume, require_same_grid
from medclipad.volume.write import write_volume

__all__ = [
    "MINIMUM_FOREGROUND",
    "PLANES",
    "IntensityPreset",
    "SeriesInfo",
    "Slicing",
    "SquareFrame",
    "Volume",
    "case_name",
    "foreground_mask",
    "label_note",
    "list_series",
    "parse_preset",
    "read_volume",
    "require_mask",
    "require_same_grid",
    "resolve_preset",
    "slice_foreground",
    "to_unit",
    "write_volume",
]
