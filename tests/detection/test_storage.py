"""Saved detectors: written whole or not at all, read without pickle, refused in one sentence when damaged."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import re
import shutil

import pytest
import safetensors.torch
import torch
from safetensors.torch import load_file, save_file

from medclipad.detection.detector import load_detector
from medclipad.detection.fit import fit
from medclipad.detection.model_card import CARD
from medclipad.detection.storage import INFO, WEIGHTS, DetectorInfo, read_info, read_weights, save_folder
from medclipad.errors import DetectorError


@pytest.fixture(scope="module")
def detector(head):
    return fit(normal=[head(1)], planes="axial", image_size=64, max_steps=1, memory_size=50, shots=6)


@pytest.fixture(scope="module")
def good(detector, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "good"
    detector.save(path)
    return path


def test_the_model_card_is_the_hubs_and_names_no_volume(head, detector, good, tmp_path):
    """Read by the hub's own parser."""
    from huggingface_hub import ModelCard

    card = ModelCard.load(good / "README.md")
    assert card.data.library_name == "medclipad" and detector.info.method in card.data.tags
    assert "nothing is promised about false alarms" in card.text and "not for diagnosis" in card.text
    several = fit(
        normal=[head(1), head(2), head(3)], planes="axial", image_size=64, max_steps=1, memory_size=50, shots=6
    )
    several.save(tmp_path / "several")
    text = (tmp_path / "several" / "README.md").read_text(encoding="utf-8")
    assert "6 normal and 0 abnormal axial slices of 3 volumes" in text and "at most 1 false alarm in 4" in text
    assert f"| 1 | {several.info.calibration.region_limit(1):.3f} |" in text
    assert several.info.encoder_sha256 in text and "head" not in text, "names of volumes stay in detector.json"


@pytest.fixture
def saved(good, tmp_path):
    """A copy to damage."""
    return shutil.copytree(good, tmp_path / "saved")


def change(folder, **fields) -> None:
    content = json.loads((folder / INFO).read_text())
    (folder / INFO).write_text(json.dumps({**content, **fields}))


def change_config(folder, **fields) -> None:
    change(folder, config={**json.loads((folder / INFO).read_text())["config"], **fields})


def refused(folder, words: str) -> None:
    with pytest.raises(DetectorError, match=words) as caught:
        load_detector(folder)
    text = str(caught.value)
    assert "\n" not in text and text.endswith("."), text


def test_folder_holds_three_files_without_pickle(good, detector):
    assert sorted(file.name for file in good.iterdir()) == [CARD, INFO, WEIGHTS]
    written = DetectorInfo.model_validate_json((good / INFO).read_text())
    digest = hashlib.sha256((good / WEIGHTS).read_bytes()).hexdigest()
    assert written == detector.info.model_copy(update={"weights_sha256": digest})
    assert read_weights(good, digest).keys() == detector.model.head_state().keys()
    for file in good.iterdir():
        with pytest.raises((pickle.UnpicklingError, KeyError, ValueError, EOFError, IndexError)):
            pickle.loads(file.read_bytes())
        assert not file.read_bytes().startswith(b"PK"), "torch.save's archives hold pickles"
    assert not any(key.startswith("encoder.") for key in read_weights(good, digest)), "the head only"


def test_nothing_is_unpickled(good, detector, head, monkeypatch):
    """Loading works where unpickling does not; the encoder, in use already, is not read again."""

    def forbidden(*args, **kwargs):
        raise AssertionError("pickle was used")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, forbidden)
    assert load_detector(good).detect(head(1)).volume_score >= 0


@pytest.mark.skipif(os.name == "nt", reason="POSIX rights")
def test_folder_is_readable_by_others(good):
    assert good.stat().st_mode & 0o777 == 0o755


def test_missing_folder_and_foreign_folder(tmp_path):
    refused(tmp_path / "nowhere", "no detector folder")
    refused(tmp_path, f"no readable {INFO}")


@pytest.mark.parametrize(("name", "words"), [(INFO, "not a detector folder"), (WEIGHTS, "missing or damaged")])
def test_missing_file(saved, name, words):
    (saved / name).unlink()
    refused(saved, words)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_weights(saved, keep):
    content = (saved / WEIGHTS).read_bytes()
    (saved / WEIGHTS).write_bytes(content[:keep])
    refused(saved, "missing or damaged")


@pytest.mark.parametrize("content", [b"garbage" * 99, b"\xff" * 99, pickle.dumps({"a": 1})])
def test_garbage_weights(saved, content):
    (saved / WEIGHTS).write_bytes(content)
    refused(saved, "missing or damaged")


def test_hostile_pickle_as_weights_is_not_executed(saved, tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    for content in (pickle.dumps(Hostile()),):
        (saved / WEIGHTS).write_bytes(content)
        refused(saved, "missing or damaged")
    torch.save({"adapters.0.bias": Hostile()}, saved / WEIGHTS)
    refused(saved, "missing or damaged")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"name": "x"}', "\udcff"])
def test_damaged_description(saved, content):
    (saved / INFO).write_bytes(content.encode(errors="surrogateescape"))
    refused(saved, "is damaged")


def test_unknown_field_is_refused(saved):
    change(saved, colour="blue")
    refused(saved, r"is damaged \(colour: there is no such option")


