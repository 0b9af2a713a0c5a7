"""The SampleData module's registration, which scripted modules call when Slicer has started."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any


@dataclass
class SampleDataSource:
    sampleName: str | None = None
    sampleDescription: str | None = None
    uris: Any = None
    fileNames: Any = None
    nodeNames: Any = None
    checksums: Any = None
    loadFiles: Any = None
    customDownloader: Any = None
    thumbnailFileName: str | None = None
    loadFileType: Any = None
    loadFileProperties: dict[str, Any] = field(default_factory=dict)


class SampleDataLogic:
    """Records what is registered, after checks that Slicer makes only at the download."""

    sources: dict[str, list[SampleDataSource]] = {}  # noqa: RUF012

    @staticmethod
    def registerCustomSampleDataSource(category: str = "Custom", **fields: Any) -> None:
        source = SampleDataSource(**fields)
        lists = [source.uris, source.fileNames, source.nodeNames]
        lengths = {len(item) for item in lists if isinstance(item, (list, tuple))}
        if len(lengths) > 1:
            raise ValueError(f"sample {source.sampleName}: uris, fileNames and nodeNames differ in length")
        if source.uris is None and source.customDownloader is None:
            raise ValueError(f"sample {source.sampleName}: neither uris nor customDownloader")
        if source.thumbnailFileName and not os.path.isfile(source.thumbnailFileName):
            raise ValueError(f"sample {source.sampleName}: no thumbnail at {source.thumbnailFileName}")
        SampleDataLogic.sources.setdefault(category, []).append(source)
