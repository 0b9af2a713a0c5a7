"""Images with several values a voxel, time points or colours: one of them is chosen, never guessed."""

from __future__ import annotations

import numpy as np

from medclipad.errors import VolumeError


def one_component(array: np.ndarray, component: int | None, who: str) -> np.ndarray:
    """(I, J, K, ...) to (I, J, K): further axes of length one dropped, of several components the chosen one.

    Raises VolumeError for complex, empty and five-dimensional images and where the choice is missing.
    """
    size = " x ".join(map(str, array.shape))
    if array.dtype.kind == "c":
        raise VolumeError(f"{who}: its voxels are complex numbers; save their magnitude as a real image.")
    if array.size == 0:
        raise VolumeError(f"{who}: an image of size {size} holds no voxels; export it again.")
    extra = [axis for axis in range(3, array.ndim) if array.shape[axis] > 1]
    if len(extra) > 1:
        raise VolumeError(f"{who}: it has {array.ndim} dimensions ({size}); save one of its time points as a 3D image.")
    chosen = choose_component(array.shape[extra[0]] if extra else 1, component, who)
    return array[(..., *(chosen if axis in extra else 0 for axis in range(3, array.ndim)))]


def choose_component(count: int, component: int | None, who: str, what: str = "components or time points") -> int:
    """The index of the component to read; raises VolumeError where the choice is missing or out of range."""
    if component is None and count > 1:
        raise VolumeError(f"{who}: it has {count} {what}; choose one with component=0 to {count - 1}.")
    if not 0 <= (component or 0) < count:
        has = f"only component 0 to {count - 1}" if count > 1 else "a single component"
        raise VolumeError(f"{who}: there is no component {component}; it has {has}.")
    return component or 0
