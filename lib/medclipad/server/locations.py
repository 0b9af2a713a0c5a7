"""Where the studies and the detectors of a server are."""

from __future__ import annotations

from pathlib import Path

from medclipad.errors import MedCLIPADError


def is_remote(studies: str | Path) -> bool:
    """Return whether the studies are in an archive that is reached by its address."""
    return str(studies).startswith(("http://", "https://"))


def models_folder(studies: str | Path, models: str | Path | None) -> Path:
    """Return the folder of the trained detectors.

    Parameters
    ----------
    studies
        Folder with the volumes, or address of a DICOMweb archive.
    models
        Folder that the user chose; by default `models` in the studies folder.

    Raises
    ------
    MedCLIPADError
        If the studies are in an archive and no folder was chosen.
    """
    if models:
        return Path(models).resolve()
    if is_remote(studies):
        raise MedCLIPADError("Studies in a DICOMweb archive need a folder for the detectors: set one with --models.")
    return Path(studies).resolve() / "models"
