"""A saved detector: a folder with detector.json, weights.safetensors and a model card, written whole or not at all."""

from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError

from medclipad.detection.acquisition import Acquisition
from medclipad.detection.calibration import Calibration
from medclipad.detection.config import FitConfig, first_fault
from medclipad.detection.model_card import CARD, model_card
from medclipad.errors import DetectorError, TrainingError
from medclipad.files import atomic_folder, sha256_of_file

if TYPE_CHECKING:
    from torch import Tensor

INFO, WEIGHTS = "detector.json", "weights.safetensors"


class DetectorInfo(BaseModel):
    """All that is known of a detector: the contents of detector.json.

    Attributes
    ----------
    config
        The options of the fit, with what "default" and "auto" came to: image size and intensity preset.
    normal_slices, abnormal_slices
        How many slices it learned from, in the plane whose slices are scored; `training_slices` says which, by volume.
    spare_slices
        How many normal slices of these volumes it did not learn from.
    """

    model_config = ConfigDict(extra="forbid")

    format: int = Field(default=3, ge=3, le=3, description="version of this format")
    name: str
    description: str = ""
    config: FitConfig
    encoder_sha256: str
    normal_slices: int = Field(ge=0)
    abnormal_slices: int = Field(ge=0)
    spare_slices: int = Field(ge=0)
    training_slices: list[dict[str, Any]]
    calibration: Calibration
    acquisition: Acquisition = Field(default_factory=Acquisition, description="how the learned volumes were acquired")
    metrics: dict[str, Any]
    versions: dict[str, str]
    weights_sha256: str = Field(default="", description="of weights.safetensors; empty until it is saved")
    created: datetime = Field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))

    @property
    def method(self) -> str:
        """Name of the method."""
        return self.config.method

    @property
    def encoder(self) -> str:
        """Name of the encoder."""
        return self.config.encoder

    @property
    def plane(self) -> str:
        """Plane whose slices are scored."""
        return self.config.plane

    @property
    def intensity(self) -> str:
        """Intensity preset."""
        return self.config.intensity

    @property
    def smoothing(self) -> float:
        """Standard deviation in mm of the Gaussian that smooths the maps."""
        return self.config.smoothing

    @property
    def image_size(self) -> int:
        """Side of the encoder's square input in pixels."""
        return self.config.image_size or 0

    @model_validator(mode="after")
    def _require_image_size(self) -> DetectorInfo:
        if not self.config.image_size:
            raise ValueError("config.image_size: a detector has one")
        return self


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
            (folder / CARD).write_text(model_card(info), encoding="utf-8")
        return info
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DetectorError(
            f"The detector could not be saved to {path} ({reason}): free space, or choose another folder."
        ) from error


def read_info(path: str | os.PathLike) -> DetectorInfo:
    """Return the detector.json of a folder; raise DetectorError if it is missing or damaged."""
    file = Path(path) / INFO
    try:
        return DetectorInfo.model_validate_json(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DetectorError(f"{path} is not a detector folder: it has no readable {INFO}.") from error
    except (ValidationError, UnicodeDecodeError, TrainingError) as error:
        fault = "it is not UTF-8 text"
        if isinstance(error, ValidationError):
            fault = first_fault(error)
        elif isinstance(error, TrainingError):
            fault = str(error).rstrip(".")
        raise DetectorError(f"{file} is damaged ({fault}): save the detector again, or restore a copy.") from error


def read_weights(path: str | os.PathLike, sha256: str) -> dict[str, Tensor]:
    """Return the weights of a detector folder.

    Raises DetectorError if they are missing, damaged, or have another SHA-256 than detector.json says.
    """
    from safetensors.torch import load

    file = Path(path) / WEIGHTS
    try:
        content = file.read_bytes()  # not mapped: a file that is cut while it is in use would end the process
        weights = load(content)
        if hashlib.sha256(content).hexdigest() != sha256:
            raise DetectorError(
                f"{file} is damaged, or belongs to another detector (its SHA-256 is not the one in {INFO}): save the "
                "detector again, or restore a copy."
            )
        return weights
    except (OSError, SafetensorError) as error:
        raise DetectorError(
            f"{file} is missing or damaged ({error}): save the detector again, or restore a copy."
        ) from error
