"""The SampleData module's registration, which scripted modules call when Slicer has started."""

from __future__ import annotations

import os
from typing import Any

import slicer

_PARTS = ("uris", "fileNames", "nodeNames", "loadFiles", "loadFileTypes", "checksums")  # of one length


class SampleDataSource:
    """A sample; ValueError or TypeError for what Slicer refuses: every sample has addresses, also one with a loader."""

    def __init__(
        self,
        sampleName: str | None = None,
        customDownloader: Any = None,
        thumbnailFileName: str | None = None,
        loadFileProperties: dict[str, Any] | None = None,
        **parts: Any,
    ) -> None:
        unknown = sorted(set(parts) - set(_PARTS))
        if unknown:
            raise TypeError(f"sample {sampleName}: unexpected {', '.join(unknown)}")
        if thumbnailFileName and not os.path.isfile(thumbnailFileName):
            raise ValueError(f"sample {sampleName}: no thumbnail at {thumbnailFileName}")
        self.sampleName, self.customDownloader, self.thumbnailFileName = sampleName, customDownloader, thumbnailFileName
        self.loadFileProperties = loadFileProperties or {}
        several = isinstance(parts.get("uris"), (list, tuple))
        for name in _PARTS:
            value = parts.get(name)
            if isinstance(parts.get("uris"), str):
                value = [value]
            elif several and value is None and name != "fileNames":
                value = [None] * len(parts["uris"])
            setattr(self, name, value)
        if len({len(getattr(self, name)) for name in _PARTS}) > 1:  # TypeError without addresses, as in Slicer
            raise ValueError(f"sample {sampleName}: the lists {', '.join(_PARTS)} differ in length")


class SampleDataLogic:
    """The registration alone."""

    @staticmethod
    def registerCustomSampleDataSource(category: str = "Custom", **fields: Any) -> None:
        if not hasattr(slicer.modules, "sampleDataSources"):
            slicer.modules.sampleDataSources = {}
        slicer.modules.sampleDataSources.setdefault(category, []).append(SampleDataSource(**fields))
