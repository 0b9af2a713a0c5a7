"""Which slices are chosen to learn from."""

from __future__ import annotations

import numpy as np
import pytest

from medclipad.detection.cases import Case
from medclipad.detection.config import FitConfig
from medclipad.detection.slice_frames import FramedVolume
from medclipad.detection.slice_selection import SPARE_IMAGES, TrainingSlices, select_shots
from medclipad.errors import TrainingError, VolumeError
from medclipad.volume import Volume
from medclipad.volume.progress import no_progress

SIZE = 32


def cylinder(n: int, name: str = "") -> Volume:
    """n axial slices of a disc, each of its own brightness, between two without body."""
    x, y = np.meshgrid(*[np.linspace(-1, 1, 24)] * 2, indexing="ij")
    body = np.pad(np.arange(1, n + 1) * 10.0, 1)
    array = np.where((np.hypot(x, y) < 0.9)[..., None], body, 0)
    return Volume(array.astype(np.float32), np.diag([1.0, 1, 2, 1]), name=name)


def lesion(volume: Volume, *numbers: int) -> Volume:
    mask = np.zeros(volume.shape, np.uint8)
    mask[8:16, 8:16, list(numbers)] = 1
    return volume.with_array(mask)


def select(normal=(), abnormal=(), n="all", seed=0, progress=no_progress, plane="axial") -> TrainingSlices:
    config = FitConfig(shots=n, seed=seed, planes=plane, intensity="raw", image_size=SIZE)
    healthy, diseased = (
        [Case(*item) if isinstance(item, tuple) else Case(item) for item in given] for given in (normal, abnormal)
    )
    framed = [FramedVolume(case.volume, plane, "raw", SIZE) for case in (*healthy, *diseased)]
    return select_shots(healthy, diseased, (), framed, config, progress)


def test_all_slices_with_body():
    chosen = select([cylinder(9, "a")])
    assert chosen.record == [{"volume": "a", "normal": list(range(1, 10)), "abnormal": []}]
    assert chosen.shots.normal.shape == (9, SIZE, SIZE) and chosen.shots.normal.dtype == np.float32
    assert chosen.shots.abnormal.shape == (0, SIZE, SIZE) and chosen.shots.masks == ()
    assert not chosen.held_out, "nothing is left, so the shots themselves calibrate"
    assert chosen.normal[0].slices == list(range(1, 10)) and not chosen.normal[0].spare and chosen.normal[0].whole
    assert len(chosen.spare_images) == 9 and set(chosen.shots.volumes) == {0}


def test_shots_are_the_recorded_slices():
    volumes = [cylinder(9, "a"), cylinder(6, "b")]
    chosen = select(volumes, n=7)
    expected = [
        FramedVolume(volume, "axial", "raw", SIZE).images(record["normal"])
        for volume, record in zip(volumes, chosen.record, strict=True)
    ]
    assert np.array_equal(chosen.shots.normal, np.concatenate(expected))


@pytest.mark.parametrize(("lengths", "n", "shares"), [
    ((10, 10), 6, {3}), ((10, 10, 10), 7, {2, 3}), ((2, 20, 20), 12, {2, 5}), ((1, 1, 30), 10, {1, 8}),
    ((5, 9), 40, {5, 9}),
])  # fmt: skip
def test_volumes_share_the_shots_out_evenly(lengths, n, shares):
    chosen = select([cylinder(length) for length in lengths], n=n)
    counts = [len(record["normal"]) for record in chosen.record]
    assert sum(counts) == min(n, sum(lengths)) == len(chosen.shots.normal)
    assert set(counts) == shares


@pytest.mark.parametrize("seed", range(5))
def test_shots_spread_along_the_stack(seed):
    numbers = select([cylinder(30)], n=5, seed=seed).record[0]["normal"]
    assert len(set(numbers)) == 5
    assert set(np.diff(numbers)) == {6}, "30 slices, every sixth"


def test_seed_decides():
    volumes = [cylinder(40), cylinder(30)]
    records = [select(volumes, n=8, seed=seed).record for seed in (0, 0, 1)]
    assert records[0] == records[1] != records[2]


