"""What a fit takes: the one source of options for Python, the command line, the server, the Slicer form and files.

Add a field to `FitConfig`, or to the `Options` of a method, and it is an argument of `medclipad.fit`, an option of
`medclipad fit`, a property of the schema of `POST /train`, a row of the Slicer form, and an entry of `detector.json`.

"The default" is spelled `None` everywhere: null in JSON, an option that is left out on the command line, an empty row
in a form.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Sequence
from math import inf
from statistics import median
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, model_validator
from pydantic.fields import FieldInfo

from medclipad.encoders import default_encoder, encoder_usage
from medclipad.errors import TrainingError
from medclipad.methods import ADVANCED, CountOrAll, MethodOptions, default_method, get_method, method_names
from medclipad.volume import Volume, parse_preset, require_modality, resolve_preset

MAX_SEED = 2**63 - 1
MAX_SMOOTHING = 100.0  # mm
NEAR_ISOTROPIC = 2.5  # longest over shortest side of a voxel


class FitConfig(BaseModel):
    """Options of a fit.

    Attributes
    ----------
    method, encoder
        Names of the method and of the encoder.
    planes, align, intensity, shots, image_size, smoothing, precision, seed
        See their descriptions, which help texts and forms show.
    options
        The method's own options, complete with its defaults.
    """

    model_config = ConfigDict(extra="forbid")

    method: str = Field(default=default_method(), title="Method", description=f"one of {', '.join(method_names())}")
    encoder: str = Field(
        default=default_encoder(),
        max_length=256,
        title="Encoder",
        description=f"the encoder: {encoder_usage()}",
    )
    shots: CountOrAll | None = Field(
        default=None,
        title="Training slices",
        description="number of normal slices to learn from in each plane, and at most as many abnormal ones; or all; "
        "default: the method's own",
    )
    planes: Literal["auto", "all", "axial", "coronal", "sagittal", "acquisition"] = Field(
        default="auto",
        title="Planes",
        description="plane of the slices; all: axial, coronal and sagittal, whose maps are averaged; auto: all where "
        "the voxels of most volumes are nearly as high as wide, else the plane of acquisition",
    )
    align: Literal["auto", "on", "off"] = Field(
        default="auto",
        title="Align volumes",
        description="whether volumes are brought into one pose first; auto: where all planes are learned from whole "
        "normal volumes",
        json_schema_extra=ADVANCED,
    )
    intensity: str = Field(
        default="auto",
        max_length=64,
        title="Modality",
        description="intensity preset: auto, mr, raw, ct:brain, ct:lung, ct:abdomen, ct:bone or ct:LEVEL,WIDTH",
    )
    image_size: int | None = Field(
        default=None,
        ge=1,
        le=2048,
        title="Image size",
        description="side of the encoder's input in pixels; more pixels give finer maps; default: the method's own",
        json_schema_extra=ADVANCED,
    )
    smoothing: float = Field(
        default=3.0,
        ge=0,
        le=MAX_SMOOTHING,
        title="Smoothing (mm)",
        description="standard deviation in mm of the Gaussian that smooths the maps; 0: none",
        json_schema_extra=ADVANCED,
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        title="Precision",
        description="number format of the frozen encoder; float32: as published; auto: bfloat16 where that is faster",
        json_schema_extra=ADVANCED,
    )
    seed: int = Field(
        default=0,
        ge=0,
        le=MAX_SEED,
        title="Seed",
        description="the same seed gives the same detector",
        json_schema_extra=ADVANCED,
    )
    options: dict[str, Any] = Field(default={}, title="Options of the method", description="the method's own options")

    @model_validator(mode="after")
    def _complete_options(self) -> FitConfig:
        """Check the method's options and fill in its defaults."""
        method = get_method(self.method)
        self.shots = self.shots or method.default_shots
        try:
            self.options = method.Options.model_validate(self.options).model_dump()
        except ValidationError as error:
            raise TrainingError(f"Option {first_fault(error)} (method {self.method}).") from error
        return self

    @property
    def plane(self) -> str:
        """The plane whose slices are scored and marked: the only one, or axial of all; not while it is "auto"."""
        return self.each_plane[0]

    @property
    def each_plane(self) -> tuple[str, ...]:
        """The planes that are learned, each by a model of its own; not while they are "auto"."""
        return ("axial", "coronal", "sagittal") if self.planes == "all" else (self.planes,)

    def for_volumes(self, volumes: Sequence[Volume], whole: bool = True) -> FitConfig:
        """Return the configuration with what "auto" comes to for volumes, in planes and intensity.

        All planes are learned where the voxels of most volumes are at most `NEAR_ISOTROPIC` times as long as wide: in
        thicker slices the other planes show little. The first volume decides on the intensity preset,
        which must suit all.

        Parameters
        ----------
        volumes
            The volumes that are learned from.
        whole
            Whether one of them is known as a whole. Marked slices alone say nothing of other planes: then it is axial.

        Raises
        ------
        VolumeError
            If there is no such intensity preset, or a volume is of another modality.
        """
        preset, planes = parse_preset(self.intensity), self.planes
        if planes == "auto":
            ratios = [max(volume.spacing) / min(volume.spacing) if min(volume.shape) > 1 else inf for volume in volumes]
            near = "all" if whole else "axial"
            planes = near if median(ratios or [inf]) <= NEAR_ISOTROPIC else "acquisition"
        preset = resolve_preset(preset, volumes[0]) if volumes else preset
        for volume in volumes:
            require_modality(preset, volume, "leave it out, or take another preset (intensity, --intensity)")
        return self.model_copy(update={"planes": planes, "intensity": str(preset)})

    @classmethod
    def of(cls, **options: Any) -> FitConfig:
        """Return the configuration for options of the fit and of the method, side by side.

        Raises
        ------
        TrainingError
            If an option is unknown or not possible; the sentence names it.
        DetectorError
            If there is no such method.

        Examples
        --------
        >>> FitConfig.of(method="mediclip", shots=16, epochs=20).options["epochs"]
        20
        """
        options = {name: value for name, value in options.items() if value is not None}
        own = {name: value for name, value in options.items() if name in cls.model_fields}
        method = own.get("method", default_method())
        if unknown := next((name for name in options if name not in ("method", *fit_fields(method))), None):
            raise TrainingError(_unknown_option(unknown, method))
        rest = {name: value for name, value in options.items() if name not in own}
        try:
            return cls(**own, options=rest)
        except ValidationError as error:
            raise TrainingError(f"Option {first_fault(error)}.") from error

    def method_options(self) -> MethodOptions:
        """Return the method's options as its own class."""
        return get_method(self.method).Options.model_validate(self.options)


