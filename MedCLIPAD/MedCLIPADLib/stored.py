"""Parameters in a scene that this version of the module cannot read.

Slicer's parameter nodes raise when they meet one: a plane that another version knows, or a damaged number.
"""

from __future__ import annotations

import math
from typing import Any, Callable

from MedCLIPADLib.grid import PLANES

DEFAULT_PLANE = "default"


def _is_count(text: str) -> bool:
    return text.isdigit() and int(text) < 2**31


def _is_fraction(text: str) -> bool:
    try:
        return math.isfinite(float(text)) and 0 <= float(text) <= 1
    except ValueError:
        return False


_VALID: dict[str, Callable[[str], bool]] = {
    "component": _is_count,
    "timePoint": _is_count,
    "rangeStart": _is_count,
    "opacity": _is_fraction,
    "threshold": _is_fraction,
    "plane": lambda text: text in (DEFAULT_PLANE, *PLANES),
}


def forget_unknown(node: Any, _event: Any = None) -> None:
    """Remove the parameters of a node that cannot be read, so that they have their defaults.

    Parameters
    ----------
    node : vtkMRMLScriptedModuleNode
        The node of the parameters.
    """
    for name, valid in _VALID.items():
        text = node.GetParameter(name)
        if text and not valid(text):
            node.UnsetParameter(name)
