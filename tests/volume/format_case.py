"""What one kind of file is, how a small one is made, and what must happen when it is read."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

DATA = Path(os.environ.get("MEDCLIPAD_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


@dataclass(frozen=True)
class Case:
    """`make(folder)` writes the files into an empty folder and returns what `read_volume` is given.

    Either `refused`, part of the sentence, or read with `note`, part of its notes ("" for none at all). `remark` is for
    the table only. `readers` are the other programs that must put the same values at the same places, `misplaced` those
    that by a known habit of theirs do not put a NIfTI map there; `options` go to `read_volume`.
    """

    name: str
    make: Callable[[Path], Any]
    refused: str = ""
    note: str = ""
    remark: str = ""
    readers: tuple[str, ...] = ()
    misplaced: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def happens(self) -> str:
        """One cell of docs/formats.md."""
        if self.refused:
            text = f"refused: “{self.refused} …”"
        else:
            text = f"read, with the note “{self.note} …”" if self.note else "read"
        option = ", ".join(f"`{key}={value!r}`" for key, value in self.options.items())
        return text + (f" (with {option})" if option else "") + (f"; {self.remark}" if self.remark else "")


def shared(path: str) -> Callable[[Path], Path]:
    """A real file or folder of the shared test images; the test skips where they are absent."""

    def make(_: Path) -> Path:
        if not (DATA / path).exists():
            pytest.skip("the shared test images are not here (MEDCLIPAD_DATA)")
        return DATA / path

    return make


def bundled(name: str) -> Callable[[Path], Path]:
    """A real DICOM file that comes with pydicom."""

    def make(_: Path) -> Path:
        import pydicom

        return Path(pydicom.__file__).parent / "data" / "test_files" / name

    return make
