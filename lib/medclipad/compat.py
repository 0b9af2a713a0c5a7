"""Named remedies for known faults of installed packages. Each does nothing where the package is healthy.

They must run before the package in question is imported: `ensure_torchvision()` before torchvision, open_clip or timm,
`ensure_pydicom_storage_uids()` before monailabel.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

# torch forgets operators whose Library object is collected, so the one that is made here lives as long as the process.
_kept: list[Any] = []


def ensure_torchvision() -> None:
    """Let `import torchvision` succeed where its compiled operators cannot be loaded.

    PyPI's torchvision wheel is built for CUDA: beside a CPU-only torch its `_C.so` does not load, and the import fails
    with "operator torchvision::nms does not exist". There the two operators that the import looks up are declared,
    without an implementation: image transforms, open_clip and timm work, only calling `torchvision.ops.nms` does not.
    """
    if "torchvision" in sys.modules:
        return
    import torch

    if _has_operator(torch, "nms"):
        return
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return  # not installed: the import that follows says so better than we could
    folder = Path(next(iter(spec.submodule_search_locations)))
    for library in [*folder.glob("_C*.so"), *folder.glob("_C*.pyd")]:
        try:
            torch.ops.load_library(str(library))
        except OSError:
            break
    if not _has_operator(torch, "nms"):
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _kept.append(library)


def ensure_pydicom_storage_uids() -> None:
    """Let pydicom-seg, which monailabel imports, work on pydicom 3.

    It imports `pydicom._storage_sopclass_uids`, a private module that pydicom 3 dropped; `pydicom.uid` has its names.
    """
    import pydicom.uid

    try:
        import pydicom._storage_sopclass_uids
    except ImportError:
        sys.modules["pydicom._storage_sopclass_uids"] = pydicom.uid


def _has_operator(torch: Any, name: str) -> bool:
    """Whether the dispatcher knows torchvision::<name>; a plain getattr would cache a failed lookup."""
    return bool(torch._C._jit_get_schemas_for_operator(f"torchvision::{name}"))
