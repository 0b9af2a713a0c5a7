"""Tests of the FROC against figures computed by hand and against brute force, and of its rules."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.measure import label

from medclipad.detection.regions import region_labels
from medclipad.evaluation.froc import LEVELS, RATES, SIZES, CaseRegions, Froc, match_regions
from tests.evaluation.hand_made import row

ABNORMAL = row(0, 0.9, 0.6, 0, 0.7, 0, 0.55, 0.52, 0, 0.45, 0, 0.3)
TRUTH = row(0, 1, 1, 0, 0, 0, 0, 1, 0, 1, 0, 0)
NORMAL = row(0, 0.8, 0.6, 0, 0, 0, 0, 0, 0, 0, 0, 0)


def at(case: CaseRegions, level: float) -> tuple[list[float], list[float]]:
    """Return the peaks of the false regions and of those that found each lesion at a level."""
    (found,) = [part for part in case.levels if part.level == level]
    return [round(peak, 5) for peak in found.false_peaks], [round(peak, 5) for peak in found.found_peaks]


def sensitivities(froc: Froc, rates: tuple[float, ...] = RATES) -> list[float]:
    """Return the sensitivity over all lesions at rates, each case counted once."""
    once = np.ones((1, len(froc.false)))
    return froc.sensitivity(once, froc.best(once, rates))[0, :, -1].tolist()


def test_by_hand():
    """Lesion 1 holds a peak of .9; beside lesion 2 is a peak of .55; lesion 3 holds one of .45; .7 and .3 are false."""
    sick, healthy = match_regions(ABNORMAL, TRUTH, 1.0), match_regions(NORMAL, row(*[0] * 12), 1.0)
    assert at(sick, 0.5) == ([0.55, 0.7], [0.9, -np.inf, -np.inf]), "the larger false region first"
    assert at(sick, 0.4)[1] == [0.9, -np.inf, 0.45] and len(at(sick, 0.4)[0]) == 2
    assert len(at(sick, 0.25)[0]) == 3 and at(healthy, 0.5) == ([0.8], [])
    froc = Froc([sick, healthy])
    # From a peak of .9: 0 false regions, 1 of 3 lesions; above .4: 3 in 2 scans, 2 of 3; above .25: 4 in 2 scans.
    assert sensitivities(froc) == pytest.approx([1 / 3] * 4 + [2 / 3] * 3)
    assert sensitivities(froc, (0.001, 1.499, 1.5)) == pytest.approx([1 / 3, 1 / 3, 2 / 3])
    best = froc.best(np.ones((1, 2)), (1, 2))[0]
    assert froc.limits[best] == pytest.approx([0.9, 0.4])
    # The abnormal scan alone has twice as many false regions per scan, two normal ones beside it fewer.
    assert sensitivities(Froc([sick]), (1.9, 2)) == pytest.approx([1 / 3, 2 / 3])
    weighted = froc.sensitivity(np.array([[1, 2]]), froc.best(np.array([[1, 2]]), (1.3, 1.4)))
    assert weighted[0, :, -1] == pytest.approx([1 / 3, 2 / 3]), "(2 + 2 · 1) / 3 scans"


def test_a_region_beside_a_lesion_or_around_it_does_not_find_it():
    around = row(0.6, 0.7, 0.8, 0.7, 0.6)
    assert at(match_regions(around, row(0, 1, 0, 0, 0), 1.0), 0.5)[1] == [-np.inf], (
        "it overlaps, but its peak is outside"
    )
    assert at(match_regions(around, row(0, 0, 1, 0, 0), 1.0), 0.5) == ([], [pytest.approx(0.8)])
    assert at(match_regions(around, row(1, 1, 1, 1, 1), 1.0), 0.5) == ([], [pytest.approx(0.8)]), "much larger than it"


def test_further_regions_in_a_found_lesion_are_neither_hits_nor_false():
    twice = match_regions(row(0.7, 0, 0.9, 0, 0.6), row(1, 1, 1, 0, 0), 1.0)
    assert at(twice, 0.5) == ([pytest.approx(0.6)], [pytest.approx(0.9)])
    # A region whose highest value is in two lesions finds both.
    assert at(match_regions(row(0.9, 0.6, 0.9), row(1, 0, 1), 1.0), 0.5) == ([], [pytest.approx(0.9)] * 2)


def test_corners_connect_regions_and_lesions():
    diagonal = np.zeros((3, 3, 3), np.float32)
    diagonal[0, 0, 0], diagonal[1, 1, 1] = 0.6, 0.9
    case = match_regions(diagonal, diagonal > 0, 0.5)
    assert case.lesion_ml == (1.0,) and at(case, 0.5) == ([], [pytest.approx(0.9)])


def test_the_detectors_own_limits():
    case = match_regions(ABNORMAL, TRUTH, 1.0, [(0.5, 0.8), (1.0, 0.6), (2.0, 0.5), (4.0, 0.4), (8.0, 0.22)])
    assert [(point.promised, point.limit, point.false, sum(point.found)) for point in case.promised] == [
        (0.5, 0.8, 0, 1),
        (1.0, 0.6, 1, 1),
        (2.0, 0.5, 2, 1),
        (4.0, 0.4, 2, 2),
        (8.0, 0.22, 3, 2),
    ]


def test_sizes():
    truth = np.zeros((60, 60, 60), bool)
    for centre, radius in ((8, 2), (20, 4), (50, 8)):  # lesions of about 4, 8 and 16 mm, and one of 24 mm
        truth |= radius**2 >= ((np.indices(truth.shape).T - centre) ** 2).sum(axis=-1).T
    truth |= ((np.indices(truth.shape).T - (45, 15, 15)) ** 2).sum(axis=-1).T <= 12**2
    case = match_regions(np.zeros(truth.shape, np.float32), truth, 0.001)
    assert sorted(case.diameters) == pytest.approx([4, 8, 16, 24], rel=0.05)
    assert Froc([case]).lesions.tolist() == [[1, 1, 1, 1]] and SIZES == (0, 6, 12, 20)
    assert match_regions(truth * 0.0, truth, 0.008).diameters == pytest.approx(2 * case.diameters), "voxels of 2 mm"


def test_sensitivity_by_size_is_at_the_same_limit():
    truth = row(*[1] * 3, 0, *[1] * 300, 0, 0, 0)
    values = row(0.6, *[0] * 303, 0.7, 0, 0)
    values[4] = 0.9
    froc = Froc([match_regions(values, truth, 1.0)])
    once = np.ones((1, 1))
    # 17.9 and 83 mm; the false region of .7 comes before the smaller lesion's .6.
    expected = np.array([[np.nan, np.nan, 0, 1, 0.5], [np.nan, np.nan, 1, 1, 1]])
    np.testing.assert_array_equal(froc.sensitivity(once, froc.best(once, (0.5, 1)))[0], expected)


def test_no_lesion_and_nothing_found():
    healthy = match_regions(NORMAL, row(*[0] * 12), 1.0)
    assert np.isnan(sensitivities(Froc([healthy]))).all()
    missed = match_regions(row(0, 0, 0), row(1, 0, 0), 1.0)
    assert sensitivities(Froc([missed])) == [0] * 7


@pytest.mark.parametrize("seed", range(6))
def test_equals_brute_force(seed):
    rng = np.random.default_rng(seed)
    scans = []
    for number in range(5):
        values = gaussian_filter(rng.normal(size=(14, 13, 12)), 1.2)
        values = np.clip(0.35 + 0.6 * values / values.max(), 0, 1).astype(np.float32)
        truth = gaussian_filter(rng.normal(size=values.shape), 1.5) > (0.17 if number < 3 else 9)
        scans.append((values, truth))
    froc = Froc([match_regions(values, truth, 1.0) for values, truth in scans])
    limits = [np.unique(np.concatenate([region_labels(values, 0.5, 0.5)[1] for values, _ in scans])), [*LEVELS[1:]]]
    points = []
    for limit in np.concatenate(limits):
        false = found = lesions = 0
        for values, truth in scans:
            wanted = label(truth, connectivity=3)
            regions = label(values > min(0.5, limit), connectivity=3)
            hit = set()
            for number in range(1, regions.max() + 1):
                i, j, k = np.unravel_index(np.where(regions == number, values, -1).argmax(), values.shape)
                if values[i, j, k] >= limit:
                    hit.add(wanted[i, j, k])
                    false += wanted[i, j, k] == 0
            found += len(hit - {0})
            lesions += wanted.max()
        points.append((false / len(scans), found / lesions))
    for rate in (0.2, 1, 2, 3, 5, 8):
        expected = max((found for false, found in points if false <= rate + 1e-9), default=0)
        assert sensitivities(froc, (rate,)) == pytest.approx([expected]), rate
