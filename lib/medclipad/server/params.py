"""What a request may ask for: one schema each for inference and training, checked here and published by GET /info/.

MONAI Label's clients show `config` as a form and can only handle scalars and lists of strings, and they send the whole
form back with every request: hence 0 and "" for "not given", and keys of theirs that are let through.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

PLANES = ("axial", "coronal", "sagittal", "acquisition")

# Sent by MONAI Label's clients or server with every request; they mean nothing here.
_FOREIGN = frozenset({"client_id", "device", "gpus", "multi_gpu", "local_rank", "model", "logging"})


class InferParams(BaseModel):
    """The `params` part of POST /infer/{model}."""

    model_config = ConfigDict(extra="ignore")

    result: Literal["labelmap", "map"] = Field("labelmap", description="uint8 segmentation, or float32 anomaly map")
    detector: str = Field("current", description="name of the version to use; GET /info/ lists them")
    plane: Literal["default", "axial", "coronal", "sagittal", "acquisition"] = Field(
        "default", description="slices to look at; default is the plane that the detector was trained on"
    )
    result_extension: Literal[".nii.gz", ".nii", ".nrrd", ".mha"] = Field(
        ".nii.gz", description="format of the labelmap; a map is always .nii.gz"
    )
    store: bool = Field(False, description="with output=dicom_...: store the object in the archive of the studies too")
    request_id: str = Field("", pattern=r"^[A-Za-z0-9_-]{0,64}$", description="name for GET and DELETE /progress/{id}")


class TrainParams(BaseModel):
    """The body of POST /train/{model}."""

    model_config = ConfigDict(extra="forbid")

    encoder: str = Field("embedded", max_length=256, description='"embedded", or an open_clip "name/tag"')
    image_size: int = Field(
        0, ge=0, le=1024, description="side of the encoder's input in pixels: more for finer maps; 0: the method's own"
    )
    shots: int = Field(32, ge=0, le=10_000, description="slices of each kind to learn from; 0 takes all")
    epochs: int = Field(0, ge=0, le=10_000, description="0 takes the method's own number")
    seed: int = Field(0, ge=0, le=2**31 - 1)
    plane: Literal["axial", "coronal", "sagittal", "acquisition"] = "axial"
    intensity: str = Field("auto", max_length=64, description="auto, mr, raw, ct:brain (lung, ...) or ct:LEVEL,WIDTH")
    name: str = Field("", max_length=64, description="name of the new version; by default the method and the time")
    select: Literal["better", "always", "never"] = Field(
        "better", description="whether the new version is to serve: unless it is measurably worse, in any case, or not"
    )
    held_out: float = Field(
        0.25, ge=0, le=0.5, description="share of what is labelled that is kept out, to measure old and new version on"
    )
    options: dict[str, Any] = Field({}, description="further options of the method")
    normal: list[str] = Field([], description="ids of images without any lesion; empty takes all that are marked so")
    abnormal: list[str] = Field([], description="ids of images with a final label; empty takes all that have one")

    @field_validator("normal", "abnormal", mode="before")
    @classmethod
    def _ids(cls, value: Any) -> Any:
        """A form sends lists as text."""
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    def method_options(self) -> dict[str, Any]:
        """Options for the method, `epochs` among them; that they are valid is the method's to say."""
        return {**self.options, "epochs": self.epochs} if self.epochs else self.options

    @classmethod
    def of(cls, request: dict[str, Any]) -> TrainParams:
        """From a request of MONAI Label, less the keys that it adds itself; pydantic.ValidationError if it is wrong."""
        return cls.model_validate({key: value for key, value in request.items() if key not in _FOREIGN})


def train_config() -> dict[str, Any]:
    """Training parameters as a MONAI Label form: scalars and lists of strings, the default first."""
    defaults = TrainParams().model_dump(exclude={"options"})
    lists = {"plane": list(PLANES), "select": ["better", "always", "never"], "normal": "", "abnormal": ""}
    return {**defaults, **lists}


def infer_config(detectors: list[str]) -> dict[str, Any]:
    """Inference parameters as a MONAI Label form."""
    return {"detector": ["current", *detectors], "plane": ["default", *PLANES]}


def to_json(value: Any) -> Any:
    """`value` for JSON: NaN and infinities become null, numpy scalars Python numbers, arrays lists."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
