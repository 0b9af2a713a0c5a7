"""Read zip archives of torch.save and torch.jit.save tensor by tensor, without running what they hold.

`torch.jit.load` runs code of the archive while it is loaded, and TorchScript can write files. It also loads everything
at once: 1.7 GB for a ViT-L/14, of which a detector needs 0.6 GB.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: torch.dtype


@dataclass(frozen=True)
class StoredTensor:
    """Tensor that has not been read from its archive yet.

    Attributes
    ----------
    archive, record
        Archive and the record in it that holds the values.
    dtype, shape, stride
        As of the tensor.
    offset
        Index of the first element in the record.
    """

    archive: zipfile.ZipFile
    record: zipfile.ZipInfo
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def read(self) -> Tensor:
        """Return the tensor; a damaged file raises any of the errors of zipfile and torch."""
        content = bytearray(self.archive.read(self.record))  # checks the record's checksum
        return torch.frombuffer(content, dtype=self.dtype).as_strided(self.shape, self.stride, self.offset)


class _Module:
    """Stand-in for an object of the archive's own classes: only its attributes."""

    def __init__(self) -> None:
        self.attributes: dict = {}

    def __setstate__(self, state: dict) -> None:
        self.attributes = state


class _Reader(pickle.Unpickler):
    """Unpickler for tensors and the archive's own classes; it refuses everything that could run code."""

    def __init__(self, content: bytes, records: dict[str, zipfile.ZipInfo], archive: zipfile.ZipFile) -> None:
        super().__init__(io.BytesIO(content))
        self.records, self.archive = records, archive

    def find_class(self, module: str, name: str) -> object:
        if module.startswith("__torch__"):
            return _Module
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self._tensor
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in _TYPES:
            return _TYPES[name]
        if module == "torch.jit._pickle":  # typed lists and the like, which hold no weights
            return lambda *args: None
        raise pickle.UnpicklingError(f"{module}.{name} is not part of a network")

    def persistent_load(self, pid: tuple) -> _Storage:
        _, dtype, key, _, _ = pid
        return _Storage(key, dtype)

    def _tensor(self, storage: _Storage, offset: int, size: tuple, stride: tuple, *_: object) -> StoredTensor:
        # as_strided refuses to leave the storage
        return StoredTensor(self.archive, self.records[f"data/{storage.key}"], storage.dtype, offset, size, stride)


def read_archive(archive: zipfile.ZipFile) -> Any:
    """Return the content of an archive, with tensors as `StoredTensor`.

    Returns
    -------
    Any
        Of a TorchScript network its tensors by name, as in its state dict. Else the object that was saved.

    Raises
    ------
    UnpicklingError
        If the archive holds anything but weights and plain values. A damaged file also raises other errors of zipfile
        and pickle.
    """
    records = {entry.filename.partition("/")[2]: entry for entry in archive.infolist()}
    if sum(entry.file_size for entry in records.values()) > Path(str(archive.filename)).stat().st_size:
        raise pickle.UnpicklingError("it unpacks to more than its size")
    root = _Reader(archive.read(records["data.pkl"]), records, archive).load()
    if not isinstance(root, _Module):
        return root
    tensors: dict[str, StoredTensor] = {}
    queue = [("", root)]
    while queue:
        prefix, module = queue.pop()
        for name, value in module.attributes.items():
            if isinstance(value, _Module):
                queue.append((f"{prefix}{name}.", value))
            elif isinstance(value, StoredTensor):
                tensors[f"{prefix}{name}"] = value
        if len(tensors) + len(queue) > 100_000:
            raise pickle.UnpicklingError("its modules contain each other")
    return tensors
