"""What a reader takes along: a coded segment, points at the peaks, the body around the map, and marks taken back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from examples import SPOTS, example
from served import grid, run
from test_logic_labelling import Labeller, analysed, labeller  # noqa: F401  fixtures


def regions_of(result: Any) -> list:
    from MedCLIPADLib.regions import find_regions

    return find_regions(result.array, result.slicing, result.threshold, result.limit())


@pytest.mark.parametrize("empty", [False, True])
def test_the_segment_says_in_codes_what_it_is(scene: Any, empty: bool) -> None:
    """Those of the server's DICOM segmentations."""
    import slicer
    from highdicom.seg import SegmentDescription  # noqa: F401  the server's package
    from MedCLIPADLib.segmentation import crop_regions, empty_segmentation, make_segmentation
    from pydicom.sr.codedict import codes

    result = example()
    node = empty_segmentation(result) if empty else make_segmentation(result, *crop_regions(result.array, 0.5))
    entry, tag = slicer.vtkSegment.GetTerminologyEntryTagName(), vtk_string()
    assert node.GetSegmentation().GetNthSegment(0).GetTag(entry, tag)
    _, category, kind, *_ = tag.get().split("~")
    for text, code in ((category, codes.SCT.MorphologicallyAbnormalStructure), (kind, codes.SCT.Lesion)):
        assert text.split("^")[:2] == [code.scheme_designator, code.value]


def vtk_string() -> Any:
    import vtk

    return vtk.reference("")


@pytest.mark.parametrize("turned", [False, True])
def test_points_are_at_the_peaks_and_move_with_the_volume(scene: Any, turned: bool) -> None:
    import slicer
    from MedCLIPADLib.navigation import to_world
    from MedCLIPADLib.points import place_points

    result = example(grid((10, -5, 20)))
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    if turned:
        matrix = slicer.util.vtkMatrixFromArray(grid((0, 0, 30), (1, 1, 1)))
        transform.SetMatrixTransformToParent(matrix)
        result.volume.SetAndObserveTransformNodeID(transform.GetID())
        result.follow_volume()
    regions = regions_of(result)
    node = place_points(result, regions)
    assert place_points(result, regions) is node, "one list for a map"
    assert node.GetNumberOfControlPoints() == len(regions) == 2
    for index, (peak, _, _) in enumerate(SPOTS):
        world = [0.0] * 3
        node.GetNthControlPointPositionWorld(index, world)
        assert np.allclose(world, to_world(result, peak), atol=1e-3)
        assert node.GetNthControlPointLabel(index) == str(index + 1)
    assert node.GetNthControlPointDescription(0) == "never seen in 24 normal scans"


def test_points_without_regions_are_refused(scene: Any) -> None:
    from MedCLIPADLib.errors import ModuleError
    from MedCLIPADLib.points import place_points

    with pytest.raises(ModuleError, match="There is no region"):
        place_points(example(), [])


@pytest.mark.parametrize("codes", ["RAS", "LPI", "SRA"])
def test_the_body_surface_encloses_the_body(scene: Any, codes: str) -> None:
    from MedCLIPADLib.head import body_surface, show_head

    affine = grid((8, 3, -12), codes=codes)
    k, j, i = np.indices((150, 32, 36))
    array = ((i - 18) ** 2 / 100 + (j - 15) ** 2 / 80 + (k - 70) ** 2 / 1600 < 1).astype(np.float32)
    result = example(affine, array=array)
    surface = body_surface(result.array, affine)
    bounds = np.reshape(surface.GetBounds(), (3, 2))
    body = affine[:3, :3] @ np.stack([v[array > 0] for v in (i, j, k)]) + affine[:3, 3:]
    step = 2 * np.linalg.norm(affine[:3, :3], axis=0).max()  # of the outline: every second voxel
    assert np.abs(bounds[:, 0] - body.min(axis=1)).max() < step and np.abs(bounds[:, 1] - body.max(axis=1)).max() < step
    node = show_head(result, surface)
    assert 0 < node.GetDisplayNode().GetOpacity() < 0.3 and not node.GetDisplayNode().GetVisibility2D()


def test_marks_are_taken_back_one_by_one_also_on_the_server(analysed: Any, labeller: Labeller) -> None:  # noqa: F811
    from MedCLIPADLib.errors import ModuleError
    from MedCLIPADLib.marks import marks

    image, labelling = analysed.about["image"], labeller.labelling
    assert not labelling.can_undo(analysed)
    states = [marks(analysed.volume, image)]
    for number, kind in ((3, "normal"), (7, "abnormal"), (3, None)):
        labelling.mark(analysed, number, number, kind, labeller.done, labeller.failed)
        states.append(marks(analysed.volume, image))
    labeller.wait(3)
    for count, state in enumerate(reversed(states[:-1]), 4):
        labelling.undo(analysed, labeller.done, labeller.failed)
        labeller.wait(count)
        assert marks(analysed.volume, image) == state
        assert run(labeller.session.jobs, lambda: labeller.session.client().marks(image)) == state
    assert not labelling.can_undo(analysed) and not labeller.failed
    with pytest.raises(ModuleError, match="no mark"):
        labelling.undo(analysed, labeller.done, labeller.failed)
