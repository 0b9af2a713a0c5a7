"""The sample volume: one simulated head, which comes with the module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer

NAME = "MedCLIPADSample"
FILE = "MedCLIPAD-sample.nii.gz"
RESOURCES = Path(__file__).parents[1] / "Resources"
# Where the repository is to be published. Until then only the local file works; nothing else depends on it.
URL = f"https://raw.githubusercontent.com/medclipad/MedCLIPAD/main/MedCLIPAD/Resources/SampleData/{FILE}"


def local_file() -> Path:
    return RESOURCES / "SampleData" / FILE


def checksum() -> str:
    return (RESOURCES / "SampleData" / f"{FILE}.sha256").read_text(encoding="ascii").split()[0]


def register() -> None:
    """Offer the sample in the Sample Data module: from this module's folder, or as a download if it is not there."""
    import SampleData

    about = {"sampleName": NAME, "thumbnailFileName": str(RESOURCES / "Icons" / "MedCLIPAD.png")}
    if local_file().is_file():
        about["customDownloader"] = lambda _source: load()
    else:
        about.update(uris=URL, fileNames=FILE, nodeNames=NAME, checksums=f"SHA256:{checksum()}")
    SampleData.SampleDataLogic.registerCustomSampleDataSource(category="MedCLIPAD", **about)


def load() -> Any:
    """Load the sample from the module's own folder."""
    return slicer.util.loadVolume(str(local_file()), {"name": NAME})
