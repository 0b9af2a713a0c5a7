"""Plots in the scene: score against slice, and the loss of a training."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

from MedCLIPADLib.nodes import singleton
from MedCLIPADLib.results import CHART, CURRENT, LIMIT, LINES, SERIES, TABLE, Result

_LOSS = "MedCLIPADLoss"  # singleton tag of the nodes of the loss curve
_COLOUR = (0.85, 0.25, 0.2)
_LIMIT_COLOUR = (0.35, 0.35, 0.35)
_CURRENT_COLOUR = (0.15, 0.4, 0.75)


def store_scores(result: Result) -> Any:
    """Create or update the plot of a result's slice scores; return its chart node."""
    scores = result.slice_scores
    scored = np.flatnonzero(np.isfinite(scores))  # skipped slices have no score to plot
    table = result.require_reference(TABLE, "vtkMRMLTableNode", "slice scores")
    number, score = _("Slice"), _("Score")
    _fill_table(table, {number: scored, score: scores[scored]})
    series = result.require_reference(SERIES, "vtkMRMLPlotSeriesNode", "slice scores series")
    _set_series(series, table, number, score, result.title)
    chart = result.require_reference(CHART, "vtkMRMLPlotChartNode", "slice scores plot")
    axis_title = _("Slice ({plane})").format(plane=result.about["plane"])
    title = _("Anomaly score of each slice")
    if result.slice_limit is not None:
        title = _("Score of each slice; dashed: limit")
    _set_chart(chart, series, title, axis_title, score)
    end = max(0.5, len(scores) - 0.5)
    chart.SetXAxisRangeAuto(False)  # a point on the border could hardly be seen or clicked
    chart.SetXAxisRange(-0.5, end)
    highest = max([*scores[scored], result.slice_limit or 0.0])
    top = 1.05 * float(highest) or 1.0
    chart.SetYAxisRangeAuto(False)
    chart.SetYAxisRange(0.0, top)
    _add_lines(result, chart, end, top)
    return chart


def _add_lines(result: Result, chart: Any, end: float, top: float) -> None:
    """Add the limit of the slices as a horizontal line, and the current slice as a vertical one, to a plot."""
    limit = result.slice_limit
    columns = {"Current X": np.full(2, -1.0), "Current Y": np.array([0.0, top])}
    style = slicer.vtkMRMLPlotSeriesNode
    lines = [(CURRENT, "Current", _("Current slice"), _CURRENT_COLOUR, style.LineStyleSolid)]
    if limit is not None:
        columns.update({"Limit X": np.array([-0.5, end]), "Limit Y": np.full(2, float(limit))})
        lines.append((LIMIT, "Limit", _("Limit of normal scans"), _LIMIT_COLOUR, style.LineStyleDash))
    table = result.require_reference(LINES, "vtkMRMLTableNode", "slice scores lines")
    _fill_table(table, columns)
    for role, column, name, colour, line in lines:
        series = result.require_reference(role, "vtkMRMLPlotSeriesNode", f"slice scores {column.lower()}")
        _set_series(series, table, f"{column} X", f"{column} Y", name)
        series.SetMarkerStyle(style.MarkerStyleNone)
        series.SetLineStyle(line)
        series.SetLineWidth(2)
        series.SetColor(*colour)
        if not chart.HasPlotSeriesNodeID(series.GetID()):
            chart.AddAndObservePlotSeriesNodeID(series.GetID())


def mark_current(result: Result, number: int | None) -> None:
    """Move the line of the current slice in a result's plot; None hides it."""
    node = result.reference(LINES)
    if node is None:
        return
    column = node.GetTable().GetColumnByName("Current X")
    position = -1.0 if number is None else float(number)  # -1 is left of the plot
    if column is None or column.GetNumberOfTuples() != 2 or column.GetVariantValue(0).ToDouble() == position:
        return
    for row in range(2):
        column.SetVariantValue(row, position)
    node.GetTable().Modified()
    node.Modified()


