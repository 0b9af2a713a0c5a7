"""The colour legend of a map in the slice views."""

from __future__ import annotations

from typing import Any

import slicer
from slicer.i18n import tr as _

# In the corner at the top right: a head is round and leaves it free, and Slicer writes into the others.
_POSITION, _SIZE = (0.96, 0.92), (0.12, 0.3)  # parts of the view
_TITLE_SIZE, _LABEL_SIZE = 12, 10  # points


def legend_of(node: Any) -> Any:
    """Return the display node of a volume's legend, or None."""
    return slicer.modules.colors.logic().GetColorLegendDisplayNode(node)


def require_legend(node: Any, compared: bool) -> Any:
    """Return the display node of a map's legend; add it, hidden, if there is none.

    Parameters
    ----------
    node : vtkMRMLScalarVolumeNode
        The map.
    compared : bool
        Whether its colours say how rare a value is in normal scans.
    """
    legend = legend_of(node)
    if legend is None:
        legend = slicer.modules.colors.logic().AddDefaultColorLegendDisplayNode(node)
        legend.SetPosition(*_POSITION)
        legend.SetSize(*_SIZE)
        properties = (legend.GetTitleTextProperty(), _TITLE_SIZE), (legend.GetLabelTextProperty(), _LABEL_SIZE)
        for text, size in properties:
            text.SetFontFamilyToArial()
            text.SetFontSize(size)
        legend.SetVisibility(False)  # a legend is only drawn if it is switched on while its map is shown
    legend.SetTitleText(_("In normal scans") if compared else _("Anomaly"))
    legend.SetLabelFormat("%s")
    legend.SetUseColorNamesForLabels(True)
    return legend
