"""Detector versions: which there are, which serves, and removing what is no longer wanted."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from medclipad.methods import METHODS
from medclipad.server.errors import RequestError
from medclipad.server.services import current_services
from medclipad.server.training.versions import VersionStore

router = APIRouter(prefix="/versions", tags=["Versions"])


class Choice(BaseModel):
    """The body of PUT /versions/{method}/current."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(max_length=64)


@router.get("/", summary="All versions of all methods, newest first, and the ones that serve")
def versions() -> dict[str, Any]:
    return {method: _store().entries(method) for method in METHODS}


@router.put("/{method}/current", summary="Let a version serve from the next request on: select, or roll back")
def select(method: str, choice: Choice) -> dict[str, Any]:
    _check(method, choice.name)
    _store().select(method, choice.name)
    return _store().entries(method)


@router.delete("/{method}/{name}", summary="Delete a version; 409 if it serves now or ships with the app")
def delete(method: str, name: str) -> dict[str, Any]:
    _check(method, name)
    folder = _store().path(method, name)
    _store().delete(method, name)
    current_services().detectors.forget(folder)
    return _store().entries(method)


def _store() -> VersionStore:
    return current_services().versions


def _check(method: str, name: str) -> None:
    if method not in METHODS:
        raise RequestError(f"There is no method {method!r}; there are: {', '.join(METHODS)}.", 404)
    if name not in _store().names(method):  # "current" is a pointer, not a version
        raise RequestError(f"There is no {method} detector {name!r}.", 404)
