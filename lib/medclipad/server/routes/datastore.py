"""Images and labels of the studies."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Form, UploadFile
from fastapi import Path as InPath
from fastapi.responses import Response
from monailabel.config import settings
from monailabel.interfaces.datastore import Datastore

from medclipad.server.errors import RequestError
from medclipad.server.inference.result_cache import file_state
from medclipad.server.routes.downloads import sent
from medclipad.server.routes.uploads import check_info, image_info, json_object, received
from medclipad.server.security.upload_limits import READING, check_room
from medclipad.server.services import current_services
from medclipad.server.stores.content import find_content, note_content
from medclipad.server.stores.folder import StudyDatastore, check_image_name, check_tag, suffix_of
from medclipad.server.stores.zip_archives import ARCHIVE, add_archive
from medclipad.volume import read_volume, require_same_grid, write_volume
from medclipad.volume.readers.pictures import PICTURES

router = APIRouter(prefix="/datastore", tags=["Datastore"])
MAP_TAG = "anomaly_map"  # of no label: the last map that was computed of an image, as long as the image is the same


def store() -> Datastore:
    """The studies that are served."""
    return current_services().datastore


def writable() -> None:
    """RequestError 403 where MONAI Label's setting says that the studies are only to be read."""
    if settings.MONAI_LABEL_DATASTORE_READ_ONLY:
        raise RequestError("The studies of this server are read-only.", 403)


def image_path(image: str) -> str:
    """File or DICOM folder of an image; RequestError 404 if there is none."""
    path = store().get_image_uri(image)
    if not path or not os.path.exists(path):
        raise RequestError(f"There is no image {image!r} in the studies.", 404)
    return path


def label_path(label: str, tag: str) -> str:
    """File of a label, or of the image's last map; RequestError 404 if there is none."""
    path = store().get_label_uri(label, tag)
    if path and os.path.exists(path):
        return path
    if tag == MAP_TAG and (found := _last_map(label)) is not None:
        return str(found / "map.nii.gz")
    raise RequestError(f"Image {label!r} has no label with the tag {tag!r}.", 404)


def _last_map(image: str) -> Path | None:
    path = store().get_image_uri(image)
    return current_services().results.newest(image, file_state(path)) if path and os.path.exists(path) else None


def _home() -> str:
    """A folder on the disk that images and labels are written to."""
    studies = current_services().studies
    return studies if os.path.isdir(studies) else tempfile.gettempdir()


def _own_label(label: str, tag: str) -> None:
    """RequestError 404 if there is no label file: a computed map is none."""
    if tag == MAP_TAG and not store().get_label_uri(label, tag):
        raise RequestError(f"Image {label!r} has no label with the tag {tag!r}.", 404)
    label_path(label, tag)


@router.get("/", summary="Counts, or all images with their labels and info")
def datastore(output: Literal["stats", "train", "all"] = "stats") -> Any:
    return {"all": store().json, "train": store().datalist, "stats": store().status}[output]()


@router.put("/", include_in_schema=False, dependencies=[Depends(writable)])
@router.put("/image", summary="Add an image; 409 if its id is taken", dependencies=[Depends(writable)])
def add_image(
    file: UploadFile, image: str | None = None, params: str = Form("{}"), sha256: str | None = None
) -> dict[str, Any]:
    """A zip of DICOM files becomes an image for each of its series, see `images` and `left_out` of the answer.

    `sha256` is of no consequence: the server computes the content's hash itself, see GET /datastore/hash.
    """
    info = image_info(params, "params")
    name = image or Path(file.filename or "").name
    suffix = ARCHIVE if name.lower().endswith(ARCHIVE) else suffix_of(name)
    name = check_image_name(name if image else name[: len(name) - len(suffix)])
    check_room(_home(), file.size or 0)
    with received(file, archives=True) as path:
        if path.suffix == ARCHIVE and isinstance(store(), StudyDatastore):
            added = add_archive(store(), path, name, info)
            for one in added["images"]:
                note_content(store(), one)
            return added
        with READING:
            read_volume(path)  # a damaged one raises VolumeError, before it gets a name in the studies
        added = store().add_image(name, str(path), info)
    note_content(store(), added)
    return {"image": added}


