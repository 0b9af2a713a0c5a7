"""Learn a calibration: look at normal scans as at new ones, and keep what the detector says of them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from medclipad.detection.acquisition import Acquisition, describe_volume
from medclipad.detection.calibration import (
    THRESHOLD,
    Basis,
    Calibration,
    NormalScan,
    Scale,
    ScanRecord,
    learn_region_limits,
    learn_scale,
    learn_slice_limit,
)
from medclipad.detection.detector import AnomalyDetector, require_detection_memory
from medclipad.detection.regions import region_labels
from medclipad.detection.result import volume_score
from medclipad.detection.slice_selection import NormalSlices
from medclipad.errors import TrainingError
from medclipad.volume.progress import Progress

MAX_SCANS = 100  # bounds the time; more hardly change the limits
LOWER = (0.45, 0.4, 0.35, 0.3, 0.25, 0.2)  # limits below the threshold, for many false regions per scan
_LEVELS = (1 << 16) - 1  # to which a raw map in [0, 1] is rounded while it waits on the disk
_PLACE_SIDE = 2.355  # standard deviations of the smoothing: its full width at half maximum


def learn_calibration(
    detector: AnomalyDetector,
    scans: Sequence[NormalSlices],
    basis: Basis,
    progress: Progress,
    stand_ins: Mapping[int, AnomalyDetector] | None = None,
) -> Calibration:
    """Return what normal scans say of a fresh detector's maps.

    Parameters
    ----------
    detector
        A detector that was just trained.
    scans
        Volumes with normal slices; at most 100 of them are looked at.
    basis
        How they are seen; "left out" leaves what is remembered of each out while it is looked at.
    progress
        Called as progress("calibrate", done, scans, {"volume": name}).
    stand_ins
        For the numbers of scans the detectors that look at them, because they did not learn from them.

    Raises
    ------
    VolumeError
        If a map does not fit into memory.
    TrainingError
        If the temporary folder is full.
    """
    chosen = [scans[i] for i in np.unique(np.linspace(0, len(scans) - 1, MAX_SCANS).round().astype(int))]
    planes, smoothing = detector.info.config.each_plane, detector.info.smoothing
    records, own = [], []
    with tempfile.TemporaryDirectory(prefix="medclipad-") as folder:
        files = [Path(folder) / f"{index}.npy" for index in range(len(chosen))]
        try:
            for done, (scan, file) in enumerate(zip(chosen, files, strict=True)):
                progress("calibrate", done, len(chosen), {"volume": scan.framed.volume.name})
                require_detection_memory(scan.framed.volume, planes, smoothing)
                detector.leave_out(scan.number if basis == "left out" else None)
                frames = [scan.framed, *(scan.framed.along(plane) for plane in planes[1:])]
                looking = (stand_ins or {}).get(scan.number, detector)
                raw = looking.detect_raw([framed.thinned(smoothing) for framed in frames])
                normal = scan.framed.foreground & scan.framed.flags(scan.slices)
                places = normal.sum() * np.prod(_place_sides(scan, smoothing))
                records.append(ScanRecord(scan.framed.volume.name, raw.map[normal], places))
                own.append(raw.scores)
                _save(file, raw.map[scan.framed.foreground])
        finally:
            detector.leave_out(None)
        scale = learn_scale(records)
        own_scale = _own_scale(own, chosen)
        normal_scans, slice_scores, peaks = [], [], []
        lower = np.zeros(len(LOWER))
        for scan, file, scores in zip(chosen, files, own, strict=True):
            values = np.zeros(scan.framed.volume.shape, dtype=np.float32)
            values[scan.framed.foreground] = scale(np.load(file) / np.float32(_LEVELS))
            found = detector.scores_of(values, scan.framed) if own_scale is None else own_scale(scores)
            slice_scores.append(found[scan.slices])
            normal_scans.append(
                NormalScan(name=scan.framed.volume.name, score=volume_score(found) if scan.whole else None)
            )
            if scan.whole:
                peaks.append(region_labels(values, THRESHOLD, THRESHOLD)[1])
                lower += [len(region_labels(values, limit, limit)[1]) for limit in LOWER]
    progress("calibrate", len(chosen), len(chosen), {})
    limit, rate = learn_slice_limit(slice_scores)
    promised = basis in ("left out", "kept out")
    mean_lower = lower / max(1, len(peaks))
    return Calibration(
        basis=basis,
        scans=normal_scans,
        scale=scale,
        score_scale=own_scale,
        slice_limit=limit,
        slice_rate=rate if promised else None,
        region_limits=learn_region_limits(peaks, list(zip(LOWER, map(float, mean_lower), strict=True)))
        if promised
        else [],
    )


def _save(file: Path, raw: np.ndarray) -> None:
    """Keep the raw values of a body, float32 in [0, 1], until the scale of all scans is known."""
    try:
        np.save(file, np.rint(raw * _LEVELS).astype(np.uint16))
    except OSError as error:
        raise TrainingError(
            f"The temporary folder {file.parent.parent} cannot hold the maps of the normal scans ({error.strerror}): "
            "free some space, or set TMPDIR to another folder."
        ) from error


def learn_acquisition(detector: AnomalyDetector, scans: Sequence[NormalSlices]) -> Acquisition:
    """Return how volumes that were learned from or calibrated on were acquired."""
    described = [describe_volume(detector.encoder, scan.framed) for scan in scans[:MAX_SCANS]]
    return Acquisition(scans=[scan for scan in described if scan is not None])


def _place_sides(scan: NormalSlices, smoothing: float) -> list[float]:
    """Return the share of an independent place of the map that a voxel takes, along each axis."""
    spacing = scan.framed.volume.spacing
    return [min(1.0, step / max(_PLACE_SIDE * smoothing, step)) for step in spacing]


def _own_scale(own: Sequence[np.ndarray | None], scans: Sequence[NormalSlices]) -> Scale | None:
    """Return the scale of the method's own slice scores; None where they follow from the map."""
    records = [
        ScanRecord(scan.framed.volume.name, scores[scan.slices], len(scan.slices))
        for scores, scan in zip(own, scans, strict=True)
        if scores is not None
    ]
    return learn_scale(records) if records else None
