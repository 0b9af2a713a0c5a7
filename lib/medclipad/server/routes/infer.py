"""POST /infer/{model}, and the progress and cancelling of what it started."""

from __future__ import annotations

import io
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter, Form, UploadFile
from fastapi.responses import JSONResponse, Response, StreamingResponse
from requests_toolbelt import MultipartEncoder
from starlette.background import BackgroundTask

from medclipad.server.errors import RequestError
from medclipad.server.inference.dicom_results import KINDS, dicom_image, dicom_result, saved
from medclipad.server.inference.service import InferenceService
from medclipad.server.routes.datastore import writable
from medclipad.server.routes.downloads import sent
from medclipad.server.routes.uploads import json_object, received
from medclipad.server.services import current_services
from medclipad.server.stores.dicomweb import DicomWebDatastore

router = APIRouter(tags=["Infer"])
_ROUTE_KEYS = ("image", "id", "model", "label", "session", "session_id")  # said by the address, never by params


@router.post("/infer/{model}", summary="Anomaly map or labelmap of one volume, with its scores")
def infer(
    model: str,
    image: str = "",
    params: str = Form("{}"),
    file: UploadFile | None = None,
    output: Literal["all", "image", "json", "dicom_seg", "dicom_map", "dicom_report"] = "all",
) -> Response:
    """`image` names an image of the studies, or `file` brings one. `params` is a JSON object, see GET /info/.

    The answer is multipart/form-data: `params` (JSON), then the file `image`; output=json or =image asks for one, and
    output=dicom_seg, dicom_map or dicom_report for a DICOM object beside the image's series (params.store: true also
    stores it in the archive of the studies).
    """
    services = current_services()
    service = services.inference.get(model)
    if service is None:
        raise RequestError(f"There is no model {model!r}; there are: {', '.join(services.inference)}.", 404)
    asked = json_object(params, "params")
    for key in _ROUTE_KEYS:
        if key in asked:
            raise RequestError(f"params must not contain {key!r}: the address of the request says it.")
    with ExitStack() as stack:
        if file is not None:
            path = str(stack.enter_context(received(file, archives=True)))
        elif image:
            path = services.datastore.get_image_uri(image)
            if not path or not os.path.exists(path):
                raise RequestError(f"There is no image {image!r} in the studies.", 404)
        else:
            raise RequestError("Name an image of the studies with ?image=, or send one as file.")
        request = {**asked, "image": path, "id": "" if file is not None else image}
        if output in KINDS:
            return _dicom(service, request, output)
        if asked.get("store"):
            raise RequestError(f"params.store needs a DICOM output: {', '.join(KINDS)}.")
        result, scores = service(request)
    return _answer(Path(result), scores, output, image or "image")


def _dicom(service: InferenceService, request: dict[str, Any], output: str) -> Response:
    """The answer as a DICOM file, stored in the archive first if the request wants that."""
    params = service.parameters(request)
    studies = current_services().datastore
    if params.store and not (request["id"] and isinstance(studies, DicomWebDatastore)):
        raise RequestError("Only results of images of a DICOMweb server can be stored there: leave params.store out.")
    if params.store:
        writable()
    volume_and_source = dicom_image(request["image"])  # before the work: it may be no DICOM
    analysis, _ = service.analyse(request, params)
    dataset = dicom_result(volume_and_source, analysis, output)
    if params.store:
        studies.store([dataset])
    path = saved(dataset)
    name = f"{request['id'] or 'image'}_{KINDS[output]}.dcm"
    return sent(path, name, "application/dicom", after=lambda: os.unlink(path))


def _answer(result: Path, scores: dict[str, Any], output: str, image: str) -> Response:
    """The response with the file `result`, which is removed once it is sent."""
    remove = BackgroundTask(os.unlink, result)
    kind = "application/octet-stream"
    name = f"{image}{''.join(result.suffixes)}"
    if output == "json":
        return JSONResponse(scores, background=remove)
    if output == "image":
        return sent(result, name, kind, after=lambda: os.unlink(result))
    body = MultipartEncoder(
        {
            "params": (None, JSONResponse(scores).body, "application/json"),
            "image": (f"result{''.join(result.suffixes)}", io.BytesIO(result.read_bytes()), kind),
        }
    )
    return StreamingResponse(
        iter(lambda: body.read(1024 * 1024), b""),
        media_type=body.content_type,
        headers={"Content-Length": str(body.len)},
        background=remove,
    )


@router.get("/progress/{request_id}", summary="How far the inference with this params.request_id is")
def progress(request_id: str) -> dict[str, Any]:
    return current_services().jobs.get(request_id).json()


@router.delete("/progress/{request_id}", summary="Cancel an inference; its own request then answers 409")
def cancel(request_id: str) -> dict[str, Any]:
    job = current_services().jobs.get(request_id)
    job.cancel()
    return job.json()
