"""Results of detections that are made by hand, so that their figures can be computed by hand."""

from __future__ import annotations

import numpy as np

from medclipad.detection.calibration import Calibration, NormalScan
from medclipad.detection.result import AnomalyResult
from medclipad.volume import Slicing, Volume


def calibration(scores: tuple[float, ...] = (), limits: tuple[tuple[float, float], ...] = ()) -> Calibration:
    """Return a calibration on normal scans with these volume scores, with these limits of regions."""
    scans = [NormalScan(name=f"normal{number}", score=score) for number, score in enumerate(scores)]
    return Calibration(basis="left out" if scans else "none", scans=scans, region_limits=list(limits))


def result_of(
    values: np.ndarray, known: Calibration | None = None, affine: np.ndarray | None = None, name: str = "case"
) -> tuple[Volume, AnomalyResult]:
    """Return a volume and a result with these map values (I, J, K); a slice's score is its highest value."""
    volume = Volume(np.asarray(values, np.float32), np.eye(4) if affine is None else affine, name=name)
    slicing = Slicing(volume, "axial")
    return volume, AnomalyResult(
        anomaly_map=volume,
        slice_scores=slicing.slices(volume.array).max(axis=(1, 2)).astype(float),
        foreground=np.ones(volume.shape, dtype=bool),
        slicing=slicing,
        detector="test",
        calibration=known or Calibration(),
    )


def row(*values: float) -> np.ndarray:
    """Return a map or mask of one row of voxels."""
    return np.array(values, np.float32).reshape(-1, 1, 1)
