"""The harness's views show the scene: slices, legend, 3D, and a plot that can be clicked."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def head(scene):
    """A volume, anisotropic and moved, with a bright corner towards left, anterior, superior."""
    import slicer

    array = np.zeros((12, 16, 20), np.float32)  # k, j, i
    array[6:, 8:, :10] = 100
    node = slicer.util.addVolumeFromArray(array, name="head")
    node.SetIJKToRASDirections(-1, 0, 0, 0, -1, 0, 0, 0, 1)  # as in NIfTI written from LPS: i to the left
    node.SetSpacing(2, 3, 4)
    node.SetOrigin(19, 22, -20)
    slicer.util.setSliceViewerLayers(background=node, fit=True)
    return node


def bright(pixels: np.ndarray) -> tuple[float, float]:
    """Return the centre (row, column) of the bright pixels, as fractions of the image."""
    rows, columns = np.nonzero(pixels[..., 0] > 200)
    return rows.mean() / pixels.shape[0], columns.mean() / pixels.shape[1]


def test_slices_show_anatomy_where_slicer_does(head):
    """Patient's right is on the left of the screen, anterior and superior are up."""
    import slicer

    manager = slicer.app.layoutManager()
    for name, offset in (("Red", 20.0), ("Green", -10.0), ("Yellow", -10.0)):
        manager.sliceWidget(name).sliceLogic().SetSliceOffset(offset)
    red, green, yellow = (manager.sliceWidget(name).sliceView().pixels(200, 200) for name in manager.sliceViewNames())
    assert red.shape == (200, 200, 3)
    # Slicer's sagittal offset is minus R. i = 0..9 is R 19..1; j = 8..15 is A -2..-23; k = 6..11 is S 4..24
    assert bright(red)[1] < 0.5 < bright(red)[0]
    assert bright(green)[1] < 0.5
    assert bright(green)[0] < 0.5
    assert bright(yellow)[0] < 0.5


def test_the_foregrounds_opacity_and_threshold_are_drawn(head):
    import slicer

    overlay = slicer.modules.volumes.logic().CloneVolume(slicer.mrmlScene, head, "overlay")
    display = overlay.GetDisplayNode()
    display.SetAndObserveColorNodeID("vtkMRMLColorTableNodeRed")
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(0, 100)
    display.SetThreshold(50, 100)
    display.ApplyThresholdOn()
    view = slicer.app.layoutManager().sliceWidget("Red").sliceView()
    slicer.app.layoutManager().sliceWidget("Red").sliceLogic().SetSliceOffset(20)
    for opacity in (0.25, 0.5, 1.0):
        slicer.util.setSliceViewerLayers(foreground=overlay, foregroundOpacity=opacity)
        pixels = view.pixels(200, 200).astype(int)
        lesion = pixels[pixels[..., 0] > 200]
        np.testing.assert_allclose(lesion[:, 1].mean(), 255 * (1 - opacity), atol=6)
        dark = pixels[pixels[..., 0] < 100]  # below the threshold nothing is coloured
        assert (dark[:, 0] == dark[:, 1]).all()


def test_the_wheel_scrolls(head):
    import slicer
    from PySide6.QtCore import QPoint, QPointF, Qt
    from PySide6.QtGui import QWheelEvent
    from PySide6.QtWidgets import QApplication

    view = slicer.app.layoutManager().sliceWidget("Red").sliceView()
    slicer.util.mainWindow().show()
    slicer.app.processEvents()
    before = slicer.app.layoutManager().sliceWidget("Red").sliceLogic().GetSliceOffset()
    middle = QPointF(view.width / 2, view.height / 2)
    buttons, keys = Qt.MouseButton.NoButton, Qt.KeyboardModifier.NoModifier
    wheel = QWheelEvent(middle, middle, QPoint(), QPoint(0, 120), buttons, keys, Qt.ScrollPhase.NoScrollPhase, False)
    QApplication.sendEvent(view, wheel)
    assert slicer.app.layoutManager().sliceWidget("Red").sliceLogic().GetSliceOffset() - before == pytest.approx(
        4
    )  # one slice


def test_the_colour_legend_is_drawn(head):
    import slicer

    view = slicer.app.layoutManager().sliceWidget("Red").sliceView()
    before = view.pixels(300, 300)
    legend = slicer.modules.colors.logic().AddDefaultColorLegendDisplayNode(head)
    legend.SetTitleText("anomaly")
    legend.SetVisibility(True)
    after = view.pixels(300, 300)
    assert (before[:, 200:] != after[:, 200:]).any(axis=-1).sum() > 300