@pytest.mark.parametrize("fields", [
    {"format": 1}, {"normal_slices": -1}, {"metrics": None}, {"calibration": {"basis": "guess"}},
    {"calibration": {"slice_limit": 2}}, {"format": 2}, {"created": "yesterday"},
])  # fmt: skip
def test_impossible_value_is_refused(saved, fields):
    change(saved, **fields)
    refused(saved, f"is damaged \\({next(iter(fields))}")


@pytest.mark.parametrize("fields", [
    {"image_size": 0}, {"image_size": "wide"}, {"image_size": None}, {"smoothing": -1}, {"seed": None}, {"shots": 0},
    {"plane": "diagonal"}, {"colour": "blue"},
])  # fmt: skip
def test_impossible_option_is_refused(saved, fields):
    change_config(saved, **fields)
    refused(saved, f"is damaged \\(.*{next(iter(fields))}")


def test_other_encoder_weights_are_refused(saved):
    change(saved, encoder_sha256="0" * 64)
    refused(saved, "other weights of embedded.*000000000000…")


@pytest.mark.parametrize(("fields", "words"), [
    ({"encoder": "magic"}, "not known"),
    ({"image_size": 65}, "multiples of 32"),
    ({"method": "magic"}, "mediclip, memory, mvfa"),
    ({"options": {"magic": 1}}, "is damaged.*magic"),
    ({"options": {"memory_share": 0.0}}, "do not fit the method mediclip"),
    ({"method": "mvfa", "options": {}}, "do not fit the method mvfa"),
])  # fmt: skip
def test_config_that_does_not_fit(saved, fields, words):
    change_config(saved, **fields)
    refused(saved, words)


@pytest.mark.parametrize("damage", ["shape", "type", "missing", "extra"])
def test_weights_that_do_not_fit(saved, damage):
    weights = load_file(saved / WEIGHTS)
    if damage == "shape":
        weights["adapters.0.weight"] = weights["adapters.0.weight"][:, :-1].contiguous()
    elif damage == "type":
        weights["adapters.0.weight"] = weights["adapters.0.weight"].double()
    elif damage == "missing":
        del weights["adapters.0.weight"]
    else:
        weights["more"] = torch.zeros(1)
    save_file(weights, saved / WEIGHTS)
    refused(saved, "SHA-256")
    change(saved, weights_sha256=hashlib.sha256((saved / WEIGHTS).read_bytes()).hexdigest())
    refused(saved, "do not fit the method mediclip.*(adapters.0.weight|more)")


def test_a_flipped_bit_or_the_weights_of_another_detector(saved, good):
    """Such weights fit, and would give plausible maps."""
    content = bytearray((good / WEIGHTS).read_bytes())
    content[-3] ^= 1
    (saved / WEIGHTS).write_bytes(content)
    refused(saved, "damaged, or belongs to another detector")
    (saved / WEIGHTS).write_bytes((good / WEIGHTS).read_bytes())
    load_detector(saved)
    change(saved, weights_sha256="")
    refused(saved, "SHA-256")


def test_existing_target_is_refused_and_left_alone(detector, saved, tmp_path):
    before = {file.name: file.read_bytes() for file in saved.iterdir()}
    with pytest.raises(DetectorError, match="exists already"):
        detector.save(saved)
    assert {file.name: file.read_bytes() for file in saved.iterdir()} == before
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DetectorError, match="exists already"):
        detector.save(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("where", ["rename", "fsync"])
def test_a_full_disk_leaves_nothing(detector, tmp_path, monkeypatch, where):
    seen = []

    def full(*args, **kwargs):
        seen.extend(tmp_path.iterdir())
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, where, full)
    with pytest.raises(DetectorError, match=re.escape(os.strerror(errno.ENOSPC))) as caught:
        detector.save(tmp_path / "new")
    monkeypatch.undo()
    assert seen, "the fault struck after writing had begun"
    assert str(caught.value).endswith(".") and not list(tmp_path.iterdir())
    detector.save(tmp_path / "new")
    assert load_detector(tmp_path / "new").info == detector.info


def test_an_interruption_leaves_nothing(detector, tmp_path, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(safetensors.torch, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        detector.save(tmp_path / "new")
    assert not list(tmp_path.iterdir())


def test_folder_appears_only_when_complete(detector, tmp_path, monkeypatch):
    states, rename = [], os.rename

    def watched(source, target):
        states.append((os.path.exists(target), sorted(os.listdir(source))))
        rename(source, target)

    monkeypatch.setattr(os, "rename", watched)
    detector.save(tmp_path / "deep" / "er" / "new")
    assert states == [(False, [CARD, INFO, WEIGHTS])]
    assert [file.name for file in (tmp_path / "deep" / "er").iterdir()] == ["new"]


def test_target_under_a_file_is_told(detector, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DetectorError, match="could not be saved"):
        detector.save(tmp_path / "file" / "new")


def test_views_and_shared_tensors_are_saved(detector, tmp_path):
    base = torch.arange(12.0).view(3, 4)
    written = save_folder(tmp_path / "new", detector.info, {"a": base.T, "b": base[:, 1:]})
    weights = read_weights(tmp_path / "new", written.weights_sha256)
    assert torch.equal(weights["a"], base.T) and torch.equal(weights["b"], base[:, 1:])
    assert read_info(tmp_path / "new") == written
