"""Slices that a reader marked as normal or abnormal without drawing a mask; trainings learn from them."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from medclipad.server.errors import RequestError
from medclipad.server.routes.datastore import image_path, store, writable
from medclipad.server.security.upload_limits import READ_SLOTS
from medclipad.volume import Slicing, read_volume

router = APIRouter(tags=["Datastore"])


class Marks(BaseModel):
    """Indices of marked slices, counted towards superior, anterior or right, as `medclipad.volume.Slicing` does."""

    model_config = ConfigDict(extra="forbid")

    plane: Literal["axial", "coronal", "sagittal"] | None = None
    normal: list[int] = Field(default=[], max_length=100_000)
    abnormal: list[int] = Field(default=[], max_length=100_000)


@router.get("/marks", summary="Show which slices of an image are marked as normal or abnormal")
def get_marks(image: str) -> dict[str, Any]:
    """Show which slices of an image a reader marked as normal or abnormal."""
    image_path(image)
    return store().get_image_info(image).get("marks") or Marks().model_dump()


@router.put("/marks", summary="Replace the marks of an image")
def put_marks(image: str, marks: Marks) -> dict[str, Any]:
    """Replace the marks of an image; an empty object removes them."""
    writable()
    path = image_path(image)
    if marks.normal or marks.abnormal:
        _check(marks, path)
    sorted_marks = {"plane": marks.plane, "normal": sorted({*marks.normal}), "abnormal": sorted({*marks.abnormal})}
    store().update_image_info(image, {"marks": sorted_marks})
    return sorted_marks


def _check(marks: Marks, path: str) -> None:
    if marks.plane is None:
        raise RequestError("plane: name the plane in which the slices are numbered.", 422)
    both = sorted({*marks.normal} & {*marks.abnormal})
    if both:
        raise RequestError(f"Slice {both[0]} is marked as both normal and abnormal: choose one.", 422)
    with READ_SLOTS:
        count = len(Slicing(read_volume(path), marks.plane))
    outside = sorted(index for index in (*marks.normal, *marks.abnormal) if not 0 <= index < count)
    if outside:
        raise RequestError(
            f"{marks.plane.capitalize()} slice {outside[0]} does not exist: the image has slices 0 to {count - 1}.", 422
        )