def test_a_segmentation_is_drawn_and_read_back(head):
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "lesion")
    node.SetReferenceImageGeometryParameterFromVolumeNode(head)
    node.CreateDefaultDisplayNodes()
    segment = node.GetSegmentation().AddEmptySegment("lesion", "lesion", (0, 1, 0))
    mask = (slicer.util.arrayFromVolume(head) > 50).astype(np.uint8)
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, segment, head)
    np.testing.assert_array_equal(slicer.util.arrayFromSegmentBinaryLabelmap(node, segment, head), mask)
    view = slicer.app.layoutManager().sliceWidget("Red").sliceView()
    slicer.app.layoutManager().sliceWidget("Red").sliceLogic().SetSliceOffset(20)
    pixels = view.pixels(200, 200).astype(int)
    assert (pixels[..., 1] - pixels[..., 0] > 60).sum() > 100


def plot_of(values) -> tuple:
    """Show a line plot of `values` and return (series, view)."""
    import slicer

    table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", "scores")
    slicer.util.updateTableFromArray(
        table, [np.arange(len(values), dtype=float), np.asarray(values)], ["slice", "score"]
    )
    series = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", "score")
    series.SetAndObserveTableNodeID(table.GetID())
    series.SetXColumnName("slice")
    series.SetYColumnName("score")
    series.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
    series.SetLineStyle(slicer.vtkMRMLPlotSeriesNode.LineStyleSolid)
    series.SetMarkerStyle(slicer.vtkMRMLPlotSeriesNode.MarkerStyleCircle)
    series.SetColor(1, 0, 0)
    chart = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotChartNode", "chart")
    chart.AddAndObservePlotSeriesNodeID(series.GetID())
    chart.SetTitle("score of each slice")
    slicer.app.layoutManager().setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpPlotView)
    slicer.modules.plots.logic().ShowChartInLayout(chart)
    widget = slicer.app.layoutManager().plotWidget(0)
    assert widget.mrmlPlotViewNode().GetPlotChartNode() is chart
    return series, widget


def test_a_plot_is_drawn_and_follows_its_table(scene):
    import slicer

    series, widget = plot_of([0.1, 0.9, 0.2])
    view = widget.plotView()
    slicer.util.mainWindow().show()
    slicer.app.processEvents()
    red = lambda: (lambda p: ((p[..., 0] > 180) & (p[..., 1] < 90)).sum())(view.pixels(400, 300).astype(int))  # noqa: E731
    assert red() > 100
    series.SetColor(0, 0, 1)
    assert red() == 0


def test_points_of_the_plot_are_selected_with_a_box(scene):
    """A box around a point selects it and sends a signal; a click only makes the chart send InteractionEvent."""
    import slicer
    from harness import user

    series, widget = plot_of([0.1, 0.5, 0.9, 0.4])
    view, node = widget.plotView(), widget.mrmlPlotViewNode()
    interactor, chart = view.renderWindow().GetInteractor(), node.GetPlotChartNode()
    chart.SetXAxisRangeAuto(False)
    chart.SetXAxisRange(-0.5, 3.5)
    chart.SetYAxisRangeAuto(False)
    chart.SetYAxisRange(0, 1)
    node.SetInteractionMode(slicer.vtkMRMLPlotViewNode.InteractionModeSelectPoints)
    selected, clicked = [], []
    view.connect(
        "dataSelected(vtkStringArray*, vtkCollection*)",
        lambda ids, rows: selected.append((ids.GetValue(0), rows.GetItemAsObject(0).GetValue(0))),
    )
    view.chart().AddObserver("InteractionEvent", lambda *_: clicked.append(interactor.GetEventPosition()))
    for row in (2, 0, 3):
        x, y = view.position_of(series, row)
        user.click(view, (x, y))
        assert clicked.pop() == (x, view.height - 1 - y)
        assert not selected
        user.drag(view, (x - 8, y - 8), (x + 8, y + 8))
        assert selected.pop() == (series.GetID(), row)
        clicked.clear()


def test_layouts_are_those_of_slicer(scene):
    import slicer

    manager, node = slicer.app.layoutManager(), slicer.vtkMRMLLayoutNode
    manager.setLayout(node.SlicerLayoutOneUpRedSliceView)
    slicer.util.mainWindow().show()
    slicer.app.processEvents()
    assert [manager.sliceWidget(name).visible for name in ("Red", "Green", "Yellow")] == [True, False, False]
    manager.setLayout(node.SlicerLayoutFourUpView)
    slicer.app.processEvents()
    assert [manager.sliceWidget(name).visible for name in ("Red", "Green", "Yellow")] == [True, True, True]
    assert manager.threeDViewCount == 1


@pytest.mark.long
def test_model_and_volume_rendering_in_3d(head):
    import slicer

    view = slicer.app.layoutManager().threeDWidget(0).threeDView()
    before = view.pixels(200, 200).astype(int)
    logic = slicer.modules.volumerendering.logic()
    display = logic.CreateDefaultVolumeRenderingNodes(head)
    display.SetVisibility(True)
    view.resetFocalPoint()
    after = view.pixels(200, 200).astype(int)
    assert (abs(before - after).max(axis=-1) > 30).sum() > 500
