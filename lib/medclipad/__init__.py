"""MedCLIPAD: anomaly maps of MRI and CT volumes from a few normal slices.

Examples
--------
>>> import medclipad as mc
>>> volume = mc.read_volume("case.nii.gz")  # doctest: +SKIP
>>> detector = mc.fit(method="mediclip", normal=["normals/*.nii.gz"])  # doctest: +SKIP
>>> result = detector.detect(volume)  # doctest: +SKIP
>>> mc.write_volume(result.anomaly_map, "anomaly.nii.gz")  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what follows is loaded on first use, so that `medclipad --help` does not wait for torch
    from medclipad.detection.cases import Case, Reading
    from medclipad.detection.config import FitConfig
    from medclipad.detection.detector import AnomalyDetector, load_detector
    from medclipad.detection.fit import fit
    from medclipad.detection.reference_checkpoints import export_checkpoint, import_checkpoint
    from medclipad.detection.result import AnomalyResult
    from medclipad.errors import MedCLIPADError
    from medclipad.volume import Volume, read_volume, write_volume

__all__ = [
    "AnomalyDetector",
    "AnomalyResult",
    "Case",
    "FitConfig",
    "MedCLIPADError",
    "Reading",
    "Volume",
    "export_checkpoint",
    "fit",
    "import_checkpoint",
    "load_detector",
    "read_volume",
    "write_volume",
]

_HOMES = {
    "AnomalyDetector": "medclipad.detection.detector",
    "AnomalyResult": "medclipad.detection.result",
    "Case": "medclipad.detection.cases",
    "FitConfig": "medclipad.detection.config",
    "MedCLIPADError": "medclipad.errors",
    "Reading": "medclipad.detection.cases",
    "Volume": "medclipad.volume",
    "export_checkpoint": "medclipad.detection.reference_checkpoints",
    "fit": "medclipad.detection.fit",
    "import_checkpoint": "medclipad.detection.reference_checkpoints",
    "load_detector": "medclipad.detection.detector",
    "read_volume": "medclipad.volume",
    "write_volume": "medclipad.volume",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'medclipad' has no attribute {name!r}")
    try:
        return getattr(import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.startswith("medclipad"):
            raise ImportError(
                f"medclipad.{name} is not part of medclipad-client: install the package medclipad for it."
            ) from error
        raise


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
