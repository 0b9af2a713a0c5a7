"""A map's nodes: 3D, folder, regions, navigation, and all of it after a reload. No server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from examples import SPOTS, VERDICT, example, legend_labels, warm
from scipy import ndimage
from served import SHAPE, add_volume, grid

AFFINES = {
    "straight": grid(),
    "oblique": grid((14, -9, 21)),
    "turned": grid(codes="LPS"),
    "left-handed": grid(codes="LAS"),
}


def test_a_map_of_an_earlier_version_still_works(scene: Any) -> None:
    import json

    from MedCLIPADLib.plots import store_scores
    from MedCLIPADLib.regions import stored_regions
    from MedCLIPADLib.results import LIMIT
    from MedCLIPADLib.volumes import RESULT

    result = example()
    kept = ("method", "detector", "plane", "threshold", "volume_score", "slice_scores", "image", "sha256", "highest")
    result.node.SetAttribute(RESULT, json.dumps({key: result.about[key] for key in kept}))
    assert result.verdict.startswith("No verdict: analysed by an earlier version")
    assert "not for diagnosis" in result.verdict and result.promise and result.warnings == []
    assert (result.limit(), result.outline(), result.slice_limit, result.in_words(0.9)) == (None, 0.5, None, "0.900")
    result.restore_colours()
    result.show_3d(True)
    for role in (LIMIT, "MedCLIPAD.chart"):
        result.node.RemoveNodeReferenceIDs(role)
    assert store_scores(result).GetNumberOfPlotSeriesNodes() == 2, "scores and the current slice"
    assert stored_regions(result) is None, "to be listed again"


def test_the_3d_view_shows_what_is_above_the_threshold_in_the_same_colours(scene: Any) -> None:
    from MedCLIPADLib.colours import colours

    result = example()
    result.show_3d(True)
    look = result.rendering.GetVolumePropertyNode().GetVolumeProperty
    seen = []
    for threshold in (0.5, 0.62):
        result.set_threshold(threshold)
        opacity = look().GetScalarOpacity()
        assert opacity.GetValue(threshold - 0.01) == pytest.approx(0, abs=1e-6)
        assert opacity.GetValue(threshold + 0.01) > 0.2
        seen.append([opacity.GetValue(0.8), *look().GetRGBTransferFunction().GetColor(0.8)])
    assert seen[0] == pytest.approx(seen[1]), "the threshold only hides"
    assert seen[0][1:] == pytest.approx(colours()[16], abs=0.01), "the colour of 0.8 in the slices"
    assert result.rendering.GetVisibility()
    result.show_3d(False)
    assert not result.rendering.GetVisibility()
    assert result.node.GetNumberOfDisplayNodes() >= 2, "the slices keep their own display node, first"
    assert result.node.GetNthDisplayNode(0).IsA("vtkMRMLScalarVolumeDisplayNode")


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_regions_are_scipys_components(scene: Any, affine: np.ndarray, plane: str) -> None:
    from MedCLIPADLib.regions import find_regions, store_regions, stored_regions

    result = example(affine, plane)
    array, slicing = result.array, result.slicing
    regions = find_regions(array, slicing, 0.5)
    labels, count = ndimage.label(array >= 0.5, np.ones((3, 3, 3)))
    assert len(regions) == count == 2
    slices = slicing.first(labels)
    for region in regions:
        i, j, k = region.ijk
        number = labels[k, j, i]
        here = np.flatnonzero((slices == number).any(axis=(1, 2)))
        assert (region.first, region.last) == (here[0], here[-1])
        assert region.volume == pytest.approx((labels == number).sum() * abs(np.linalg.det(affine[:3, :3])) / 1000)
        sizes = [np.ptp(axis) + 1 for axis in np.nonzero((labels == number).T)]
        assert region.extent == pytest.approx(max(sizes * np.linalg.norm(affine[:3, :3], axis=0)))
        assert region.peak == array[labels == number].max() == array[k, j, i]
        assert region.mean == pytest.approx(array[labels == number].mean(), abs=1e-6)
        assert region.slice == slicing.of_point(np.array(region.ijk))
    assert {region.ijk for region in regions} == {spot for spot, *_ in SPOTS}
    assert regions[0].volume > regions[1].volume
    store_regions(result, regions, 0.6)
    same_regions(stored_regions(result, 0.6), regions)
    assert stored_regions(result, 0.7) is None, "to be listed again for another limit"


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
@pytest.mark.parametrize("limit", [0.55, 0.65])
def test_regions_are_the_servers(scene: Any, affine: np.ndarray, limit: float) -> None:
    """On noise, of which many parts touch by corners only, in all directions of the axes."""
    from MedCLIPADLib.grid import Slicing
    from MedCLIPADLib.regions import find_regions

    from medclipad.detection.regions import find_regions as servers
    from medclipad.volume import Slicing as ServersSlicing
    from medclipad.volume import Volume

    rng = np.random.default_rng(4)
    smooth = ndimage.gaussian_filter(rng.normal(size=SHAPE), 1)
    array = (0.2 + 0.18 * smooth / smooth.std()).clip(0, 1).astype(np.float32)
    array[:4], array[:, :, -3:] = 0, 0  # outside of the body, which is not in the middle of the grid
    volume = Volume(array, affine)
    theirs = servers(volume, array > 0, ServersSlicing(volume, "coronal"), 0.5, limit)
    ours = find_regions(np.ascontiguousarray(array.T), Slicing(SHAPE, affine, "coronal"), 0.5, limit)
    assert 2 < len(theirs) == len(ours)
    theirs.sort(key=lambda region: region.ijk)
    ours.sort(key=lambda region: region.ijk)
    for a, b in zip(theirs, ours, strict=True):
        assert (a.ijk, a.first, a.last, a.slice, a.side) == (b.ijk, b.first, b.last, b.slice, b.side)
        assert (a.volume_ml, a.peak, a.mean) == pytest.approx((b.volume, b.peak, b.mean), rel=1e-5)
    assert len({region.side for region in ours}) > 5


def test_only_regions_whose_peak_exceeds_the_limit_are_listed_whatever_the_threshold(scene: Any) -> None:
    from MedCLIPADLib.regions import find_regions

    result = example()
    found = lambda threshold, limit: [  # noqa: E731
        region.ijk for region in find_regions(result.array, result.slicing, threshold, limit)
    ]
    (high, *_), (low, *_) = SPOTS
    assert found(0.5, None) == found(0.5, 0.7) == [high, low]
    assert found(0.5, 0.8) == found(0.3, 0.8) == found(0.85, 0.8) == [high], "the threshold moves only the outline"
    assert found(0.5, 0.95) == []
    sizes = [find_regions(result.array, result.slicing, threshold, 0.8)[0].volume for threshold in (0.3, 0.5, 0.7)]
    assert sizes[0] > sizes[1] > sizes[2]


def same_regions(stored: list, regions: list) -> None:
    """Compare regions; the file of a table keeps six digits."""
    whole = [[(r.first, r.last, r.slice, r.ijk, r.side) for r in listed] for listed in (stored, regions)]
    assert whole[0] == whole[1]
    for region, other in zip(stored, regions, strict=True):
        assert (region.volume, region.peak, region.mean) == pytest.approx(
            (other.volume, other.peak, other.mean), rel=1e-4
        )


def test_there_is_no_region_above_a_high_threshold(scene: Any) -> None:
    from MedCLIPADLib.regions import find_regions

    result = example()
    assert find_regions(result.array, result.slicing, 0.95) == []


def test_peaks_come_in_slice_order_and_start_again_after_the_last(scene: Any) -> None:
    from MedCLIPADLib.navigation import next_peak, peaks

    scores = np.array([np.nan, 0.1, 0.5, 0.2, 0.2, 0.8, 0.7, 0.1, 0.6])
    assert peaks(scores) == [2, 5, 8], "the last slice counts too"
    assert next_peak(scores, None) == 2 and next_peak(scores, 2) == 5 and next_peak(scores, 8) == 2
    assert next_peak(scores, 5, -1) == 2 and next_peak(scores, 2, -1) == 8
    assert peaks(np.full(4, np.nan)) == [] and peaks(np.full(4, 0.3)) == []
    assert next_peak(np.full(4, 0.3), 1) is None


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("moved", [False, True])
def test_a_jump_and_the_current_slice_agree(scene: Any, affine: np.ndarray, plane: str, moved: bool) -> None:
    import slicer
    from MedCLIPADLib import navigation

    result = example(affine, plane)
    if moved:
        transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(grid((20, 10, 35), (1, 1, 1))))
        result.volume.SetAndObserveTransformNodeID(transform.GetID())
        result.follow_volume()
    navigation.align_views(result)
    for number in (0, 3, len(result.slicing) // 2, len(result.slicing) - 1):
        navigation.jump_to_slice(result, number)
        assert navigation.current_slice(result) == number
    i, j, k = SPOTS[0][0]
    number = result.slicing.of_point(np.array([i, j, k]))
    assert navigation.hottest(result, number) == (i, j, k)
    assert np.allclose(navigation.from_world(result, navigation.to_world(result, (i, j, k))), (i, j, k))


def test_views_are_rotated_only_for_oblique_volumes(scene: Any) -> None:
    from MedCLIPADLib import navigation

    assert navigation.align_views(example(grid())) is False
    assert navigation.align_views(example(grid((14, -9, 21)))) is True


def test_points_of_the_plot_have_their_slice_numbers_although_some_were_skipped(scene: Any) -> None:
    from MedCLIPADLib.plots import slice_of_point
    from MedCLIPADLib.results import CHART, SERIES, TABLE

    result = example(skipped=(0, 1, 7))
    table = result.reference(TABLE)
    assert table.GetNumberOfRows() == len(result.slicing) - 3
    assert [slice_of_point(result, row) for row in (0, 4, 5)] == [2, 6, 8]
    assert slice_of_point(result, 1000) is None
    assert result.reference(SERIES).GetTableNode() is table
    assert result.reference(CHART).GetNthPlotSeriesNode(0) is result.reference(SERIES)


def test_the_plot_shows_the_limit_and_the_current_slice_as_lines(scene: Any) -> None:
    from MedCLIPADLib.plots import mark_current
    from MedCLIPADLib.results import CHART, CURRENT, LIMIT

    def points(role: str) -> list[tuple[float, float]]:
        series = result.reference(role)
        table = series.GetTableNode().GetTable()
        columns = [table.GetColumnByName(name) for name in (series.GetXColumnName(), series.GetYColumnName())]
        return [tuple(column.GetTuple1(row) for column in columns) for row in range(table.GetNumberOfRows())]

    result = example(slice_limit=0.97)
    chart = result.reference(CHART)
    assert all(chart.HasPlotSeriesNodeID(result.reference(role).GetID()) for role in (LIMIT, CURRENT))
    low, high = chart.GetYAxisRange()
    assert low == 0 and high > 0.97, "the limit is inside the plot, also above all scores"
    assert points(LIMIT) == [(-0.5, 0.97), (len(result.slicing) - 0.5, 0.97)]
    assert points(CURRENT)[0][0] < chart.GetXAxisRange()[0], "nothing before the views are at a slice"
    mark_current(result, 7)
    assert points(CURRENT) == [(7, 0), (7, high)]
    mark_current(result, None)
    assert points(CURRENT)[0][0] < chart.GetXAxisRange()[0]


def test_all_nodes_of_a_result_are_in_its_folder(scene: Any) -> None:
    import slicer
    from MedCLIPADLib.regions import find_regions, store_regions
    from MedCLIPADLib.segmentation import empty_segmentation

    result = example()
    store_regions(result, find_regions(result.array, result.slicing, 0.5))
    empty_segmentation(result)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    folder = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(result.node))
    assert hierarchy.GetItemName(folder) == result.node.GetName()
    import vtk

    items = vtk.vtkIdList()
    hierarchy.GetItemChildren(folder, items)
    inside = {hierarchy.GetItemDataNode(items.GetId(n)).GetClassName() for n in range(items.GetNumberOfIds())}
    assert inside >= {
        "vtkMRMLScalarVolumeNode",
        "vtkMRMLTableNode",
        "vtkMRMLPlotChartNode",
        "vtkMRMLPlotSeriesNode",
        "vtkMRMLSegmentationNode",
    }


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
def test_a_segmentation_is_what_the_overlay_shows_and_becomes_the_label(scene: Any, affine: np.ndarray) -> None:
    from MedCLIPADLib.segmentation import crop_regions, label_of, make_segmentation

    result = example(affine)
    node = make_segmentation(result, *crop_regions(result.array, 0.5))
    assert np.array_equal(label_of(node, result), result.array >= 0.5)
    first = make_segmentation(result, *crop_regions(result.array, 0.6))
    assert first is not node and node.GetScene() is not None, "what was edited before is not overwritten"
    assert np.array_equal(label_of(first, result), result.array >= 0.6)


def test_a_segmentation_takes_only_regions_above_the_limit(scene: Any) -> None:
    from MedCLIPADLib.errors import ModuleError
    from MedCLIPADLib.segmentation import crop_regions, label_of, make_segmentation

    result = example(grid((14, -9, 21)))
    labels, _ = ndimage.label(result.array >= 0.5, np.ones((3, 3, 3)))
    i, j, k = SPOTS[0][0]
    node = make_segmentation(result, *crop_regions(result.array, 0.5, 0.8))
    assert np.array_equal(label_of(node, result), labels == labels[k, j, i]), "the spot with the peak of 0.9, not 0.75"
    with pytest.raises(ModuleError, match="No region exceeds the limit"):
        crop_regions(result.array, 0.5, 0.95)


def test_a_label_on_another_grid_or_under_a_transform_is_resampled(scene: Any) -> None:
    import slicer
    from MedCLIPADLib.segmentation import NAME, crop_regions, label_of, make_segmentation

    affine = grid((14, -9, 21))
    result = example(affine)
    fine = affine.copy()
    fine[:3, :3] /= 2
    fine[:3, 3] -= fine[:3, :3].sum(axis=1) / 2  # centre of the first of the eight small voxels
    mask = warm() >= 0.5
    small = add_volume("fine", np.kron(mask, np.ones((2, 2, 2))).astype(np.uint8), fine)
    labels = scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode")
    slicer.util.updateVolumeFromArray(labels, slicer.util.arrayFromVolume(small))
    labels.CopyOrientation(small)
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "painted elsewhere")
    slicer.modules.segmentations.logic().ImportLabelmapToSegmentationNode(labels, node)
    found = label_of(node, result)
    assert found.shape == mask.shape and (found != mask).mean() < 0.002, "borders may move by half a small voxel"

    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(grid((0, 0, 90), (1, 1, 1))))
    made = make_segmentation(result, *crop_regions(result.array, 0.5))
    result.volume.SetAndObserveTransformNodeID(transform.GetID())
    result.follow_volume()
    assert made.GetTransformNodeID() == transform.GetID()
    assert np.array_equal(label_of(made, result), mask), "both moved: the same voxels"
    assert made.GetSegmentation().GetNthSegment(0).GetName() == NAME


def test_an_empty_segmentation_gives_an_empty_label_and_none_is_refused(scene: Any) -> None:
    from MedCLIPADLib.errors import ModuleError
    from MedCLIPADLib.segmentation import crop_regions, empty_segmentation, label_of

    result = example()
    node = empty_segmentation(result)
    assert label_of(node, result).sum() == 0
    node.GetSegmentation().RemoveAllSegments()
    with pytest.raises(ModuleError, match="no segments"):
        label_of(node, result)
    with pytest.raises(ModuleError, match="lower the threshold"):
        crop_regions(result.array, 0.95)


def test_a_saved_scene_works_as_before(scene: Any, tmp_path: Path, problems: Any) -> None:
    problems.expect("orientation preset name: Reformat")  # MRML's own reader says so of turned views
    import slicer
    from MedCLIPADLib import navigation
    from MedCLIPADLib.colours import COUNT, colours
    from MedCLIPADLib.marks import marks, set_marks
    from MedCLIPADLib.plots import mark_current
    from MedCLIPADLib.regions import find_regions, store_regions, stored_regions
    from MedCLIPADLib.results import CHART, CURRENT, LIMIT, SEGMENTATION, Result
    from MedCLIPADLib.segmentation import crop_regions, label_of, make_segmentation

    result = example(grid((14, -9, 21)))
    regions = find_regions(result.array, result.slicing, 0.6)
    store_regions(result, regions)
    make_segmentation(result, *crop_regions(result.array, 0.6))
    result.set_threshold(0.6)
    result.show_3d(True)
    set_marks(result.volume, "case-1", {"plane": "axial", "normal": [1], "abnormal": [5, 6]})
    array = result.array.copy()
    navigation.align_views(result)
    slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    scene.Clear(0)
    assert not Result.all()
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    (again,) = Result.all()
    again.restore_colours()
    assert np.array_equal(again.array, array)
    assert again.threshold == pytest.approx(0.6) and again.volume.GetName() == "case"
    assert again.verdict == VERDICT and again.limit("2") == 0.61 and again.in_words(0.9).startswith("never seen in 24")
    assert legend_labels(again)[0.6] == "1 in 1,000" and again.legend.GetUseColorNamesForLabels()
    same_regions(stored_regions(again) or [], regions)
    assert np.array_equal(label_of(again.reference(SEGMENTATION), again), array >= 0.6)
    assert again.reference(CHART).GetNthPlotSeriesNode(0).GetTableNode() is not None
    mark_current(again, 7)
    lines = again.reference(LIMIT).GetTableNode()
    assert lines is again.reference(CURRENT).GetTableNode()
    assert [float(lines.GetCellText(0, column)) for column in (0, 3)] == [7, pytest.approx(0.62)]
    assert marks(again.volume, "case-1")["abnormal"] == [5, 6]
    assert again.rendering.GetVolumePropertyNode() is not None
    colour = [0.0] * 4
    again.node.GetScalarVolumeDisplayNode().GetColorNode().GetColor(COUNT - 1, colour)
    assert np.allclose(colour[:3], colours()[-1], atol=0.01)
    navigation.align_views(again)
    navigation.jump_to_slice(again, 7)
    assert navigation.current_slice(again) == 7
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    folder = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(again.node))
    assert hierarchy.GetItemName(folder) == again.node.GetName()


def test_the_modality_determines_which_detectors_suit(scene: Any) -> None:
    import slicer
    from MedCLIPADLib.presets import ANY, preset_label, preset_of, suits
    from MedCLIPADLib.volumes import modality

    volume = add_volume("series", np.zeros((3, 4, 5), np.int16), grid())
    assert modality(volume) == "" and modality(None) == ""
    units = slicer.vtkCodedEntry()
    units.SetValueSchemeMeaning("[hnsf'U]", "UCUM", "Hounsfield unit")
    volume.SetVoxelValueUnits(units)
    assert modality(volume) == "CT"
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    item = hierarchy.GetItemByDataNode(volume) or hierarchy.CreateItem(hierarchy.GetSceneItemID(), volume)
    hierarchy.SetItemAttribute(item, "DICOM.Modality", "MR")
    assert modality(volume) == "MR"
    assert (preset_of("CT"), preset_of("MR"), preset_of("US")) == ("ct", "mr", "")
    assert suits("ct:brain", "ct") and suits("raw", "ct") and suits("mr", ANY) and suits("ct:lung", "ct:lung")
    assert not suits("mr", "ct") and not suits("ct:lung", "ct:brain") and not suits("ct:lung", "mr")
    labels = {"mr": "MR", "ct:brain": "CT brain", "ct:40,80": "CT 40,80", "raw": "", "auto": "", "": ""}
    assert {preset: preset_label(preset) for preset in labels} == labels


def test_shape_of_the_example() -> None:
    assert warm().shape == SHAPE[::-1]
