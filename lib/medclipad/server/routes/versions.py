"""Detector versions: list them, select the one in use, delete one."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from medclipad.methods import method_names
from medclipad.server.errors import RequestError
from medclipad.server.services import current_services
from medclipad.server.training.versions import VersionStore

router = APIRouter(prefix="/versions", tags=["Versions"])


class Choice(BaseModel):
    """The body of PUT /versions/{method}/current."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(max_length=64)


@router.get("/", summary="List all versions of all methods, newest first, and those in use")
def versions() -> dict[str, Any]:
    """List all versions of all methods, newest first, and the names of those in use."""
    return {method: _store().entries(method) for method in method_names()}


@router.put("/{method}/current", summary="Select the version that is used from the next request on")
def select(method: str, choice: Choice) -> dict[str, Any]:
    """Select the version that is used from the next request on, a new one or an earlier one."""
    _check(method, choice.name)
    _store().select(method, choice.name)
    return _store().entries(method)


@router.delete("/{method}/{name}", summary="Delete a version; 409 if it is in use or ships with the app")
def delete(method: str, name: str) -> dict[str, Any]:
    """Delete a version for good; 409 if it is in use or ships with the app."""
    _check(method, name)
    folder = _store().path(method, name)
    _store().delete(method, name)
    current_services().detectors.remove(folder)
    return _store().entries(method)


def _store() -> VersionStore:
    return current_services().versions


def _check(method: str, name: str) -> None:
    if method not in method_names():
        raise RequestError(f"Method {method!r} was not found; available: {', '.join(method_names())}.", 404)
    if name not in _store().names(method):  # "current" is a pointer, not a version
        raise RequestError(f"The {method} detector {name!r} was not found.", 404)
