"""Simulate a case: a person, with or without a lesion, and the scan on the case's grid, stored as integers."""

from __future__ import annotations

import zlib

import numpy as np

from medclipad.volume import Volume
from sample_data.cases import Case, Grid
from sample_data.fields import evaluate, voxel_points
from sample_data.lesions import LESIONS, Scan
from sample_data.person import Person, anatomy_at, make_person
from sample_data.template import HEAD_CENTRE, Template, load_template, sample


def simulate(case: Case, seed: int) -> tuple[Volume, Volume | None]:
    """Simulate a case.

    The same case and seed give the same voxels. Each id has its own random numbers, so no two cases share a person.

    Returns
    -------
    tuple of Volume and (Volume or None)
        Volume of type `case.dtype`, and the lesion's mask (uint8 0 or 1, same grid), None for a normal case.
    """
    template = load_template()
    name = zlib.crc32(case.id.encode())
    anatomy_rng, lesion_rng, noise_rng = (np.random.default_rng([seed, name, k]) for k in range(3))
    person = make_person(anatomy_rng, template, case.grid.tilt)
    lesion = LESIONS[case.kind](person, template, lesion_rng) if case.kind != "normal" else None
    centre = person.pose[:3, :3] @ HEAD_CENTRE + person.pose[:3, 3]
    affine = case.grid.affine(np.round(centre))
    scan = scan_person(case.grid, affine, person, lesion.anatomy if lesion else person.anatomy, template)
    signal, truth = lesion.paint(scan) if lesion else (scan.signal, None)
    signal = np.where(scan.inside, signal, 0)
    inside = voxel_points(scan.to_person, np.array(np.nonzero(scan.inside)))
    signal[scan.inside] *= evaluate(person.bias * person.regional, inside)

    axis, parts = _thick_axis(case.grid)
    image = _average(signal, axis, parts)
    inside = _average(scan.inside.astype(np.float32), axis, parts) >= 0.5
    stored = _store(image, inside, person.noise, case, noise_rng)
    volume = Volume(array=stored, affine=affine, name=case.id, modality="MR")
    if truth is None:
        return volume, None
    mask = (_average(truth.astype(np.float32), axis, parts) >= 0.5) & inside
    return volume, Volume(array=mask.astype(np.uint8), affine=affine, name=case.id)


def _thick_axis(grid: Grid) -> tuple[int, int]:
    """Return the axis of the thickest slices, and the number of thin parts that are simulated of each and averaged."""
    axis = int(np.argmax(grid.spacing))
    return axis, max(1, round(grid.spacing[axis] / min(grid.spacing)))


def _average(array: np.ndarray, axis: int, parts: int) -> np.ndarray:
    shape = (*array.shape[:axis], array.shape[axis] // parts, parts, *array.shape[axis + 1 :])
    return array.reshape(shape).mean(axis=axis + 1, dtype=np.float32)


def scan_person(grid: Grid, affine: np.ndarray, person: Person, anatomy: np.ndarray, template: Template) -> Scan:
    """Return the noiseless scan of a person, before thick slices are averaged.

    Parameters
    ----------
    grid, affine
        Grid of the case and its matrix (4, 4) to scanner mm.
    person
        Person who is scanned.
    anatomy
        Lattice field from person mm to template mm: the person's own, or with a lesion's mass effect.
    template
        Template that is deformed.

    Returns
    -------
    Scan
        On the grid, its thickest axis cut into thin parts.
    """
    axis, parts = _thick_axis(grid)
    i, j, k = (n * parts if a == axis else n for a, n in enumerate(grid.shape))
    shape = (i, j, k)
    fine = affine.copy()
    fine[:3, axis] /= parts
    fine[:3, 3] -= fine[:3, axis] * (parts - 1) / 2
    to_person = np.linalg.inv(person.pose) @ fine

    near = _near_head(to_person, shape, anatomy, template)
    shown = anatomy_at(anatomy, voxel_points(to_person, np.array(np.nonzero(near))))

    def on_grid(values: np.ndarray) -> np.ndarray:
        full = np.zeros(shape, values.dtype)
        full[near] = values
        return full

    return Scan(
        to_person=to_person,
        signal=on_grid(person.signal(sample(template.t1, shown, order=2))),
        white=on_grid(sample(template.white, shown)),
        inside=on_grid(sample(template.depth, shown) > 0),
        near=near,
        shown=shown,
    )


def _near_head(
    to_person: np.ndarray, shape: tuple[int, int, int], anatomy: np.ndarray, template: Template
) -> np.ndarray:
    """Return the voxels in the head or up to some 8 mm from it, found on every fourth voxel to save time."""
    points = voxel_points(to_person, np.mgrid[tuple(slice(0, n, 4) for n in shape)])
    coarse = sample(template.depth, anatomy_at(anatomy, points)) > -8
    full = coarse.repeat(4, axis=0).repeat(4, axis=1).repeat(4, axis=2)
    return full[tuple(slice(0, n) for n in shape)]


def _store(image: np.ndarray, inside: np.ndarray, noise: float, case: Case, rng: np.random.Generator) -> np.ndarray:
    """Add Rician noise (the magnitude of a noisy complex signal) in the brain and round to integers; 0 outside."""
    clean = image[inside]
    real, imaginary = (noise * rng.standard_normal(clean.shape, dtype=np.float32) for _ in range(2))
    magnitude = np.hypot(clean + real, imaginary) * case.white
    stored = np.zeros(image.shape, case.dtype)
    stored[inside] = np.clip(np.rint(magnitude), 1, np.iinfo(case.dtype).max)
    return stored