def slice_of_point(result: Result, point: int) -> int | None:
    """Return the slice of a point in the plot, or None if there is no such point."""
    table = result.reference(TABLE)
    if table is None or not 0 <= point < table.GetNumberOfRows():
        return None
    return int(float(table.GetCellText(point, 0)))


def loss_chart(history: list) -> Any:
    """Create or update the plot of a training's loss; return its chart node.

    Parameters
    ----------
    history : list
        Pairs of step and loss.
    """
    points = np.array([pair for pair in history if None not in pair], dtype=float).reshape(-1, 2)
    table = singleton("vtkMRMLTableNode", _LOSS, "MedCLIPAD training loss")
    series = singleton("vtkMRMLPlotSeriesNode", _LOSS, "MedCLIPAD training loss series")
    chart = singleton("vtkMRMLPlotChartNode", _LOSS, "MedCLIPAD training loss plot")
    step, loss = _("Step"), _("Loss")
    _fill_table(table, {step: points[:, 0], loss: points[:, 1]})
    _set_series(series, table, step, loss, loss)
    _set_chart(chart, series, _("Training"), step, loss)
    return chart


def existing_loss_chart() -> Any:
    """Return the chart that `loss_chart` created, or None."""
    return slicer.mrmlScene.GetSingletonNode(_LOSS, "vtkMRMLPlotChartNode")


def show_chart(chart: Any) -> None:
    """Show a chart in the plot view; the layout is switched to one with a plot view if it has none."""
    slicer.modules.plots.logic().ShowChartInLayout(chart)


def offer_chart(chart: Any) -> None:
    """Show a chart in the plot views of the layout; the layout stays as it is."""
    logic = slicer.app.applicationLogic()
    logic.GetSelectionNode().SetActivePlotChartID(chart.GetID())
    logic.PropagatePlotChartSelection()


def _fill_table(node: Any, columns: dict) -> None:
    """Replace the columns of a table node."""
    was = node.StartModify()
    node.RemoveAllColumns()
    for name, values in columns.items():
        integer = np.issubdtype(np.asarray(values).dtype, np.integer)
        array: Any = vtk.vtkIntArray() if integer else vtk.vtkDoubleArray()
        array.SetName(name)
        for value in np.repeat(values, 2) if len(values) == 1 else values:  # VTK draws no line through one point
            array.InsertNextValue(value.item())
        node.AddColumn(array)
    node.EndModify(was)


def _set_series(series: Any, table: Any, x: str, y: str, name: str) -> None:
    """Set a series to two columns of a table."""
    was = series.StartModify()
    series.SetAndObserveTableNodeID(table.GetID())
    series.SetXColumnName(x)
    series.SetYColumnName(y)
    series.SetName(name)  # the plot's legend shows it
    style = slicer.vtkMRMLPlotSeriesNode
    series.SetPlotType(style.PlotTypeScatter)
    series.SetLineStyle(style.LineStyleSolid)
    series.SetMarkerStyle(style.MarkerStyleCircle)
    series.SetMarkerSize(7)
    series.SetColor(*_COLOUR)
    series.EndModify(was)


def _set_chart(chart: Any, series: Any, title: str, x: str, y: str) -> None:
    """Set the series and the titles of a chart."""
    was = chart.StartModify()
    known = chart.HasPlotSeriesNodeID(series.GetID())
    drawable = series.GetTableNode().GetNumberOfRows() > 0  # VTK reports an error for a line without points
    if drawable and not known:
        chart.AddAndObservePlotSeriesNodeID(series.GetID())
    elif known and not drawable:
        chart.RemovePlotSeriesNodeID(series.GetID())
    chart.SetTitle(title)
    chart.SetXAxisTitle(x)
    chart.SetYAxisTitle(y)
    chart.SetLegendVisibility(False)
    chart.EndModify(was)
