"""Verdict, regions, legend and plot of a map, in the panel and in rendered pixels, without a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from examples import SPOTS, example
from hands import view

ML, MM, SIDE, SLICES, PEAK = 1, 2, 3, 4, 5  # columns of the regions' table


def show(medclipad: Any, **answered: Any) -> Any:
    """Show the map with two spots, whose peaks are 0.9 and 0.75, and wait for its regions."""
    from harness import user

    result = example(**answered)
    medclipad.results.show_new(result)
    user.wait_until(lambda: listed(medclipad), 20, "regions")
    return result


def listed(medclipad: Any) -> bool:
    medclipad.logic.session.jobs.drain()
    return medclipad.results.settled and not medclipad.logic.session.jobs.active("Regions")


def cells(medclipad: Any, column: int) -> list[str]:
    table = medclipad.ui.regionsTable
    return [table.item(row, column).text() for row in range(table.rowCount)]


def test_the_reader_chooses_how_many_false_regions_are_listed(medclipad: Any) -> None:
    from harness import user
    from MedCLIPADLib.results import SEGMENTATION
    from MedCLIPADLib.segmentation import label_of

    ui = medclipad.ui
    result = show(medclipad)
    combo = ui.falseRegionsComboBox
    assert [combo.itemText(row) for row in range(combo.count)] == ["1/2", "1", "2", "8"]
    assert combo.currentText == "1" and combo.enabled and "at most 1 false alarm in 25" in combo.toolTip
    titles = [ui.regionsTable.horizontalHeaderItem(column).text() for column in range(6)]
    assert titles == ["", "ml", "mm", "Side", "Slices", "Peak"]
    assert cells(medclipad, PEAK) == ["never seen in 24 normal scans", "1 in 6,000"]
    assert cells(medclipad, SIDE) == ["right upper", "left posterior lower"]
    first = medclipad.results.regions[0]
    assert cells(medclipad, MM)[0] == f"{first.extent:.0f}"
    assert (
        cells(medclipad, ML)[0] == f"{first.volume:.2f}"
        and cells(medclipad, SLICES)[0] == f"{first.first}-{first.last}"
    )
    assert "limit (1 in 3,000)" in ui.regionsLabel.text and ui.regionsLabel.text.startswith("2 regions")

    user.choose(combo, "1/2")
    user.wait_until(lambda: listed(medclipad) and ui.regionsTable.rowCount == 1, 20, "one region")
    assert ui.thresholdSlider.value == 0.5, "the limit changes, the outline does not"
    ui.thresholdSlider.value = 0.3
    user.wait_until(lambda: listed(medclipad) and medclipad.results.regions[0].volume > first.volume, 20, "outline")
    assert ui.regionsTable.rowCount == 1 and combo.currentText == "1/2", "the outline changes, the limit does not"
    ui.reviewCollapsibleButton.collapsed = False
    user.click(ui.makeSegmentationButton)
    user.wait_until(lambda: result.reference(SEGMENTATION) is not None, 20, "segmentation")
    label = label_of(result.reference(SEGMENTATION), result)
    (i, j, k), (x, y, z) = SPOTS[0][0], SPOTS[1][0]
    assert label[k, j, i] and not label[z, y, x], "the table's regions only"

    user.choose(combo, "8")
    assert ui.thresholdSlider.value == pytest.approx(0.3), "the reader's own threshold stays"
    user.click(ui.resetThresholdButton)
    assert ui.thresholdSlider.value == pytest.approx(0.42), "the limit of 8 false regions is below 0.5"
    user.choose(combo, "1/2")
    assert ui.thresholdSlider.value == pytest.approx(0.5), "the standard threshold follows"


def test_without_normal_scans_all_regions_are_listed_and_the_panel_says_why(medclipad: Any) -> None:
    promise = "The detector was not calibrated on normal scans: nothing is promised about false alarms."
    show(medclipad, region_limits={}, false_regions_per_scan=None, normal_scans=0, promise=promise, scale_top=1.0)
    ui = medclipad.ui
    assert ui.falseRegionsComboBox.currentText.startswith("not available") and not ui.falseRegionsComboBox.enabled
    assert promise in ui.falseRegionsComboBox.toolTip and promise in ui.resultLabel.text
    assert cells(medclipad, PEAK) == ["0.900", "0.750"], "no words of rarity without normal scans"
    assert "above the threshold" in ui.regionsLabel.text


def test_the_verdict_and_cautions_are_shown_and_survive_the_scene(medclipad: Any, tmp_path: Path) -> None:
    import slicer
    from harness import user

    ui = medclipad.ui
    warning = "Unusual acquisition (contrast): unlike all 24 volumes that the detector learned from."
    result = show(medclipad, warnings=[warning], verdict=f"{warning} Research software: not for diagnosis.")
    medclipad.parameters.falseRegions = "2"
    user.wait_until(lambda: listed(medclipad), 20, "regions")

    def shown() -> tuple:
        colours = ui.warningsLabel.styleSheet
        assert ui.verdictTextLabel.visible and ui.warningsLabel.visible and "#c62828" not in colours, "no error"
        return ui.verdictTextLabel.text, ui.warningsLabel.text, ui.falseRegionsComboBox.currentText

    before, rows = shown(), cells(medclipad, PEAK)
    assert before == (result.verdict, f"Caution: {warning}", "2") and "not for diagnosis" in before[0]
    slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear(0)
    assert ui.verdictTextLabel.text == ui.warningsLabel.text == "" and not ui.falseRegionsComboBox.enabled
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    user.wait_until(lambda: ui.resultSelector.currentNode() is not None, 5)
    assert shown() == before and cells(medclipad, PEAK) == rows
    other = medclipad.results.result
    show(medclipad)
    assert ui.verdictTextLabel.text.startswith("Unusual") and not ui.warningsLabel.visible
    assert ui.falseRegionsComboBox.currentText == "2", "the reader's choice stays for the next map"
    user.choose(ui.falseRegionsComboBox, "1/2")
    medclipad.parameters.result = other.node
    user.wait_until(lambda: listed(medclipad) and len(cells(medclipad, PEAK)) == 1, 20, "the other map follows")


def test_a_scene_of_an_earlier_version_is_shown(medclipad: Any, tmp_path: Path) -> None:
    """Neither its map's answer nor its regions' table has what this version stores."""
    import json

    import slicer
    from harness import user
    from MedCLIPADLib.results import REGIONS
    from MedCLIPADLib.volumes import RESULT

    ui = medclipad.ui
    result = show(medclipad)
    result.reference(REGIONS).RemoveColumn(4)
    kept = ("method", "detector", "plane", "threshold", "volume_score", "slice_scores", "image", "sha256", "highest")
    result.node.SetAttribute(RESULT, json.dumps({key: result.about[key] for key in kept}))
    slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    user.wait_until(lambda: ui.resultSelector.currentNode() is not None, 5)
    assert ui.verdictTextLabel.text.startswith("No verdict: analysed by an earlier version")
    assert "not available" in ui.falseRegionsComboBox.currentText
    user.wait_until(lambda: listed(medclipad) and ui.regionsTable.rowCount == 2, 20, "listed again")


def test_the_legend_is_drawn_with_words(medclipad: Any) -> None:
    """White pixels left of the colours, at the height of the two labels that the names put there."""
    import slicer

    view().sliceView().pixels(600, 600)
    result = show(medclipad)
    pixels = view().sliceView().pixels(600, 600).astype(int)
    colours = (np.ptp(pixels, axis=-1) > 40)[:, 450:]
    bar, columns = np.flatnonzero(colours.sum(axis=1) > 5), 450 + np.flatnonzero(colours.sum(axis=0) > 20)
    text = (pixels.min(axis=-1) > 120)[:, columns[0] - 80 : columns[0] - 2].sum(axis=1)
    assert len(bar) > 100
    values = {0.4: True, 0.5: False, 0.6: True, 0.7: False, 0.8: True}
    bottom, height = bar[-1], bar[-1] - bar[0]
    for value, labelled in values.items():
        row = round(bottom - (value - 0.3875) / 0.625 * height)
        assert (text[row - 4 : row + 5].sum() > 10) == labelled, value
    assert slicer.modules.colors.logic().GetColorLegendDisplayNode(result.node).GetVisibility()


@pytest.mark.parametrize("size", [(480, 440), (300, 250), (900, 600)])
def test_the_legend_is_off_the_head_and_not_cut(medclipad: Any, size: tuple[int, int]) -> None:
    """In all three planes of the sample, whose head fills the views as Slicer shows it after loading."""
    import slicer
    from MedCLIPADLib import sampledata

    volume = sampledata.load()
    slicer.util.setSliceViewerLayers(background=volume, fit=True)
    map_values = np.full(slicer.util.arrayFromVolume(volume).shape, 0.01, np.float32)
    map_values[tuple(size // 2 for size in map_values.shape)] = 0.02  # where the views jump to
    names = ("Red", "Yellow", "Green")
    for name in names:
        view(name).sliceView().pixels(*size)
        view(name).fitSliceToBackground()
    affine = slicer.util.arrayFromVTKMatrix(ijk_to_ras(volume))
    result = example(affine, array=map_values, volume=volume)
    medclipad.results.show_new(result)
    for name in names:
        with_legend = view(name).sliceView().pixels(*size).astype(int)
        result.legend.SetVisibility(False)
        without = view(name).sliceView().pixels(*size).astype(int)
        result.legend.SetVisibility(True)
        drawn, head = (with_legend != without).any(axis=-1), without.max(axis=-1) > 30
        assert drawn.sum() > 200 and head.sum() > 5000, name
        assert not (drawn & head).any(), name
        assert not (drawn[0].any() or drawn[:, -1].any()), f"{name}: cut at the border"


def ijk_to_ras(volume: Any) -> Any:
    import vtk

    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return matrix


def test_the_plot_follows_the_current_slice(medclipad: Any) -> None:
    from MedCLIPADLib import navigation
    from MedCLIPADLib.results import CURRENT

    result = show(medclipad)
    for number in (3, 12):
        navigation.jump_to_slice(result, number)
        column = result.reference(CURRENT).GetTableNode().GetTable().GetColumnByName("Current X")
        assert [column.GetValue(0), column.GetValue(1)] == [number, number]
