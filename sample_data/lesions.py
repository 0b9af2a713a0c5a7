"""Five simulated abnormalities.

None of them uses MediCLIP's anomaly synthesis (pasted patches, noise under a Perlin mask, radial source deformation):
the sample study would otherwise test that method on what it was trained with. Used instead are irregular bodies with
diffused edges (shapes.py), tissue displaced along the gradient of the lesion's own shape and stopped by the skull,
fluid that follows white matter, cortex thickened towards the white matter, and a ventricle wall moved outwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy import ndimage

from sample_data.fields import STEP, compose, invert_at, lattice, voxel_points
from sample_data.person import Person, anatomy_at, ventricle_field
from sample_data.shapes import Blob, Texture, soft_edge, spread_in_white
from sample_data.template import Template, sample


@dataclass(frozen=True, eq=False)
class Scan:
    """Noiseless scan on the fine grid (I, J, K), into which a lesion is painted.

    Attributes
    ----------
    to_person : numpy.ndarray
        Matrix (4, 4) from voxel index to person mm.
    signal : numpy.ndarray
        Signal (I, J, K), white matter = 1.
    white : numpy.ndarray
        Probability (I, J, K) of white matter.
    inside : numpy.ndarray
        Voxels of the brain, bool (I, J, K).
    near : numpy.ndarray
        Voxels near the head, bool (I, J, K).
    shown : numpy.ndarray
        Template mm (3, n) that each of the n voxels near the head shows.
    """

    to_person: np.ndarray
    signal: np.ndarray
    white: np.ndarray
    inside: np.ndarray
    near: np.ndarray
    shown: np.ndarray

    @property
    def spacing(self) -> np.ndarray:
        """Voxel spacing (3,) in mm."""
        return np.linalg.norm(self.to_person[:3, :3], axis=0)

    def box(self, centre: np.ndarray, reach: float) -> tuple[slice, slice, slice]:
        """Return the part of the grid within `reach` mm of a point (person mm); ValueError if it is empty."""
        middle = np.linalg.solve(self.to_person, [*centre, 1.0])[:3]
        low = np.maximum(0, np.floor(middle - reach / self.spacing).astype(int))
        high = np.minimum(self.inside.shape, np.ceil(middle + reach / self.spacing).astype(int) + 1)
        if (low >= high).any():
            raise ValueError(f"no voxel within {reach} mm of {centre}: the lesion lies outside the field of view")
        i, j, k = (slice(a, b) for a, b in zip(low, high, strict=True))
        return i, j, k

    def points(self, box: tuple[slice, slice, slice]) -> np.ndarray:
        """Return the person mm of the voxels of a box, (3, i, j, k) float32."""
        return voxel_points(self.to_person, np.mgrid[box])


Paint = Callable[[Scan], tuple[np.ndarray, np.ndarray]]
"""Called with a scan; returns its signal (I, J, K) with the lesion, and the truth, bool (I, J, K)."""


@dataclass(frozen=True)
class Lesion:
    """Lesion of a person.

    Attributes
    ----------
    anatomy : numpy.ndarray
        Lattice field from person mm to template mm, mass effect included.
    paint : Paint
        Change of the signal.
    """

    anatomy: np.ndarray
    paint: Paint


@dataclass(frozen=True)
class MassAppearance:
    """Appearance of a mass.

    Attributes
    ----------
    radius, rim_width, oedema_reach, push : float
        Millimetres; `push` is how far tissue moves at the surface.
    core, rim : float
        Signal, white matter = 1.
    mottle : float
        Standard deviation of the signal's texture, as a share of it.
    oedema : float
        Share of the signal that oedema takes away.
    """

    radius: float
    core: float
    rim: float
    rim_width: float
    mottle: float
    oedema: float
    oedema_reach: float
    push: float


HAEMATOMA = MassAppearance(14, core=1.22, rim=0.55, rim_width=1.6, mottle=0.09, oedema=0.18, oedema_reach=4, push=7)
TUMOUR = MassAppearance(15, core=0.40, rim=1.05, rim_width=3.0, mottle=0.12, oedema=0.28, oedema_reach=9, push=7)


def mass(
    appearance: MassAppearance,
    where: tuple[float, float, float],
    person: Person,
    template: Template,
    rng: np.random.Generator,
) -> Lesion:
    """Make a space-occupying mass with core, rim, oedema and mass effect at template mm `where`."""
    centre = invert_at(person.anatomy, np.array(where, np.float32) + rng.normal(0, 3, 3).astype(np.float32))
    blob = Blob.draw(rng, centre, appearance.radius)
    mottle = Texture.draw(rng, centre, 2 * appearance.radius, 5.0)
    thickness = Texture.draw(rng, centre, 2 * appearance.radius, 7.0)
    push = _mass_effect(blob, appearance.push, person, template)
    return Lesion(compose(person.anatomy, push), partial(_paint_mass, appearance, blob, mottle, thickness))


def _mass_effect(blob: Blob, amount: float, person: Person, template: Template) -> np.ndarray:
    """Return the field that moves tissue outwards along the gradient of the mass's shape.

    It moves by `amount` mm at the surface of the mass, less with distance, and not at all at the skull.
    """
    points = lattice()
    level = ndimage.gaussian_filter(blob.level(points), 4.0 / STEP)
    outward = -_gradient(level, (STEP,) * 3)
    inner = np.clip(1 - level / blob.radius, 0, 1)  # the middle of the mass stays where it is
    decay = np.exp(-np.maximum(-level, 0) / 16.0)
    skull = np.clip(sample(template.depth, anatomy_at(person.anatomy, points)) / 12, 0, 1)
    return (-amount * outward * inner * decay * skull).astype(np.float32)


def _paint_mass(
    appearance: MassAppearance, blob: Blob, mottle: Texture, thickness: Texture, scan: Scan
) -> tuple[np.ndarray, np.ndarray]:
    box = scan.box(blob.centre, 1.6 * blob.radius + 2 * appearance.oedema_reach)
    points, inside = scan.points(box), scan.inside[box]
    level = blob.level(points)
    body = soft_edge(level, 0.7) * inside
    core = soft_edge(level - appearance.rim_width * np.clip(1 + 0.5 * thickness(points), 0.3, 2), 0.9)
    fluid = spread_in_white(body, scan.white[box], scan.spacing, appearance.oedema_reach) * (1 - body)
    rough = 1 + appearance.mottle * mottle(points)
    within = core * appearance.core + (1 - core) * appearance.rim
    signal, truth = scan.signal.copy(), np.zeros_like(scan.inside)
    signal[box] = (scan.signal[box] * (1 - appearance.oedema * fluid)) * (1 - body) + within * rough * body
    truth[box] = ((body > 0.5) | (fluid > 0.5)) & inside
    return signal, truth


def small_lesions(person: Person, template: Template, rng: np.random.Generator) -> Lesion:
    """Make thirteen dark spots of 6 to 12 mm in white matter, most beside the ventricles, as in multiple sclerosis."""
    points = lattice()
    shown = anatomy_at(person.anatomy, points)
    mirrored = shown * np.array([-1, 1, 1], np.float32).reshape(3, 1, 1, 1)
    to_ventricle = np.minimum(sample(template.ventricle, shown), sample(template.ventricle, mirrored))
    white = ndimage.gaussian_filter(sample(template.white, shown), 1.0)
    above_stem = shown[2] > -5
    beside = (white > 0.75) & (to_ventricle > 2) & (to_ventricle < 12) & above_stem
    further = (white > 0.75) & (to_ventricle > 14) & above_stem
    blobs: list[Blob] = []
    for region, count in ((beside, 9), (further, 4)):
        candidates = points[:, region].T
        while count:
            centre = candidates[rng.integers(len(candidates))] + rng.uniform(-1, 1, 3)
            if all(np.linalg.norm(centre - other.centre) > 14 for other in blobs):
                blobs.append(Blob.draw(rng, centre, rng.uniform(3.0, 6.0), bumps=0.25, rough=0.5))
                count -= 1
    return Lesion(person.anatomy, partial(_paint_small, blobs, rng.uniform(0.50, 0.68, len(blobs))))


def _paint_small(blobs: list[Blob], tones: np.ndarray, scan: Scan) -> tuple[np.ndarray, np.ndarray]:
    signal, truth = scan.signal.copy(), np.zeros_like(scan.inside)
    for blob, tone in zip(blobs, tones, strict=True):
        box = scan.box(blob.centre, 2 * blob.radius + 4)
        # White matter loses signal; grey matter and fluid at the border of the spot keep theirs.
        body = soft_edge(blob.level(scan.points(box)), 0.8) * np.clip(scan.white[box] / 0.4, 0, 1)
        signal[box] = signal[box] * (1 - body) + np.minimum(signal[box], tone) * body
        truth[box] |= (body > 0.5) & scan.inside[box]
    return signal, truth


def dysplasia(
    where: tuple[float, float, float], person: Person, template: Template, rng: np.random.Generator
) -> Lesion:
    """Make a focal cortical dysplasia at template mm `where`.

    The cortex is thickened inwards, the grey-white border is blurred, white matter is mottled, and a faint band runs to
    the ventricle. There is no mass effect, and the signal stays within the range of normal tissue.
    """
    centre = invert_at(person.anatomy, np.array(where, np.float32) + rng.normal(0, 3, 3).astype(np.float32))
    target = invert_at(person.anatomy, np.array([np.sign(where[0]) * 22.0, -20.0, 24.0], np.float32))
    window = Blob.draw(rng, centre, 19.0, bumps=0.2, rough=1.5)
    mottle = Texture.draw(rng, centre, 45.0, 4.0)
    return Lesion(person.anatomy, partial(_paint_dysplasia, window, target, mottle))


def _paint_dysplasia(window: Blob, target: np.ndarray, mottle: Texture, scan: Scan) -> tuple[np.ndarray, np.ndarray]:
    box = scan.box(window.centre, 2.2 * window.radius + 10)
    points, inside, before = scan.points(box), scan.inside[box], scan.signal[box]
    weight = soft_edge(window.level(points), 3.0)
    # Thickening: a white voxel near the border shows what lies some millimetres further out, the cortex.
    sigma = 2.0 / scan.spacing
    white = ndimage.gaussian_filter(scan.white[box], sigma)
    gradient = _gradient(white, scan.spacing)
    inward = gradient / (np.sqrt(np.sum(gradient**2, axis=0)) + 0.02)
    shift = -4.0 * weight * np.clip(white / 0.5, 0, 1) * inward
    index = np.indices(before.shape, dtype=np.float32) + shift / scan.spacing.reshape(3, 1, 1, 1).astype(np.float32)
    after = ndimage.map_coordinates(before, index, order=1, mode="nearest")
    # Blurred border: a local mean over the brain only, so that the outer surface stays sharp.
    wide = 1.8 / scan.spacing
    mean = ndimage.gaussian_filter(after * inside, wide) / np.maximum(ndimage.gaussian_filter(inside * 1.0, wide), 0.05)
    after = after + 0.7 * weight * (mean - after)
    # The band to the ventricle narrows on its way. Band and mottling take signal from white matter only.
    along = target - window.centre
    length = float(np.linalg.norm(along))
    axis = (along / length).reshape(3, 1, 1, 1).astype(np.float32)
    offset = points - window.centre.reshape(3, 1, 1, 1)
    travelled = np.sum(offset * axis, axis=0)
    from_axis = np.sqrt(np.maximum(np.sum(offset**2, axis=0) - travelled**2, 0))
    band = soft_edge(9.0 - 6.5 * np.clip(travelled / length, 0, 1) - from_axis, 1.5)
    band = band * soft_edge(travelled, 3.0) * soft_edge(length - travelled, 2.0)
    loss = np.clip(0.16 * band + 0.10 * weight * np.clip(0.7 + 0.7 * mottle(points), 0, 2), 0, 0.3)
    after = after * (1 - loss * np.clip(scan.white[box] / 0.6, 0, 1))
    signal, truth = scan.signal.copy(), np.zeros_like(scan.inside)
    signal[box] = np.where(inside, after, before)
    change = ndimage.gaussian_filter(np.abs(signal[box] - before), 2.0 / scan.spacing)
    truth[box] = (change > 0.035) & inside
    return signal, truth


def large_ventricle(growth: float, person: Person, template: Template, rng: np.random.Generator) -> Lesion:
    """Enlarge the left lateral ventricle by about `growth` mm on each wall, by a deformation alone."""
    wider = ventricle_field(template, 0.0, growth + rng.normal(0, 0.4))
    return Lesion(compose(wider, person.anatomy), partial(_paint_ventricle, template))


def _paint_ventricle(template: Template, scan: Scan) -> tuple[np.ndarray, np.ndarray]:
    """Leave the signal as it is; the truth is the whole enlarged ventricle, as a reader would outline it."""
    truth = np.zeros_like(scan.inside)
    truth[scan.near] = sample(template.ventricle, scan.shown) < 0
    return scan.signal, ndimage.binary_closing(truth, iterations=2) & scan.inside


def _gradient(values: np.ndarray, spacing: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return the gradient (3, I, J, K) of values (I, J, K)."""
    return np.stack([np.gradient(values, step, axis=axis) for axis, step in enumerate(spacing)])


LESIONS: dict[str, Callable[[Person, Template, np.random.Generator], Lesion]] = {
    "bright mass": partial(mass, HAEMATOMA, (30.0, 24.0, 26.0)),
    "dark mass": partial(mass, TUMOUR, (-36.0, -38.0, 22.0)),
    "small lesions": small_lesions,
    "texture": partial(dysplasia, (40.0, -8.0, 44.0)),
    "large ventricle": partial(large_ventricle, 5.0),
}
