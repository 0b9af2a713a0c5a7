"""Cache of tensors on disk: found only under the same key, never half or damaged."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
import torch

from medclipad.encoders.tensor_cache import cache_folder, cached

KEY = {"weights": "0" * 64, "prompts": [["a brain"], ["a damaged brain"]], "precision": "torch.float32"}


class Counted:
    def __init__(self, value: float = 1.0) -> None:
        self.calls, self.value = 0, value

    def __call__(self) -> torch.Tensor:
        self.calls += 1
        return torch.full((3, 2), self.value)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("MEDCLIPAD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_computed_once(folder):
    compute = Counted()
    first, second = (cached("text", KEY, compute) for _ in range(2))
    assert compute.calls == 1 and torch.equal(first, second)
    assert [file.suffix for file in (folder / "text").iterdir()] == [".safetensors"]


@pytest.mark.parametrize("change", [
    {"weights": "1" * 64}, {"prompts": [["a brain"], ["a broken brain"]]}, {"precision": "torch.bfloat16"}, {"more": 1},
])  # fmt: skip
def test_another_key_is_another_tensor(folder, change):
    cached("text", KEY, Counted(1.0))
    other = Counted(2.0)
    assert cached("text", {**KEY, **change}, other)[0, 0] == 2 and other.calls == 1
    assert cached("other kind", KEY, other)[0, 0] == 2 and other.calls == 2


@pytest.mark.parametrize("damage", [lambda content: content[:-5], lambda content: b"", lambda content: b"x" * 400])
def test_a_damaged_file_is_computed_again(folder, damage, caplog):
    cached("text", KEY, Counted())
    file = next((folder / "text").iterdir())
    file.write_bytes(damage(file.read_bytes()))
    compute = Counted()
    with caplog.at_level(logging.WARNING):
        assert torch.equal(cached("text", KEY, compute), compute())
    assert "damaged" in caplog.text and compute.calls == 2
    assert cached("text", KEY, Counted(5.0))[0, 0] == 1, "and is whole again"


def test_a_folder_that_cannot_be_written_to_only_costs_time(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("MEDCLIPAD_CACHE", str(tmp_path / "file" / "cache"))
    with caplog.at_level(logging.WARNING):
        assert cached("text", KEY, Counted())[0, 0] == 1
    assert "cannot be kept" in caplog.text


def test_off(monkeypatch, tmp_path):
    monkeypatch.setenv("MEDCLIPAD_CACHE", "off")
    monkeypatch.chdir(tmp_path)
    compute = Counted()
    cached("text", KEY, compute)
    cached("text", KEY, compute)
    assert cache_folder() is None and compute.calls == 2 and not os.listdir(tmp_path)


def test_the_users_cache_folder_by_default(monkeypatch):
    monkeypatch.delenv("MEDCLIPAD_CACHE")
    assert cache_folder().name == "medclipad"
