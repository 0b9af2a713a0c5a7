"""Volumes are brought into one pose, and their maps back onto exactly their own grids."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import affine_transform
from scipy.spatial.transform import Rotation

from medclipad.detection.alignment import NOT_ALIGNED, AlignedVolume, NotAlikeError, Reference
from medclipad.detection.cases import Case
from medclipad.detection.detector import AnomalyDetector, load_detector
from medclipad.detection.fit import fit
from medclipad.detection.slice_frames import FramedVolume
from medclipad.errors import TrainingError
from medclipad.volume import Volume
from sample_data.cases import CASES
from sample_data.simulate import simulate

QUICK = {"planes": "all", "image_size": 64, "max_steps": 2, "memory_size": 2000, "memory_share": 1.0, "shots": 12}
TURN = Rotation.from_euler("xyz", (8, -6, 12), degrees=True).as_matrix()


def framed(volume: Volume, plane: str = "axial") -> FramedVolume:
    return FramedVolume(volume, plane, "mr", 64)


def moved(volume: Volume, linear: np.ndarray, shift=(0.0, 0.0, 0.0)) -> Volume:
    """The same voxels elsewhere in space: another pose, to the last bit known."""
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = linear, shift
    return replace(volume, affine=pose @ volume.affine)


def tilted(volume: Volume, turn: np.ndarray = TURN) -> Volume:
    """The same body turned about the middle of the grid, resampled: another head position on the same grid."""
    to_voxels = np.linalg.inv(volume.affine[:3, :3]) @ turn @ volume.affine[:3, :3]
    centre = (np.array(volume.shape) - 1) / 2
    array = affine_transform(volume.array, to_voxels, centre - to_voxels @ centre, order=1)
    return volume.with_array(array)


@pytest.fixture(scope="module")
def brains() -> dict[str, tuple[Volume, Volume | None]]:
    """Simulated brains on coarse grids, with the masks of their lesions."""
    chosen = [replace(case, grid=case.grid.coarser(4.0)) for case in CASES]
    return {case.id: simulate(case, 1) for case in chosen if case.id not in ("small-lesions", "large-ventricle")}


@pytest.fixture(scope="module")
def healthy(brains) -> list[Volume]:
    return [volume for volume, mask in brains.values() if mask is None]


@pytest.fixture(scope="module")
def reference(healthy) -> Reference:
    found = Reference.of([framed(volume) for volume in healthy])
    assert found is not None
    return found


@pytest.fixture(scope="module")
def detector(healthy) -> AnomalyDetector:
    return fit(normal=healthy, **QUICK | {"image_size": 96, "align": "on"})


def test_a_known_pose_is_found(healthy, reference):
    """A voxel of a turned, larger and shifted brain comes to where the same voxel of the brain itself comes."""
    volume = healthy[1]
    here = reference.align(framed(volume))
    there = reference.align(framed(moved(volume, 1.08 * TURN, (30.0, -20.0, 11.0))))
    voxels = np.argwhere(here.given.foreground)[::500]
    places = [
        (one.volume.affine @ np.linalg.inv(one._to_given) @ np.c_[voxels, np.ones(len(voxels))].T)[:3]
        for one in (here, there)
    ]
    apart = np.linalg.norm(places[0] - places[1], axis=0)
    before = np.linalg.norm((moved(volume, 1.08 * TURN).affine - volume.affine)[:3, :3] @ voxels.T, axis=0)
    assert apart.mean() < 2.0 and apart.max() < 4.0 < before.mean(), "4 mm are registered"


@pytest.mark.parametrize("codes", ["LPS", "ASR", "SLA"])
def test_the_order_of_the_axes_does_not_matter(healthy, reference, reordered, codes):
    one, other = (reference.align(framed(volume)) for volume in (healthy[1], reordered(healthy[1], codes)))
    assert one.volume.shape == other.volume.shape
    np.testing.assert_allclose(one.volume.affine, other.volume.affine, atol=1e-3)
    assert np.mean(one.foreground != other.foreground) < 1e-3


def test_a_map_comes_back_onto_the_grid(healthy, reference):
    """A map that says where in the body it is says the same after the way there and back."""
    volume = tilted(healthy[2])
    given = framed(volume)
    aligned = reference.align(given)
    assert aligned.given is given
    ramp = np.indices(volume.shape).sum(axis=0).astype(np.float32) / sum(volume.shape)
    there = AlignedVolume(framed(volume.with_array(np.where(given.foreground, ramp + 1, 0))), *_way(reference, volume))
    back = there.map_to_given(there.volume.array - 1, there.foreground)
    assert back.shape == volume.shape and back.dtype == np.float32
    body = there.given.foreground
    assert not back[~body].any()
    assert np.abs(back - ramp)[body].max() < 0.03 and np.abs(back - ramp)[body].mean() < 0.002


def _way(reference: Reference, volume: Volume) -> tuple[np.ndarray, np.ndarray, float]:
    return reference.affine[:3, :3] / 4.0, reference.to_volume(framed(volume)), reference.spacing


def test_scores_of_slices_come_back(healthy, reference):
    aligned = reference.align(framed(healthy[1]))
    scores = np.full(len(aligned.slicing), np.nan)
    scores[aligned.analysed] = aligned.heights[aligned.analysed]
    back, given = aligned.scores_to_given(scores), aligned.given
    assert np.array_equal(np.isfinite(back), np.isin(np.arange(len(given.slicing)), given.analysed))
    assert np.nanmax(np.abs(back - given.heights)) < 0.15


def test_planes_of_thick_slices_still_count_little(healthy, reference):
    """The aligned grid is as fine along all axes, but what was not acquired is not there."""
    thick = healthy[4]
    assert max(thick.spacing) == 5 and min(thick.spacing) == 4
    aligned = reference.align(framed(thick))
    assert np.allclose(aligned.volume.spacing, 4.0)
    assert aligned.weight == pytest.approx(1.0) and aligned.along("coronal").weight == pytest.approx(0.8)


def test_what_is_not_alike_is_not_aligned(healthy, reference, detector):
    rng = np.random.default_rng(0)
    stick = np.zeros((40, 44, 60), np.float32)
    stick[18:22, 18:26] = 500 + 100 * rng.normal(size=(4, 8, 60))
    other = Volume(stick, np.diag((2.0, 2.0, 5.0, 1.0)), name="stick")
    with pytest.raises(NotAlikeError, match='"stick" cannot be aligned with the normal volumes'):
        reference.align(framed(other))
    result = detector.detect(other)
    assert NOT_ALIGNED in result.warnings and result.p_value is None and NOT_ALIGNED in result.verdict()
    few = Volume(healthy[0].array[:, :, 20:24], healthy[0].affine)
    with pytest.raises(NotAlikeError):  # too few slices
        reference.align(framed(few))


def test_a_pose_makes_no_difference(brains, detector):
    """Only the header says that a brain lies elsewhere: its voxels get the same map, on its own grid."""
    assert detector.info.config.align == "on" and detector.info.calibration.n == 6
    volume, mask = brains["bright-mass"]
    assert mask is not None
    upright, turned = detector.detect(volume), detector.detect(moved(volume, TURN, (5.0, 40.0, -9.0)))
    for result in (upright, turned):
        assert result.complete and result.p_value is not None
        assert mask.array[np.unravel_index(result.anomaly_map.array.argmax(), volume.shape)]
        assert not result.anomaly_map.array[~result.foreground].any()
    assert np.corrcoef(upright.anomaly_map.array.ravel(), turned.anomaly_map.array.ravel())[0, 1] > 0.95
    assert turned.anomaly_map.affine.tobytes() == moved(volume, TURN, (5.0, 40.0, -9.0)).affine.tobytes()


def test_the_calibration_sees_scans_as_they_were_given(healthy):
    """A scan that limits come from has the score that it gets as a new one, and as many slices as it came with.

    Not to the last digit: in the calibration each scan is held against the atlas of the others.
    """
    kept_out = [tilted(volume) for volume in healthy[2:4]]
    detector = fit(normal=healthy[:2], calibrate_on=kept_out, align="on", **QUICK)
    scores = [scan.score for scan in detector.info.calibration.scans]
    seen = [detector.detect(volume) for volume in kept_out]
    assert [len(result.slice_scores) for result in seen] == [len(result.slicing) for result in seen]
    assert [result.volume_score for result in seen] == pytest.approx(scores, abs=0.2)


def test_it_is_saved_with_the_detector(brains, detector, tmp_path):
    detector.save(tmp_path / "saved")
    again = load_detector(tmp_path / "saved")
    volume = tilted(brains["bright-mass"][0])
    ours, theirs = detector.detect(volume), again.detect(volume)
    assert again.reference is not None and again.reference.image.dtype == np.float32
    assert np.array_equal(ours.anomaly_map.array, theirs.anomaly_map.array)
    assert np.array_equal(ours.slice_scores, theirs.slice_scores, equal_nan=True)


def test_when_volumes_are_aligned(head, lesion):
    healthy = [head(1), head(2)]
    assert fit(normal=healthy, **QUICK).info.config.align == "on"
    coarse = [replace(volume, affine=volume.affine @ np.diag((1.5, 1.5, 1.5, 1))) for volume in healthy]
    assert fit(normal=coarse, **QUICK).info.config.align == "off", "resampling would blur it"
    assert fit(normal=healthy, **QUICK | {"planes": "axial"}).info.config.align == "off"
    assert fit(normal=healthy, align="off", **QUICK).reference is None
    assert fit(normal=healthy[:1], **QUICK).info.config.align == "off", "there is nothing to align it with"
    assert fit(normal=healthy, abnormal=[(head(0, True), lesion)], **QUICK).info.config.align == "off"
    assert fit(cases=[Case(head(1), normal=range(5, 12)), Case(head(2))], **QUICK).info.config.align == "off"
    assert fit(normal=healthy, align="on", **QUICK | {"planes": "axial"}).reference is not None
    with pytest.raises(TrainingError, match="at least two normal volumes"):
        fit(normal=healthy[:1], align="on", **QUICK)
    with pytest.raises(TrainingError, match="with masks or marked slices are not aligned"):
        fit(normal=healthy, abnormal=[(head(0, True), lesion)], align="on", **QUICK)


def test_a_normal_volume_of_another_kind(head):
    """By default none is aligned then; where alignment is asked for, a sentence names the volume."""
    other = Volume(head(2).array[:, ::-1, ::4][:, :12], head(2).affine @ np.diag((1, 1, 12, 1)), name="other")
    assert fit(normal=[head(1), head(2), other], **QUICK).info.config.align == "off"
    with pytest.raises(TrainingError, match='"other" cannot be aligned with the normal volumes'):
        fit(normal=[head(1), head(2), other], align="on", **QUICK)
    with pytest.raises(TrainingError, match='"other" cannot be aligned'):
        fit(normal=[head(1), head(2)], calibrate_on=[other], **QUICK)
