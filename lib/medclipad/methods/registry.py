"""What a method declares, and the registry of methods. Nothing here imports torch, so that `--help` is quick.

A method is known once its declaration is registered: those of this package are the folders beside this file that have a
`method.py`; other packages name a module, or the declaration itself, in the entry-point group `medclipad.methods`.
"""

from __future__ import annotations

import pkgutil
from abc import ABC, abstractmethod
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

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


ADVANCED: dict[str, Any] = {"advanced": True}
"""`json_schema_extra` of an option that a form may hide until it is asked for."""


CountOrAll = Annotated[int, Field(ge=1)] | Literal["all"]
"""A number from 1 on, or "all"."""


class MethodOptions(BaseModel):
    """Base of a method's own options: validated, stored in detector.json, shown by every face.

    Each field needs a default, a title and a description. `None` as a default means that the method chooses, for
    example by what the encoder can do.
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
        What it can learn from.
    needs
        What it cannot do without; a subset of `learns_from`.
    default_image_size
        Side of the encoder's input in pixels where the encoder does not prescribe one.
    Options
        The method's own options.
    is_default
        Whether it is taken where none is named.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    learns_from: ClassVar[frozenset[Shown]]
    needs: ClassVar[frozenset[Shown]]
    default_image_size: ClassVar[int]
    Options: ClassVar[type[MethodOptions]]
    is_default: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def build(cls, encoder: ImageEncoder, options: MethodOptions) -> AnomalyModel:
        """Return an untrained model on a frozen encoder."""

    @classmethod
    @abstractmethod
    def fit(cls, model: AnomalyModel, shots: Shots, seed: int, progress: Progress = no_progress) -> dict[str, float]:
        """Train a model in place; return figures worth keeping, such as the last losses.

        Reproducible for a seed on a machine. Raises TrainingError if the shots do not suffice.
        """

    @classmethod
    def reference(cls) -> ReferenceFormat | None:
        """Return how to read and write checkpoints of the reference code; None if the method brings nothing."""
        return None

    @classmethod
    def benchmark(cls) -> BenchmarkSuite | None:
        """Return the benchmark of the method's paper; None if the method brings none."""
        return None


_methods: dict[str, type[Method]] = {}
_DeclaredMethod = TypeVar("_DeclaredMethod", bound=type[Method])


def register_method(method: _DeclaredMethod) -> _DeclaredMethod:
    """Make a method known by its name; usable as a decorator. A later one of the same name replaces it."""
    _methods[method.name] = method
    return method


def method_names() -> tuple[str, ...]:
    """Return the names of all methods, in alphabetical order."""
    _discover()
    return tuple(sorted(_methods))


def get_method(name: str) -> type[Method]:
    """Return a method by its name; raise DetectorError, which lists the methods, if there is none."""
    _discover()
    if name not in _methods:
        raise DetectorError(f'There is no method "{name}": choose one of {", ".join(sorted(_methods))}.')
    return _methods[name]


def default_method() -> str:
    """Return the name of the method that is taken where none is named."""
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
