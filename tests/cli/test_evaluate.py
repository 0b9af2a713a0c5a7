"""`medclipad evaluate` on small heads: the tables, the JSON, the curve, and one sentence for each mistake."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import medclipad as mc
from medclipad.cli import main as cli
from medclipad.evaluation.froc import RATES
from medclipad.volume import write_volume

PEOPLE = range(10, 15)  # abnormal
HEALTHY = range(20, 25)


@pytest.fixture(scope="module")
def study(head, lesion, tmp_path_factory) -> Path:
    """A folder with a detector, five abnormal heads, five normal ones, and a list of them."""
    folder = tmp_path_factory.mktemp("study")
    lines = ["image,mask,patient,scanner"]
    write_volume(lesion, folder / "truth.nii.gz")
    write_volume(lesion.with_array(lesion.array * 0), folder / "empty.nii.gz")
    for seed in PEOPLE:
        write_volume(head(seed, True), folder / f"sick{seed}.nii.gz")
        lines.append(f"sick{seed}.nii.gz,truth.nii.gz,p{seed},{'AB'[seed % 2]}")
    for seed in HEALTHY:
        write_volume(head(seed), folder / f"healthy{seed}.nii.gz")
        lines.append(f"healthy{seed}.nii.gz,{'empty.nii.gz' if seed == 20 else ''},p{seed},{'AB'[seed % 2]}")
    (folder / "cases.csv").write_text("\n".join(lines) + "\n")
    normal = [head(seed) for seed in range(6)]
    mc.fit(normal=normal, image_size=128, shots=48, max_steps=20).save(folder / "model")
    return folder


@pytest.fixture
def run(study, monkeypatch, capsys):
    """`run(*arguments)`: runs the command beside the study; returns exit code, standard output and error."""

    def start(*arguments) -> tuple[int, str, str]:
        monkeypatch.chdir(study)
        monkeypatch.setattr(sys, "argv", ["medclipad", "evaluate", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        printed = capsys.readouterr()
        return int(caught.value.code or 0), printed.out, printed.err

    return start


@pytest.fixture(scope="module")
def written(study, tmp_path_factory):
    """What the whole list gives: the JSON, the printed text and the picture."""
    out = tmp_path_factory.mktemp("out")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as caught:
        patch.chdir(study)
        patch.setattr(sys, "argv", ["medclipad", "evaluate", "model", "--case", "cases.csv",
                                    "--json", str(out / "figures.json"), "--plot", str(out / "froc.png")])  # fmt: skip
        cli.main()
    assert not caught.value.code
    return json.loads((out / "figures.json").read_text()), (out / "froc.png").read_bytes()


def test_json_of_abnormal_and_normal_scans(written, study):
    data, picture = written
    assert picture.startswith(b"\x89PNG")
    assert [case["abnormal"] for case in data["cases"]] == [True] * 5 + [False] * 5, "an empty mask is a normal scan"
    summary = data["summary"]
    assert (summary["scans"], summary["abnormal_scans"], summary["patients"], summary["lesions"]) == (10, 5, 10, 5)
    assert [point["false_per_scan"] for point in summary["froc"]] == list(RATES)
    assert summary["froc"][0]["sensitivity"]["value"] >= 0.8, "the blobs are bright"
    assert summary["sizes"][2]["lesions"] == 5, "balls of 14 mm"
    for case in data["cases"]:
        assert len(case["lesions"]) == case["abnormal"]
    detector = mc.load_detector(study / "model")
    result = detector.detect(mc.read_volume(study / "healthy21.nii.gz"))
    case = data["cases"][6]
    assert case["name"] == "healthy21" and case["volume_score"] == pytest.approx(result.volume_score, abs=1e-6)
    peaks = [region.peak for region in result.regions() if region.peak > 0.5]
    shown = [peak for peak in case["false_regions"] if peak > result.region_limit()]
    assert shown == pytest.approx(sorted(peaks, reverse=True), abs=1e-6), "what is shown there is false"
    roc, scores = summary["volumes"], np.array([case["volume_score"] for case in data["cases"]])
    wins = (scores[:5, None] > scores[5:]).mean() + (scores[:5, None] == scores[5:]).mean() / 2
    assert roc["auroc"]["value"] == pytest.approx(wins) and roc["unit"] == "scans"
    assert roc["alpha"] == pytest.approx(1 / 7), "six normal scans"
    for kind, part in (("abnormal", data["cases"][:5]), ("normal", data["cases"][5:])):
        values = [case["p_value"] for case in part if case["p_value"] is not None]
        alarms = sum(value <= roc["alpha"] for value in values)
        assert (roc[kind]["scans"], roc[kind]["judged"], roc[kind]["alarms"]) == (5, len(values), alarms)
    assert list(data["groups"]["scanner"]) == ["A", "B"] and data["groups"]["scanner"]["A"]["scans"] == 6
    mean = np.mean([case["detector"]["average_precision"] for case in data["cases"][:5]])
    assert data["mean"]["detector"]["average_precision"] == pytest.approx(mean)


def test_printed_tables(run, written):
    code, text, progress = run("model", "--case", "cases.csv")
    assert code == 0 and "evaluate" in progress
    summary = written[0]["summary"]
    assert "10 scans of 10 patients: 5 abnormal with 5 lesions, 5 normal" in text
    for point in summary["froc"]:
        figure = point["sensitivity"]
        assert f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]" in text
    for words in (
        "FROC",
        "at the detector's own limit",
        "raw intensity",
        "FPR at 95 % TPR (share of normal scans)",
        "12–20 mm",
        "scanner  ",
        "LUNA16",
        "normal scans with p ≤ 0.143",
        "narrower than they should be",
    ):
        assert words in text, words
    assert re.search(r"^average precision +\d\.\d{3} \[.*\] +\d\.\d{3} \[.*\] +[+-]\d\.\d{3} \[", text, re.MULTILINE)


def test_normal_volumes_are_given_apart(run):
    code, text, _ = run("model", "--case", "sick10.nii.gz:truth.nii.gz", "--normal", "healthy*.nii.gz")
    assert code == 0 and "6 scans of 6 patients: 1 abnormal with 1 lesion, 5 normal" in text
    assert "Fewer than 5 patients with a lesion" in text
    code, text, _ = run("model", "--normal", "healthy20.nii.gz", "healthy21.nii.gz")
    assert code == 0 and "2 scans of 2 patients: 0 abnormal with 0 lesions, 2 normal" in text
    assert "too good" not in text


def test_volumes_that_were_learned_from_are_told(run, head, tmp_path):
    write_volume(head(3), tmp_path / "head3.nii.gz")
    code, text, _ = run(
        "model", "--normal", tmp_path / "head3.nii.gz", "healthy20.nii.gz", "--json", tmp_path / "a.json"
    )
    assert code == 0 and "learned from volumes with the names of 1 of these (head3)" in text
    assert json.loads((tmp_path / "a.json").read_text())["learned_from"] == ["head3"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["model"], 2, "--normal"),
        (["model", "--case", "sick10.nii.gz"], 1, "list it as a normal volume if it shows no lesion"),
        (["model", "--normal", "sick10.nii.gz:truth.nii.gz"], 1, "listed as normal, but with a mask"),
        (["model", "--case", "cases.csv", "--plot", "froc.pdf"], 1, "call it froc.png"),
        (["model", "--case", "cases.csv", "--plot", "truth.nii.gz/froc.png"], 1, "Nothing can be written to"),
        (["model", "--case", "cases.csv", "--json", "model"], 1, "model is a folder"),
        (["model", "--case", "cases.csv", "--normal", "missing.nii.gz"], 1, "missing.nii.gz"),
    ],
)
def test_mistakes(run, arguments, code, words):
    found, _, text = run(*arguments)
    assert found == code and words in text and "Traceback" not in text
    assert "evaluate 0/" not in text, "before any detection"
