"""Images with several values per voxel, time points or colours: one is chosen by the caller, never guessed."""

from __future__ import annotations

import numpy as np

from medclipad.errors import VolumeError

Component = int | str | None
"""A component, time point or channel by its number from 0, or a volume of a DICOM series by what tells it apart."""


def select_component(array: np.ndarray, component: Component, name: str) -> np.ndarray:
    """Return the chosen component of an image as an (I, J, K) array.

    Parameters
    ----------
    array
        (I, J, K, ...) voxels. Further axes of length one are dropped.
    component
        Index of the component to return; None if the image has only one.
    name
        File name, for messages.

    Raises
    ------
    VolumeError
        If the image is complex, empty or has five dimensions, or if the choice is missing or out of range.
    """
    size = " x ".join(map(str, array.shape))
    if array.dtype.kind == "c":
        raise VolumeError(f"{name}: its voxels are complex numbers; save their magnitude as a real image.")
    if array.size == 0:
        raise VolumeError(f"{name}: an image of size {size} holds no voxels; export it again.")
    extra = [axis for axis in range(3, array.ndim) if array.shape[axis] > 1]
    if len(extra) > 1:
        raise VolumeError(
            f"{name}: it has {array.ndim} dimensions ({size}); save one of its time points as a 3D image."
        )
    index = component_index(array.shape[extra[0]] if extra else 1, component, name)
    return array[(..., *(index if axis in extra else 0 for axis in range(3, array.ndim)))]


def component_index(count: int, component: Component, name: str, what: str = "components or time points") -> int:
    """Return the index of the component to read.

    Parameters
    ----------
    count
        Number of components that the image has.
    component
        The caller's choice, a number or its digits; None if there is none to make.
    name
        File name, for messages.
    what
        What the components are, for messages.

    Raises
    ------
    VolumeError
        If the choice is missing or out of range.
    """
    if isinstance(component, str):
        if not component.strip().isdecimal():
            raise VolumeError(
                f"{name}: its {what} have no names such as {component!r}; choose one of 0 to {count - 1}."
            )
        component = int(component)
    if component is None and count > 1:
        raise VolumeError(f"{name}: it has {count} {what}; choose one with component=0 to {count - 1} (--component).")
    if not 0 <= (component or 0) < count:
        remedy = f"choose one of 0 to {count - 1}" if count > 1 else "the image has a single component"
        raise VolumeError(f"{name}: component {component} does not exist; {remedy}.")
    return component or 0
