"""A simulated person: anatomy (a smooth deformation of the template), pose in the scanner, and the scanner's mood."""

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
    """anatomy: lattice field, person mm -> template mm.  pose: (4, 4), person mm -> scanner mm (RAS+).
    csf, grey: signal of these tissues where white matter is 1.  bias: (*lattice) multiplicative coil field.
    regional: (*lattice) multiplicative tissue signal.  noise: standard deviation of the scanner's noise, white = 1."""

    anatomy: np.ndarray
    pose: np.ndarray
    csf: float
    grey: float
    bias: np.ndarray
    regional: np.ndarray
    noise: float

    def signal(self, t1: np.ndarray) -> np.ndarray:
        """This person's T1 contrast: template units -> signal with white matter at 1, monotone; float32."""
        knots = [40.0, CSF, GREY, WHITE, 250.0]
        values = [0.6 * self.csf, self.csf, self.grey, 1.0, 1.06]
        table = PchipInterpolator(knots, values)(np.arange(40.0, 250.5, 0.5))
        return np.interp(t1, np.arange(40.0, 250.5, 0.5), table).astype(np.float32)


def make_person(rng: np.random.Generator, template: Template, tilt: tuple[float, float, float] = (0, 0, 0)) -> Person:
    """Draw a person. tilt: degrees about the x, y, z axes by which the head lies in the scanner beside its own few."""
    points = lattice()
    centred = points - HEAD_CENTRE.reshape(3, 1, 1, 1).astype(np.float32)
    # Size and proportions of the head, then shape: lobes (25 mm), gyri (10 mm), the course of single sulci (5 mm).
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
    """Yakovlevian torque, the common asymmetry: the right frontal and left occipital poles reach further."""
    x, y, _ = points
    field = np.zeros_like(points)
    field[1] = amplitude * np.tanh(x / 25) * (np.exp(-(((y - 50) / 35) ** 2)) + np.exp(-(((y + 85) / 35) ** 2)))
    return -field


def ventricle_field(template: Template, growth: float, left_more: float) -> np.ndarray:
    """Field that moves the walls of the lateral ventricles outwards by about `growth` mm, on the left by `left_more`
    more; it dies out over some 15 mm and at the skull. Followed in small steps, so that no tissue folds."""
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
    """Lattice field of unit vectors out of the left ventricle, fading with distance from it and towards the skull."""
    points = lattice()
    step = 1.5 * np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1, 1)
    ahead, behind = ([sample(template.ventricle, points + sign * s) for s in step] for sign in (1, -1))
    gradient = (np.stack(ahead) - np.stack(behind)) / 3
    distance = np.maximum(sample(template.ventricle, points), 0)
    skull = np.clip(sample(template.depth, points) / 10, 0, 1)
    return gradient * np.exp(-((distance / 15) ** 2)) * skull


def anatomy_at(field: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Template mm of person mm points (3, ...)."""
    return points + evaluate(field, points)
