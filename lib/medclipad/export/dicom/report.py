"""The scores as a structured report (Comprehensive 3D SR, template TID 1500)."""

from __future__ import annotations

from importlib.metadata import version

import numpy as np
from highdicom import sr
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from medclipad.detection.result import AnomalyResult
from medclipad.export.dicom.common import (
    ANOMALY_SCORE,
    NAME,
    NORMAL_SCANS,
    P_VALUE,
    THRESHOLD,
    VOLUME_SCORE,
    complete,
    new_uid,
    object_attributes,
)
from medclipad.export.dicom.deidentify import uid_of
from medclipad.export.dicom.source import DicomSource
from medclipad.volume import Slicing, Volume
from medclipad.volume.volume import LPS_TO_RAS

SERIES_NUMBER = 9003
_PROCEDURES = {"CT": codes.LN.CTUnspecifiedBodyRegion, "MR": codes.LN.MRIUnspecifiedBodyRegion}


def score_report(source: DicomSource, result: AnomalyResult) -> Dataset:
    """Return the scores as a structured report.

    It has a measurement group for the volume, with its score, the threshold and the p-value, and one for each scored
    slice, with the slice's outline in the patient as its region. Skipped slices and scores that are nan have no group.
    A slice is called "axial slice 12", counted from 0 towards superior, anterior or right, as `Slicing` does.

    Parameters
    ----------
    source
        Source of the volume that was analysed.
    result
        What the detector found.
    """
    slicing, scores = result.slicing, result.slice_scores
    groups = [
        _volume_group(source, result),
        *(_slice_group(source, result, int(n)) for n in np.flatnonzero(np.isfinite(scores))),
    ]
    device = sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
            uid=uid_of(NAME, result.detector), name=NAME, model_name=NAME
        ),
    )
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=device),
        procedure_reported=_PROCEDURES.get(source.headers[0].get("Modality"), codes.SCT.ImagingProcedure),
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
    )
    dataset = sr.Comprehensive3DSR(
        evidence=list({header.SOPInstanceUID: header for header in source.headers}.values()),
        content=content,
        is_complete=True,
        **object_attributes(result.detector, SERIES_NUMBER, f"Anomaly scores, {slicing.plane}"),
    )
    return complete(dataset, source)


def _volume_group(source: DicomSource, result: AnomalyResult) -> sr.MeasurementsAndQualitativeEvaluations:
    """Return the measurement group of the volume."""
    values = {VOLUME_SCORE: result.volume_score, THRESHOLD: result.threshold}
    if result.p_value is not None:
        values |= {P_VALUE: result.p_value, NORMAL_SCANS: float(result.calibration.n)}
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(new_uid(), "volume"),
        algorithm_id=sr.AlgorithmIdentification(f"{NAME} {result.detector}"[:64], version("medclipad")),
        measurements=[_measurement(name, value) for name, value in values.items() if np.isfinite(value)],
        source_images=[sr.SourceImageForMeasurementGroup(*reference) for reference in _references(source)],
    )


def _slice_group(
    source: DicomSource, result: AnomalyResult, n: int
) -> sr.PlanarROIMeasurementsAndQualitativeEvaluations:
    """Return the measurement group of slice n."""
    slicing = result.slicing
    images = None
    if slicing.axis == 2:  # the slices are the images themselves
        images = [sr.SourceImageForMeasurement(*_reference(source, slicing.index(n)))]
    return sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(new_uid(), f"{slicing.plane} slice {n}"),
        referenced_region=sr.ImageRegion3D(
            graphic_type="POLYGON",
            graphic_data=_slice_outline(slicing, n, result.anomaly_map),
            frame_of_reference_uid=source.headers[0].FrameOfReferenceUID,
        ),
        measurements=[_measurement(ANOMALY_SCORE, result.slice_scores[n], images)],
    )


def _measurement(name: Code, value: float, images: list[sr.SourceImageForMeasurement] | None = None) -> sr.Measurement:
    """Return a measurement without unit."""
    return sr.Measurement(name=name, value=float(value), unit=codes.UCUM.NoUnits, referenced_images=images)


def _reference(source: DicomSource, k: int) -> tuple[str, str, list[int] | None]:
    """Return SOP class, SOP instance UID and frame number of the k-th image."""
    header, number = source.headers[k], source.frames[k]
    return header.SOPClassUID, header.SOPInstanceUID, None if number is None else [number]


def _references(source: DicomSource) -> list[tuple[str, str, list[int] | None]]:
    """Return each file once, with the numbers of its frames that the volume holds."""
    files: dict[str, tuple[str, str, list[int] | None]] = {}
    for k in range(len(source.headers)):
        sop_class, uid, frames = _reference(source, k)
        before = files[uid][2] if uid in files else None
        files[uid] = (sop_class, uid, [*before, *frames] if before and frames else frames)
    return list(files.values())


def _slice_outline(slicing: Slicing, n: int, volume: Volume) -> np.ndarray:
    """Return the closed rectangle around the voxels of slice n: (5, 3) LPS mm."""
    first, second = (axis for axis in range(3) if axis != slicing.axis)
    corners = np.zeros((5, 3))
    corners[:, slicing.axis] = slicing.index(n)
    corners[:, first] = np.array([0, 1, 1, 0, 0]) * volume.shape[first] - 0.5
    corners[:, second] = np.array([0, 0, 1, 1, 0]) * volume.shape[second] - 0.5
    lps = LPS_TO_RAS @ volume.affine
    return corners @ lps[:3, :3].T + lps[:3, 3]
