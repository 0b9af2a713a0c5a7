"""Look at normal scans as at new ones, and keep what the detector says of them: what is usual, scale and limits."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from medclipad.detection.acquisition import Acquisition, describe_volume
from medclipad.detection.atlas import NormalAtlas, Places, levels_of, own_level
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
from medclipad.detection.detector import AnomalyDetector, RawDetection, require_detection_memory
from medclipad.detection.evidence import Evidence, NormalPart, NormalParts, learn_atlas
from medclipad.detection.evidence_weights import learn_weights
from medclipad.detection.regions import region_labels
from medclipad.detection.result import volume_score
from medclipad.detection.slice_frames import FramedVolume, seen_in
from medclipad.detection.slice_selection import NormalSlices, OutlinedSlices
from medclipad.errors import TrainingError
from medclipad.volume.progress import Progress

MAX_SCANS = 100  # bounds the time; more hardly change the limits
LOWER = (0.45, 0.4, 0.35, 0.3, 0.25, 0.2)  # limits below the threshold, for many false regions per scan
_LEVELS = (1 << 16) - 1  # to which a map in [0, 1] is rounded while it waits on the disk
_PLACE_SIDE = 2.355  # standard deviations of the smoothing: its full width at half maximum


@dataclass(frozen=True)
class Looking:
    """How a fresh detector sees scans that it learned from as if they were new.

    Attributes
    ----------
    detector
        A detector that was just trained.
    basis
        "left out" leaves what is remembered of each scan out while it is looked at.
    stand_ins
        For the numbers of scans the detectors that look at them, because they did not learn from them.
    """

    detector: AnomalyDetector
    basis: Basis
    stand_ins: Mapping[int, AnomalyDetector]

    def frames(self, framed: FramedVolume) -> list[FramedVolume]:
        """Return a volume along each plane that was learned."""
        return self.detector.frames(framed, self.detector.info.config.each_plane)

    def at(self, number: int, framed: FramedVolume) -> RawDetection:
        """Return what the method says of a volume, which has this number in `Shots.volumes`."""
        self.detector.leave_out(number if self.basis == "left out" else None)
        try:
            return self.stand_ins.get(number, self.detector).detect_raw(self.frames(framed))
        finally:
            self.detector.leave_out(None)


class _Maps:
    """Maps of the normal scans, on the disk while they wait."""

    def __init__(self, folder: str, scans: Sequence[NormalSlices]) -> None:
        self._files = [Path(folder) / f"{index}.npy" for index in range(len(scans))]
        self._scans = scans

    def save(self, index: int, values: np.ndarray) -> None:
        """Keep a map float32 (I, J, K) in [0, 1]; raise TrainingError if the disk is full."""
        rounded = np.rint(values[self._scans[index].framed.foreground] * _LEVELS).astype(np.uint16)
        try:
            np.save(self._files[index], rounded)
        except OSError as error:
            raise TrainingError(
                f"The temporary folder {self._files[index].parent.parent} cannot hold the maps of the normal scans "
                f"({error.strerror}): free some space, or set TMPDIR to another folder."
            ) from error

    def load(self, index: int) -> np.ndarray:
        """Return a map that was kept, float32 (I, J, K)."""
        framed = self._scans[index].framed
        values = np.zeros(framed.volume.shape, dtype=np.float32)
        values[framed.foreground] = np.load(self._files[index]) / np.float32(_LEVELS)
        return values


def learn_calibration(
    looking: Looking,
    scans: Sequence[NormalSlices],
    outlined: Sequence[OutlinedSlices],
    progress: Progress,
) -> tuple[Calibration, Evidence | None]:
    """Return what normal scans say of a fresh detector's maps, and what is usual at each place.

    Parameters
    ----------
    looking
        How the scans are seen.
    scans
        Volumes with normal slices; at most 100 of them are looked at.
    outlined
        Volumes with outlined lesions, which show what brightness says of them.
    progress
        Called as progress("calibrate", done, scans, {"volume": name}).

    Raises
    ------
    VolumeError
        If a map does not fit into memory.
    TrainingError
        If the temporary folder is full.
    """
    chosen = [scans[i] for i in np.unique(np.linspace(0, len(scans) - 1, MAX_SCANS).round().astype(int))]
    info, basis = looking.detector.info, looking.basis
    planes, smoothing = info.config.each_plane, info.smoothing
    promised = basis in ("left out", "kept out")
    with_atlas = promised and len(chosen) > 1 and all(min(scan.framed.volume.shape) > 1 for scan in chosen)
    own, parts = [], NormalParts()
    with tempfile.TemporaryDirectory(prefix="medclipad-") as folder:
        maps = _Maps(folder, chosen)
        for done, scan in enumerate(chosen):
            progress("calibrate", done, len(chosen), {"volume": scan.framed.volume.name})
            require_detection_memory(scan.framed.volume, planes, smoothing)
            raw = looking.at(scan.number, scan.framed)
            own.append(raw.scores)
            maps.save(done, raw.map)
            if with_atlas:
                parts.append(NormalPart.of(raw.map, scan.framed, _normal(scan, raw.seen), smoothing))
        evidence = _learn_evidence(looking, chosen, maps, parts, outlined) if with_atlas else None

        def records() -> Iterator[ScanRecord]:
            for index, scan in enumerate(chosen):
                values = maps.load(index)
                if evidence is not None:
                    seen = seen_in(looking.frames(scan.framed))
                    replace(evidence, atlas=_atlas_without(evidence, parts, index))(values, scan.framed, seen)
                    maps.save(index, values)
                normal = _normal(scan, scan.framed.foreground)
                places = normal.sum() * np.prod(_place_sides(scan, smoothing))
                yield ScanRecord(scan.framed.volume.name, values[normal], places)

        scale = learn_scale(records())
        own_scale = _own_scale(own, chosen)
        normal_scans, slice_scores, peaks = [], [], []
        lower = np.zeros(len(LOWER))
        for index, (scan, scores) in enumerate(zip(chosen, own, strict=True)):
            values = scan.framed.map_to_given(scale(maps.load(index)), scan.framed.foreground)
            shown = scan.shown  # a lesion in a slice beside them would lift their scores
            if own_scale is None or scores is None:
                found = looking.detector.scores_of(values, shown)
            else:
                found = own_scale(scan.framed.scores_to_given(scores))
            slice_scores.append(found[shown.analysed])
            normal_scans.append(
                NormalScan(name=scan.framed.volume.name, score=volume_score(found) if scan.whole else None)
            )
            if scan.whole:
                peaks.append(region_labels(values, THRESHOLD, THRESHOLD)[1])
                lower += [len(region_labels(values, limit, limit)[1]) for limit in LOWER]
    progress("calibrate", len(chosen), len(chosen), {})
    limit, rate = learn_slice_limit(slice_scores)
    mean_lower = lower / max(1, len(peaks))
    calibration = Calibration(
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
    return calibration, evidence


def _learn_evidence(
    looking: Looking,
    scans: Sequence[NormalSlices],
    maps: _Maps,
    parts: Iterable[NormalPart],
    outlined: Sequence[OutlinedSlices],
) -> Evidence:
    """Return what is usual at each place, how much scans differ as wholes, and what brightness says of lesions."""
    own = []
    for index, scan in enumerate(scans):  # each held against the others, as a new one against all
        values = maps.load(index)
        learn_atlas(parts, without=index).unusual(values, Places(scan.framed))
        own.append(own_level(values, _normal(scan, seen_in(looking.frames(scan.framed)))))
    level, spread = levels_of(own)
    evidence = Evidence(replace(learn_atlas(parts), level=level, spread=spread), looking.detector.info.smoothing)
    numbers = {scan.number: index for index, scan in enumerate(scans)}

    def seen_as_new(part: OutlinedSlices) -> tuple[RawDetection, Evidence]:
        index = numbers.get(part.number)
        atlas = evidence.atlas if index is None else _atlas_without(evidence, parts, index)
        return looking.at(part.number, part.framed), replace(evidence, atlas=atlas)

    return learn_weights(evidence, outlined, seen_as_new)


def _atlas_without(evidence: Evidence, parts: Iterable[NormalPart], index: int) -> NormalAtlas:
    """Return the atlas of the other scans."""
    atlas = evidence.atlas
    return replace(learn_atlas(parts, without=index), level=atlas.level, spread=atlas.spread)


def learn_acquisition(detector: AnomalyDetector, scans: Sequence[NormalSlices]) -> Acquisition:
    """Return how volumes that were learned from or calibrated on were acquired."""
    described = [describe_volume(detector.encoder, scan.framed.given) for scan in scans[:MAX_SCANS]]
    return Acquisition(scans=[scan for scan in described if scan is not None])


def _normal(scan: NormalSlices, where: np.ndarray) -> np.ndarray:
    """Return the part of a mask (I, J, K) in the normal slices of a scan."""
    return where & scan.framed.foreground & scan.framed.flags(scan.slices)


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
