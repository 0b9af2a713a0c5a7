"""Parameters of inference and training requests: one model each, which checks them and which GET /info/ publishes.

MONAI Label's clients show `config` as a form of scalars and lists of strings, and send the whole form with every
request: hence "" stands for the default, and keys that these clients add are ignored.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, field_validator

from medclipad.detection.calibration import REGION_RATES
from medclipad.detection.cases import Reading
from medclipad.detection.config import FitConfig, fit_model
from medclipad.methods import ADVANCED
from medclipad.volume.slicing import PLANES

# Sent by MONAI Label's clients or server with every request; they mean nothing here.
_FOREIGN = frozenset({"client_id", "device", "gpus", "multi_gpu", "local_rank", "model", "logging"})


class ReadParams(BaseModel):
    """How images are read where they leave a choice, in requests of inference and training."""

    component: str = Field(
        default="",
        max_length=200,
        title="Volume of several",
        description="time point, echo or channel of an image that has several: its number from 0, or what tells it "
        "apart, such as b=1000",
        json_schema_extra=ADVANCED,
    )
    series: str = Field(
        default="",
        max_length=64,
        title="Series of several",
        description="DICOM series of an image that has several: its number from 1, or its UID",
        json_schema_extra=ADVANCED,
    )
    untilt: bool = Field(
        default=False,
        title="Undo gantry tilt",
        description="resample a DICOM series with gantry tilt to upright slices",
        json_schema_extra=ADVANCED,
    )

    @field_validator("component", mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        """Take a number for its digits."""
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    def reading(self) -> Reading:
        """Return how to read an image."""
        return Reading(self.component or None, self.series or None, "resample" if self.untilt else "refuse")


class InferParams(ReadParams):
    """The `params` part of POST /infer/{model}."""

    model_config = ConfigDict(extra="ignore")

    result: Literal["labelmap", "map"] = Field(
        default="labelmap", description="uint8 segmentation, or float32 anomaly map"
    )
    detector: str = Field(default="current", description="name of the version to use; GET /info/ lists them")
    plane: Literal["default", "axial", "coronal", "sagittal", "acquisition"] = Field(
        default="default", description="slices to look at; default is the plane that the detector was trained on"
    )
    false_regions_per_scan: float | None = Field(
        default=None,
        gt=0,
        le=100,
        description="regions that a normal scan may have above the limit, on average; default: 1, or what the "
        "detector's normal scans support",
    )
    result_extension: Literal[".nii.gz", ".nii", ".nrrd", ".mha"] = Field(
        default=".nii.gz", description="format of the labelmap; a map is always .nii.gz"
    )
    result_dtype: Literal["uint8", "uint16"] = Field(
        default="uint8", description="type of the labelmap's voxels; OHIF asks for uint16"
    )
    result_compress: bool = Field(
        default=True,
        description="whether the voxels of a .nrrd or .mha labelmap are compressed; OHIF cannot unpack them",
    )
    force_modality: bool = Field(
        default=False,
        description="analyse a volume of another modality than the detector's, such as a CT with one for MR",
    )
    store: bool = Field(
        default=False, description="with output=dicom_...: store the object in the archive of the studies too"
    )

    @field_validator("false_regions_per_scan", mode="before")
    @classmethod
    def _default_rate(cls, value: Any) -> Any:
        """Take the empty text of a form for the default."""
        return None if value == "" else value

    request_id: str = Field(
        default="", pattern=r"^[A-Za-z0-9_-]{0,64}$", description="name for GET and DELETE /progress/{id}"
    )


class TrainParams(ReadParams):
    """Parameters of a training request besides the options of the fit: the version, the comparison, the images."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(
        default="", max_length=64, title="Name", description="name of the new version; default: the method and the time"
    )
    select: Literal["better", "always", "never"] = Field(
        default="better",
        title="Use the new detector",
        description="better: if it is measured to be no worse than the one in use; always; never",
    )
    held_out: float = Field(
        default=0.25,
        ge=0,
        le=0.5,
        title="Test share",
        description="share of what is labelled that is kept out of the training, to compare both versions on; "
        "raised up to one half if that makes enough patients; 0: no comparison",
        json_schema_extra=ADVANCED,
    )
    normal: list[str] = Field(
        default=[],
        title="Normal images",
        description="ids of images without any lesion; default: all that are marked so",
    )
    abnormal: list[str] = Field(
        default=[], title="Abnormal images", description="ids of images with a final label; default: all that have one"
    )

    @field_validator("normal", "abnormal", mode="before")
    @classmethod
    def _ids(cls, value: Any) -> Any:
        """Split a list that a form sends as text."""
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


@dataclass(frozen=True)
class TrainRequest:
    """A valid training request.

    Attributes
    ----------
    params
        The version, the comparison, the images.
    config
        The options of the fit.
    """

    params: TrainParams
    config: FitConfig


@cache
def train_model(method: str) -> type[BaseModel]:
    """Return the model of the body of POST /train/{method}: the options of the fit, then `TrainParams`."""
    return fit_model(method, TrainParams)


def parse_train_request(method: str, request: dict[str, Any]) -> TrainRequest:
    """Check a training request, without the keys that MONAI Label's clients add.

    An empty text stands for the default of an option whose default is None: forms send it.

    Parameters
    ----------
    method
        Name of the method.
    request
        Body of the request.

    Raises
    ------
    pydantic.ValidationError, TrainingError
        If a field is unknown or its value is not valid.
    """
    model = train_model(method)
    given = {
        key: value for key, value in request.items() if key not in _FOREIGN and not _is_left_out(model, key, value)
    }
    checked = model.model_validate(given).model_dump(exclude_unset=True)
    params = {key: checked.pop(key) for key in list(checked) if key in TrainParams.model_fields}
    return TrainRequest(TrainParams(**params), FitConfig.of(method=method, **checked))


def _is_left_out(model: type[BaseModel], key: str, value: Any) -> bool:
    field = model.model_fields.get(key)
    return value == "" and field is not None and field.default is None


def train_config(method: str) -> dict[str, Any]:
    """Return the training parameters as a MONAI Label form: scalars and lists of strings, the default first."""
    form: dict[str, Any] = {}
    for name, field in train_model(method).model_fields.items():
        choices = [choice for choice in _choices(field.annotation) if isinstance(choice, str)]
        if choices and isinstance(field.default, str):
            form[name] = [field.default, *(choice for choice in choices if choice != field.default)]
        else:
            form[name] = "" if field.default is None or isinstance(field.default, list) else field.default
    return form


def _choices(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def infer_config(detectors: list[str]) -> dict[str, Any]:
    """Return the inference parameters as a MONAI Label form."""
    rates = ["", *(f"{rate:g}" for rate in REGION_RATES)]
    return {"detector": ["current", *detectors], "plane": ["default", *PLANES], "false_regions_per_scan": rates}


def to_json(value: Any) -> Any:
    """Return a value that JSON can hold: NaN and infinities become None, numpy scalars numbers, arrays lists."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
