"""The files of a cohort's results: BIDS derivatives, or a flat folder."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Any

from medclipad.cohort.listing import DESCRIPTION, Scan
from medclipad.detection.result import DISCLAIMER, AnomalyResult
from medclipad.errors import MedCLIPADError
from medclipad.export.result_files import write_json, write_result, write_text
from medclipad.files import sha256_of_text
from medclipad.volume import Volume, case_name, write_volume

BIDS_VERSION = "1.10.0"
MAP, MASK = "desc-anomaly_probseg", "desc-anomaly_mask"
OWN_FILES = ("cohort.parquet", "cohort.html", "cohort.json", "journal", "detectors")
"""What lies beside the derivatives and is not part of BIDS."""


class Layout(StrEnum):
    """How results are named."""

    BIDS = "bids"
    FLAT = "flat"


def map_path(layout: Layout, scan: Scan) -> str:
    """Return where a scan's map is written, relative to the folder of the results."""
    return f"{bids_prefix(scan)}_{MAP}.nii.gz" if layout is Layout.BIDS else f"{scan.name}_anomaly.nii.gz"


def write_outputs(
    out: Path, layout: Layout, scan: Scan, volume: Volume, result: AnomalyResult, rate: float | None
) -> list[str]:
    """Write map, mask and summary of a scan.

    Parameters
    ----------
    out
        Folder of the results.
    layout
        How files are named: `bids` writes `desc-anomaly_probseg` and `desc-anomaly_mask` with sidecars, `flat` the
        files of `write_result`.
    scan, volume, result
        What was analysed, and what was found.
    rate
        Which regions are listed and drawn; see `AnomalyResult.regions`.

    Returns
    -------
    list of str
        The files, relative to `out`.

    Raises
    ------
    MedCLIPADError
        If a file cannot be written.
    """
    if layout is Layout.FLAT:
        written = write_result(out, volume, result, segmentation=True, false_per_scan=rate)
        return [path.relative_to(out).as_posix() for path in written]
    prefix = bids_prefix(scan)
    chosen = {} if rate is None else result.chosen(rate)
    source = {"Sources": [f"bids:raw:{scan.bids}"]} if scan.bids else {}
    sidecars: dict[str, dict[str, Any]] = {
        MAP: {
            "Description": "Rarity of what is seen among normal tissue: 0.2 is reached by 1 in 10 voxels of normal "
            "scans, 0.4 by 1 in 100, 0.6 by 1 in 1,000, 0.8 by 1 in 10,000.",
            **source,
            **result.summary(),
            **chosen,
        },
        MASK: {
            "Description": "Connected parts of the map above the threshold whose peak exceeds the limit.",
            "Type": "Lesion",
            **source,
            "threshold": result.threshold,
            "region_limit": result.region_limit(rate),
        },
    }
    files = []
    for name, content in sidecars.items():
        write_json(out / f"{prefix}_{name}.json", content)
        image = result.anomaly_map if name == MAP else result.segmentation(false_per_scan=rate)
        write_volume(image, out / f"{prefix}_{name}.nii.gz")
        files += [f"{prefix}_{name}.nii.gz", f"{prefix}_{name}.json"]
    return files


def write_dataset(out: Path, scans: Sequence[Scan], detector: str) -> None:
    """Write what makes a folder a BIDS dataset of derivatives: its description, README and .bidsignore.

    Raises MedCLIPADError if two scans would have the same files.
    """
    prefix, times = Counter(bids_prefix(scan) for scan in scans).most_common(1)[0]
    if times > 1:
        raise MedCLIPADError(
            f"{times} scans would be called {Path(prefix).name} in BIDS, which takes letters and digits alone: rename "
            'them in a column "name" of a CSV file, or choose --layout flat.'
        )
    raw = {"DatasetLinks": {"raw": _root(scans[0]).as_uri()}} if scans[0].bids else {}
    write_json(
        out / DESCRIPTION,
        {
            "Name": f"Anomaly maps of the detector {detector}",
            "BIDSVersion": BIDS_VERSION,
            "DatasetType": "derivative",
            "GeneratedBy": [{"Name": "MedCLIPAD", "Version": version("medclipad"), "Description": DISCLAIMER}],
            **raw,
        },
    )
    write_text(
        out / "README.md",
        f"# Anomaly maps\n\nWritten by `medclipad cohort` with the detector {detector}. {DISCLAIMER}\n\n"
        "`cohort.html` shows the cohort, `cohort.parquet` holds a row for each scan.\n",
    )
    write_text(out / ".bidsignore", "\n".join(OWN_FILES) + "\n")


def bids_prefix(scan: Scan) -> str:
    """Return folder and entities of a scan's derivatives.

    Of a BIDS image they are its own, without the suffix. Of another scan the subject is its name, and the folder
    `anat`, since BIDS has none for CT.

    Examples
    --------
    >>> bids_prefix(Scan("sub-01_ses-2_T1w", "", bids="sub-01/ses-2/anat/sub-01_ses-2_T1w.nii.gz"))
    'sub-01/ses-2/anat/sub-01_ses-2'
    >>> bids_prefix(Scan("normal-1", "normal-1.nrrd"))
    'sub-normal1/anat/sub-normal1'
    """
    if scan.bids:
        path = Path(scan.bids)
        return (path.parent / case_name(path).rpartition("_")[0]).as_posix()
    label = re.sub(r"[^A-Za-z0-9]", "", scan.name) or f"x{sha256_of_text(scan.name)[:8]}"
    return f"sub-{label}/anat/sub-{label}"


def _root(scan: Scan) -> Path:
    """Return the BIDS dataset that a scan is in."""
    return Path(scan.source).resolve().parents[len(Path(scan.bids).parts) - 1]
