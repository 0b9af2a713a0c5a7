"""A saved detector: a folder with detector.json and weights.safetensors, written atomically, read without pickle."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError

from medclipad.detection.calibration import Calibration
from medclipad.errors import DetectorError
from medclipad.files import atomic_folder, sha256_of_file

if TYPE_CHECKING:
    from torch import Tensor

INFO, WEIGHTS = "detector.json", "weights.safetensors"


class DetectorInfo(BaseModel):
    """All that is known of a detector: the contents of detector.json."""

    model_config = ConfigDict(extra="forbid")

    format: int = Field(1, ge=1, le=1, description="version of this format")
    name: str
    description: str = ""
    method: str
    options: dict
    encoder: str
    encoder_sha256: str
    image_size: int = Field(ge=1, description="side of the encoder's square input, pixels")
    plane: str
    intensity: str
    smoothing: float = Field(ge=0, description="standard deviation, mm, of the Gaussian that smooths the maps; 0: none")
    shots: int = Field(ge=0, description="normal slices that it learned from")
    abnormal_shots: int = Field(ge=0, description="abnormal slices that it learned from")
    seed: int
    training_slices: list[dict]
    calibration: Calibration
    metrics: dict
    versions: dict[str, str]
    weights_sha256: str = Field("", description="of weights.safetensors; empty in detectors of version 0.1")
    created: datetime = Field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))


def save_folder(path: str | os.PathLike, info: DetectorInfo, weights: dict[str, Tensor]) -> DetectorInfo:
    """Write a detector folder that is either complete or not there at all.

    Returns the information as it was written, with the SHA-256 of the weights. Raises DetectorError if `path` exists
    already or cannot be written.
    """
    from safetensors.torch import save_file  # torch takes seconds, and most readers want detector.json alone

    path = Path(path)
    if path.exists():
        raise DetectorError(f"{path} exists already: choose another folder, or remove it first.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_folder(path) as folder:
            save_file({key: value.detach().cpu().contiguous() for key, value in weights.items()}, folder / WEIGHTS)
            info = info.model_copy(update={"weights_sha256": sha256_of_file(folder / WEIGHTS)})
            (folder / INFO).write_text(info.model_dump_json(indent=1) + "\n", encoding="utf-8")
        return info
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DetectorError(
            f"The detector could not be saved to {path} ({reason}): free space, or choose another folder."
        ) from error


def read_info(path: str | os.PathLike) -> DetectorInfo:
    """The detector.json of a folder; raises DetectorError if it is missing or damaged."""
    file = Path(path) / INFO
    try:
        return DetectorInfo.model_validate_json(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DetectorError(f"{path} is not a detector folder: it has no readable {INFO}.") from error
    except (ValidationError, UnicodeDecodeError) as error:
        fault = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": "not UTF-8 text"}
        where = ".".join(map(str, fault["loc"])) or "the file"
        raise DetectorError(
            f"{file} is damaged ({where}: {fault['msg']}): save the detector again, or restore a copy."
        ) from error


def read_weights(path: str | os.PathLike, sha256: str = "") -> dict[str, Tensor]:
    """The weights of a detector folder, of which detector.json says the SHA-256.

    Raises DetectorError if they are missing, damaged or those of another detector.
    """
    from safetensors.torch import load_file

    file = Path(path) / WEIGHTS
    try:
        weights = load_file(file)
        if sha256 and sha256_of_file(file) != sha256:
            raise DetectorError(
                f"{file} is damaged, or belongs to another detector (its SHA-256 is not the one in {INFO}): save the "
                "detector again, or restore a copy."
            )
        return weights
    except (OSError, SafetensorError) as error:
        raise DetectorError(
            f"{file} is missing or damaged ({error}): save the detector again, or restore a copy."
        ) from error
