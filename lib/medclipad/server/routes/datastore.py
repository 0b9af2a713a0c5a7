"""Images and labels of the studies."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Form, UploadFile
from fastapi import Path as PathParameter
from fastapi.responses import JSONResponse, Response
from monailabel.config import settings
from monailabel.interfaces.datastore import Datastore

from medclipad.detection.cases import Reading
from medclipad.server.errors import RequestError
from medclipad.server.inference.result_cache import MAP_FILE
from medclipad.server.label_segments import refuse_anatomy
from medclipad.server.routes.downloads import file_response
from medclipad.server.routes.uploads import check_info, image_info, json_object, uploaded_file
from medclipad.server.routes.work_pools import READING, STUDIES
from medclipad.server.security.upload_limits import FIRST, READ_SLOTS, check_free_space, read_image
from medclipad.server.services import current_services
from medclipad.server.stores.content import find_content, hash_content
from medclipad.server.stores.file_state import file_state
from medclipad.server.stores.folder import StudyDatastore, check_image_name, check_tag
from medclipad.server.stores.study_files import HEADERS, suffix_of
from medclipad.server.stores.zip_archives import ARCHIVE, add_archive
from medclipad.volume import require_mask, write_volume
from medclipad.volume.readers.pictures import PICTURES

router = APIRouter(prefix="/datastore", tags=["Datastore"])
MAP_TAG = "anomaly_map"  # not a label: the map that was computed last, as long as the image is unchanged


def store() -> Datastore:
    """Return the studies of this server."""
    return current_services().datastore


def writable() -> None:
    """Raise RequestError 403 if MONAI Label's settings make the studies read-only."""
    if settings.MONAI_LABEL_DATASTORE_READ_ONLY:
        raise RequestError("The studies of this server are read-only.", 403)


def check_image(image: str) -> None:
    """Raise RequestError 404 if there is no such image; nothing is fetched from an archive."""
    studies = store()
    if isinstance(studies, StudyDatastore):
        image_path(image)
    elif image not in studies.list_images():
        raise RequestError(f"Image {image!r} was not found in the studies.", 404)


def image_path(image: str) -> str:
    """Return the file or DICOM folder of an image; raise RequestError 404 if there is none."""
    path = store().get_image_uri(image)
    if not path or not os.path.exists(path):
        raise RequestError(f"Image {image!r} was not found in the studies.", 404)
    return path


def label_path(label: str, tag: str) -> str:
    """Return the file of a label, or of the image's last map; raise RequestError 404 if there is none."""
    path = store().get_label_uri(label, tag)
    if path and os.path.exists(path):
        return path
    if tag == MAP_TAG and (folder := _last_result(label)) is not None:
        return str(folder / MAP_FILE)
    raise RequestError(f"Image {label!r} has no label with the tag {tag!r}.", 404)


def _last_result(image: str) -> Path | None:
    path = store().get_image_uri(image)
    return current_services().results.newest(image, file_state(path)) if path and os.path.exists(path) else None


def is_sent_as_it_is(path: str) -> bool:
    """Return whether GET /datastore/image sends a file itself: pictures, headers and series become NIfTI."""
    return os.path.isfile(path) and not path.lower().endswith((*PICTURES, *HEADERS))


def sent_name(image: str) -> str:
    """Return the name of the file that GET /datastore/image sends, by which clients know its format."""
    studies = store()
    path = studies.get_image_uri(image) if isinstance(studies, StudyDatastore) else ""
    return os.path.basename(path) if is_sent_as_it_is(path) else f"{image}.nii.gz"


def _disk_folder() -> str:
    """Return a folder on the disk that images and labels are written to."""
    studies = current_services().studies
    return studies if os.path.isdir(studies) else tempfile.gettempdir()


def _check_label(label: str, tag: str) -> None:
    """Raise RequestError 404 if there is no label file; a computed map is not a label."""
    if tag == MAP_TAG and not store().get_label_uri(label, tag):
        raise RequestError(f"Image {label!r} has no label with the tag {tag!r}.", 404)
    label_path(label, tag)


@router.get("/", summary="Show counts, or list all images with their labels and info")
@STUDIES
def datastore(output: Literal["stats", "train", "all"] = "stats") -> JSONResponse:
    """Show counts (stats), the files of images with a final label (train), or all images and labels (all)."""
    studies = store()
    if output == "stats":
        studies.list_images()  # GET /info/ shows counts that may be old; here a new list is waited for
    listed = {"all": studies.json, "train": studies.datalist, "stats": studies.status}[output]()
    return JSONResponse(listed)  # plain JSON: to look at each value again would take longer than to list thousands


@router.put("/", include_in_schema=False, dependencies=[Depends(writable)])
@router.put("/image", summary="Add an image; 409 if its id is in use", dependencies=[Depends(writable)])
@READING
def add_image(
    file: UploadFile, image: str | None = None, params: str = Form("{}"), sha256: str | None = None
) -> dict[str, Any]:
    """Add an image; a zip of DICOM files becomes one for each of its series, see `images` and `left_out`.

    `sha256` is ignored: the server computes the hash of the content itself, see GET /datastore/hash.
    """
    info = image_info(params, "params")
    name = image or Path(file.filename or "").name
    suffix = ARCHIVE if name.lower().endswith(ARCHIVE) else suffix_of(name)
    name = check_image_name(name if image else name[: len(name) - len(suffix)])
    check_free_space(_disk_folder(), file.size or 0)
    studies = store()
    with uploaded_file(file, archives=True) as path:
        if path.suffix == ARCHIVE and isinstance(studies, StudyDatastore):
            added = add_archive(studies, path, name, info)
            for image_id in added["images"]:
                hash_content(studies, image_id)
            return added
        with READ_SLOTS:
            read_image(path, FIRST)  # a damaged file raises VolumeError before it gets a name in the studies
        image_id = studies.add_image(name, str(path), info)
    hash_content(studies, image_id)
    return {"image": image_id}


