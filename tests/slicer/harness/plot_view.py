"""Plot view: the scene's plot chart as a VTK chart that can be drawn and clicked, as in Slicer."""

from __future__ import annotations

from typing import Any, ClassVar

import slicer
import vtk
from PySide6.QtCore import Signal
from PySide6.QtWidgets import QWidget

from .qmrml import WithScene
from .views import VtkWidget

_SERIES = slicer.vtkMRMLPlotSeriesNode
_LINES = {
    _SERIES.LineStyleNone: vtk.vtkPen.NO_PEN,
    _SERIES.LineStyleSolid: vtk.vtkPen.SOLID_LINE,
    _SERIES.LineStyleDash: vtk.vtkPen.DASH_LINE,
    _SERIES.LineStyleDot: vtk.vtkPen.DOT_LINE,
    _SERIES.LineStyleDashDot: vtk.vtkPen.DASH_DOT_LINE,
    _SERIES.LineStyleDashDotDot: vtk.vtkPen.DASH_DOT_DOT_LINE,
}
_MARKERS = {
    _SERIES.MarkerStyleNone: vtk.VTK_MARKER_NONE,
    _SERIES.MarkerStyleCross: vtk.VTK_MARKER_CROSS,
    _SERIES.MarkerStylePlus: vtk.VTK_MARKER_PLUS,
    _SERIES.MarkerStyleSquare: vtk.VTK_MARKER_SQUARE,
    _SERIES.MarkerStyleCircle: vtk.VTK_MARKER_CIRCLE,
    _SERIES.MarkerStyleDiamond: vtk.VTK_MARKER_DIAMOND,
}


