"""Sessions of MONAI Label's clients: an image that is sent once for some inferences."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, UploadFile

from medclipad.server.routes.uploads import uploaded_file
from medclipad.server.routes.work_pools import READING
from medclipad.server.services import current_services

router = APIRouter(prefix="/session", tags=["Session"])


@router.put("/", summary="Keep an image for some inferences, without adding it to the studies")
@READING
def add_session(files: UploadFile, expiry: float = 0.0) -> dict[str, Any]:
    """Keep an image for an hour after its last use, or for `expiry` seconds; inference takes its `session_id`."""
    sessions = current_services().sessions
    with uploaded_file(files, archives=True) as path:
        session = sessions.add(path, expiry)
    return {"session_id": session, "session_info": sessions.describe(session)}


@router.get("/{session_id}", summary="Show a session; 404 if it has expired")
def get_session(session_id: str) -> dict[str, Any]:
    """Show a session, which counts as a use."""
    return current_services().sessions.describe(session_id)


@router.delete("/{session_id}", summary="Remove a session and its image")
def remove_session(session_id: str) -> dict[str, Any]:
    """Remove a session and its image, and show what it was."""
    sessions = current_services().sessions
    description = sessions.describe(session_id)
    sessions.remove(session_id)
    return description
