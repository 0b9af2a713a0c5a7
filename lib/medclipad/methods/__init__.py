"""The anomaly-detection methods, by name."""

from __future__ import annotations

from medclipad.errors import DetectorError
from medclipad.methods.base import AnomalyMethod

METHODS = ("mediclip", "mvfa")


def method_class(name: str) -> type[AnomalyMethod]:
    """The class of a method; raises DetectorError if there is none of that name."""
    if name == "mediclip":
        from medclipad.methods.mediclip import MediCLIP

        return MediCLIP
    if name == "mvfa":
        from medclipad.methods.mvfa import MVFA

        return MVFA
    raise DetectorError(f'There is no method "{name}": choose one of {", ".join(METHODS)}.')
