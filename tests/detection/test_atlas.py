"""What is usual at each place, a volume's own level, and what outlined lesions say of brightness."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medclipad import fit, load_detector
from medclipad.detection.atlas import NormalAtlas, Places, RelativeBrightness, Usual, levels_of, own_level, squash
from medclipad.detection.config import FitConfig
from medclipad.detection.evidence import NormalPart, learn_atlas
from medclipad.detection.slice_frames import FramedVolume
from medclipad.volume import Volume

QUICK = {"planes": "axial", "shots": 8, "image_size": 128, "memory_size": 1000}


def ball(spacing=(2.0, 2.0, 2.0), offset=0.0) -> Volume:
    """A body of 80 × 60 × 70 mm, brighter towards the patient's left and top."""
    shape = [int(100 / step) for step in spacing]
    at = [(np.arange(n) + 0.5) * step - 50 for n, step in zip(shape, spacing, strict=True)]
    x, y, z = np.meshgrid(*at, indexing="ij")
    inside = (x / 40) ** 2 + ((y - offset) / 30) ** 2 + (z / 35) ** 2 < 1
    affine = np.diag([-spacing[0], spacing[1], spacing[2], 1.0])
    return Volume(np.where(inside, 300 - x + z, 0).astype(np.float32), affine, name="ball")


def reoriented(volume: Volume) -> Volume:
    """The same body in another order of axes."""
    affine = volume.affine[:, [2, 0, 1, 3]].copy()
    array = volume.array.transpose(2, 0, 1)[::-1]
    affine[:3, 3] += affine[:3, 0] * (len(array) - 1)
    affine[:3, 0] *= -1
    return Volume(np.ascontiguousarray(array), affine, name="turned")


def framed(volume: Volume) -> FramedVolume:
    return FramedVolume(volume, "axial", "mr", 64)


def test_places_are_those_of_the_body_in_any_order_of_axes():
    volume = ball()
    straight, turned, moved = (framed(v) for v in (volume, reoriented(volume), ball(offset=12)))
    sums = [Places(f).sums(f.volume.array, f.foreground) for f in (straight, turned, moved)]
    for other in sums[1:]:
        np.testing.assert_allclose(other.weight, sums[0].weight, atol=0.02 * sums[0].weight.max())
        np.testing.assert_allclose(other.value, sums[0].value, atol=0.02 * sums[0].value.max())
    assert sums[0].weight.sum() == pytest.approx(straight.foreground.sum() * 8 / 1000)


def test_cells_are_read_where_they_were_filled():
    view = framed(reoriented(ball()))
    places, array = Places(view), view.volume.array
    sums = places.sums(array, view.foreground)
    cells = np.divide(sums.value, sums.weight, where=sums.weight > 0.01, out=np.zeros_like(sums.value))
    back = places.sample(cells)
    deep = (cells > 0)[tuple(np.argwhere(cells > 0).mean(axis=0).astype(int))]
    middle = tuple(n // 2 for n in array.shape)
    assert deep and back[middle] == pytest.approx(array[middle], rel=0.02)
    np.testing.assert_array_equal(places.sample(cells, slice(3, 9)), back[3:9])


def test_sums_of_a_scan_can_be_taken_away():
    parts = [Places(framed(v)).sums(v.array, v.array > 0) for v in (ball(), ball(offset=5))]
    both = parts[0] + parts[1]
    np.testing.assert_allclose((both - parts[1]).value, parts[0].value, atol=1e-6)
    assert both.scans == 2 and (both - parts[1]).scans == 1


def normal_map(view: FramedVolume, seed: int, edge: float = 0.3) -> np.ndarray:
    """A map that is always high in the lower third of the body."""
    noise = np.random.default_rng(seed).normal(0.2, 0.02, view.volume.shape)
    low = np.arange(view.volume.shape[2]) < view.volume.shape[2] * 0.4
    return np.where(view.foreground, noise + edge * low, 0).astype(np.float32)


def test_what_is_high_in_normal_scans_is_not_unusual_there():
    view = framed(ball())
    parts = [NormalPart.of(normal_map(view, seed), view, view.foreground, 3.0) for seed in range(6)]
    atlas = learn_atlas(parts)
    new = normal_map(view, 99)
    low, high = (25, 25, 14), (25, 25, 34)
    new[high] = 0.5  # as high as it always is lower down
    value = new.copy()
    atlas.unusual(value, Places(view))
    assert value[high] > value[low] + 1
    plain = new.copy()
    atlas.unusual(plain, Places(view), local=False)
    assert plain[high] == pytest.approx(plain[low], abs=0.5), "compared with all places alone, they are equal"


def test_few_scans_say_less_of_a_place_than_many():
    view = framed(ball())
    parts = [NormalPart.of(normal_map(view, seed), view, view.foreground, 3.0) for seed in range(6)]
    few, many = learn_atlas(parts[:1]).map, learn_atlas(parts).map
    place = (12, 12, 6)
    assert abs(few.mean[place] - few.overall_mean) < abs(many.mean[place] - many.overall_mean)


def test_a_lifted_volume_is_read_relative_to_itself_but_not_one_beyond_all_normal_scans():
    view = framed(ball())
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 1, view.volume.shape).astype(np.float32)
    usual = Usual(np.zeros((24,) * 3, np.float32), np.ones((24,) * 3, np.float32), 0.0, 1.0)
    level, spread = levels_of([own_level(noise + lift, view.foreground) for lift in (0, 0, 2)])
    atlas = NormalAtlas(usual, usual, level, spread)

    def median(lift: float) -> float:
        values = noise + np.float32(lift)
        atlas.relative_to_itself(values, view.foreground)
        return float(np.median(values[view.foreground]))

    assert median(2) < 0.8, "a normal scan was as high as this"
    assert median(5) > 3, "abnormal everywhere: what exceeds all normal scans stays"
    assert median(-1) == pytest.approx(median(0) - 1, abs=0.01), "a low level is not lifted"