def fit_fields(method: str) -> dict[str, FieldInfo]:
    """Return all options of a fit with a method, by name: those of `FitConfig`, then the method's own."""
    own = {name: field for name, field in FitConfig.model_fields.items() if name not in ("method", "options")}
    return {**own, **get_method(method).Options.model_fields}


def fit_model(method: str, base: type[BaseModel]) -> type[BaseModel]:
    """Return a pydantic model with all options of a fit with a method, before the fields of `base`."""
    fields: dict[str, Any] = {name: (field.annotation, field) for name, field in fit_fields(method).items()}
    options = create_model(f"{method}_options", **fields)
    return create_model(f"{base.__name__}_{method}", __base__=(base, options))


def fit_signature(before: inspect.Signature) -> inspect.Signature:
    """Return a signature whose `**options` are spelled out as `FitConfig` and all methods have them."""
    names = {parameter.name for parameter in before.parameters.values()}
    fields = {name: field for name, field in FitConfig.model_fields.items() if name != "options"}
    for method in method_names():
        for name, field in get_method(method).Options.model_fields.items():
            fields.setdefault(name, field)
    extra = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.annotation)
        for name, field in fields.items()
        if name not in names
    ]
    kept = [one for one in before.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
    return before.replace(parameters=[*kept, *extra])


def _unknown_option(name: str, method: str) -> str:
    """Return a sentence on an option that a method does not have."""
    others = [other for other in method_names() if name in get_method(other).Options.model_fields]
    if others:
        return f"The option {name} belongs to {' and '.join(others)}, not to {method}."
    close = difflib.get_close_matches(name, ["method", *fit_fields(method)], 1)
    return f"There is no option {name}{f'; perhaps you mean {close[0]}' if close else f' with {method}'}."


def first_fault(error: ValidationError) -> str:
    """Return the first fault that pydantic found, such as "shots: Input should be greater than or equal to 1"."""
    fault = error.errors()[0]
    place = ".".join(str(part) for part in fault["loc"] if not str(part).startswith(("literal[", "constrained-")))
    if fault["type"] == "extra_forbidden":
        return f"{place}: there is no such option"
    return f"{place}: {fault['msg'].removeprefix('Value error, ')}"
