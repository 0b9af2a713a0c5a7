"""Clicks in a plot view.

Slicer's own signal, dataSelected, is only sent for points selected with a box.
"""

from __future__ import annotations

from typing import Any, Callable

import vtk

_MAX_DRIFT = 3  # pixels that the mouse may move between press and release of a click


class PlotClicks:
    """Report clicks anywhere in a plot view.

    Parameters
    ----------
    widget : qMRMLPlotWidget
        The widget whose view is observed. The view's own node cannot be had from it in Python, only from the widget.
    clicked : callable
        Called with the vtkMRMLPlotChartNode and the position of the click in units of the horizontal axis.
    """

    def __init__(self, widget: Any, clicked: Callable[[Any, float], None]) -> None:
        self._widget, self._clicked = widget, clicked
        self._pressed: tuple[int, int] | None = None
        self._interactor = widget.plotView().scene().GetRenderer().GetRenderWindow().GetInteractor()
        self._tags = [
            self._interactor.AddObserver(vtk.vtkCommand.LeftButtonPressEvent, self._press),
            self._interactor.AddObserver(vtk.vtkCommand.LeftButtonReleaseEvent, self._release),
        ]

    def remove(self) -> None:
        """Stop observing the view."""
        for tag in self._tags:
            self._interactor.RemoveObserver(tag)

    def _press(self, interactor: Any, _event: str) -> None:
        self._pressed = interactor.GetEventPosition()

    def _release(self, interactor: Any, _event: str) -> None:
        before, self._pressed = self._pressed, None
        x, y = interactor.GetEventPosition()
        if before is None or abs(x - before[0]) > _MAX_DRIFT or abs(y - before[1]) > _MAX_DRIFT:
            return  # the plot was dragged
        chart, node = self._widget.plotView().chart(), self._widget.mrmlPlotViewNode().GetPlotChartNode()
        (left, low), (right, high) = chart.GetPoint1(), chart.GetPoint2()
        if node is not None and left <= x <= right and low <= y <= high and right > left:
            axis = chart.GetAxis(vtk.vtkAxis.BOTTOM)
            first, last = axis.GetUnscaledMinimum(), axis.GetUnscaledMaximum()
            self._clicked(node, first + (last - first) * (x - left) / (right - left))
