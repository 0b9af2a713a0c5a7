"""The sample volume: one simulated head, which is part of the module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer

NAME = "MedCLIPADSample"
FILE = "MedCLIPAD-sample.nii.gz"
RESOURCES = Path(__file__).parents[1] / "Resources"
# Where the repository is to be published. Until then only the local file works; nothing else depends on it.
URL = f"https://raw.githubusercontent.com/medclipad/SlicerMedCLIPAD/main/MedCLIPAD/Resources/SampleData/{FILE}"


def local_file() -> Path:
    """Return the path of the sample volume in the module's folder."""
    return RESOURCES / "SampleData" / FILE


def checksum() -> str:
    """Return the SHA-256 checksum of the sample volume."""
    return (RESOURCES / "SampleData" / f"{FILE}.sha256").read_text(encoding="ascii").split()[0]


def register() -> None:
    """Register the sample in the Sample Data module.

    It is the local file, or a download if that is missing. The address is always given: Slicer refuses a sample
    without one, also if it has a loader of its own.
    """
    import SampleData

    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category="MedCLIPAD",
        sampleName=NAME,
        thumbnailFileName=str(RESOURCES / "Icons" / "MedCLIPAD.png"),
        uris=URL,
        fileNames=FILE,
        nodeNames=NAME,
        checksums=f"SHA256:{checksum()}",
        customDownloader=(lambda _source: load()) if local_file().is_file() else None,
    )


def load() -> Any:
    """Load the sample volume from the module's folder and return its node."""
    return slicer.util.loadVolume(str(local_file()), {"name": NAME})
