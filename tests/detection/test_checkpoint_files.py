"""Files that are no checkpoint of the reference projects, or a damaged or hostile one: refused in one sentence."""

from __future__ import annotations

import os
import pickle
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoint_cases import EMBED, FILES, STATES, WIDTH, mediclip_state, mvfa_state, one_sentence, refused
from safetensors.torch import save_file

from medclipad.detection.reference_checkpoints import read_checkpoint
from medclipad.errors import DetectorError


@pytest.fixture(params=["mvfa", "mediclip"])
def method(request) -> str:
    return request.param


@pytest.fixture
def file(method, tmp_path) -> Path:
    torch.save(STATES[method](), tmp_path / FILES[method])
    return tmp_path / FILES[method]


def test_missing_directory_empty_and_foreign_files(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.pth").touch()
    (tmp_path / "text.pth").write_text("weights")
    save_file({"0.fc1.0.weight": torch.zeros(3)}, tmp_path / "Brain.safetensors")
    torch.save(mvfa_state(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("a.txt", "a")
    refused(tmp_path / "nowhere.pth", "cannot be read.*check the path")
    refused(tmp_path / "folder", "cannot be read.*check the path")
    for name in ("empty.pth", "text.pth", "Brain.safetensors", "old.pth"):
        refused(tmp_path / name, "no file that torch.save wrote")
    refused(tmp_path / "other.zip", "could not be read as tensors")


@pytest.mark.parametrize("keep", [1, 100, 0.5, -1, -30])
def test_truncated_file(file, keep):
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * keep) if isinstance(keep, float) else keep])
    refused(file, "no file that torch.save wrote")


def test_damaged_file(file):
    """A flipped bit in each of many places is refused or, in padding, without effect: never a crash."""
    content, original = file.read_bytes(), read_checkpoint(file)
    rng = np.random.default_rng(0)
    outcomes = set()
    for place in rng.integers(len(content), size=60):
        file.write_bytes(content[:place] + bytes([content[place] ^ 0x40]) + content[place + 1 :])
        try:
            parts = read_checkpoint(file).parts
            assert parts.keys() == original.parts.keys()
            assert all(equal(parts[name], part) for name, part in original.parts.items())
            outcomes.add("read")
        except DetectorError as error:
            one_sentence(str(error), file)
            outcomes.add("refused")
    assert "refused" in outcomes


def test_damaged_weight(file):
    content = bytearray(file.read_bytes())
    weight = next(iter(next(iter(read_checkpoint(file).parts.values())).values()))
    content[content.index(weight.numpy().tobytes()) + 3] ^= 1  # torch.load takes it for another weight
    file.write_bytes(content)
    refused(file, r"is damaged \(Bad CRC-32")


def test_entries_called_folders_are_read(file):
    """torch.load gives whatever lay in memory for the weights of an entry that the table of contents calls a folder."""
    content, original = bytearray(file.read_bytes()), read_checkpoint(file)
    for entry in re.finditer(rb"PK\x01\x02", bytes(content)):
        content[entry.start() + 38] |= 0x10  # MS-DOS's attribute
    file.write_bytes(content)
    assert all(equal(read_checkpoint(file).parts[name], part) for name, part in original.parts.items())


def test_two_entries_of_one_name(file):
    with zipfile.ZipFile(file, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(archive.namelist()[0], b"")
    refused(file, "two entries have one name")


def equal(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in other)


@pytest.mark.parametrize("form", ["pickle", "archive", "archive inside"])
def test_hostile_file_runs_nothing(tmp_path, form):
    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    file = tmp_path / "Brain.pth"
    if form == "pickle":
        file.write_bytes(pickle.dumps(Hostile()))
    else:
        state = mvfa_state()
        if form == "archive":
            state = Hostile()
        else:
            state["seg_adapters"]["0.fc1.0.weight"] = Hostile()
        torch.save(state, file)
    refused(file, "no file that torch.save wrote" if form == "pickle" else "nothing in it was run")
    assert not (tmp_path / "executed").exists()


def test_zip_bombs(tmp_path):
    file = tmp_path / "Brain.pth"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("Brain/data.pkl", bytes(1 << 26))
    refused(file, "unpacks to more")
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("Brain/data.pkl", bytes(1 << 21))
    refused(file, "lists more")
    with zipfile.ZipFile(file, "w") as archive:
        for n in range(1001):
            archive.writestr(f"Brain/data/{n}", b"")
    refused(file, "unpacks to more")


@pytest.mark.parametrize("odd", [
    torch.zeros(1).expand(1 << 20, 1 << 20),
    torch.zeros(EMBED, WIDTH, dtype=torch.int32),
    torch.zeros(EMBED, WIDTH).to_sparse(),
    torch.zeros(EMBED, WIDTH, device="meta"),
])  # fmt: skip
def test_arrays_that_are_not_what_they_seem(tmp_path, odd):
    state = mvfa_state()
    state["det_adapters"]["2.fc1.0.weight"] = odd
    torch.save(state, tmp_path / "Brain.pth")
    refused(tmp_path / "Brain.pth", "no floating-point array|could not be read as tensors")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite(method, tmp_path, value):
    state = STATES[method]()
    part, key = list(state)[1], list(list(state.values())[1])[-1]
    state[part][key].view(-1)[-1] = value
    torch.save(state, tmp_path / FILES[method])
    refused(tmp_path / FILES[method], f"{key}.*not finite")


@pytest.mark.parametrize("content", [
    torch.zeros(3), [], {}, {"state_dict": {}}, {3: {}}, {"seg_adapters": {}}, {**mvfa_state(), "epoch": 3},
    {**mvfa_state(), **mediclip_state()},
])  # fmt: skip
def test_other_contents(tmp_path, content):
    torch.save(content, tmp_path / "Brain.pth")
    refused(tmp_path / "Brain.pth", "no checkpoint of madclip or mediclip or mvfa")


@pytest.mark.parametrize("part", [[], torch.zeros(2), {"a": "b"}, {1: torch.zeros(1)}, None])
def test_parts_that_are_no_state_dict(tmp_path, part):
    torch.save({**mvfa_state(), "seg_adapters": part}, tmp_path / "Brain.pth")
    refused(tmp_path / "Brain.pth", "seg_adapters.*no state dict")
