"""One source of options: a field that is added in one place is seen on every face."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from medclipad.detection.config import FitConfig
from medclipad.detection.fit import fit
from medclipad.errors import TrainingError

ROOT = Path(__file__).parents[2]
LINE = '    colour_bias: float = Field(default=0.5, ge=0, le=1, title="Colour bias", description="how blue it is")\n'
MARKS = {  # the field goes after this line
    "detection/config.py": "    seed: int = Field(\n",
    "methods/mediclip/options.py": "    epochs: int = Field(\n",
}

PYTHON = """
import inspect, medclipad as mc
print(inspect.signature(mc.fit).parameters["colour_bias"].default)
"""
SCHEMA = """
import json
from medclipad.server.training.service import TrainingService
from medclipad.server.training.versions import VersionStore
from pathlib import Path
service = TrainingService("mediclip", VersionStore(Path(".")))
print(json.dumps({"schema": service.schema(), "config": service.config()}))
"""
SAVED = """
import json, numpy as np, medclipad as mc
x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in (40, 40, 8)], indexing="ij")
volume = mc.Volume(np.where(np.hypot(x, y) < 0.8, 50 + 20 * np.sin(9 * x), 0).astype(np.float32), np.eye(4), name="a")
detector = mc.fit(normal=[volume], image_size=64, shots=2, max_steps=1, memory_size=20, colour_bias=0.25)
detector.save("detector")
config = json.loads(open("detector/detector.json").read())["config"]
print(json.dumps(config))
mc.load_detector("detector")
"""


@pytest.fixture(scope="module", params=sorted(MARKS))
def changed(request, tmp_path_factory) -> tuple[str, Path]:
    """A copy of the library with one more option."""
    folder = tmp_path_factory.mktemp("lib")
    shutil.copytree(ROOT / "lib" / "medclipad", folder / "medclipad", ignore=shutil.ignore_patterns("__pycache__"))
    file, mark = folder / "medclipad" / request.param, MARKS[request.param]
    text = file.read_text(encoding="utf-8")
    assert text.count(mark) == 1
    file.write_text(text.replace(mark, LINE + mark), encoding="utf-8")
    return request.param, folder


def run(folder: Path, code: str, *arguments: str, cwd: Path | None = None) -> str:
    command = [sys.executable, "-c", code, *arguments]
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, env=environment, cwd=cwd or folder)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_python_sees_it(changed):
    assert run(changed[1], PYTHON).strip() == "0.5"


def test_the_command_line_sees_it(changed):
    code = "import sys; sys.argv[0] = 'medclipad'; from medclipad.cli.main import main; main()"
    text = run(changed[1], code, "fit", "--help")
    assert "--colour-bias" in text and "How blue it is; default 0.5." in " ".join(text.split())


FORM = """
import json, sys, types
sys.modules["slicer"] = types.ModuleType("slicer")
sys.modules["slicer.i18n"] = types.ModuleType("slicer.i18n")
sys.modules["slicer.i18n"].tr = lambda text: text
from MedCLIPADLib.schema import fields
(field,) = [field for field in fields(json.load(sys.stdin)) if field.name == "colour_bias"]
print(json.dumps([field.title, field.help, field.kind, field.default, field.low, field.high]))
"""


def test_the_server_and_the_slicer_form_see_it(changed):
    """The Slicer module's own code makes a field of it; tests/slicer test that every field becomes a row."""
    published = json.loads(run(changed[1], SCHEMA))
    spec = published["schema"]["properties"]["colour_bias"]
    assert (spec["default"], spec["title"], spec["maximum"]) == (0.5, "Colour bias", 1)
    assert published["config"]["colour_bias"] == 0.5, "MONAI Label's own form"
    done = subprocess.run(
        [sys.executable, "-c", FORM], input=json.dumps(published["schema"]), capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT / "MedCLIPAD")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["Colour bias", "how blue it is", "number", 0.5, 0, 1]


def test_a_saved_detector_holds_it(changed, tmp_path):
    config = json.loads(run(changed[1], SAVED, cwd=tmp_path).strip().splitlines()[-1])
    assert (config["options"] if "methods" in changed[0] else config)["colour_bias"] == 0.25


def test_unchanged_code_has_no_such_option():
    """The other tests would pass on anything if this one did not."""
    import medclipad as mc

    volume = mc.Volume(np.ones((8, 8, 4), np.float32), np.eye(4))
    with pytest.raises(mc.MedCLIPADError, match="There is no option colour_bias"):
        mc.fit(normal=[volume], colour_bias=0.25)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"shotz": 4}, "There is no option shotz; perhaps you mean shots"),
        ({"method": "mvfa", "schedule": "short"}, "The option schedule belongs to mediclip, not to mvfa"),
        ({"options": {"epochs": 4}}, "There is no option options"),
        ({"config": FitConfig(), "shots": 4}, "as config or one by one, not both: shots"),
    ],
)
def test_a_mistaken_option(options, sentence):
    with pytest.raises(TrainingError, match=sentence):
        fit(normal=["absent.nii.gz"], **options)


def test_none_is_the_default():
    assert FitConfig.of(shots=None, epochs=None) == FitConfig.of()