def test_brightness_follows_neither_gain_nor_missing_values():
    volume = ball()
    once = RelativeBrightness(framed(volume)).smoothed(3.0)
    twice = RelativeBrightness(framed(volume.with_array(volume.array * 2))).smoothed(3.0)
    np.testing.assert_allclose(RelativeBrightness(framed(volume)).smoothed(3.0, slice(20, 31)), once[20:31], atol=1e-5)
    np.testing.assert_allclose(once, twice, atol=1e-3)
    holed = volume.array.copy()
    holed[25, 25, 25] = np.nan
    assert np.isfinite(RelativeBrightness(framed(volume.with_array(holed))).smoothed(3.0)).all()


def test_squash_keeps_the_order():
    values = np.linspace(-30, 30, 601, dtype=np.float32)
    squash(values)
    assert (np.diff(values) > 0).all() and 0 < values[0] < 0.5 < values[-1] < 1 and values[300] == 0.5


def test_outlined_lesions_say_whether_they_are_bright(head, lesion):
    """The direction is learned: copies with inverted contrast give the opposite weight, and maps as good."""

    def inverted(volume: Volume) -> Volume:
        body = volume.array > 0
        return volume.with_array(np.where(body, volume.array.max() + 1 - volume.array, 0).astype(np.float32))

    normal, shown, new = [head(10), head(11), head(12)], head(0, True), head(5, True)
    weights, peaks = [], []
    for turn in (lambda volume: volume, inverted):
        detector = fit(normal=[turn(v) for v in normal], abnormal=[(turn(shown), lesion)], **QUICK)
        assert detector.evidence is not None
        weights.append(detector.evidence.weights[2])
        result = detector.detect(turn(new)).anomaly_map.array
        inside = lesion.array > 0
        peaks.append(result[inside].mean() - result[~inside & (new.array > 0)].mean())
    assert weights[0] * weights[1] < 0 and min(peaks) > 0.15
    plain = fit(normal=normal, **QUICK)
    assert plain.evidence is not None and plain.evidence.weights[2:] == (0, 0)


def test_evidence_is_saved(head, tmp_path):
    detector = fit(normal=[head(10), head(11)], **QUICK)
    detector.save(tmp_path / "saved")
    again = load_detector(tmp_path / "saved")
    ours, theirs = (one.detect(head(5, True)).anomaly_map.array for one in (detector, again))
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert fit(normal=[head(10)], **QUICK).evidence is None, "one scan cannot be held against others"


@pytest.mark.parametrize(("spacing", "planes"), [
    ((1.0, 1.0, 1.0), "all"), ((1.0, 1.0, 2.0), "all"), ((1.0, 1.0, 5.0), "acquisition"),
])  # fmt: skip
def test_auto_takes_all_planes_where_voxels_are_nearly_cubes(spacing, planes):
    config = FitConfig().for_volumes([ball(spacing)] * 3)
    assert config.planes == planes and config.intensity == "mr"
    assert FitConfig().for_volumes([ball(spacing)], whole=False).planes in ("axial", "acquisition")
    assert FitConfig(planes="coronal").for_volumes([ball(spacing)]).planes == "coronal"


def test_most_volumes_decide_on_the_planes():
    thin, thick = ball((1.0, 1.0, 1.0)), ball((1.0, 1.0, 5.0))
    assert FitConfig().for_volumes([thin, thin, thick]).planes == "all"
    assert FitConfig().for_volumes([thin, thick, thick]).planes == "acquisition"
    picture = replace(thin, array=thin.array[:, :, 50:51])
    assert FitConfig().for_volumes([picture]).planes == "acquisition"
