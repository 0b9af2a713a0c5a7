"""Encoder families by name: what can be asked of an encoder without loading it, or torch.

A family is one folder of `medclipad/encoders` or one module of another package. It registers itself when it is
imported:

- The folders of this package are found by themselves.
- Another package names its module in the entry-point group `medclipad.encoders`:

      [project.entry-points."medclipad.encoders"]
      mine = "my_package.my_encoder"

Such a module must not import torch at its top: the command line asks the registry for names and help texts, and must
not wait for torch. Import it in `EncoderFamily.load`.
"""

from __future__ import annotations

import logging
import pkgutil
import threading
from abc import ABC, abstractmethod
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, ClassVar

from medclipad.errors import DetectorError

if TYPE_CHECKING:
    import torch

    from medclipad.encoders.base import ImageEncoder
    from medclipad.volume.progress import Progress

ENTRY_POINTS = "medclipad.encoders"

_log = logging.getLogger(__name__)
_families: dict[str, EncoderFamily] = {}
_search_lock = threading.RLock()  # not for `_families`: a module may register itself in the middle of an import
_searched = False


class EncoderFamily(ABC):
    """Encoders that are loaded in the same way, and what they can do.

    Attributes
    ----------
    name : str
        Name of the family, unique.
    summary : str
        What the encoders are and need, in one line for help texts.
    usage : str
        What to write as the name of an encoder, completing the sentence "Use ...".
    examples : tuple of str
        Names of encoders, the best known first.
    default_encoder : str or None
        Encoder to use where the user names none. One family sets it.
    default_image_size : int or None
        Side of the input in pixels where neither the user nor the method chooses. None where the method's own size is
        better, because the family's encoders are those that the methods were published with.
    volume_image_size : int or None
        The same for slices of volumes, whose frame the body fills. None: as for pictures.
    has_text : bool
        Whether the encoders have a text tower.
    is_convolutional : bool
        Whether the encoders are CNNs, whose stages differ in grid and width. A ViT's do not.
    gains_from_bfloat16 : bool
        Whether `precision="auto"` may choose bfloat16; False for encoders that are not faster in it.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    usage: ClassVar[str]
    examples: ClassVar[tuple[str, ...]]
    default_encoder: ClassVar[str | None] = None
    default_image_size: ClassVar[int | None] = None
    volume_image_size: ClassVar[int | None] = None
    has_text: ClassVar[bool] = False
    is_convolutional: ClassVar[bool] = False
    gains_from_bfloat16: ClassVar[bool] = True

    @abstractmethod
    def accepts(self, name: str) -> bool:
        """Return whether `name` is an encoder of this family; its weights need not be there."""

    @abstractmethod
    def check_image_size(self, name: str, image_size: int) -> None:
        """Raise DetectorError if encoder `name` cannot take square images of `image_size` pixels."""

    @abstractmethod
    def load(
        self,
        name: str,
        image_size: int | None,
        dtype: torch.dtype,
        device: torch.device,
        progress: Progress | None,
    ) -> ImageEncoder:
        """Load an encoder.

        Parameters
        ----------
        name
            Name that `accepts` returned True for.
        image_size
            Side of the square input in pixels; None for the encoder's own.
        dtype
            Type of weights and tokens.
        device
            Where the encoder computes.
        progress
            Called as `progress("download", MiB done, MiB in all, {})`. With None, a bar is drawn on standard error.

        Raises
        ------
        DetectorError
            If the size is not possible, or the weights cannot be found, downloaded or read.
        """


def register_encoder(family: EncoderFamily) -> None:
    """Make the encoders of a family known to `load_encoder`, the command line, the server and the forms.

    Raises
    ------
    ValueError
        If another family of this name is registered. The same class may be registered again, as a notebook does.
    """
    known = _families.get(family.name)
    if known is not None and _identity(known) != _identity(family):
        raise ValueError(f"There are two encoder families named {family.name}: {_identity(known)} is the other.")
    _families[family.name] = family


def unregister_encoder(name: str) -> None:
    """Forget the family of this name, for tests and notebooks."""
    _families.pop(name, None)


def encoder_families() -> tuple[EncoderFamily, ...]:
    """Return all families, those of this package first."""
    global _searched
    with _search_lock:
        if not _searched:
            _searched = True  # set first: a family's module may ask for the others while it is imported
            _import_families()
    return tuple(_families.values())


def encoder_family(name: str) -> EncoderFamily:
    """Return the family of an encoder.

    Parameters
    ----------
    name
        Name of an encoder, as `load_encoder` takes it. If several families accept it, the first registered one counts.

    Raises
    ------
    DetectorError
        If no family knows the encoder. The message says which names there are.

    Examples
    --------
    >>> encoder_family("embedded").default_image_size
    224
    """
    for family in encoder_families():
        if family.accepts(name):
            return family
    ways = ", or ".join(family.usage for family in encoder_families())
    raise DetectorError(f'Encoder "{name.partition("/")[0]}" is not known: use {ways}.')


def default_encoder() -> str:
    """Return the name of the encoder that is used where the user names none."""
    return next(family.default_encoder for family in encoder_families() if family.default_encoder)


def encoder_examples(has_text: bool | None = None) -> tuple[str, ...]:
    """Return names of encoders for help texts and error messages.

    Parameters
    ----------
    has_text
        Only encoders with (True) or without (False) a text tower; None for all.
    """
    return tuple(
        example
        for family in encoder_families()
        if has_text is None or family.has_text == has_text
        for example in family.examples
    )


def encoder_usage() -> str:
    """Return what an encoder's name may be, as a phrase for help texts."""
    return ", or ".join(family.usage for family in encoder_families())


def _identity(family: EncoderFamily) -> str:
    return f"{type(family).__module__}.{type(family).__qualname__}"


def _import_families() -> None:
    """Import the folders of this package and the modules of other packages' entry points."""
    package = import_module("medclipad.encoders")
    for module in pkgutil.iter_modules(package.__path__):
        if module.ispkg:
            import_module(f"{package.__name__}.{module.name}")
    for entry_point in entry_points(group=ENTRY_POINTS):
        try:
            entry_point.load()
        except Exception as error:  # another package's fault must not take away the other encoders
            _log.warning("The encoders of %s cannot be used: %s: %s", entry_point.value, type(error).__name__, error)
