"""Slices that a reader called normal or abnormal without drawing a mask; trainings learn from them."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from medclipad.server.errors import RequestError
from medclipad.server.routes.datastore import image_path, store, writable
from medclipad.server.security.upload_limits import READING
from medclipad.volume import Slicing, read_volume

router = APIRouter(tags=["Datastore"])


class Marks(BaseModel):
    """Numbers of marked slices, counted as `medclipad.volume.Slicing` does: growing towards superior/anterior/right."""

    model_config = ConfigDict(extra="forbid")

    plane: Literal["axial", "coronal", "sagittal"] | None = None
    normal: list[int] = Field([], max_length=100_000)
    abnormal: list[int] = Field([], max_length=100_000)


@router.get("/marks", summary="Slices of an image that a reader called normal or abnormal")
def get_marks(image: str) -> dict[str, Any]:
    image_path(image)
    return store().get_image_info(image).get("marks") or Marks().model_dump()


@router.put("/marks", summary="Replace the marks of an image")
def put_marks(image: str, marks: Marks) -> dict[str, Any]:
    writable()
    path = image_path(image)
    if marks.normal or marks.abnormal:
        _check(marks, path)
    kept = {"plane": marks.plane, "normal": sorted({*marks.normal}), "abnormal": sorted({*marks.abnormal})}
    store().update_image_info(image, {"marks": kept})
    return kept


def _check(marks: Marks, path: str) -> None:
    if marks.plane is None:
        raise RequestError("plane: name the plane that the slices are numbered in.", 422)
    both = sorted({*marks.normal} & {*marks.abnormal})
    if both:
        raise RequestError(f"Slice {both[0]} is marked normal and abnormal: choose one.", 422)
    with READING:
        count = len(Slicing(read_volume(path), marks.plane))
    outside = sorted(k for k in (*marks.normal, *marks.abnormal) if not 0 <= k < count)
    if outside:
        raise RequestError(f"There is no {marks.plane} slice {outside[0]}: the image has 0 to {count - 1}.", 422)
