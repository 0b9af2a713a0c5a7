"""Slices that a reader marked as normal or abnormal without drawing a mask; trainings learn from them."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from medclipad.server.errors import RequestError
from medclipad.server.routes.datastore import check_image, image_path, store, writable
from medclipad.server.routes.work_pools import READING, STUDIES
from medclipad.server.security.upload_limits import FIRST, READ_SLOTS, read_image
from medclipad.server.stores.content import hash_content
from medclipad.server.stores.folder import StudyDatastore
from medclipad.volume import Slicing

router = APIRouter(tags=["Datastore"])


class Marks(BaseModel):
    """Indices of marked slices, counted towards superior, anterior or right, as `medclipad.volume.Slicing` does."""

    model_config = ConfigDict(extra="forbid")

    plane: Literal["axial", "coronal", "sagittal"] | None = None
    normal: list[int] = Field(default=[], max_length=100_000)
    abnormal: list[int] = Field(default=[], max_length=100_000)


@router.get("/marks", summary="Show which slices of an image are marked as normal or abnormal")
@STUDIES
def get_marks(image: str) -> dict[str, Any]:
    """Show which slices of an image a reader marked as normal or abnormal."""
    check_image(image)
    return store().get_image_info(image).get("marks") or Marks().model_dump()


@router.put("/marks", summary="Replace the marks of an image")
@READING
def put_marks(image: str, marks: Marks) -> dict[str, Any]:
    """Replace the marks of an image; an empty object removes them."""
    writable()
    path = image_path(image)
    if marks.normal or marks.abnormal:
        _check(marks, path)
    if isinstance(store(), StudyDatastore):
        hash_content(store(), image)  # so that another image under this name does not inherit the marks
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
        count = len(Slicing(read_image(path, FIRST), marks.plane))
    outside = sorted(index for index in (*marks.normal, *marks.abnormal) if not 0 <= index < count)
    if outside:
        raise RequestError(
            f"{marks.plane.capitalize()} slice {outside[0]} does not exist: the image has slices 0 to {count - 1}.", 422
        )
