"""Parts of simulated lesions: irregular shapes, textures, soft edges, and fluid that spreads along white matter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage, special

from sample_data.fields import smooth_noise


@dataclass(frozen=True)
class Texture:
    """Smooth random field with unit variance.

    Attributes
    ----------
    centre : numpy.ndarray
        Middle (3,) of the field in mm.
    length : float
        Millimetres over which the field is correlated.
    values : numpy.ndarray
        Samples, `length` / 2 apart.
    """

    centre: np.ndarray
    length: float
    values: np.ndarray

    @classmethod
    def draw(cls, rng: np.random.Generator, centre: np.ndarray, reach: float, length: float) -> Texture:
        """Draw a field that covers `reach` mm around a centre (3,)."""
        n = 2 * int(np.ceil(2 * reach / length)) + 7
        return cls(np.asarray(centre, np.float32), length, smooth_noise(rng, (n, n, n), 2.0))

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Return the values (...) at points (3, ...) in mm, float32."""
        middle = (np.array(self.values.shape) - 1) / 2
        shape = (3,) + (1,) * (points.ndim - 1)
        index = (points - self.centre.reshape(shape)) / np.float32(self.length / 2)
        index = index + middle.reshape(shape).astype(np.float32)
        return ndimage.map_coordinates(self.values, index, output=np.float32, order=1, mode="reflect")


@dataclass(frozen=True)
class Blob:
    """Star-shaped body with bumps and a rough surface.

    Attributes
    ----------
    centre : numpy.ndarray
        Middle (3,) in mm.
    radius : float
        Millimetres, before bumps.
    stretch : numpy.ndarray
        Matrix (3, 3) of determinant 1 that makes an ellipsoid of the sphere.
    directions, heights : numpy.ndarray
        Unit vectors (n, 3) of the bumps and their heights (n,) relative to the radius.
    roughness : Texture
        Shape of the rough surface.
    rough : float
        Its amplitude in mm.
    """

    centre: np.ndarray
    radius: float
    stretch: np.ndarray
    directions: np.ndarray
    heights: np.ndarray
    roughness: Texture
    rough: float

    @classmethod
    def draw(
        cls, rng: np.random.Generator, centre: np.ndarray, radius: float, bumps: float = 0.3, rough: float = 1.2
    ) -> Blob:
        """Draw a body.

        Parameters
        ----------
        rng
            Source of its shape.
        centre
            Middle (3,) in mm.
        radius
            Millimetres, before bumps.
        bumps
            Standard deviation of the bumps' heights, relative to the radius.
        rough
            Amplitude of the rough surface in mm.
        """
        directions = rng.standard_normal((9, 3))
        axes, _ = np.linalg.qr(rng.standard_normal((3, 3)))
        lengths = np.exp(rng.normal(0, 0.18, 3))
        lengths /= np.prod(lengths) ** (1 / 3)
        return cls(
            centre=np.asarray(centre, np.float32),
            radius=radius,
            stretch=(axes @ np.diag(1 / lengths) @ axes.T).astype(np.float32),
            directions=(directions / np.linalg.norm(directions, axis=1, keepdims=True)).astype(np.float32),
            heights=rng.normal(0, bumps, 9).astype(np.float32),
            roughness=Texture.draw(rng, centre, 2 * radius, 4.0),
            rough=rough,
        )

    def level(self, points: np.ndarray) -> np.ndarray:
        """Return about the distance (...) in mm of points (3, ...) to the surface, positive inside, float32."""
        shape = (3,) + (1,) * (points.ndim - 1)
        offset = np.tensordot(self.stretch, points - self.centre.reshape(shape), axes=1)
        distance = np.sqrt(np.sum(offset**2, axis=0))
        unit = offset / np.maximum(distance, 1e-3)
        radius = np.ones_like(distance)
        for direction, height in zip(self.directions, self.heights, strict=True):
            radius += height * np.exp(5 * (np.tensordot(direction, unit, axes=1) - 1))
        return np.maximum(radius, 0.4) * np.float32(self.radius) - distance + self.rough * self.roughness(points)


def soft_edge(level: np.ndarray, width: float) -> np.ndarray:
    """Return a step from 0 outside to 1 inside that has diffused over `width` mm (the heat kernel's error function)."""
    return (0.5 * (1 + special.erf(level / (np.sqrt(2) * width)))).astype(np.float32)


def spread_in_white(seed: np.ndarray, white: np.ndarray, spacing: np.ndarray, reach: float) -> np.ndarray:
    """Let fluid spread along white matter, by short diffusions that only white matter conducts.

    Parameters
    ----------
    seed
        Where the fluid comes from, (I, J, K) in [0, 1].
    white
        Probability of white matter (I, J, K).
    spacing
        Voxel spacing (3,) in mm.
    reach
        Millimetres that the fluid reaches, approximately.

    Returns
    -------
    numpy.ndarray
        Amount of fluid (I, J, K) in [0, 1].
    """
    step = 2.0
    sigma = step / np.asarray(spacing)
    conducts = np.maximum(seed, np.clip((white - 0.35) / 0.4, 0, 1))
    share = np.maximum(ndimage.gaussian_filter(conducts, sigma), 1e-3)
    fluid = seed.copy()
    for _ in range(max(1, round((reach / step) ** 2 / 2))):
        # A mean over the conducting voxels: nothing leaks into grey matter, and the seed stays full.
        fluid = np.maximum(seed, ndimage.gaussian_filter(fluid * conducts, sigma) / share)
    return np.clip((fluid - 0.06) / 0.24, 0, 1) * conducts
