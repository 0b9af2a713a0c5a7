"""The panel from Connect to the map, driven by clicks: real widgets, HTTP, MRML and rendered pixels."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hands import AFFINE, coloured, detect, results, view
from served import add_volume, grid, head

ATTEMPTS = 4  # to find the processor free


def test_detect_lays_the_map_over_the_volume_in_all_views(detected: Any) -> None:
    import slicer

    ui, result = detected.ui, detected.results.result
    volume = slicer.util.getNode("Patient")
    for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        assert composite.GetForegroundVolumeID() == result.node.GetID()
        assert composite.GetBackgroundVolumeID() == volume.GetID()
        assert composite.GetForegroundOpacity() == pytest.approx(0.6)
    for name in ("Red", "Green", "Yellow"):
        assert coloured(name).sum() > 50, f"{name} shows the hot spot, where the views jumped to"
    assert ui.detectLabel.text.startswith("Done in") and ui.detectButton.enabled and not ui.cancelButton.enabled
    assert "Volume score" in ui.resultLabel.text
    assert ui.verdictTextLabel.text == result.about["verdict"] and not ui.warningsLabel.visible
    assert ui.verdictTextLabel.text.endswith("not for diagnosis.")
    k, j, i = np.unravel_index(int(result.array.argmax()), result.array.shape)
    assert detected.mask[k, j, i]


def tick(box: Any) -> None:
    """Click a check box on its mark."""
    from harness import user

    user.click(box, (8, box.height // 2))


@pytest.mark.parametrize("name", ["Red", "Green", "Yellow"])
def test_each_coloured_pixel_is_a_voxel_above_the_threshold(detected: Any, name: str) -> None:
    """Linearly interpolated. The view's own matrices say where each pixel is in the patient: RAS, not LPS."""
    import slicer
    from scipy import ndimage

    result = detected.results.result
    detected.ui.thresholdSlider.value = 0.8 * result.about["highest"]
    seen = coloured(name)
    to_ras = slicer.util.arrayFromVTKMatrix(view(name).mrmlSliceNode().GetXYToRAS())
    rows, columns = np.nonzero(np.ones_like(seen))
    xy = np.stack([columns + 20, 299 - (rows + 20), 0 * rows, 0 * rows + 1])  # XY counts from the bottom
    exact = (np.linalg.inv(AFFINE) @ to_ras @ xy)[:3]
    inside = ((exact >= 0) & (exact <= np.reshape(result.array.shape[::-1], (3, 1)) - 1)).all(axis=0)
    values = ndimage.map_coordinates(result.array.astype(float), exact[::-1], order=1)  # edges are smooth
    expected = inside & (values >= result.threshold)
    clear = np.abs(values - result.threshold) > 0.02  # not on the edge
    assert expected.sum() > 30
    assert (seen.ravel() == expected)[clear].mean() > 0.999


def test_opacity_and_threshold_act_at_once(detected: Any) -> None:
    import slicer

    ui = detected.ui
    before = coloured().sum()
    ui.opacitySlider.value = 0.0
    assert coloured().sum() == 0
    composites = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    assert all(composite.GetForegroundOpacity() == 0 for composite in composites)
    ui.opacitySlider.value = 0.9
    ui.thresholdSlider.value = detected.results.result.about["highest"] * 0.95
    few = coloured().sum()
    assert 0 < few < before
    display = detected.results.result.node.GetScalarVolumeDisplayNode()
    assert display.GetLowerThreshold() == pytest.approx(ui.thresholdSlider.value)
    assert (display.GetWindowLevelMin(), display.GetWindowLevelMax()) == pytest.approx((0.3875, 1.0125)), "fixed"
    from harness import user

    user.click(ui.resetThresholdButton)
    assert ui.thresholdSlider.value == pytest.approx(detected.results.result.outline(), abs=1e-3)


def legend_pixels() -> int:
    """Return the number of coloured pixels at the right border, where the legend is."""
    pixels = view().sliceView().pixels(300, 300).astype(int)
    return int((np.ptp(pixels, axis=-1) > 40)[:, 250:].sum())


def test_map_legend_and_3d_can_be_switched(detected: Any) -> None:
    ui, result = detected.ui, detected.results.result
    tick(ui.showMapCheckBox)
    assert coloured().sum() == 0
    tick(ui.showMapCheckBox)
    assert coloured().sum() > 50
    assert result.legend.GetVisibility() and legend_pixels() > 300
    tick(ui.showLegendCheckBox)
    assert not result.legend.GetVisibility() and legend_pixels() == 0
    tick(ui.show3DCheckBox)
    assert result.rendering.GetVisibility()
    tick(ui.show3DCheckBox)
    assert not result.rendering.GetVisibility()


