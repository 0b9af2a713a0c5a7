"""Read, orient, slice, window, stack and write volumes.

A volume is never resampled. Its array keeps the file's own axes; `Slicing` shows it as radiological slices by pure
index arithmetic and puts maps back onto exactly the same grid; `SquareFrame` maps slices to an encoder's square and
back. Any file that could yield a plausible image in the wrong position raises a `VolumeError` that names the file, the
fault and the remedy. Nothing here depends on networks.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # loaded on first use: the libraries that read files take a second, which `--help` must not wait for
    from medclipad.volume.dicom.series import list_series
    from medclipad.volume.dicom.series_info import SeriesInfo
    from medclipad.volume.foreground import MINIMUM_FOREGROUND, foreground_mask, slice_foreground
    from medclipad.volume.intensity import IntensityPreset, parse_preset, require_modality, resolve_preset, to_unit
    from medclipad.volume.labels import label_note, require_mask
    from medclipad.volume.read import case_name, read_volume
    from medclipad.volume.slicing import PLANES, Slicing
    from medclipad.volume.square_frame import SquareFrame
    from medclipad.volume.untrusted import list_untrusted_series, read_untrusted
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
    "list_untrusted_series",
    "parse_preset",
    "read_untrusted",
    "read_volume",
    "require_mask",
    "require_modality",
    "require_same_grid",
    "resolve_preset",
    "slice_foreground",
    "to_unit",
    "write_volume",
]

_HOMES = {
    "MINIMUM_FOREGROUND": "medclipad.volume.foreground",
    "PLANES": "medclipad.volume.slicing",
    "IntensityPreset": "medclipad.volume.intensity",
    "SeriesInfo": "medclipad.volume.dicom.series_info",
    "Slicing": "medclipad.volume.slicing",
    "SquareFrame": "medclipad.volume.square_frame",
    "Volume": "medclipad.volume.volume",
    "case_name": "medclipad.volume.read",
    "foreground_mask": "medclipad.volume.foreground",
    "label_note": "medclipad.volume.labels",
    "list_series": "medclipad.volume.dicom.series",
    "list_untrusted_series": "medclipad.volume.untrusted",
    "parse_preset": "medclipad.volume.intensity",
    "read_untrusted": "medclipad.volume.untrusted",
    "read_volume": "medclipad.volume.read",
    "require_mask": "medclipad.volume.labels",
    "require_modality": "medclipad.volume.intensity",
    "require_same_grid": "medclipad.volume.volume",
    "resolve_preset": "medclipad.volume.intensity",
    "slice_foreground": "medclipad.volume.foreground",
    "to_unit": "medclipad.volume.intensity",
    "write_volume": "medclipad.volume.write",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
