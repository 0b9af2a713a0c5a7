"""From a volume node over HTTP to the map's node: geometry, cache, errors. No widgets."""

from __future__ import annotations

import uuid
from typing import Any

import numpy as np
import pytest
from served import SHAPE, Calls, add_volume, grid, head, run


def detect(session: Any, node: Any, plane: str = "axial", **options: Any) -> Any:
    from MedCLIPADLib.analysis import Analysis
    from MedCLIPADLib.detection import Request

    done, failed, progress = Calls(), Calls(), Calls()
    Analysis(session).detect(node, Request("mediclip", "current", plane, **options), done, failed, progress)
    run(session.jobs, lambda: done or failed, 90)
    assert not failed, failed
    done[0][0].phases = [phase for phase, *_ in progress]
    return done[0][0]


def hottest_world(result: Any) -> np.ndarray:
    """Return where the views show the map's highest voxel."""
    array = result.array
    k, j, i = np.unravel_index(int(array.argmax()), array.shape)
    local = (result.affine @ [i, j, k, 1])[:3]
    world = [0.0] * 3
    result.node.TransformPointToWorld(local.tolist(), world)
    return np.array(world)


def linear(scene: Any, matrix: np.ndarray, hidden: bool = False) -> Any:
    import slicer

    node = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    node.SetHideFromEditors(hidden)
    return node


GRIDS = {
    "straight": grid(),
    "oblique": grid((14, -9, 21)),
    "file axes turned": grid(codes="LPS"),
    "left-handed": grid(codes="LAS"),
}