def test_plot_table_and_keys_move_the_views(detected: Any) -> None:
    import slicer
    from harness import user
    from MedCLIPADLib import navigation
    from MedCLIPADLib.results import SERIES
    from PySide6.QtCore import Qt

    ui, result = detected.ui, detected.results.result
    here = lambda: navigation.current_slice(result)  # noqa: E731
    user.click(ui.showPlotButton)
    plot = slicer.app.layoutManager().plotWidget(0).plotView()
    rows = [number for number, score in enumerate(result.slice_scores) if np.isfinite(score)]
    for row in (3, len(rows) - 2):
        user.click(plot, plot.position_of(result.reference(SERIES), row))
        assert here() == rows[row]
    user.press(plot, Qt.Key.Key_Left)
    assert here() == rows[-2] - 1
    user.press(plot, Qt.Key.Key_Right)
    assert here() == rows[-2]

    peaks = navigation.peaks(result.slice_scores)
    assert peaks
    navigation.jump_to_slice(result, rows[0])
    seen = []
    for _ in peaks:
        user.click(ui.nextPeakButton)
        seen.append(here())
    assert seen == [p for p in peaks if p > rows[0]] + [p for p in peaks if p <= rows[0]]
    user.press(slicer.util.mainWindow(), "Comma")
    assert here() == navigation.next_peak(result.slice_scores, seen[-1], -1)

    user.wait_until(lambda: ui.regionsTable.rowCount > 0, 20, "regions")
    region = detected.results.regions[0]
    navigation.jump_to_slice(result, rows[0])
    user.click_cell(ui.regionsTable, 0)
    assert here() == region.slice
    assert ui.sliceLabel.text.startswith(f"{region.slice}: ") and ui.sliceSlider.value == region.slice
    ui.sliceSlider.value = region.first
    assert here() == region.first


def test_regions_follow_the_threshold(detected: Any) -> None:
    from harness import user

    ui = detected.ui
    user.wait_until(lambda: ui.regionsTable.rowCount > 0, 20)
    ui.thresholdSlider.value = 1.0
    user.wait_until(lambda: ui.regionsTable.rowCount == 0 and ui.regionsLabel.text == "No regions.", 20)


def test_cancel_gives_the_panel_back(panel: Any) -> None:
    from harness import user

    shape = (96, 96, 120)
    affine = grid(spacing=(1, 1, 1))
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2) + [4.0, -7.0, 11.0]
    add_volume("Long", head(affine, shape=shape, seed=int(time.time()))[0], affine)
    user.choose(panel.ui.inputSelector, "Long")
    user.click(panel.ui.detectButton)
    user.wait_until(lambda: "Analysing slices" in panel.ui.detectLabel.text, 90, panel.ui.detectLabel.text)
    assert not panel.ui.detectButton.enabled
    assert panel.ui.detectLabel.text.endswith(" s"), "elapsed time"
    user.wait_until(lambda: 0 < panel.ui.detectProgressBar.value < 100, 60, "progress of the slices")
    user.click(panel.ui.cancelButton)
    user.wait_until(lambda: panel.ui.detectLabel.text == "Cancelled.", 20)
    assert panel.ui.detectButton.enabled and not results()


def test_a_transform_given_later_moves_the_map(detected: Any, scene: Any) -> None:
    import slicer

    volume = slicer.util.getNode("Patient")
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    volume.SetAndObserveTransformNodeID(transform.GetID())
    assert detected.results.result.node.GetTransformNodeID() == transform.GetID()


