"""TorchScript archives, the form in which OpenAI published CLIP: their tensors, read without running their code.

`torch.jit.load` would run what an archive asks for while it is loaded, and TorchScript can write files.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor

_TYPES = {
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "BoolStorage": torch.bool,
}


class _Module:
    """Stands for an object of the archive's own classes: nothing but its attributes."""

    def __init__(self) -> None:
        self.attributes: dict = {}

    def __setstate__(self, state: dict) -> None:
        self.attributes = state


class _Reader(pickle.Unpickler):
    """Knows tensors and the archive's own classes, and nothing that could do anything."""

    def __init__(self, content: bytes, records: dict[str, zipfile.ZipInfo], archive: zipfile.ZipFile) -> None:
        super().__init__(io.BytesIO(content))
        self.records, self.archive, self.storages = records, archive, {}

    def find_class(self, module: str, name: str) -> object:
        if module.startswith("__torch__"):
            return _Module
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in _TYPES:
            return _TYPES[name]
        if module == "torch.jit._pickle":  # typed lists and the like, which hold no weights
            return lambda *args: None
        raise pickle.UnpicklingError(f"{module}.{name} is not part of a network")

    def persistent_load(self, pid: tuple) -> Tensor:
        _, dtype, key, _, _ = pid
        if key not in self.storages:
            content = self.archive.read(self.records[f"data/{key}"])
            self.storages[key] = torch.frombuffer(bytearray(content), dtype=dtype)
        return self.storages[key]


def _tensor(storage: Tensor, offset: int, size: tuple, stride: tuple, *_: object) -> Tensor:
    return storage.as_strided(size, stride, offset)  # refuses to leave the storage


def is_archive(path: Path) -> bool:
    """Whether a file is a TorchScript archive."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.partition("/")[2] == "constants.pkl" for name in archive.namelist())


def read_archive(path: Path) -> dict[str, Tensor]:
    """Parameters and buffers of a TorchScript archive by name, as its state dict has them.

    Raises UnpicklingError if it holds anything but a network, and what a damaged file makes zipfile or pickle raise.
    """
    with zipfile.ZipFile(path) as archive:
        records = {entry.filename.partition("/")[2]: entry for entry in archive.infolist()}
        if sum(entry.file_size for entry in records.values()) > path.stat().st_size:
            raise pickle.UnpicklingError("it unpacks to more than its size")
        root = _Reader(archive.read(records["data.pkl"]), records, archive).load()
    found: dict[str, Tensor] = {}
    waiting = [("", root)]
    while waiting:
        prefix, module = waiting.pop()
        for name, value in module.attributes.items():
            if isinstance(value, _Module):
                waiting.append((f"{prefix}{name}.", value))
            elif isinstance(value, Tensor):
                found[f"{prefix}{name}"] = value
        if len(found) + len(waiting) > 100_000:
            raise pickle.UnpicklingError("its modules contain each other")
    return found
