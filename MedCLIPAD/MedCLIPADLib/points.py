"""Points at the peaks of the regions, as markups that Slicer's other modules and its exports know."""

from __future__ import annotations

from typing import Any

import slicer
import vtk
from slicer.i18n import tr as _

from MedCLIPADLib.errors import ModuleError
from MedCLIPADLib.navigation import to_world
from MedCLIPADLib.regions import Region
from MedCLIPADLib.results import POINTS, Result


def place_points(result: Result, regions: list[Region]) -> Any:
    """Put a point at the peak of each region and return the node; it replaces the points of before.

    Raises ModuleError if there is no region.
    """
    if not regions:
        raise ModuleError(_("There is no region: lower the threshold, or allow more false regions per scan."))
    node = result.require_reference(POINTS, "vtkMRMLMarkupsFiducialNode", "peaks")
    node.CreateDefaultDisplayNodes()
    was = node.StartModify()
    node.RemoveAllControlPoints()
    if node.GetTransformNodeID() != result.node.GetTransformNodeID():
        node.SetAndObserveTransformNodeID(result.node.GetTransformNodeID())
    for number, region in enumerate(regions, 1):
        index = node.AddControlPointWorld(vtk.vtkVector3d(*to_world(result, region.ijk)), str(number))
        node.SetNthControlPointDescription(index, result.in_words(region.peak))
    node.SetLocked(True)
    node.EndModify(was)
    slicer.modules.markups.logic().SetActiveListID(node)
    return node
