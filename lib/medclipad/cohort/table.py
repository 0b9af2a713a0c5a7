"""The rows of a cohort: one for each scan, kept as a file each while it runs, and joined as a Parquet table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from medclipad.cohort.listing import Scan
from medclipad.errors import MedCLIPADError
from medclipad.export.result_files import write_json
from medclipad.files import atomic_file

TABLE, JOURNAL = "cohort.parquet", "journal"


class Row(BaseModel):
    """What is known of a scan after it was analysed.

    Attributes
    ----------
    name, source, series, group, state
        As of the `Scan`.
    status
        "done", or "failed" if it could not be read or analysed.
    error
        Why it failed, in a sentence.
    volume_score, p_value, verdict, warnings, regions, slice_scores, plane
        As of the `AnomalyResult`.
    abnormal
        Whether its lesion mask holds a voxel; None without a mask.
    average_precision, best_dice
        Of the map against the mask; None without one, or if it is empty.
    shape, spacing
        Voxels and millimetres along each axis.
    window
        Values that the detector saw as black and white.
    detector, weights
        Name of the detector, and the SHA-256 of its weights.
    versions
        Of the packages that decide what is computed.
    files
        What was written, relative to the folder of the results.
    seconds
        Wall time from reading to writing.
    """

    model_config = ConfigDict(extra="forbid")

    name: str
    source: str
    series: str | None = None
    group: str = ""
    state: str = ""
    status: Literal["done", "failed"] = "done"
    error: str = ""
    volume_score: float | None = None
    p_value: float | None = None
    verdict: str = ""
    warnings: list[str] = []
    regions: list[dict[str, Any]] = []
    slice_scores: list[float | None] = []
    plane: str = ""
    abnormal: bool | None = None
    average_precision: float | None = None
    best_dice: float | None = None
    shape: list[int] = []
    spacing: list[float] = []
    window: list[float] | None = None
    detector: str = ""
    weights: str = ""
    versions: dict[str, str] = {}
    files: list[str] = []
    seconds: float = 0.0

    @classmethod
    def of(cls, scan: Scan) -> Row:
        """Return the row of a scan of which nothing is known yet."""
        series = scan.remote.uid if scan.remote else scan.series
        return cls(name=scan.name, source=scan.source, series=series, group=scan.group, state=scan.state)


_REGION = pa.struct(
    {
        "volume_ml": pa.float64(),
        "peak": pa.float64(),
        "mean": pa.float64(),
        "ijk": pa.list_(pa.int32()),
        "position": pa.list_(pa.float64()),
        "side": pa.string(),
        "first": pa.int32(),
        "last": pa.int32(),
        "slice": pa.int32(),
    }
)
SCHEMA = pa.schema(
    {
        "rank": pa.int32(),
        **dict.fromkeys(("name", "source", "series", "group", "state", "status", "error"), pa.string()),
        **dict.fromkeys(("volume_score", "p_value"), pa.float64()),
        "verdict": pa.string(),
        "warnings": pa.list_(pa.string()),
        "regions": pa.list_(_REGION),
        "slice_scores": pa.list_(pa.float64()),
        "plane": pa.string(),
        "abnormal": pa.bool_(),
        **dict.fromkeys(("average_precision", "best_dice"), pa.float64()),
        "shape": pa.list_(pa.int32()),
        **dict.fromkeys(("spacing", "window"), pa.list_(pa.float64())),
        **dict.fromkeys(("detector", "weights"), pa.string()),
        "versions": pa.map_(pa.string(), pa.string()),
        "files": pa.list_(pa.string()),
        "seconds": pa.float64(),
    }
)


class Journal:
    """The rows of a cohort that are known so far, a file each, written when all other files of the scan are.

    Parameters
    ----------
    out
        Folder of the results.
    """

    def __init__(self, out: Path) -> None:
        self._folder = out / JOURNAL

    def write(self, row: Row) -> None:
        """Keep a row; raise MedCLIPADError if the disk refuses."""
        write_json(self._file(row.name), row)

    def read(self, scan: Scan) -> Row | None:
        """Return the row of a scan; None if there is none, or its files have changed since."""
        file = self._file(scan.name)
        try:
            row = Row.model_validate_json(file.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise MedCLIPADError(f"{file} cannot be read: remove it, and its scan is analysed again.") from error
        same = (row.source, row.series, row.state) == (scan.source, Row.of(scan).series, scan.state)
        return row if same else None

    def remove(self, row: Row) -> None:
        """Forget a row."""
        self._file(row.name).unlink(missing_ok=True)

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.json"


def ranked(rows: Sequence[Row]) -> list[Row]:
    """Return rows from the most anomalous to the least, then those without a score."""
    return sorted(rows, key=lambda row: (row.volume_score is None, -(row.volume_score or 0), row.name))


def write_table(out: Path, rows: Sequence[Row]) -> Path:
    """Write the rows as one Parquet table, ranked, in one step; raise MedCLIPADError if the disk refuses."""
    path = out / TABLE
    entries = [{"rank": rank, **row.model_dump()} for rank, row in enumerate(ranked(rows), start=1)]
    for entry in entries:
        entry["versions"] = list(entry["versions"].items())
    try:
        with atomic_file(path) as temp_path:
            pq.write_table(pa.Table.from_pylist(entries, schema=SCHEMA), temp_path)
    except OSError as error:
        raise MedCLIPADError(f"{path} cannot be written ({error.strerror}): free some space.") from error
    return path
