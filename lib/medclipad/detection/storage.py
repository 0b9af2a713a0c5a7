"""A saved detector: a folder with detector.json and weights.safetensors, written atomically, read without pickle."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from medclipad.detection.calibration import Calibration
from medclipad.errors import DetectorError

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
    path = Path(path)
    if path.exists():
        raise DetectorError(f"{path} exists already: choose another folder, or remove it first.")
    aside = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
        aside.chmod(0o755)
        save_file({key: value.detach().cpu().contiguous() for key, value in weights.items()}, aside / WEIGHTS)
        (aside / WEIGHTS).chmod(0o644)
        info = info.model_copy(update={"weights_sha256": _sha256(aside / WEIGHTS)})
        (aside / INFO).write_text(info.model_dump_json(indent=1) + "\n", encoding="utf-8")
        for file in (aside / WEIGHTS, aside / INFO, aside):
            _fsync(file)
        aside.rename(path)
        _fsync(path.parent)
        return info
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DetectorError(
            f"The detector could not be saved to {path} ({reason}): free space, or choose another folder."
        ) from error
    finally:
        if aside is not None and aside.exists():
            shutil.rmtree(aside, ignore_errors=True)


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
    file = Path(path) / WEIGHTS
    try:
        weights = load_file(file)
        if sha256 and _sha256(file) != sha256:
            raise DetectorError(
                f"{file} is damaged, or belongs to another detector (its SHA-256 is not the one in {INFO}): save the "
                "detector again, or restore a copy."
            )
        return weights
    except (OSError, SafetensorError) as error:
        raise DetectorError(
            f"{file} is missing or damaged ({error}): save the detector again, or restore a copy."
        ) from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # Windows cannot open folders; its renames are journalled
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
