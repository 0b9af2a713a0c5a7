"""Observers of what moves outside of the panel: transforms of volumes, slice views, and clicks into plots."""

from __future__ import annotations

from typing import Any

import slicer
import vtk

from MedCLIPADLib import navigation
from MedCLIPADLib.plotclick import PlotClicks
from MedCLIPADLib.results import Result

_SELECTED = "dataSelected(vtkStringArray*,vtkCollection*)"
_LAYOUT = "layoutChanged(int)"


class Watch:
    """Observers that the panel needs, until `remove`.

    It keeps ids and tags, not nodes: `VTKObservationMixin` keeps each node that it ever observed, and so its voxels,
    also after the scene was closed.

    Parameters
    ----------
    module : MedCLIPADWidget
        The module's widget, with its panels.
    """

    def __init__(self, module: Any) -> None:
        self._module = module
        self._volumes: dict[str, int] = {}  # tags by the id of the volume's node
        self._views: dict[str, int] = {}  # tags by the id of the slice view's node
        self._plots: list[tuple[Any, PlotClicks]] = []
        layout = slicer.app.layoutManager()  # None without a main window, as in Slicer's own tests of modules
        if layout is not None:
            layout.connect(_LAYOUT, self._layout_changed)

    def volumes(self) -> None:
        """Observe the volumes of all maps, which follow their volume's transform."""
        event = slicer.vtkMRMLTransformableNode.TransformModifiedEvent
        for result in Result.all():
            volume = result.volume
            if volume is not None and volume.GetID() not in self._volumes:
                self._volumes[volume.GetID()] = volume.AddObserver(event, self._volume_moved)

    def _volume_moved(self, volume: Any, _event: Any) -> None:
        for result in Result.all(volume):
            result.follow_volume()

    def views(self) -> None:
        """Observe all slice views, so that the panel shows the current slice."""
        for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
            if node.GetID() not in self._views:
                self._views[node.GetID()] = node.AddObserver(vtk.vtkCommand.ModifiedEvent, self._view_moved)

    def _view_moved(self, node: Any, _event: Any) -> None:
        results = self._module.results
        if results.result is not None and node is navigation.view_of(results.result):
            results.show_slice()

    def _layout_changed(self, _layout: int) -> None:
        self.plots()

    def plots(self) -> None:
        """Observe clicks and arrow keys in all plot views."""
        layout = slicer.app.layoutManager()
        if layout is None:
            return
        for number in range(layout.plotViewCount):
            widget = layout.plotWidget(number)
            if not any(widget == known for known, _clicks in self._plots):
                widget.plotView().connect(_SELECTED, self._module.results.points_selected)
                self._plots.append((widget, PlotClicks(widget, self._module.results.plot_clicked)))
                self._module.keys.add_to_plot(widget)

    def forget(self, node: Any) -> None:
        """Stop observing a node that is about to be removed from the scene."""
        for tags in (self._volumes, self._views):
            tag = tags.pop(node.GetID(), None)
            if tag is not None:
                node.RemoveObserver(tag)

    def remove(self) -> None:
        """Stop observing everything."""
        for tags in (self._volumes, self._views):
            for node_id, tag in tags.items():
                node = slicer.mrmlScene.GetNodeByID(node_id)
                if node is not None:
                    node.RemoveObserver(tag)
            tags.clear()
        for widget, clicks in self._plots:
            clicks.remove()
            widget.plotView().disconnect(_SELECTED, self._module.results.points_selected)
        self._plots.clear()
        layout = slicer.app.layoutManager()
        if layout is not None:
            layout.disconnect(_LAYOUT, self._layout_changed)
