"""Settings of the module that persist between Slicer sessions."""

from __future__ import annotations

from pathlib import Path

import slicer


class Settings:
    """Access to the module's group in Slicer's settings file."""

    def get(self, name: str, default: str) -> str:
        """Return a setting, or `default` if it is not set."""
        value = slicer.app.userSettings().value(f"MedCLIPAD/{name}", default)
        return default if value is None else str(value)

    def put(self, name: str, value: str) -> None:
        """Store a setting."""
        slicer.app.userSettings().setValue(f"MedCLIPAD/{name}", value)

    @property
    def folder(self) -> Path:
        """Folder beside the settings file, where unsent labels and marks are kept."""
        return Path(slicer.app.userSettings().fileName()).parent / "MedCLIPAD"
