"""Workarounds for known faults of installed packages; each is a no-op where the package works.

Call them before the package in question is imported: `ensure_torchvision` before torchvision, open_clip or timm,
`ensure_monailabel` before monailabel.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

# torch forgets operators whose Library object is garbage-collected: the one created here lives as long as the process.
_kept: list[Any] = []


def ensure_torchvision() -> None:
    """Make `import torchvision` work where its compiled operators cannot be loaded.

    Notes
    -----
    The torchvision wheel on PyPI is built for CUDA: with a CPU-only torch its `_C.so` does not load, and the import
    fails with "operator torchvision::nms does not exist". In that case the two operators that the import looks up are
    declared without an implementation: image transforms, open_clip and timm then work; `torchvision.ops.nms` does not.
    """
    if "torchvision" in sys.modules:
        return
    import torch

    if _has_operator(torch, "nms"):
        return
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return  # not installed: the import that follows raises the clearer error
    folder = Path(next(iter(spec.submodule_search_locations)))
    for file in [*folder.glob("_C*.so"), *folder.glob("_C*.pyd")]:
        try:
            torch.ops.load_library(str(file))
        except OSError:
            break
    if not _has_operator(torch, "nms"):
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _kept.append(library)


def ensure_monailabel() -> None:
    """Make `import monailabel` work with pydicom 3, and without ITK's Python package.

    Notes
    -----
    MONAI Label imports pydicom-seg, which imports `pydicom._storage_sopclass_uids`, a private module that pydicom 3
    removed. `pydicom.uid` defines the same names and takes its place.

    For its own writer of results, which this server does not use, MONAI Label imports itk, whose smallest part takes
    450 MB. Where it is not installed, an empty module takes its place.
    """
    import pydicom.uid

    try:
        importlib.import_module("pydicom._storage_sopclass_uids")
    except ImportError:
        sys.modules["pydicom._storage_sopclass_uids"] = pydicom.uid
    if "itk" not in sys.modules and importlib.util.find_spec("itk") is None:
        sys.modules["itk"] = ModuleType("itk")


def _has_operator(torch: Any, name: str) -> bool:
    """Return whether the dispatcher knows torchvision::<name>; a plain getattr would cache a failed lookup."""
    return bool(torch._C._jit_get_schemas_for_operator(f"torchvision::{name}"))
