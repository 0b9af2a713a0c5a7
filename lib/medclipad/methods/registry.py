"""What a method declares, and the registry of methods. Nothing here imports torch, so that `--help` is quick.

A method is known once its declaration is registered:

- The folders of this package that have a `method.py` are found by themselves.
- Another package names its declaration, or the module that registers it, in the entry-point group
  `medclipad.methods`:

      [project.entry-points."medclipad.methods"]
      mine = "my_package.my_method"
"""

from __future__ import annotations

import pkgutil
from abc import ABC, abstractmethod
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from medclipad.errors import DetectorError
from medclipad.volume.progress import Progress, no_progress

if TYPE_CHECKING:
    from medclipad.encoders import ImageEncoder
    from medclipad.methods.base import AnomalyModel, Shots
    from medclipad.methods.common.benchmark import BenchmarkSuite
    from medclipad.methods.common.reference import ReferenceFormat

ENTRY_POINTS = "medclipad.methods"

Shown = Literal["normal", "abnormal", "masks"]
"""What a training slice can show: normal tissue, an anomaly, or an anomaly and where it is."""

Variant = Literal["reference", "paper"]
"""What a method computes where its paper and its reference code differ."""

ADVANCED: dict[str, Any] = {"advanced": True}
"""`json_schema_extra` of an option that a form may hide until it is asked for."""

SCORE_SHARE = (
    "a slice's score is the mean of the highest values of its map, this share of the pixels of the largest "
    "slice of the body; 0: the published score; default: 0, or 0.02 on an encoder without a text tower"
)
"""Description of the option `score_share`, in the same words for each method."""


def _number_or_all(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """Say in one sentence what is possible: a union's own errors are one for each of its members."""
    try:
        return validate(value)
    except ValidationError:
        raise ValueError('give a whole number from 1 on, or "all"') from None


CountOrAll = Annotated[Annotated[int, Field(ge=1)] | Literal["all"], WrapValidator(_number_or_all)]
"""A number from 1 on, or "all"."""


class MethodOptions(BaseModel):
    """Base of a method's own options.

    They are validated, stored in `detector.json`, and offered by Python's `fit`, the command line, the server and the
    Slicer form.

    Each field needs a default, a title and a description. A default of None means that the method chooses, for example
    by what the encoder can do.
    """

    model_config = ConfigDict(extra="forbid")


class Method(ABC):
    """Declaration of an anomaly-detection method.

    Subclass it, set the class attributes, and decorate it with `register_method`.

    Attributes
    ----------
    name
        Name by which users choose the method; lower case, no spaces.
    summary
        One line for lists and help texts.
    learns_from
        What the method can learn from.
    needs
        What the method cannot train without; a subset of `learns_from`.
    default_image_size
        Side of the encoder's input in pixels where neither the user nor the encoder prescribes one.
    default_shots
        Slices of each kind to learn from in each plane where the user names no number.
    Options
        Class of the method's own options.
    is_default
        Whether this method is used where the user names none. Exactly one method sets it.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    learns_from: ClassVar[frozenset[Shown]]
    needs: ClassVar[frozenset[Shown]]
    default_image_size: ClassVar[int]
    default_shots: ClassVar[int] = 32
    Options: ClassVar[type[MethodOptions]]
    is_default: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def build(cls, encoder: ImageEncoder, options: MethodOptions) -> AnomalyModel:
        """Return an untrained model.

        Parameters
        ----------
        encoder
            Frozen encoder, already on its device.
        options
            Instance of `Options`.
        """

    @classmethod
    @abstractmethod
    def fit(cls, model: AnomalyModel, shots: Shots, seed: int, progress: Progress = no_progress) -> dict[str, float]:
        """Train a model in place.

        Parameters
        ----------
        model
            What `build` returned.
        shots
            Slices to learn from. They are not changed.
        seed
            Seed of everything that is drawn: training is reproducible on a machine.
        progress
            Called after each step; an exception raised in it stops the training.

        Returns
        -------
        dict of str to float
            Figures to keep with the detector, such as the last losses.

        Raises
        ------
        TrainingError
            If the shots do not suffice.
        """

    @classmethod
    def reference(cls) -> ReferenceFormat | None:
        """Return the format of the reference code's checkpoints; None if the method supports none."""
        return None

    @classmethod
    def benchmark(cls) -> BenchmarkSuite | None:
        """Return the benchmark of the method's paper; None if the method has none."""
        return None


_methods: dict[str, type[Method]] = {}
_MethodClass = TypeVar("_MethodClass", bound=type[Method])


def register_method(method_cls: _MethodClass) -> _MethodClass:
    """Register a method under its name.

    Parameters
    ----------
    method_cls
        Declaration of the method. It replaces an earlier one of the same name.

    Returns
    -------
    type of Method
        The same class, so that the function can be used as a decorator.
    """
    _methods[method_cls.name] = method_cls
    return method_cls


def method_names() -> tuple[str, ...]:
    """Return the names of all methods, in alphabetical order.

    Examples
    --------
    >>> "mvfa" in method_names()
    True
    """
    _discover()
    return tuple(sorted(_methods))


def get_method(name: str) -> type[Method]:
    """Return the declaration of a method.

    Raises
    ------
    DetectorError
        If there is no method of that name; the message lists the methods.

    Examples
    --------
    >>> sorted(get_method("mvfa").needs)
    ['abnormal', 'normal']
    """
    _discover()
    if name not in _methods:
        raise DetectorError(f'There is no method "{name}": choose one of {", ".join(sorted(_methods))}.')
    return _methods[name]


def default_method() -> str:
    """Return the name of the method that is used where the user names none."""
    return next(name for name in method_names() if _methods[name].is_default)


_discovered = False


def _discover() -> None:
    """Import the declarations of this package's methods and those that other packages name, once."""
    global _discovered
    if _discovered:
        return
    _discovered = True
    package = __package__ or "medclipad.methods"
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if module.ispkg and (Path(__file__).parent / module.name / "method.py").is_file():
            import_module(f"{package}.{module.name}.method")
    for entry in entry_points(group=ENTRY_POINTS):
        declared = entry.load()
        if isinstance(declared, type) and issubclass(declared, Method):
            register_method(declared)
