"""Properties of the simulation: no folded tissue, mass effect that ends at the skull, lesions where the truth is."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from sample_data.cases import Grid
from sample_data.fields import LATTICE_SHAPE, STEP, evaluate, invert_at, lattice
from sample_data.lesions import LESIONS
from sample_data.person import anatomy_at, make_person
from sample_data.shapes import Blob, soft_edge, spread_in_white
from sample_data.simulate import scan_person
from sample_data.template import load_template, sample

GRID = Grid("RAS", (2, 2, 2))


@pytest.fixture(scope="module")
def person():
    return make_person(np.random.default_rng(5), load_template())


@pytest.fixture(scope="module", params=LESIONS)
def lesion(request, person):
    made = LESIONS[request.param](person, load_template(), np.random.default_rng(7))
    return request.param, made


@pytest.fixture(scope="module")
def scan(lesion, person):
    affine = GRID.affine(np.round(person.pose[:3, :3] @ [0, -17, 9.5] + person.pose[:3, 3]))
    return scan_person(GRID, affine, person, lesion[1].anatomy, load_template())


def _in_brain(person) -> np.ndarray:
    return sample(load_template().depth, anatomy_at(person.anatomy, lattice())) > 0


def test_no_tissue_is_folded(lesion, person):
    points = lattice() + lesion[1].anatomy
    jacobian = np.linalg.det(np.moveaxis(np.stack([np.gradient(c, STEP) for c in points]), (0, 1), (-2, -1)))
    inside = ndimage.binary_erosion(_in_brain(person))
    assert (jacobian[inside] <= 0).mean() < 2e-4


def test_mass_effect_moves_tissue_but_not_the_skull(lesion, person):
    kind, made = lesion
    moved = np.linalg.norm(made.anatomy - person.anatomy, axis=0)
    if kind in ("small lesions", "texture"):
        assert moved.max() == 0
        return
    depth = sample(load_template().depth, anatomy_at(person.anatomy, lattice()))
    assert moved[depth > 10].max() > 3.5
    assert moved[depth <= 0].max() < 0.2
    assert np.median(moved[depth > 0]) < 1, "it must stay around the lesion"


def test_lesion_changes_the_signal_where_the_truth_is_and_nowhere_else(lesion, scan):
    kind, made = lesion
    signal, truth = made.paint(scan)
    assert truth.any() and scan.inside[truth].all()
    change = np.abs(signal - scan.signal) * scan.inside
    if kind == "large ventricle":
        assert change.max() == 0, "a deformation only"
        assert np.median(signal[truth]) < 0.45, "the truth is the fluid"
        return
    assert np.mean(change[truth] > 0.02) > 0.75
    far = ndimage.distance_transform_edt(~truth, sampling=2) > 8
    # What is left is the edge of an oedema or a mottled border, too faint to be outlined.
    assert change[far].max() < 0.05
    assert np.mean(change[~truth & scan.inside] > 0.02) < 0.02


def test_bright_mass_is_bright_and_dark_mass_is_dark(person):
    template = load_template()
    affine = GRID.affine(np.round(person.pose[:3, :3] @ [0, -17, 9.5] + person.pose[:3, 3]))
    cores = {}
    for kind in ("bright mass", "dark mass"):
        made = LESIONS[kind](person, template, np.random.default_rng(1))
        scan = scan_person(GRID, affine, person, made.anatomy, template)
        signal, truth = made.paint(scan)
        depth = ndimage.distance_transform_edt(truth)
        cores[kind] = np.median(signal[depth > 0.7 * depth.max()])
    assert cores["bright mass"] > 1.1 and cores["dark mass"] < 0.6


def test_texture_stays_within_normal_signals(person):
    template = load_template()
    affine = GRID.affine(np.round(person.pose[:3, :3] @ [0, -17, 9.5] + person.pose[:3, 3]))
    made = LESIONS["texture"](person, template, np.random.default_rng(1))
    scan = scan_person(GRID, affine, person, made.anatomy, template)
    signal, truth = made.paint(scan)
    low, high = np.percentile(scan.signal[scan.inside], (1, 99.9))
    assert np.mean((signal[truth] < low) | (signal[truth] > high)) < 0.02


def test_inverse_of_a_field(person):
    target = np.array([20.0, -30.0, 15.0], np.float32)
    point = invert_at(person.anatomy, target)
    np.testing.assert_allclose(point + evaluate(person.anatomy, point[:, None])[:, 0], target, atol=0.05)


def test_brains_are_asymmetric(person):
    shown = anatomy_at(person.anatomy, lattice())
    mirrored = np.array([-1, 1, 1], np.float32).reshape(3, 1, 1, 1) * lattice()
    other = anatomy_at(person.anatomy, mirrored) * np.array([-1, 1, 1], np.float32).reshape(3, 1, 1, 1)
    inside = _in_brain(person)
    assert 1 < np.linalg.norm(shown - other, axis=0)[inside].mean() < 12
    assert shown.shape == (3, *LATTICE_SHAPE)


def test_blob_is_roughly_round_with_a_soft_edge():
    rng = np.random.default_rng(2)
    blob = Blob.draw(rng, np.zeros(3), 10.0)
    points = np.mgrid[-30:31, -30:31, -30:31].astype(np.float32)
    level = blob.level(points)
    volume = (level > 0).sum()
    assert 0.3 < volume / (4 / 3 * np.pi * 1000) < 4
    assert ndimage.label(level > 1)[1] == 1
    np.testing.assert_allclose(soft_edge(np.array([-50.0, 0.0, 50.0]), 1.0), [0, 0.5, 1], atol=1e-6)


def test_fluid_follows_white_matter():
    white = np.zeros((31, 31, 31), np.float32)
    white[:, 14:17, 14:17] = 1  # a tract along the first axis
    seed = np.zeros_like(white)
    seed[15, 15, 15] = seed[14:17, 14:17, 14:17] = 1
    fluid = spread_in_white(seed, white, np.ones(3), 10)
    assert fluid[white == 0].max() == 0
    along = fluid[15:, 15, 15]
    assert along[0] == 1 and np.all(np.diff(along) <= 1e-6) and along[4] > 0.2 and along[-1] == 0


@pytest.mark.parametrize("axes", ["RAS", "LAS", "LPS", "PIR"])
def test_grid_points_along_its_axes(axes):
    grid = Grid(axes, (1, 2, 3))
    affine = grid.affine(np.zeros(3))
    for k, letter in enumerate(axes):
        world = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}[letter]
        assert np.sign(affine[world, k]) == (1 if letter in "RAS" else -1)
    middle = affine[:3, :3] @ ((np.array(grid.shape) - 1) / 2) + affine[:3, 3]
    np.testing.assert_allclose(middle, 0, atol=1e-3)