def test_spare_slices_are_all_others():
    chosen = select([cylinder(30), cylinder(20)], n=8)
    assert chosen.held_out
    for known, record, length in zip(chosen.normal, chosen.record, (30, 20), strict=True):
        assert not set(known.spare) & set(record["normal"])
        assert sorted(known.spare + record["normal"]) == known.slices == list(range(1, length + 1))
    assert chosen.shots.volumes.tolist() == [0] * 4 + [1] * 4
    assert len(chosen.spare_images) == 42
    assert len(select([cylinder(SPARE_IMAGES + 20)], n=4).spare_images) == SPARE_IMAGES


def test_normal_volume_with_a_mask_gives_its_free_slices():
    volume = cylinder(9, "a")
    chosen = select([(volume, lesion(volume, 3, 4))])
    assert chosen.record[0] == {"volume": "a", "normal": [1, 2, 5, 6, 7, 8, 9], "abnormal": []}
    assert not len(chosen.shots.abnormal)
    assert select([(volume, None)]).record == select([volume]).record
    assert select([(volume, lesion(volume))]).record == select([volume]).record, "an empty mask marks nothing"


def test_abnormal_volume_gives_both():
    volume = cylinder(9, "a")
    chosen = select([], [(volume, lesion(volume, 3, 4))])
    assert chosen.record[0] == {"volume": "a", "normal": [1, 2, 5, 6, 7, 8, 9], "abnormal": [3, 4]}
    framed = FramedVolume(volume, "axial", "raw", SIZE)
    assert np.array_equal(chosen.shots.abnormal, framed.images([3, 4]))
    assert len(chosen.shots.masks) == 2
    body = framed.masks(framed.foreground, [3])[0]
    for mask in chosen.shots.masks:
        expected = 64 / framed.foreground[..., 3].sum()
        assert mask.dtype == bool and mask.sum() / body.sum() == pytest.approx(expected, rel=0.2)
    np.testing.assert_array_equal(chosen.shots.masks[0], framed.masks(lesion(volume, 3).array, [3])[0])


def test_masks_follow_their_slices():
    volume = cylinder(9)
    mask = np.zeros(volume.shape, np.uint8)
    mask[4:8, 4:8, 2], mask[12:20, 12:20, 7] = 1, 1
    small, large = select([], [(volume, volume.with_array(mask))]).shots.masks
    assert 0 < small.sum() < large.sum()
    one = select([], [(volume, volume.with_array(mask))], n=1)
    assert one.shots.masks[0].sum() == {2: small, 7: large}[one.record[0]["abnormal"][0]].sum()


def test_planes_are_obeyed():
    volume = cylinder(9)
    assert len(select([volume], plane="coronal").shots.normal) == len(
        FramedVolume(volume, "coronal", "raw", 32).analysed
    )


def test_progress_names_each_volume():
    calls = []
    select([cylinder(3, "a"), cylinder(3, "b")], progress=lambda *call: calls.append(call))
    assert calls == [("read", 0, 2, {"volume": "a"}), ("read", 1, 2, {"volume": "b"}), ("read", 2, 2, {})]


def test_nothing_to_learn_from():
    volume = cylinder(3, "case")
    with pytest.raises(TrainingError, match="at least one normal volume"):
        select()
    with pytest.raises(TrainingError, match="No slice without lesion"):
        select([(volume, lesion(volume, 1, 2, 3))])
    with pytest.raises(TrainingError, match='"case" marks no voxel'):
        select([], [(volume, lesion(volume))])
    with pytest.raises(TrainingError, match='"case" marks no voxel'):
        select([], [(volume, None)])


def test_mask_on_another_grid():
    volume = cylinder(9)
    with pytest.raises(VolumeError):
        select([(volume, lesion(cylinder(8), 3))])
    shifted = volume.affine.copy()
    shifted[0, 3] += 5
    with pytest.raises(VolumeError):
        select([(volume, Volume(lesion(volume, 3).array, shifted))])


def test_background_alone_is_named_as_the_reason():
    empty = Volume(np.zeros((24, 24, 5), np.float32), np.eye(4), name="empty")
    with pytest.raises(TrainingError, match="show no body"):
        select([empty])