@router.get("/hash/{sha256}", summary="The image that has this content, whatever its format; 404 if there is none")
def get_by_hash(sha256: Annotated[str, InPath(pattern="^[0-9a-f]{64}$")]) -> dict[str, str]:
    """The hash is `medclipad.volume.fingerprint.content_sha256` of the volume."""
    found = find_content(store(), sha256)
    if found is None:
        raise RequestError("No image of the studies has this content.", 404)
    return {"image": found}


@router.delete("/", include_in_schema=False, dependencies=[Depends(writable)])
@router.delete("/image", summary="Remove an image and its labels", dependencies=[Depends(writable)])
def remove_image(id: str) -> dict[str, str]:
    image_path(id)
    store().remove_image(id)
    current_services().results.forget(id)
    return {}


@router.head("/image", summary="Whether there is such an image")
def has_image(image: str) -> dict[str, str]:
    image_path(image)
    return {}


@router.get("/image", summary="An image's file; a DICOM series or a picture comes as NIfTI")
def get_image(image: str) -> Response:
    path = image_path(image)
    if os.path.isfile(path) and not path.lower().endswith(PICTURES):
        return sent(path, os.path.basename(path))
    handle, name = tempfile.mkstemp(prefix="medclipad-", suffix=".nii.gz")
    os.close(handle)
    try:
        with READING:
            write_volume(read_volume(path), name)
        return sent(name, f"{image}.nii.gz", after=lambda: os.unlink(name))
    except BaseException:
        os.unlink(name)
        raise


@router.get("/image/info", summary="What is known of an image")
def get_image_info(image: str) -> dict[str, Any]:
    image_path(image)
    return store().get_image_info(image)


@router.put(
    "/image/info",
    summary='Add to what is known of an image, e.g. {"normal": true}',
    dependencies=[Depends(writable)],
)
def put_image_info(image: str, info: str = Form("{}")) -> dict[str, str]:
    image_path(image)
    given = image_info(info, "info")
    check_info({**store().get_image_info(image), **given})
    store().update_image_info(image, given)
    return {}


@router.put(
    "/label",
    summary="Save a label on its image's own grid; tag final is what trainings learn from",
    dependencies=[Depends(writable)],
)
def save_label(image: str, label: UploadFile, params: str = Form("{}"), tag: str = "final") -> dict[str, str]:
    info = json_object(params, "params")
    tag = check_tag(tag or "final")
    source = image_path(image)
    check_room(_home(), label.size or 0)
    with received(label) as path:
        with READING:
            require_same_grid(read_volume(source), read_volume(path))
        return {"image": image, "label": store().save_label(image, str(path), tag, info)}


@router.delete("/label", summary="Remove a label", dependencies=[Depends(writable)])
def remove_label(id: str, tag: str) -> dict[str, str]:
    _own_label(id, tag)
    store().remove_label(id, tag)
    return {}


@router.head("/label", summary="Whether an image has a label with this tag")
def has_label(image: str, tag: str) -> dict[str, str]:
    label_path(image, tag)
    return {}


@router.get("/label", summary='A label\'s file; tag "anomaly_map" is the map computed last')
def get_label(label: str, tag: str) -> Response:
    path = label_path(label, tag)
    return sent(path, os.path.basename(path))


@router.get("/label/info", summary="What is known of a label")
def get_label_info(label: str, tag: str) -> dict[str, Any]:
    label_path(label, tag)
    return store().get_label_info(label, tag)


@router.put("/label/info", summary="Add to what is known of a label", dependencies=[Depends(writable)])
def put_label_info(label: str, tag: str, info: str = Form("{}")) -> dict[str, str]:
    _own_label(label, tag)
    given = json_object(info, "info")
    check_info({**store().get_label_info(label, tag), **given})
    store().update_label_info(label, tag, given)
    return {}
