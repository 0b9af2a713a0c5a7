"""What the module remembers between two runs of Slicer, in Slicer's own settings file."""

from __future__ import annotations

from pathlib import Path

import slicer


class Settings:
    def get(self, name: str, default: str) -> str:
        value = slicer.app.userSettings().value(f"MedCLIPAD/{name}", default)
        return default if value is None else str(value)

    def put(self, name: str, value: str) -> None:
        slicer.app.userSettings().setValue(f"MedCLIPAD/{name}", value)

    @property
    def folder(self) -> Path:
        """Folder beside the settings file, for labels that were not sent yet."""
        return Path(slicer.app.userSettings().fileName()).parent / "MedCLIPAD"
