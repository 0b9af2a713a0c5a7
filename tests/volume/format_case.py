"""One kind of file: how a small one is made, and what must happen when it is read."""

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
    """One kind of file, and the expected result of reading it.

    Attributes
    ----------
    name : str
        Unique name, shown in docs/reference/formats.md.
    make : callable
        `make(folder)` writes the files into an empty folder and returns the source for `read_volume`.
    refused : str
        Part of the sentence that refuses the file; "" if it is read.
    note : str
        Part of one of the volume's notes; "" if there must be none.
    remark : str
        Remark for the table.
    readers : tuple of str
        Other programs that must put the same values at the same positions.
    misplaced : tuple of str
        Programs that, as is known, put a NIfTI map with this geometry elsewhere.
    options : dict
        Options of `read_volume`.
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
        """The cell of docs/reference/formats.md on what happens."""
        if self.refused:
            text = f"refused: “{self.refused} …”"
        else:
            text = f"read, with the note “{self.note} …”" if self.note else "read"
        option = ", ".join(f"`{key}={value!r}`" for key, value in self.options.items())
        return text + (f" (with {option})" if option else "") + (f"; {self.remark}" if self.remark else "")


def shared(path: str) -> Callable[[Path], Path]:
    """Return a maker of a real file or folder of the shared test images, which skips the test if they are absent."""

    def make(_: Path) -> Path:
        if not (DATA / path).exists():
            pytest.skip("the shared test images are not here (MEDCLIPAD_DATA)")
        return DATA / path

    return make


def bundled(name: str) -> Callable[[Path], Path]:
    """Return a maker of a real DICOM file that is part of pydicom."""

    def make(_: Path) -> Path:
        import pydicom

        return Path(pydicom.__file__).parent / "data" / "test_files" / name

    return make