@pytest.mark.parametrize("affine", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("parent", ["none", "visible", "hidden, two deep"])
def test_the_hottest_voxel_lies_in_the_lesion_in_ras(session: Any, scene: Any, affine: np.ndarray, parent: str) -> None:
    array, mask = head(affine)
    volume = add_volume("case", array, affine)
    outer = np.eye(4)
    if parent != "none":
        outer = grid((5, 40, -30), (1, 1, 1))
        outer[:3, 3] = [30, -20, 50]
        transform = linear(scene, outer, parent != "visible")
        if parent == "hidden, two deep":
            above = linear(scene, np.diag([-1.0, -1.0, 1.0, 1.0]), True)
            transform.SetAndObserveTransformNodeID(above.GetID())
            outer = np.diag([-1.0, -1.0, 1.0, 1.0]) @ outer
        volume.SetAndObserveTransformNodeID(transform.GetID())
    result = detect(session, volume)
    assert np.array_equal(result.affine, affine), "the map lies on the volume's own grid"
    assert result.node.GetTransformNodeID() == volume.GetTransformNodeID()
    assert result.array.shape == array.shape and result.array.dtype == np.float32
    i, j, k = np.round(np.linalg.inv(outer @ affine) @ [*hottest_world(result), 1])[:3].astype(int)
    assert mask[k, j, i], "the map's hottest voxel lies in the lesion"


def test_a_map_moves_with_its_volume(session: Any, scene: Any) -> None:
    volume = add_volume("case", head(grid())[0], grid())
    result = detect(session, volume)
    before = hottest_world(result)
    shift = np.eye(4)
    shift[:3, 3] = [10, 20, 30]
    volume.SetAndObserveTransformNodeID(linear(scene, shift).GetID())
    result.follow_volume()
    assert np.allclose(hottest_world(result) - before, [10, 20, 30])


def test_a_second_analysis_uploads_nothing_and_gets_the_stored_answer(session: Any, study: Any) -> None:
    array, _ = head(grid(), seed=12)
    first = detect(session, add_volume("again", array, grid()))
    assert "Uploading" in first.phases
    second = detect(session, add_volume("another name", array, grid()))
    assert "Uploading" not in second.phases and "Compressing" not in second.phases
    assert second.about["image"] == first.about["image"]
    assert second.about["cached"] is True
    assert np.array_equal(first.array, second.array)


def test_a_volume_in_the_studies_is_recognised_by_its_content(session: Any, study: Any) -> None:
    array, _ = head(grid(), True, 5)
    result = detect(session, add_volume("whatever", array, grid()))
    assert result.about["image"] == "case_1" and "Uploading" not in result.phases


def test_the_content_hash_equals_the_servers(scene: Any) -> None:
    from MedCLIPADLib.files import content_hash

    from medclipad.volume import Volume
    from medclipad.volume.fingerprint import content_sha256

    for affine in GRIDS.values():
        for kind in (np.int16, np.uint8, np.float32, np.float64, ">i2"):
            array = np.arange(60).reshape(5, 4, 3).astype(kind)
            assert content_hash(array, affine) == content_sha256(Volume(array.T.astype(array.dtype), affine))


def test_slice_numbers_equal_the_servers(slicer_app: Any) -> None:
    from MedCLIPADLib.grid import PLANES, Slicing

    from medclipad.volume import Slicing as Servers
    from medclipad.volume import Volume

    rng = np.random.default_rng(0)
    for _ in range(300):
        turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        affine = np.eye(4)
        affine[:3, :3] = turn * rng.choice([1.0, 2.0, 3.0, 5.0], 3)
        affine[:3, 3] = rng.normal(size=3) * 50
        shape = tuple(int(n) for n in rng.integers(2, 6, 3))
        array = rng.integers(0, 1000, shape)
        for plane in PLANES:
            theirs, ours = Servers(Volume(array, affine), plane), Slicing(shape, affine, plane)
            assert (ours.plane, ours.axis, len(ours)) == (theirs.plane, theirs.axis, len(theirs))
            assert [ours.index(n) for n in range(len(ours))] == [theirs.index(n) for n in range(len(theirs))]
            assert [ours.number(ours.index(n)) for n in range(len(ours))] == list(range(len(ours)))
            assert np.array_equal(ours.first(array.T).max(axis=(1, 2)), theirs.slices(array).max(axis=(1, 2)))


def test_a_component_and_a_time_point_can_be_chosen(session: Any, scene: Any) -> None:
    import slicer

    array, mask = head(grid(), seed=21)
    several = add_volume("several", np.stack([np.zeros_like(array), array], axis=-1), grid())
    result = detect(session, several, component=1)
    assert mask.ravel()[result.array.argmax()]

    browser = scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode")
    sequence = scene.AddNewNodeByClass("vtkMRMLSequenceNode")
    item = add_volume("item", np.zeros_like(array), grid())
    for time_point, frame in enumerate((np.zeros_like(array), array)):
        slicer.util.updateVolumeFromArray(item, frame)
        sequence.SetDataNodeAtValue(item, str(time_point))
    browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
    slicer.modules.sequences.logic().UpdateAllProxyNodes()
    proxy = browser.GetProxyNode(sequence)
    from MedCLIPADLib import volumes

    assert volumes.time_points(proxy) == 2 and browser.GetSelectedItemNumber() == 0
    result = detect(session, proxy, time_point=1)
    assert mask.ravel()[result.array.argmax()]
    assert browser.GetSelectedItemNumber() == 1, "the views show what was analysed"
    assert result.about["time_point"] == 1


def refusal(node: Any, **options: Any) -> str:
    from MedCLIPADLib.errors import ModuleError
    from MedCLIPADLib.volumes import source

    with pytest.raises(ModuleError) as error:
        source(node, **options)
    return str(error.value)


def test_a_volume_that_cannot_be_analysed_is_refused_with_a_sentence(scene: Any) -> None:
    array, _ = head(grid())
    sheared = grid()
    sheared[1, 2] += 1.5
    assert "sheared" in refusal(add_volume("tilted", array, sheared))
    assert "no voxels" in refusal(scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty"))
    assert "components 0 to 1" in refusal(add_volume("two", np.stack([array, array], -1), grid()), component=2)
    assert "Choose" in refusal(None)


def test_cancel_reaches_the_server(session: Any, study: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import requests
    from MedCLIPADLib import client
    from MedCLIPADLib.analysis import Analysis
    from MedCLIPADLib.detection import Request
    from MedCLIPADLib.results import Result

    shape = (96, 96, 120)
    affine = grid(spacing=(1, 1, 1))
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2) + [4.0, -7.0, 11.0]
    volume = add_volume("long", head(affine, shape=shape)[0], affine)
    request = uuid.uuid4()
    monkeypatch.setattr(client.uuid, "uuid4", lambda: request)
    done, failed, cancelled, progress = Calls(), Calls(), Calls(), Calls()
    job = Analysis(session).detect(volume, Request("mediclip"), done, failed, progress, cancelled)
    run(session.jobs, lambda: any(phase.startswith("Analysing slices") for phase, *_ in progress), 90)
    job.cancel()
    run(session.jobs, lambda: cancelled, 20)
    assert not done and not failed and not Result.all()
    slices = [entry for entry in progress if entry[0].startswith("Analysing slices")]
    assert slices[0][2] > 0, "the number of slices is reported"
    assert requests.get(f"{study.url}/progress/{request.hex}", timeout=30).json()["state"] == "cancelled"


def test_deleting_a_volume_during_its_analysis_is_not_an_error(session: Any, scene: Any) -> None:
    from MedCLIPADLib.analysis import Analysis
    from MedCLIPADLib.detection import Request

    volume = add_volume("gone", head(grid(), seed=31)[0], grid())
    done, failed = Calls(), Calls()
    job = Analysis(session).detect(volume, Request("mediclip"), done, failed)
    scene.RemoveNode(volume)
    run(session.jobs, lambda: not job.active, 60)
    assert not done and not failed


def test_shape() -> None:
    assert head(grid())[0].shape == SHAPE[::-1]
