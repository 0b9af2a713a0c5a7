"""The workarounds, each in a fresh process, because an import cannot be undone."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_torchvision_and_open_clip_import_after_the_workaround() -> None:
    out = run(
        "from medclipad.compat import ensure_torchvision\n"
        "ensure_torchvision(); ensure_torchvision()\n"
        "import torch, open_clip\n"
        "from torchvision.transforms.functional import resize\n"
        "print(tuple(resize(torch.zeros(3, 8, 8), [4, 6]).shape))\n"
    )
    assert out.split() == ["(3,", "4,", "6)"]


def test_a_healthy_torchvision_is_left_alone() -> None:
    """An operator that is already there, as with a wheel that fits the installed torch, is not defined again."""
    run(
        "import torch\n"
        "lib = torch.library.Library('torchvision', 'DEF')\n"
        "lib.define('nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')\n"
        "from medclipad import compat\n"
        "compat.ensure_torchvision()\n"
        "assert compat._kept == []\n"
    )


def test_pydicom_seg_imports_after_the_workaround() -> None:
    if importlib.util.find_spec("pydicom_seg") is None:
        pytest.skip("pydicom-seg comes with the server extra, which is not installed")
    out = run(
        "from medclipad.compat import ensure_monailabel\n"
        "ensure_monailabel()\n"
        "import pydicom_seg\n"
        "from pydicom._storage_sopclass_uids import SegmentationStorage\n"
        "print(SegmentationStorage)\n"
    )
    assert out.strip() == "1.2.840.10008.5.1.4.1.1.66.4"


def test_an_existing_private_module_of_pydicom_is_kept() -> None:
    run(
        "import sys, types\n"
        "old = sys.modules['pydicom._storage_sopclass_uids'] = types.ModuleType('pydicom._storage_sopclass_uids')\n"
        "from medclipad.compat import ensure_monailabel\n"
        "ensure_monailabel()\n"
        "assert sys.modules['pydicom._storage_sopclass_uids'] is old\n"
    )


def test_monai_label_imports_without_itk() -> None:
    """Its smallest part takes 450 MB, for a writer that the server does not use."""
    if importlib.util.find_spec("monailabel") is None:
        pytest.skip("monailabel is not installed")
    run(
        "import importlib.util, sys\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, package=None: None if name == 'itk' else find(name, package)\n"
        "from medclipad.compat import ensure_monailabel, ensure_torchvision\n"
        "ensure_torchvision(); ensure_monailabel()\n"
        "import monailabel.interfaces.app\n"
        "assert not vars(sys.modules['itk']).get('__file__')\n"
    )