def test_compare_flickers_and_shows_side_by_side(detected: Any) -> None:
    import slicer
    from harness import user

    ui, first = detected.ui, detected.results.result
    user.choose(ui.planeComboBox, "coronal")
    second = detect(detected, slicer.util.getNode("Patient"))
    assert second.about["plane"] == "coronal" and second.node is not first.node
    composites = {node.GetLayoutName(): node for node in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")}
    ui.compareGroupBox.collapsed = False
    user.click(ui.flickerButton)
    assert "Choose another map" in ui.messageLabel.text and not ui.flickerButton.checked
    user.choose(ui.compareSelector, first.node.GetName())
    user.click(ui.flickerButton)
    seen = set()
    for _ in range(2):
        before = composites["Red"].GetForegroundVolumeID()
        user.wait_until(lambda before=before: composites["Red"].GetForegroundVolumeID() != before, 5)
        seen.add(composites["Red"].GetForegroundVolumeID())
    assert seen == {first.node.GetID(), second.node.GetID()}
    user.click(ui.flickerButton)
    assert composites["Red"].GetForegroundVolumeID() == second.node.GetID()

    user.click(ui.linkButton)
    layout = slicer.app.layoutManager()
    assert layout.layout == slicer.vtkMRMLLayoutNode.SlicerLayoutSideBySideView
    assert composites["Red"].GetForegroundVolumeID() == second.node.GetID()
    assert composites["Yellow"].GetForegroundVolumeID() == first.node.GetID()
    assert composites["Red"].GetLinkedControl() and composites["Yellow"].GetLinkedControl()
    ranges = [
        (d.GetWindowLevelMin(), d.GetWindowLevelMax())
        for d in (first.node.GetDisplayNode(), second.node.GetDisplayNode())
    ]
    assert ranges[0] == ranges[1] == pytest.approx((0.3875, 1.0125)), "a colour means the same in both"
    ui.thresholdSlider.value = 0.77
    assert first.threshold == second.threshold == pytest.approx(0.77)
    ui.opacitySlider.value = 0.4
    assert composites["Yellow"].GetForegroundOpacity() == pytest.approx(0.4)
    user.click(ui.linkButton)
    assert layout.layout != slicer.vtkMRMLLayoutNode.SlicerLayoutSideBySideView
    assert composites["Yellow"].GetForegroundVolumeID() == second.node.GetID()


def test_save_close_and_reload_keeps_the_panel_working(detected: Any, tmp_path: Path, problems: Any) -> None:
    problems.expect("orientation preset name: Reformat")  # MRML's own reader says so of turned views
    import slicer
    from harness import user
    from MedCLIPADLib import navigation

    ui = detected.ui
    user.wait_until(lambda: ui.regionsTable.rowCount > 0, 20)
    ui.thresholdSlider.value = 0.9 * detected.results.result.about["highest"]
    user.wait_until(lambda: not detected.logic.session.jobs.active("Regions") and detected.results.settled, 20)
    rows, threshold = ui.regionsTable.rowCount, ui.thresholdSlider.value
    slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear(0)
    assert ui.resultSelector.currentNode() is None and ui.resultLabel.text == "" and not ui.nextPeakButton.enabled
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    user.wait_until(lambda: ui.resultSelector.currentNode() is not None, 5)
    result = detected.results.result
    assert result is not None and ui.resultSelector.currentNode() is result.node
    assert ui.thresholdSlider.value == pytest.approx(threshold) and result.threshold == pytest.approx(threshold)
    assert ui.regionsTable.rowCount == rows
    assert coloured().sum() > 0
    ui.opacitySlider.value = 0.0
    assert coloured().sum() == 0
    user.click(ui.nextPeakButton)
    assert navigation.current_slice(result) in navigation.peaks(result.slice_scores)
    user.click(ui.showPlotButton)


@pytest.mark.long
def test_the_interface_is_never_blocked_for_100_ms(detected: Any, record_property: Any) -> None:
    """Time by the clock between two turns of the event loop, from Detect to the shown map and its regions, of 8 million
    voxels; the best of a few attempts, for another program may take the processor in one of them.

    The first analysis has been shown before, so that the plot view is there: making it is Slicer's own work.
    """
    import slicer

    shape = (200, 200, 200)
    affine = grid(spacing=(0.6, 0.6, 0.6))
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2) + [4.0, -7.0, 11.0]
    slicer.util.mainWindow().hide()  # drawing the views is Slicer's work too; here the processor does it
    longest = []
    for attempt in range(ATTEMPTS):
        volume = add_volume(f"Large {attempt}", head(affine, shape=shape, seed=attempt + int(time.time()))[0], affine)
        detected.parameters.inputVolume = volume
        gaps, before = [], len(results())
        detected.ui.detectButton.click()
        deadline = time.monotonic() + 280
        jobs = detected.logic.session.jobs
        while len(results()) == before or not jobs.idle or not detected.results.settled:
            start = time.perf_counter()
            slicer.app.processEvents()
            gaps.append(time.perf_counter() - start)
            assert not detected.ui.messageLabel.text, detected.ui.messageLabel.text
            assert time.monotonic() < deadline
            time.sleep(0.002)
        longest.append(round(1000 * max(gaps), 1))
        print("longest block in ms:", longest[-1])
        if longest[-1] < 100:
            break
    record_property("longest_block_ms", min(longest))
    assert min(longest) < 100, longest
