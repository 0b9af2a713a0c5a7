"""What analyses scans: a process for each device, which keeps the detectors loaded and reads ahead."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from medclipad.cohort.listing import Scan
from medclipad.cohort.outputs import Layout, write_outputs
from medclipad.cohort.table import Journal, Row
from medclipad.detection.cases import AS_IS, Reading
from medclipad.detection.detector import AnomalyDetector, load_detector
from medclipad.detection.fit import installed_versions
from medclipad.errors import MedCLIPADError, VolumeSizeError
from medclipad.evaluation.cases import score_case
from medclipad.volume import Volume, read_untrusted, require_mask
from medclipad.volume.memory_budget import free_memory

AT_ONCE = 3
"""Scans in a worker: one is read and one is written while another one is analysed."""
_LOOK = 1.0  # seconds between two looks at the free memory, which other programs change too
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WorkerSettings:
    """What a worker needs to know.

    Attributes
    ----------
    detectors
        Folders of the detectors; `Scan.fold` chooses one.
    out
        Folder of the results.
    layout
        How results are named.
    reading
        How files are read where they leave a choice.
    plane, force_modality
        As in `AnomalyDetector.detect`.
    rate
        Which regions are listed and drawn; see `AnomalyResult.regions`.
    precision
        Of the frozen encoder.
    """

    detectors: tuple[Path, ...]
    out: Path
    layout: Layout = Layout.BIDS
    reading: Reading = AS_IS
    plane: str | None = None
    force_modality: bool = False
    rate: float | None = None
    precision: str = "auto"


class Worker:
    """Analyse scans, several threads at once: while one is on the device, others are read and written.

    Parameters
    ----------
    settings
        What it needs to know.

    Attributes
    ----------
    settings
        As given.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        self.settings = settings
        self._journal = Journal(settings.out)
        self._device = threading.Lock()
        self._memory = MemoryGate()

    def load(self) -> None:
        """Load the detectors, which the first scan does otherwise; raise DetectorError if one cannot be loaded."""
        _ = self._detectors

    @cached_property
    def _detectors(self) -> list[AnomalyDetector]:
        return [load_detector(path, self.settings.precision) for path in self.settings.detectors]

    def analyse(self, scan: Scan, alone: bool = False) -> Row | None:
        """Read, detect and write a scan, and keep its row, which is returned.

        A scan that cannot be read or analysed has a row that says why.

        Parameters
        ----------
        scan
            What to analyse.
        alone
            Whether nothing else is analysed meanwhile.

        Returns
        -------
        Row or None
            None if the memory does not suffice beside the others: it is to be tried alone.

        Raises
        ------
        MedCLIPADError
            If results cannot be written, or an archive does not answer, which no other scan would survive either.
        """
        start, row = time.perf_counter(), Row.of(scan)
        with self._memory.one() as need:
            try:
                row = self._row(scan, row, need)
            except VolumeSizeError as error:
                if not alone:
                    return None
                row = row.model_copy(update=_failure(str(error)))
            except _CannotGoOn as error:
                raise MedCLIPADError(str(error)) from error
            except MedCLIPADError as error:
                if getattr(error, "status", 0) in (503, 507):  # the archive, or the disk that its files go to
                    raise MedCLIPADError(str(error)) from error
                row = row.model_copy(update=_failure(str(error)))
            except Exception as error:  # a fault of ours must not cost the other scans
                _log.exception("%s", scan.name)
                text = f"{scan.name}: the analysis failed ({type(error).__name__}: {error}); please report this."
                row = row.model_copy(update=_failure(str(MedCLIPADError(text))))
        row = row.model_copy(update={"seconds": round(time.perf_counter() - start, 3)})
        self._journal.write(row)
        return row

    def _row(self, scan: Scan, row: Row, need: Need) -> Row:
        settings, detector = self.settings, self._detectors[scan.fold]
        volume = scan.read(settings.reading)
        truth = _read_mask(scan, volume)
        need.bytes = volume.array.nbytes + detector.memory_for(volume, settings.plane)
        with self._device:
            start = time.perf_counter()
            result = detector.detect(volume, settings.plane, force_modality=settings.force_modality)
            seconds = time.perf_counter() - start
        try:
            files = write_outputs(settings.out, settings.layout, scan, volume, result, settings.rate)
        except MedCLIPADError as error:
            raise _CannotGoOn(str(error)) from error
        metrics = score_case(volume, truth, result, seconds).metrics if truth is not None else None
        summary = result.summary() | ({} if settings.rate is None else result.chosen(settings.rate))
        return row.model_copy(
            update={
                **{key: summary[key] for key in ("volume_score", "p_value", "verdict", "warnings", "regions", "plane")},
                "slice_scores": summary["slice_scores"],
                "abnormal": None if truth is None else bool((truth.array > 0).any()),
                "average_precision": metrics and metrics.average_precision,
                "best_dice": metrics and metrics.best_dice,
                "shape": list(volume.shape),
                "spacing": [round(value, 6) for value in volume.spacing],
                "window": None if result.window is None else [float(value) for value in result.window],
                **_provenance(detector),
                "files": files,
            }
        )


class _CannotGoOn(MedCLIPADError):
    """Results cannot be written."""


class Need:
    """What a scan takes.

    Attributes
    ----------
    bytes
        Memory at its peak; None until it is known.
    """

    def __init__(self) -> None:
        self.bytes: float | None = None


class MemoryGate:
    """Let scans in while the memory suffices: one at a time until one is known, then while the largest would fit twice.

    Parameters
    ----------
    free
        Returns the bytes that are free.
    """

    def __init__(self, free: Callable[[], float] = free_memory) -> None:
        self._free = free
        self._change = threading.Condition()
        self._inside = 0
        self._largest = math.inf

    @contextmanager
    def one(self) -> Iterator[Need]:
        """Wait until there is memory for one more; yield where its need is to be noted. The first is always let in."""
        need = Need()
        with self._change:
            while self._inside and self._free() < 2 * self._largest:
                self._change.wait(_LOOK)
            self._inside += 1
        try:
            yield need
        finally:
            with self._change:
                self._inside -= 1
                if need.bytes is not None:
                    self._largest = max(need.bytes, self._largest if math.isfinite(self._largest) else 0.0)
                self._change.notify_all()


def _failure(sentence: str) -> dict[str, str]:
    return {"status": "failed", "error": sentence}


def _provenance(detector: AnomalyDetector) -> dict[str, object]:
    info = detector.info
    return {"detector": info.name, "weights": info.weights_sha256, "versions": installed_versions()}


def _read_mask(scan: Scan, volume: Volume) -> Volume | None:
    if not scan.mask:
        return None
    mask = replace(read_untrusted(scan.mask), name=f"the mask of {scan.name}")
    require_mask(volume, mask)
    return mask
