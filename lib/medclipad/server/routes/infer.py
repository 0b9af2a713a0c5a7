"""POST /infer/{model}, and the progress and cancelling of the inferences that it starts."""

from __future__ import annotations

import io
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter, Form, Request, UploadFile
from fastapi.responses import JSONResponse, Response, StreamingResponse
from requests_toolbelt import MultipartEncoder
from starlette.background import BackgroundTask

from medclipad.server.errors import RequestError
from medclipad.server.inference.dicom_results import (
    DICOM_OUTPUTS,
    dicom_result,
    read_dicom_image,
    write_temporary_dicom,
)
from medclipad.server.inference.service import InferenceService
from medclipad.server.routes.datastore import writable
from medclipad.server.routes.downloads import file_response
from medclipad.server.routes.uploads import json_object, uploaded_file
from medclipad.server.routes.work_pools import INFERENCE
from medclipad.server.security.access import User
from medclipad.server.services import current_services
from medclipad.server.stores.dicomweb import DicomWebDatastore

router = APIRouter(tags=["Infer"])
_ADDRESS_KEYS = ("image", "id", "model", "label", "session", "session_id")  # set by the address, never by params


@router.post("/infer/{model}", summary="Compute the anomaly map or labelmap of a volume, with its scores")
@INFERENCE
def infer(
    request: Request,
    model: str,
    image: str = "",
    session_id: str = "",
    params: str = Form("{}"),
    file: UploadFile | None = None,
    output: Literal["all", "image", "json", "dicom_seg", "dicom_map", "dicom_report"] = "all",
) -> Response:
    """Detect anomalies in an image of the studies, named by `image`, in that of a session, or in an uploaded `file`.

    `params` is a JSON object, see GET /info/. The answer is multipart/form-data: `params` (JSON), then the file
    `image`. With `output` json or image it is one of the two; with dicom_seg, dicom_map or dicom_report it is a DICOM
    object in the study of the image's series, which `params.store` (true) also stores in the archive of the studies.
    """
    services = current_services()
    service = services.inference.get(model)
    if service is None:
        raise RequestError(f"Model {model!r} was not found; available: {', '.join(services.inference)}.", 404)
    request_params = json_object(params, "params")
    for key in _ADDRESS_KEYS:
        if key in request_params:
            raise RequestError(f"params must not contain {key!r}: the address of the request sets it.")
    with ExitStack() as stack:
        if file is not None:
            path = str(stack.enter_context(uploaded_file(file, archives=True)))
        elif session_id:
            path, image = services.sessions.path(session_id), ""
        elif image:
            path = services.datastore.get_image_uri(image)
            if not path or not os.path.exists(path):
                raise RequestError(f"Image {image!r} was not found in the studies.", 404)
        else:
            raise RequestError("Name an image of the studies with ?image=, or upload one as file.")
        work = {**request_params, "image": path, "id": "" if file is not None else image}
        if output in DICOM_OUTPUTS:
            return _dicom_response(service, work, output, request.scope["user"])
        if request_params.get("store"):
            raise RequestError(f"params.store needs a DICOM output: {', '.join(DICOM_OUTPUTS)}.")
        result, scores = service(work)
    return _response(Path(result), scores, output, image or "image")


def _dicom_response(service: InferenceService, request: dict[str, Any], output: str, user: User) -> Response:
    """Return the result as a DICOM file, after storing it in the archive if the request says so."""
    params = service.parameters(request)
    archive = None
    if params.store:
        datastore = current_services().datastore
        if not request["id"] or not isinstance(datastore, DicomWebDatastore):
            raise RequestError(
                "Only results of images in a DICOMweb archive can be stored there: leave out params.store."
            )
        if not user.may("label"):
            raise RequestError("To store results in the archive, a token needs the role label.", 403)
        archive = datastore
        writable()
    volume_and_source = read_dicom_image(
        request["image"], params.reading()
    )  # before the detection: the image may not be DICOM
    analysis, _ = service.analyse(request, params)
    dataset = dicom_result(volume_and_source, analysis, output)
    if archive is not None:
        archive.store([dataset])
    path = write_temporary_dicom(dataset)
    name = f"{request['id'] or 'image'}_{DICOM_OUTPUTS[output]}.dcm"
    return file_response(path, name, "application/dicom", after=lambda: os.unlink(path))


def _response(result: Path, scores: dict[str, Any], output: str, image: str) -> Response:
    """Return the response with the file `result`, which is removed once it is sent."""
    remove = BackgroundTask(os.unlink, result)
    media_type = "application/octet-stream"
    name = f"{image}{''.join(result.suffixes)}"
    if output == "json":
        return JSONResponse(scores, background=remove)
    if output == "image":
        return file_response(result, name, media_type, after=lambda: os.unlink(result))
    body = MultipartEncoder(
        {
            "params": (None, JSONResponse(scores).body, "application/json"),
            "image": (f"result{''.join(result.suffixes)}", io.BytesIO(result.read_bytes()), media_type),
        }
    )
    return StreamingResponse(
        iter(lambda: body.read(1024 * 1024), b""),
        media_type=body.content_type,
        headers={"Content-Length": str(body.len)},
        background=remove,
    )


@router.post("/infer/wsi/{model}", include_in_schema=False)
def infer_slide(model: str) -> None:
    """Refuse a slide of pathology: this server reads volumes of MRI and CT."""
    raise RequestError("This server has no model for slides of pathology: it reads volumes of MRI and CT.", 501)


@router.get("/progress/{request_id}", summary="Show how far the inference with this params.request_id is")
def progress(request_id: str) -> dict[str, Any]:
    """Show the state, phase and fraction of an inference."""
    return current_services().jobs.get(request_id).json()


@router.delete("/progress/{request_id}", summary="Cancel an inference; its own request then answers 409")
def cancel(request_id: str) -> dict[str, Any]:
    """Cancel an inference and show its state; its own request then answers 409."""
    job = current_services().jobs.get(request_id)
    job.cancel()
    return job.json()
