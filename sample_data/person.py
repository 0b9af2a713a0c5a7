"""Simulated people: a smooth deformation of the template, a pose in the scanner, contrast, coil bias and noise."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.spatial.transform import Rotation

from sample_data.fields import LATTICE_SHAPE, STEP, compose, evaluate, lattice, smooth_noise
from sample_data.template import CSF, GREY, HEAD_CENTRE, WHITE, Template, sample


@dataclass(frozen=True)
class Person:
    """Simulated person in a scanner.

    Attributes
    ----------
    anatomy : numpy.ndarray
        Lattice field from person mm to template mm.
    pose : numpy.ndarray
        Matrix (4, 4) from person mm to scanner mm (RAS+).
    csf, grey : float
        Signal of these tissues, white matter = 1.
    bias : numpy.ndarray
        Lattice of factors: sensitivity of the coil.
    regional : numpy.ndarray
        Lattice of factors: slow regional changes of the tissue's signal.
    noise : float
        Standard deviation of the scanner's noise, white matter = 1.
    """

    anatomy: np.ndarray
    pose: np.ndarray
    csf: float
    grey: float
    bias: np.ndarray
    regional: np.ndarray
    noise: float

    def signal(self, t1: np.ndarray) -> np.ndarray:
        """Return T1 values in template units as this person's signal, white matter = 1, float32; monotone."""
        knots = [40.0, CSF, GREY, WHITE, 250.0]
        values = [0.6 * self.csf, self.csf, self.grey, 1.0, 1.06]
        table = PchipInterpolator(knots, values)(np.arange(40.0, 250.5, 0.5))
        return np.interp(t1, np.arange(40.0, 250.5, 0.5), table).astype(np.float32)


def make_person(rng: np.random.Generator, template: Template, tilt: tuple[float, float, float] = (0, 0, 0)) -> Person:
    """Draw a person.

    Parameters
    ----------
    rng
        Source of everything that differs between people.
    template
        Template that is deformed.
    tilt
        Degrees about x, y and z by which the head is tilted in the scanner, in addition to a few random ones.
    """
    points = lattice()
    centred = points - HEAD_CENTRE.reshape(3, 1, 1, 1).astype(np.float32)
    # Size and proportions of the head, then its shape: lobes (25 mm), gyri (10 mm), single sulci (5 mm).
    scales = 1 + rng.normal(0, 0.03, 3)
    anatomy = centred * (1 / scales - 1).reshape(3, 1, 1, 1).astype(np.float32)
    for sigma, amplitude in ((25, 3.5), (10, 1.6), (5, 0.7)):
        anatomy += amplitude * np.stack([smooth_noise(rng, LATTICE_SHAPE, sigma / STEP) for _ in range(3)])
    anatomy += _torque(points, rng.normal(2.0, 1.0))
    anatomy = compose(ventricle_field(template, rng.normal(0.3, 0.5), rng.normal(0, 0.25)), anatomy)

    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("xyz", np.asarray(tilt) + rng.normal(0, 2.0, 3), degrees=True).as_matrix()
    pose[:3, 3] = rng.normal(0, 4.0, 3)
    return Person(
        anatomy=anatomy.astype(np.float32),
        pose=pose,
        csf=rng.uniform(0.22, 0.34),
        grey=rng.uniform(0.62, 0.71),
        bias=np.exp(rng.uniform(0.05, 0.10) * smooth_noise(rng, LATTICE_SHAPE, 40 / STEP)),
        regional=1 + 0.015 * smooth_noise(rng, LATTICE_SHAPE, 8 / STEP),
        noise=rng.uniform(0.015, 0.03),
    )


def _torque(points: np.ndarray, amplitude: float) -> np.ndarray:
    """Return the Yakovlevian torque, the usual asymmetry: right frontal and left occipital poles reach further."""
    x, y, _ = points
    field = np.zeros_like(points)
    field[1] = amplitude * np.tanh(x / 25) * (np.exp(-(((y - 50) / 35) ** 2)) + np.exp(-(((y + 85) / 35) ** 2)))
    return -field


def ventricle_field(template: Template, growth: float, left_more: float) -> np.ndarray:
    """Return a field that moves the walls of the lateral ventricles outwards.

    They move by about `growth` mm, the left ones by `left_more` mm more. The field fades over some 15 mm and towards
    the skull. It is followed in small steps, so that no tissue folds.
    """
    start = lattice()
    points = start.copy()
    normals = _wall_normals(template)
    mirror = np.array([-1, 1, 1], np.float32).reshape(3, 1, 1, 1)
    for amount, flip in ((growth + left_more, np.float32(1)), (growth, mirror)):  # the template is symmetric
        steps = max(1, round(2 * abs(amount)))
        for _ in range(steps if amount else 0):
            points -= flip * evaluate(normals, points * flip) * np.float32(amount / steps)
    return points - start


@lru_cache(maxsize=1)
def _wall_normals(template: Template) -> np.ndarray:
    """Return unit vectors out of the left ventricle on the lattice, fading with distance and towards the skull."""
    points = lattice()
    step = 1.5 * np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1, 1)
    ahead, behind = ([sample(template.ventricle, points + sign * s) for s in step] for sign in (1, -1))
    gradient = (np.stack(ahead) - np.stack(behind)) / 3
    distance = np.maximum(sample(template.ventricle, points), 0)
    skull = np.clip(sample(template.depth, points) / 10, 0, 1)
    return gradient * np.exp(-((distance / 15) ** 2)) * skull


def anatomy_at(field: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the template mm of points (3, ...) in person mm, given the anatomy's field."""
    return points + evaluate(field, points)