@router.get("/hash/{sha256}", summary="Find the image with a given content, in any file format; 404 if there is none")
@READING
def get_by_hash(sha256: Annotated[str, PathParameter(pattern="^[0-9a-f]{64}$")]) -> dict[str, str]:
    """Find an image by its content; `medclipad.volume.fingerprint.content_sha256` computes the hash of a volume."""
    image = find_content(store(), sha256)
    if image is None:
        raise RequestError("No image of the studies has this content.", 404)
    return {"image": image}


@router.delete("/", include_in_schema=False, dependencies=[Depends(writable)])
@router.delete("/image", summary="Remove an image and its labels", dependencies=[Depends(writable)])
@STUDIES
def remove_image(id: str) -> dict[str, str]:
    """Remove an image, its labels and its stored results."""
    check_image(id)
    store().remove_image(id)
    current_services().results.remove_image(id)
    return {}


@router.head("/image", summary="Check whether an image exists")
@STUDIES
def has_image(image: str) -> dict[str, str]:
    """Check whether an image exists; 404 if it does not."""
    check_image(image)
    return {}


@router.get("/image", summary="Download an image; what is not one file of voxels is sent as NIfTI")
@READING
def get_image(image: str, component: str = "") -> Response:
    """Download an image: its own file, or a NIfTI file made from a DICOM series, picture, or header (.mhd, .nhdr).

    `component` takes one volume of a series that holds several, by its number or by what tells it apart.
    """
    path = image_path(image)
    if is_sent_as_it_is(path):
        return file_response(path, os.path.basename(path))
    handle, name = tempfile.mkstemp(prefix="medclipad-", suffix=".nii.gz")
    os.close(handle)
    try:
        with READ_SLOTS:
            write_volume(read_image(path, Reading(component or None)), name)
        return file_response(name, f"{image}.nii.gz", after=lambda: os.unlink(name))
    except BaseException:
        os.unlink(name)
        raise


@router.get("/image/info", summary="Show what is known about an image")
@STUDIES
def get_image_info(image: str) -> dict[str, Any]:
    """Show what is known about an image."""
    check_image(image)
    return store().get_image_info(image)


@router.put(
    "/image/info",
    summary='Add to what is known about an image, such as {"normal": true}',
    dependencies=[Depends(writable)],
)
@STUDIES
def put_image_info(image: str, info: str = Form("{}")) -> dict[str, str]:
    """Add to what is known about an image; {"normal": true} lets trainings take it as free of lesions."""
    check_image(image)
    new_info = image_info(info, "info")
    check_info({**store().get_image_info(image), **new_info})
    store().update_image_info(image, new_info)
    return {}


@router.put(
    "/label",
    summary="Save a label on the grid of its image; trainings learn from the tag final",
    dependencies=[Depends(writable)],
)
@READING
def save_label(image: str, label: UploadFile, params: str = Form("{}"), tag: str = "final") -> dict[str, str]:
    """Save a label, in place of an older one with the same tag; 422 unless it is a label map on its image's grid.

    `params` may hold `label_info`, a list of {"name": ..., "idx": ...}: a segment called "brain" is no lesion, and 422.
    """
    info = json_object(params, "params")
    tag = check_tag(tag or "final")
    source = image_path(image)
    check_free_space(_disk_folder(), label.size or 0)
    with uploaded_file(label) as path:
        with READ_SLOTS:
            mask = read_image(path)
            require_mask(read_image(source, FIRST), mask)
            refuse_anatomy(mask, info.get("label_info"))
        if isinstance(store(), StudyDatastore):
            hash_content(store(), image)  # so that another image under this name does not inherit the label
        return {"image": image, "label": store().save_label(image, str(path), tag, info)}


@router.delete("/label", summary="Remove a label", dependencies=[Depends(writable)])
@STUDIES
def remove_label(id: str, tag: str) -> dict[str, str]:
    """Remove the label of an image with the given tag."""
    _check_label(id, tag)
    store().remove_label(id, tag)
    return {}


@router.head("/label", summary="Check whether an image has a label with this tag")
@STUDIES
def has_label(image: str, tag: str) -> dict[str, str]:
    """Check whether an image has a label with this tag; 404 if it has none."""
    label_path(image, tag)
    return {}


@router.get("/label", summary='Download a label; the tag "anomaly_map" is the map that was computed last')
@READING
def get_label(label: str, tag: str) -> Response:
    """Download a label, or the map that was computed last for an image."""
    path = label_path(label, tag)
    return file_response(path, os.path.basename(path))


@router.get("/label/info", summary="Show what is known about a label")
@STUDIES
def get_label_info(label: str, tag: str) -> dict[str, Any]:
    """Show what is known about a label."""
    label_path(label, tag)
    return store().get_label_info(label, tag)


@router.put("/label/info", summary="Add to what is known about a label", dependencies=[Depends(writable)])
@STUDIES
def put_label_info(label: str, tag: str, info: str = Form("{}")) -> dict[str, str]:
    """Add to what is known about a label."""
    _check_label(label, tag)
    new_info = json_object(info, "info")
    check_info({**store().get_label_info(label, tag), **new_info})
    store().update_label_info(label, tag, new_info)
    return {}
