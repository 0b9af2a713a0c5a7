"""Images and labels of the studies."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter, Form, UploadFile
from fastapi.responses import FileResponse
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.utils.app import app_instance
from starlette.background import BackgroundTask

from medclipad.volume import read_volume, require_same_grid, write_volume

from ..datastore import check_image_name, check_tag, suffix_of
from ..problems import RequestError
from .uploads import checked, json_object, received

router = APIRouter(prefix="/datastore", tags=["Datastore"])


def _store() -> Datastore:
    return app_instance().datastore()


def _image(image: str) -> str:
    path = _store().get_image_uri(image)
    if not path or not os.path.exists(path):
        raise RequestError(f"There is no image {image!r} in the studies.", 404)
    return path


def _label(label: str, tag: str) -> str:
    path = _store().get_label_uri(label, tag)
    if not path or not os.path.exists(path):
        raise RequestError(f"Image {label!r} has no label with the tag {tag!r}.", 404)
    return path


@router.get("/", summary="Counts, or all images with their labels and info")
def datastore(output: Literal["stats", "train", "all"] = "stats") -> Any:
    store = _store()
    return {"all": store.json, "train": store.datalist, "stats": store.status}[output]()


@router.put("/", include_in_schema=False)
@router.put("/image", summary="Add an image; 409 if its id is taken")
def add_image(file: UploadFile, image: str | None = None, params: str = Form("{}")) -> dict[str, str]:
    info = json_object(params, "params")
    name = image or Path(file.filename or "").name
    name = check_image_name(name if image else name[: len(name) - len(suffix_of(name.lower()))])
    with received(file) as path:
        checked(path)
        return {"image": _store().add_image(name, str(path), info)}


@router.delete("/", include_in_schema=False)
@router.delete("/image", summary="Remove an image and its labels")
def remove_image(id: str) -> dict[str, str]:
    _image(id)
    _store().remove_image(id)
    return {}


@router.head("/image", summary="Whether there is such an image")
def has_image(image: str) -> dict[str, str]:
    _image(image)
    return {}


@router.get("/image", summary="An image's file; a DICOM series comes as NIfTI")
def get_image(image: str) -> FileResponse:
    path = _image(image)
    if os.path.isfile(path):
        return FileResponse(path, media_type="application/octet-stream", filename=os.path.basename(path))
    handle, name = tempfile.mkstemp(prefix="medclipad-", suffix=".nii.gz")
    os.close(handle)
    remove = BackgroundTask(os.unlink, name)
    try:
        write_volume(read_volume(path), name)
    except BaseException:
        os.unlink(name)
        raise
    return FileResponse(name, media_type="application/octet-stream", filename=f"{image}.nii.gz", background=remove)


@router.get("/image/info", summary="What is known of an image")
def get_image_info(image: str) -> dict[str, Any]:
    _image(image)
    return _store().get_image_info(image)


@router.put("/image/info", summary='Add to what is known of an image, e.g. {"normal": true}')
def put_image_info(image: str, info: str = Form("{}")) -> dict[str, str]:
    _image(image)
    _store().update_image_info(image, json_object(info, "info"))
    return {}


@router.put("/label", summary="Save a label on its image's own grid; tag final is what trainings learn from")
def save_label(image: str, label: UploadFile, params: str = Form("{}"), tag: str = "final") -> dict[str, str]:
    info = json_object(params, "params")
    tag = check_tag(tag or "final")
    source = _image(image)
    with received(label) as path:
        require_same_grid(read_volume(source), checked(path))
        return {"image": image, "label": _store().save_label(image, str(path), tag, info)}


@router.delete("/label", summary="Remove a label")
def remove_label(id: str, tag: str) -> dict[str, str]:
    _label(id, tag)
    _store().remove_label(id, tag)
    return {}


@router.head("/label", summary="Whether an image has a label with this tag")
def has_label(image: str, tag: str) -> dict[str, str]:
    _label(image, tag)
    return {}


@router.get("/label", summary="A label's file")
def get_label(label: str, tag: str) -> FileResponse:
    path = _label(label, tag)
    return FileResponse(path, media_type="application/octet-stream", filename=os.path.basename(path))


@router.get("/label/info", summary="What is known of a label")
def get_label_info(label: str, tag: str) -> dict[str, Any]:
    _label(label, tag)
    return _store().get_label_info(label, tag)


@router.put("/label/info", summary="Add to what is known of a label")
def put_label_info(label: str, tag: str, info: str = Form("{}")) -> dict[str, str]:
    _label(label, tag)
    _store().update_label_info(label, tag, json_object(info, "info"))
    return {}
