"""Tests of how the cases of an evaluation are listed: masks, normal volumes, patients and subgroups."""

from __future__ import annotations

import numpy as np
import pytest

from medclipad.errors import MedCLIPADError, VolumeError
from medclipad.evaluation import EvaluationCase, evaluate_cases, list_evaluation_cases
from medclipad.volume import Volume, write_volume


def test_csv_with_patients_and_subgroups(tmp_path):
    file = tmp_path / "cases.csv"
    file.write_text("image,mask,patient,scanner,age\na.nii.gz,a_mask.nii.gz,p1,A,70\nb.nii.gz,,p1,B,70\nc.nii.gz,,,,\n")
    sick, healthy, unknown = list_evaluation_cases([str(file)])
    assert sick == EvaluationCase(tmp_path / "a.nii.gz", tmp_path / "a_mask.nii.gz", "p1", {"scanner": "A"})
    assert healthy == EvaluationCase(tmp_path / "b.nii.gz", None, "p1", {"scanner": "B"})
    assert unknown == EvaluationCase(tmp_path / "c.nii.gz", None, None, {"scanner": ""})


def test_sequence_and_site_in_a_csv_of_normal_volumes(tmp_path):
    file = tmp_path / "normal.csv"
    file.write_text("image,sequence,site\na.nii.gz,FLAIR,one\n")
    (case,) = list_evaluation_cases([], [file])
    assert case.groups == {"sequence": "FLAIR", "site": "one"} and case.patient is None


def test_volumes_and_pairs():
    volume = Volume(np.zeros((2, 2, 2), np.float32), np.eye(4), name="v")
    assert list_evaluation_cases([(volume, volume)], [volume]) == [
        EvaluationCase(volume, volume),
        EvaluationCase(volume),
    ]


@pytest.mark.parametrize(
    ("cases", "normal", "words"),
    [
        (["a.nii.gz"], [], 'a.nii.gz" lacks its mask: write IMAGE:MASK, or list it as a normal volume'),
        (["plain.csv"], [], "lacks its mask"),
        (["short.csv"], [], 'a.nii.gz" lacks its mask'),
        ([], ["a.nii.gz:m.nii.gz"], 'a.nii.gz" is listed as normal, but with a mask'),
        ([], [], "no case to evaluate"),
        (["nothing*.nii.gz"], [], "matches no file"),
        (["wrong.csv"], [], 'the column "image"'),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, monkeypatch, cases, normal, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plain.csv").write_text("image\na.nii.gz\n")
    (tmp_path / "short.csv").write_text("image,mask\nb.nii.gz,\na.nii.gz\n")
    (tmp_path / "wrong.csv").write_text("picture,mask\na.nii.gz,m.nii.gz\n")
    with pytest.raises(MedCLIPADError) as caught:
        list_evaluation_cases(cases, normal)
    assert words in str(caught.value) and str(caught.value).endswith(".")


class Refusing:
    """A detector that must not be asked."""

    def detect(self, volume: Volume):
        raise AssertionError("detected before all cases were read")


def test_mistakes_show_before_any_detection(tmp_path, head, lesion):
    write_volume(head(1), tmp_path / "a.nii.gz")
    small = Volume(lesion.array[:-1], lesion.affine)
    seen = []
    with pytest.raises(VolumeError, match="size"):
        evaluate_cases(Refusing(), [(head(1), lesion), (head(2), small)], lambda *call: None)  # type: ignore[arg-type]
    cases = [EvaluationCase(tmp_path / "a.nii.gz"), EvaluationCase(tmp_path / "missing.nii.gz")]
    with pytest.raises(VolumeError, match=r"missing\.nii\.gz"):
        evaluate_cases(Refusing(), cases, lambda *call: None, seen=seen.append)  # type: ignore[arg-type]
    assert [volume.name for volume in seen] == ["a"]
