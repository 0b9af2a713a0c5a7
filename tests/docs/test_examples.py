"""The how-to guides can be followed literally: what they tell to write works."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
GUIDES = ROOT / "docs" / "how-to"

STUDY = """
import numpy as np, medclipad as mc
x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in (40, 40, 8)], indexing="ij")
body = np.where(np.hypot(x, y) < 0.8, 50 + 20 * np.sin(9 * x), 0).astype(np.float32)
volume = mc.Volume(body, np.eye(4), name="healthy")
"""


def blocks(guide: str) -> list[str]:
    """Return the Python code blocks of a guide."""
    text = (GUIDES / guide).read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def install(folder: Path, group: str, own: str, files: dict[str, str]) -> None:
    """Write the files of a guide as a package `guide` with an entry point."""
    package = folder / "guide"
    package.mkdir()
    for name, text in {"__init__.py": "", **files}.items():
        (package / name).write_text(text.replace(own, "guide"), encoding="utf-8")
    info = folder / "guide-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: guide\nVersion: 1.0\n")
    module = "guide.method" if "method.py" in files else "guide"
    (info / "entry_points.txt").write_text(f"[{group}]\nguide = {module}\n")


def run(folder: Path, code: str) -> str:
    """Run Python code in another process that sees the package; return what it prints."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=200, env=environment, cwd=folder
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


def test_method_of_the_guide(tmp_path):
    declaration, network = blocks("add-a-method.md")
    files = {"method.py": declaration, "network.py": network}
    install(tmp_path, "medclipad.methods", "medclipad.methods.meantoken", files)
    code = f"""{STUDY}
detector = mc.fit(method="meantoken", level=1, normal=volume, image_size=64, shots=4, smoothing=0)
sick = volume.with_array(np.where((np.abs(x) < 0.2) & (np.abs(y) < 0.2), 90, body).astype(np.float32))
before = detector.detect(sick).anomaly_map.array
detector.save("model")
after = mc.load_detector("model").detect(sick).anomaly_map.array
lesion, elsewhere = before[18:22, 18:22].mean(), before[18:22, 29:33].mean()
print(np.array_equal(before, after), lesion > elsewhere)
"""
    assert run(tmp_path, code) == "True True"


def test_encoder_of_the_guide(tmp_path):
    family, network = blocks("add-an-encoder.md")
    files = {"__init__.py": family, "network.py": network}
    install(tmp_path, "medclipad.encoders", "medclipad.encoders.resnet", files)
    code = f"""{STUDY}
import torch
from medclipad.compat import ensure_torchvision
from medclipad.encoders import load_encoder
ensure_torchvision()
from torchvision.models import resnet18
torch.save(resnet18(weights=None).state_dict(), "resnet18.pth")
encoder = load_encoder("resnet18/resnet18.pth", 64)
state = encoder.stage(encoder.stem(torch.rand(1, 3, 64, 64)), 0)
print(torch.equal(encoder.with_tokens(state, encoder.tokens(state)), state), encoder.grids)
detector = mc.fit(encoder="resnet18/resnet18.pth", normal=volume, image_size=64, shots=4, max_steps=1)
print(detector.detect(volume).anomaly_map.shape)
"""
    assert run(tmp_path, code).splitlines() == ["True (16, 8, 4, 2)", "(40, 40, 8)"]
