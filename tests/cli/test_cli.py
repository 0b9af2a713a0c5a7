"""The command line: the main job through the real command, and one sentence for each mistake."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from medclipad.cli import main as cli
from medclipad.detection.cases import read_cases
from medclipad.detection.detector import load_detector
from medclipad.errors import MedCLIPADError
from medclipad.export.result_files import write_json, write_text
from medclipad.volume import read_volume, write_volume

COMMAND = Path(sys.executable).with_name("medclipad")


def medclipad(*arguments, timeout: float = 120) -> subprocess.CompletedProcess:
    """The installed command in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.run(
        [str(COMMAND), *map(str, arguments)], capture_output=True, text=True, timeout=timeout, env=environment
    )


@pytest.fixture(scope="module")
def study(head, lesion, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    write_volume(head(1), folder / "healthy.nii.gz")
    write_volume(head(5, True), folder / "sick.nii.gz")
    write_volume(lesion, folder / "truth.nii.gz")
    (folder / "garbage.nii.gz").write_bytes(b"garbage" * 50)
    return folder


@pytest.fixture(scope="module")
def model(study) -> Path:
    done = medclipad(
        "fit", "--normal", study / "healthy.nii.gz", "--shots", 8, "--epochs", 2, "--image-size", 64, "--seed", 3,
        "--out", study / "models" / "brain",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.search(r"mediclip on embedded, 8 normal and 0 abnormal slices\. .*nothing is promised", done.stdout)
    assert "train" in done.stderr, "progress is shown"
    return study / "models" / "brain"


@pytest.fixture
def works(monkeypatch, capsys):
    """`works(*arguments)`: runs the command here, expects success; returns what it printed on standard output."""

    def run(*arguments) -> str:
        monkeypatch.setattr(sys, "argv", ["medclipad", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        printed = capsys.readouterr()
        assert caught.value.code in (0, None), printed.err
        return printed.out

    return run


@pytest.fixture
def fails(monkeypatch, capsys):
    """`fails(*arguments)`: runs the command here, expects failure; returns what it printed on standard error."""

    def run(*arguments) -> str:
        monkeypatch.setattr(sys, "argv", ["medclipad", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        assert caught.value.code not in (0, None)
        return capsys.readouterr().err

    return run


def one_sentence(text: str) -> None:
    """The last line is a sentence for the user; nothing looks like a traceback."""
    line = text.strip().splitlines()[-1]
    assert "Traceback" not in text
    assert re.fullmatch(r"medclipad: .{10,500}\.", line), text


def test_fit_makes_a_detector(model):
    info = load_detector(model).info
    assert (info.name, info.method, info.encoder, info.plane, info.config.seed) == (
        "brain",
        "mediclip",
        "embedded",
        "axial",
        3,
    )
    assert (info.normal_slices, info.image_size, info.smoothing, info.config.options["epochs"]) == (8, 64, 3.0, 2)
    assert info.training_slices[0]["volume"] == "healthy"


def test_detect_writes_all_files(model, study, tmp_path):
    done = medclipad("detect", model, study / "sick.nii.gz", "--png", "--segmentation", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert names == {
        f"sick{end}" for end in ("_anomaly.nii.gz", "_anomaly.png", "_scores.csv", ".json", "_segmentation.nii.gz")
    }
    volume, expected = read_volume(study / "sick.nii.gz"), load_detector(model)
    result = expected.detect(volume)
    anomaly_map = read_volume(tmp_path / "out" / "sick_anomaly.nii.gz")
    assert anomaly_map.array.dtype == np.float32 and anomaly_map.affine.tobytes() == volume.affine.tobytes()
    np.testing.assert_allclose(anomaly_map.array, result.anomaly_map.array, atol=1e-5)
    mask = read_volume(tmp_path / "out" / "sick_segmentation.nii.gz")
    assert np.array_equal(mask.array, result.segmentation().array)
    summary = json.loads((tmp_path / "out" / "sick.json").read_text())
    assert summary["volume_score"] == pytest.approx(result.volume_score, abs=1e-5)
    assert summary["verdict"] in done.stdout and "not for diagnosis" in done.stdout
    assert (tmp_path / "out" / "sick_anomaly.png").read_bytes().startswith(b"\x89PNG")

    rows = list(csv.DictReader((tmp_path / "out" / "sick_scores.csv").open()))
    assert len(rows) == volume.shape[2] and rows[0]["score"] == ""
    for row, score in zip(rows, summary["slice_scores"], strict=True):
        assert (row["score"] == "") is (score is None)
        assert score is None or float(row["score"]) == pytest.approx(score, abs=1e-6)
    assert float(rows[3]["S_mm"]) == pytest.approx(result.slicing.position(3)[2], abs=1e-3)
    assert int(rows[3]["index"]) == result.slicing.index(3)


def test_detect_in_another_plane(model, study, tmp_path, works):
    works("detect", model, study / "sick.nii.gz", "--plane", "coronal", "--out", tmp_path)
    summary = json.loads((tmp_path / "sick.json").read_text())
    assert summary["plane"] == "coronal" and len(summary["slice_scores"]) == 44
    assert sorted(file.name for file in tmp_path.iterdir()) == ["sick.json", "sick_anomaly.nii.gz", "sick_scores.csv"]


def test_a_bad_volume_does_not_cost_the_others(model, study, tmp_path, fails):
    images = [study / name for name in ("garbage.nii.gz", "nowhere.nii.gz", "sick.nii.gz")]
    text = fails("detect", model, *images, "--out", tmp_path)
    one_sentence(text)
    assert "2 of 3 volumes failed" in text and "garbage.nii.gz" in text and "nowhere.nii.gz" in text
    assert (tmp_path / "sick_anomaly.nii.gz").is_file() and not list(tmp_path.glob("garbage*"))


def test_evaluate(model, study, tmp_path):
    case = f"{study / 'sick.nii.gz'}:{study / 'truth.nii.gz'}"
    done = medclipad("evaluate", model, "--case", case, "--json", tmp_path / "deep" / "figures.json")
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "deep" / "figures.json").read_text())
    (figures,) = written["cases"]
    assert figures["name"] == "sick" and figures["detector"]["voxel_auroc"] > 0.8
    for key in ("slice_auroc", "voxel_auroc", "average_precision", "best_dice"):
        assert written["mean"]["detector"][key] == figures["detector"][key]
        shown = f"{figures['detector'][key]:.3f} / {figures['baseline'][key]:.3f}"
        assert shown in done.stdout, f"{key}: {shown} in {done.stdout}"


def test_models_list_and_show(model, works):
    done = medclipad("models", "list", model.parent)
    assert done.returncode == 0 and "brain" in done.stdout and "mediclip" in done.stdout
    assert json.loads(works("models", "show", model)) == json.loads((model / "detector.json").read_text())


def test_fit_with_masks_and_abnormal_volumes(study, tmp_path, works):
    masked = f"{study / 'sick.nii.gz'}:{study / 'truth.nii.gz'}"
    arguments = ["--method", "mvfa", "--abnormal", masked, "--shots", "2", "--epochs", "1", "--image-size", "64",
                 "--smoothing", "0", "--name", "Mine", "--intensity", "raw", "--planes", "coronal"]  # fmt: skip
    works("fit", *arguments, "--normal", masked, "--out", tmp_path / "m")
    info = load_detector(tmp_path / "m").info
    assert (info.method, info.name, info.intensity, info.plane, info.smoothing) == ("mvfa", "Mine", "raw", "coronal", 0)
    assert (info.normal_slices, info.abnormal_slices) == (2, 2)


@pytest.mark.parametrize(("changed", "words"), [
    ({"--normal": "nowhere.nii.gz"}, "nowhere.nii.gz"),
    ({"--normal": "garbage.nii.gz"}, "garbage.nii.gz"),
    ({"--normal": "healthy.nii.gz:nowhere.nii.gz"}, "nowhere.nii.gz"),
    ({"--normal": None}, "at least one normal volume"),
    ({"--abnormal": "healthy.nii.gz"}, "lacks its mask: write IMAGE:MASK"),
    ({"--method": "magic"}, "mediclip, memory, mvfa"),
    ({"--method": "mvfa"}, "abnormal"),
    ({"--encoder": "magic"}, "not known"),
    ({"--encoder": "ViT-B-32"}, "lacks its weights"),
    ({"--image-size": "65"}, "multiples of 32"),
    ({"--intensity": "ct:knee"}, "preset"),
    ({"--seed": "-1"}, "seed"),
    ({"--smoothing": "inf"}, "smoothing"),
    ({"--smoothing": "nan"}, "smoothing"),
    ({"--shots": "-1"}, "shots"),
    ({"--shots": "few"}, "shots"),
    ({"--epochs": "0"}, "epochs"),
    ({"--class-name": "Brain"}, "class_name"),
    ({"--out": "healthy.nii.gz"}, "exists already"),
    ({"--out": "models"}, "exists already"),
])  # fmt: skip
def test_fit_mistakes(study, model, tmp_path, fails, monkeypatch, changed, words):
    monkeypatch.chdir(study)
    before = sorted(study.rglob("*"))
    given = {"--normal": "healthy.nii.gz", "--image-size": "64", "--epochs": "1", "--out": str(tmp_path / "new")}
    arguments = [part for key, value in {**given, **changed}.items() if value is not None for part in (key, value)]
    text = fails("fit", *arguments)
    one_sentence(text)
    assert words in text
    assert not (tmp_path / "new").exists() and sorted(study.rglob("*")) == before


@pytest.mark.parametrize("arguments", [
    ["fit"], ["fit", "--magic"], ["fit", "--out", "x", "--planes", "diagonal"],
    ["fit", "--out", "x", "--epochs", "many"],
    ["detect"], ["magic"], ["serve", "--studies", ".", "--port", "70000"], ["evaluate", "x"],
])  # fmt: skip
def test_wrong_arguments_end_with_code_2(fails, monkeypatch, arguments):
    text = fails(*arguments)
    assert "Traceback" not in text and "Error" in text


@pytest.mark.parametrize(("arguments", "words"), [
    (["detect", "nowhere", "sick.nii.gz", "--out", "OUT"], "no detector folder nowhere"),
    (["detect", "models", "sick.nii.gz", "--out", "OUT"], "no readable detector.json"),
    (["detect", "models/brain", "sick.nii.gz", "sick.nii.gz", "--out", "OUT"], 'called "sick"'),
    (["detect", "models/brain", "sick.nii.gz", "--out", "OUT", "--plane", "diagonal"], "diagonal"),
    (["detect", "models/brain", "sick.nii.gz", "--out", "healthy.nii.gz/x"], "healthy.nii.gz/x cannot be made"),
    (["evaluate", "models/brain", "--case", "sick.nii.gz"], "lacks its mask"),
    (["evaluate", "models/brain", "--case", "sick.nii.gz:nowhere.nii.gz"], "nowhere.nii.gz"),
    (["evaluate", "nowhere", "--case", "sick.nii.gz:truth.nii.gz"], "no detector folder nowhere"),
    (["models", "list", "nowhere"], "not a folder"),
    (["models", "show", "nowhere"], "not a detector folder"),
])  # fmt: skip
def test_other_mistakes(study, model, tmp_path, fails, monkeypatch, arguments, words):
    monkeypatch.chdir(study)
    text = fails(*[str(tmp_path / "out") if one == "OUT" else one for one in arguments])
    one_sentence(text)
    assert words in text


def test_models_list_of_an_empty_folder(tmp_path, fails):
    text = fails("models", "list", tmp_path)
    one_sentence(text)
    assert "no detector" in text


def test_a_truth_of_another_size_is_told(study, model, head, tmp_path, fails):
    small = head(1).with_array(np.zeros(head(1).shape, np.uint8))
    write_volume(type(small)(small.array[:-1], small.affine), tmp_path / "small.nii.gz")
    one_sentence(fails("evaluate", model, "--case", f"{study / 'sick.nii.gz'}:{tmp_path / 'small.nii.gz'}"))


def test_colons_in_names(study, tmp_path, head):
    odd = tmp_path / "a:b.nii.gz"
    write_volume(head(1), odd)
    ((image, mask),) = read_cases(str(odd))
    assert image.array.shape == head(1).shape and mask is None, "an existing file of that name is one image"
    ((image, mask),) = read_cases(f"{odd}:{study / 'truth.nii.gz'}")
    assert np.array_equal(image.array, head(1).array) and mask is not None and mask.array.max() == 1
    with pytest.raises(MedCLIPADError, match="mask"):
        read_cases(str(odd), need_mask=True)


@pytest.mark.parametrize("arguments", [[], ["fit"], ["detect"], ["evaluate"], ["serve"], ["models"]])
def test_help_is_readable(arguments, works):
    text = works(*arguments, "--help")
    assert "Usage: " in text and "--help" in text and len(text.splitlines()) < 130


def test_help_is_quick():
    times = []
    for _ in range(3):
        start = time.perf_counter()
        done = medclipad("--help")
        times.append(time.perf_counter() - start)
        assert done.returncode == 0 and "detect" in done.stdout
    assert min(times) < 1, times


def test_help_imports_nothing_heavy():
    heavy = {"torch", "monai", "open_clip", "sklearn", "matplotlib", "SimpleITK"}
    code = (
        "import sys; sys.argv = ['medclipad', 'fit', '--help']\n"
        "from medclipad.cli import main as cli\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        f"print('heavy:', sorted({heavy} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip().endswith("heavy: []"), done.stdout[-200:] + done.stderr


def test_module_runs_too():
    done = subprocess.run([sys.executable, "-m", "medclipad", "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "Usage" in done.stdout


def test_text_files_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    write_text(tmp_path / "new" / "a.txt", "one\n")
    write_text(tmp_path / "new" / "a.txt", "two\n")
    assert (tmp_path / "new" / "a.txt").read_bytes() == b"two\n"

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(MedCLIPADError, match="No space left"):
        write_text(tmp_path / "new" / "a.txt", "three\n")
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["a.txt"]
    assert (tmp_path / "new" / "a.txt").read_bytes() == b"two\n"


def test_json_has_no_nan(tmp_path):
    write_json(tmp_path / "a.json", {"a": float("nan"), "b": float("inf"), "c": 1.5})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": None, "b": None, "c": 1.5}


def test_fit_asks_for_a_place_before_it_trains(study, monkeypatch, capsys):
    (study / "file").write_text("not a folder")
    arguments = ["fit", "--normal", str(study / "healthy.nii.gz"), "--out", str(study / "file" / "model")]
    monkeypatch.setattr(sys, "argv", ["medclipad", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    printed = capsys.readouterr().err
    assert end.value.code == 1 and "Nothing can be written to" in printed and "train" not in printed


def test_a_damaged_detector_does_not_hide_the_others(model, tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "detector.json").write_text("{")
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "detector.json").write_text((model / "detector.json").read_text())
    done = medclipad("models", "list", tmp_path)
    assert done.returncode == 0 and "copy" in done.stdout and "broken" in done.stderr