class qMRMLPlotView(VtkWidget):
    """A plot view. `dataSelected(vtkStringArray*, vtkCollection*)` sends ids of series and their selected rows.

    As in Slicer it comes when a box is drawn around points in the view node's "select points" mode; a mere click on a
    point only makes the chart send its InteractionEvent.
    """

    for_tests = ("position_of",)
    dataSelected = Signal(object, object)
    cpp_signals: ClassVar[dict[str, str]] = WithScene.cpp_signals | {
        "dataSelected(vtkStringArray*,vtkCollection*)": "dataSelected"
    }

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._node: Any = None
        self._observed: list[tuple[Any, int]] = []
        self._plots: dict[str, Any] = {}
        self._chart = vtk.vtkChartXY()
        self._chart.AddObserver(vtk.vtkCommand.SelectionChangedEvent, self._selected)

    def setMRMLPlotViewNode(self, node: Any) -> None:
        self._node = node
        self._observe()

    def chart(self) -> Any:
        return self._chart

    def scene(self) -> Any:
        self.renderWindow()
        return self._view.GetScene()

    def fitToContent(self) -> None:
        self._chart.RecalculateBounds()
        self.update()

    def _build(self, window: Any, interactor: Any) -> None:
        self._view = vtk.vtkContextView()
        self._view.SetRenderWindow(window)
        self._view.SetInteractor(interactor)
        self._view.GetScene().AddItem(self._chart)
        self._view.GetRenderer().SetBackground(1, 0.99, 0.96)
        self._read()

    def _chart_node(self) -> Any:
        return self._node.GetPlotChartNode() if self._node is not None else None

    def _observe(self) -> None:
        for node, tag in self._observed:
            node.RemoveObserver(tag)
        chart = self._chart_node()
        nodes = [node for node in (self._node, chart) if node is not None]
        self._observed = [(node, node.AddObserver(vtk.vtkCommand.ModifiedEvent, self._changed)) for node in nodes]
        self.update()

    def _changed(self, *_: Any) -> None:
        chart = self._chart_node()
        if chart is not None and not any(node is chart for node, _ in self._observed):
            self._observe()
        self.update()

    def _resized(self, width: int, height: int) -> None:
        self._read()

    def _read(self) -> None:
        """Update the VTK chart from the MRML chart."""
        chart = self._chart_node()
        wanted = {} if chart is None else {s.GetID(): s for s in _series(chart)}
        for series_id in list(self._plots):
            if series_id not in wanted:
                self._chart.RemovePlotInstance(self._plots.pop(series_id))
        for series_id, series in wanted.items():
            if _plottable(series):
                self._plots[series_id] = self._drawn(series, self._plots.get(series_id))
        if chart is not None:
            self._read_axes(chart)
        mode = self._node.GetInteractionMode() if self._node is not None else None
        select = mode == slicer.vtkMRMLPlotViewNode.InteractionModeSelectPoints
        left = vtk.vtkContextMouseEvent.LEFT_BUTTON
        self._chart.SetActionToButton(vtk.vtkChart.SELECT if select else vtk.vtkChart.PAN, left)

    def _read_axes(self, chart: Any) -> None:
        self._chart.SetTitle(chart.GetTitle() if chart.GetTitleVisibility() and chart.GetTitle() else "")
        self._chart.GetTitleProperties().SetFontSize(chart.GetTitleFontSize())
        self._chart.SetShowLegend(chart.GetLegendVisibility())
        for side, letter in ((vtk.vtkAxis.BOTTOM, "X"), (vtk.vtkAxis.LEFT, "Y")):
            axis = self._chart.GetAxis(side)
            title = getattr(chart, f"Get{letter}AxisTitle")() or ""
            axis.SetTitle(title if getattr(chart, f"Get{letter}AxisTitleVisibility")() else "")
            axis.GetTitleProperties().SetFontSize(chart.GetAxisTitleFontSize())
            axis.GetLabelProperties().SetFontSize(chart.GetAxisLabelFontSize())
            axis.SetGridVisible(chart.GetGridVisibility())
            if getattr(chart, f"Get{letter}AxisRangeAuto")():
                axis.SetBehavior(vtk.vtkAxis.AUTO)
            else:
                axis.SetBehavior(vtk.vtkAxis.FIXED)
                axis.SetUnscaledRange(getattr(chart, f"Get{letter}AxisRange")())

    def _drawn(self, series: Any, plot: Any) -> Any:
        bars = series.GetPlotType() in (_SERIES.PlotTypeBar, _SERIES.PlotTypeScatterBar)
        if plot is not None and plot.IsA("vtkPlotBar") != bars:
            self._chart.RemovePlotInstance(plot)
            plot = None
        if plot is None:
            plot = vtk.vtkPlotBar() if bars else vtk.vtkPlotLine()
            self._chart.AddPlot(plot)
        plot.SetWidth(series.GetLineWidth())
        plot.SetColorF(*series.GetColor())
        plot.GetPen().SetLineType(vtk.vtkPen.SOLID_LINE if bars else _LINES[series.GetLineStyle()])
        if not bars:
            plot.SetMarkerSize(series.GetMarkerSize())
            plot.SetMarkerStyle(_MARKERS[series.GetMarkerStyle()])
        table, x, y = series.GetTableNode().GetTable(), series.GetXColumnName(), series.GetYColumnName()
        plot.SetUseIndexForXSeries(not series.IsXColumnRequired())
        plot.SetInputData(table, x if series.IsXColumnRequired() else y, y)
        plot.SetLabel(series.GetName() or y)
        return plot

    def _selected(self, *_: Any) -> None:
        series_ids, rows = vtk.vtkStringArray(), vtk.vtkCollection()
        for series_id, plot in self._plots.items():
            selection = plot.GetSelection()
            if selection is not None and selection.GetNumberOfValues():
                series_ids.InsertNextValue(series_id)
                rows.AddItem(selection)
        self.dataSelected.emit(series_ids, rows)

    # Qt's mouse, handed on to VTK's chart
    def _tell(self, event: Any, name: str) -> None:
        self.renderWindow()
        interactor = self._interactor
        interactor.SetEventInformation(round(event.position().x()), round(self.height - 1 - event.position().y()))
        interactor.InvokeEvent(name)
        self.update()

    def mousePressEvent(self, event: Any) -> None:
        self._tell(event, "MouseMoveEvent")
        self._tell(event, f"{event.button().name}PressEvent")  # LeftButtonPressEvent

    def mouseReleaseEvent(self, event: Any) -> None:
        self._tell(event, f"{event.button().name}ReleaseEvent")

    def mouseMoveEvent(self, event: Any) -> None:
        self._tell(event, "MouseMoveEvent")

    def position_of(self, series: Any, row: int) -> tuple[int, int]:
        """Return the widget coordinates (x, y) of a row's point, for a test's mouse."""
        self.window().show()
        slicer.app.processEvents()
        self.pixels()
        table = series.GetTableNode().GetTable()
        values = [
            table.GetColumnByName(name).GetTuple1(row) for name in (series.GetXColumnName(), series.GetYColumnName())
        ]
        bottom, left = self._chart.GetAxis(vtk.vtkAxis.BOTTOM), self._chart.GetAxis(vtk.vtkAxis.LEFT)
        fractions = [
            (value - axis.GetUnscaledMinimum()) / (axis.GetUnscaledMaximum() - axis.GetUnscaledMinimum())
            for value, axis in zip(values, (bottom, left), strict=True)
        ]
        first, last = self._chart.GetPoint1(), self._chart.GetPoint2()
        x, y = (low + part * (high - low) for low, part, high in zip(first, fractions, last, strict=True))
        return round(x), round(self.height - 1 - y)


def _series(chart: Any) -> list[Any]:
    return [chart.GetNthPlotSeriesNode(index) for index in range(chart.GetNumberOfPlotSeriesNodes())]


def _plottable(series: Any) -> bool:
    """Return whether Slicer's view draws a series: it ignores one without table or columns, or with text in them."""
    if series is None or series.GetTableNode() is None:
        return False
    table = series.GetTableNode().GetTable()
    names = [series.GetYColumnName()] + [series.GetXColumnName()] * bool(series.IsXColumnRequired())
    columns = [table.GetColumnByName(name) if name else None for name in names]
    return all(column is not None and column.GetDataType() not in (vtk.VTK_STRING, vtk.VTK_BIT) for column in columns)
