"""Plots of the scene: score against slice, and the loss of a training."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

from MedCLIPADLib.results import CHART, SERIES, TABLE, Result

_LOSS = "MedCLIPADLoss"  # singleton tags of the nodes of the loss curve
_COLOUR = (0.85, 0.25, 0.2)


def store_scores(result: Result) -> Any:
    """Table, series and chart of a result's slice scores, in its folder; returns the chart's node."""
    scores = result.slice_scores
    seen = np.flatnonzero(np.isfinite(scores))  # skipped slices have no score to draw
    table = result.need(TABLE, "vtkMRMLTableNode", "slice scores")
    number, score = _("Slice"), _("Score")
    _fill(table, {number: seen, score: scores[seen]})
    series = result.need(SERIES, "vtkMRMLPlotSeriesNode", "slice scores series")
    _line(series, table, number, score, result.title)
    chart = result.need(CHART, "vtkMRMLPlotChartNode", "slice scores plot")
    across = _("Slice ({plane})").format(plane=result.about["plane"])
    _chart(chart, series, _("Anomaly score of each slice"), across, score)
    chart.SetXAxisRangeAuto(False)  # so that no point lies on the border, where it can hardly be seen or clicked
    chart.SetXAxisRange(-0.5, max(0.5, len(scores) - 0.5))
    if len(seen):
        chart.SetYAxisRangeAuto(False)
        chart.SetYAxisRange(0.0, 1.05 * float(scores[seen].max()) or 1.0)
    return chart


def slice_of_point(result: Result, point: int) -> int | None:
    """Number of the slice that a point of the plot stands for."""
    table = result.reference(TABLE)
    if table is None or not 0 <= point < table.GetNumberOfRows():
        return None
    return int(float(table.GetCellText(point, 0)))


def loss_chart(history: list) -> Any:
    """Chart of a training's loss: history is [[step, loss], ...]; there is one in a scene."""
    points = np.array([pair for pair in history if None not in pair], dtype=float).reshape(-1, 2)
    table = _single("vtkMRMLTableNode", "MedCLIPAD training loss")
    series = _single("vtkMRMLPlotSeriesNode", "MedCLIPAD training loss series")
    chart = _single("vtkMRMLPlotChartNode", "MedCLIPAD training loss plot")
    step, loss = _("Step"), _("Loss")
    _fill(table, {step: points[:, 0], loss: points[:, 1]})
    _line(series, table, step, loss, loss)
    _chart(chart, series, _("Training"), step, loss)
    return chart


def shown_loss() -> Any:
    """The chart that `loss_chart` made, or None."""
    return slicer.mrmlScene.GetSingletonNode(_LOSS, "vtkMRMLPlotChartNode")


def show_chart(chart: Any) -> None:
    """Show a chart in the plot view; the layout gets one if it has none."""
    slicer.modules.plots.logic().ShowChartInLayout(chart)


def _fill(node: Any, columns: dict) -> None:
    was = node.StartModify()
    node.RemoveAllColumns()
    for name, values in columns.items():
        whole = np.issubdtype(np.asarray(values).dtype, np.integer)
        array = vtk.vtkIntArray() if whole else vtk.vtkDoubleArray()
        array.SetName(name)
        for value in values:
            array.InsertNextValue(value.item())
        node.AddColumn(array)
    node.EndModify(was)


def _line(series: Any, table: Any, x: str, y: str, name: str) -> None:
    was = series.StartModify()
    series.SetAndObserveTableNodeID(table.GetID())
    series.SetXColumnName(x)
    series.SetYColumnName(y)
    series.SetName(name)  # the plot's legend shows it
    series.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
    series.SetLineStyle(slicer.vtkMRMLPlotSeriesNode.LineStyleSolid)
    series.SetMarkerStyle(slicer.vtkMRMLPlotSeriesNode.MarkerStyleCircle)
    series.SetMarkerSize(7)
    series.SetColor(*_COLOUR)
    series.EndModify(was)


def _chart(chart: Any, series: Any, title: str, x: str, y: str) -> None:
    was = chart.StartModify()
    if not chart.HasPlotSeriesNodeID(series.GetID()):
        chart.AddAndObservePlotSeriesNodeID(series.GetID())
    chart.SetTitle(title)
    chart.SetXAxisTitle(x)
    chart.SetYAxisTitle(y)
    chart.SetLegendVisibility(False)
    chart.EndModify(was)


def _single(kind: str, name: str) -> Any:
    scene = slicer.mrmlScene
    node = scene.GetSingletonNode(_LOSS, kind)
    if node is None:
        node = scene.CreateNodeByClass(kind)
        node.UnRegister(None)
        node.SetSingletonTag(_LOSS)
        node.SetName(name)
        node = scene.AddNode(node)
    return node
