"""MedCLIPAD: anomaly maps of MRI and CT volumes from a few normal slices, without a trained segmentation model.

>>> import medclipad as mc
>>> volume = mc.read_volume("case.nii.gz")
>>> detector = mc.fit(method="mediclip", encoder="embedded", normal=[volume])
>>> result = detector.detect(volume)
>>> mc.write_volume(result.anomaly_map, "anomaly.nii.gz")
"""

from __future__ import annotations

from importlib import import_module

# Loaded on first use, so that `medclipad --help` does not wait for torch.
_HOMES = {
    "AnomalyDetector": "medclipad.detection.detector",
    "AnomalyResult": "medclipad.detection.result",
    "Case": "medclipad.detection.slice_selection",
    "MedCLIPADError": "medclipad.errors",
    "Volume": "medclipad.volume",
    "export_checkpoint": "medclipad.detection.reference_checkpoints",
    "fit": "medclipad.detection.detector",
    "import_checkpoint": "medclipad.detection.reference_checkpoints",
    "load_detector": "medclipad.detection.detector",
    "read_volume": "medclipad.volume",
    "write_volume": "medclipad.volume",
}

__all__ = list(_HOMES)


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'medclipad' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
