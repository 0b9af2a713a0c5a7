"""The audit log: who did what to which image, and when; neither pixels nor names of patients or files.

One JSON object a line, in a file that only grows: {"time", "user", "address", "request", "image", "status"}. The id of
an image may be a patient's name, so the first 16 digits of its SHA-256 stand for it.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qs

from starlette.types import Scope

from medclipad.errors import MedCLIPADError
from medclipad.files import sha256_of_text
from medclipad.server.security.access import User
from medclipad.server.security.rate_limit import RateLimit

AUDIT_FILE = "MEDCLIPAD_AUDIT_LOG"  # environment variable
_logger = logging.getLogger("medclipad.audit")
_logger.propagate = False
_IMAGE_KEYS = ("image", "id", "label")
_strangers = RateLimit(0.5)  # entries a second about requests without a valid token: they must not fill the disk


def open_audit_log(file: str | None) -> None:
    """Write the audit log to a file from now on; raise MedCLIPADError if it cannot be written.

    Parameters
    ----------
    file
        Path of the file; None for no audit log. It is opened again if another program has moved it away.
    """
    for handler in list(_logger.handlers):
        _logger.removeHandler(handler)
        handler.close()
    _logger.setLevel(logging.CRITICAL + 1)
    if file:
        try:
            handler = logging.handlers.WatchedFileHandler(Path(file), encoding="utf-8")
        except OSError as error:
            raise MedCLIPADError(
                f"The audit log {file} cannot be written ({error.strerror}): choose another file."
            ) from error
        _logger.addHandler(handler)
        _logger.setLevel(logging.INFO)


def record(scope: Scope, user: User | None, route: str, status: int) -> None:
    """Add a request to the audit log, if there is one and the request concerns an image or changes something.

    Parameters
    ----------
    scope
        Of the request.
    user
        Who sent it; None for somebody without a valid token.
    route
        Pattern of its path; "-" for none.
    status
        HTTP status of the answer.
    """
    if not _logger.isEnabledFor(logging.INFO) or (user is None and _strangers.wait("")):
        return
    query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
    image = next((query[key][0] for key in _IMAGE_KEYS if key in query), None)
    if image is None and scope["method"] in ("GET", "HEAD") and status < 400:
        return
    entry = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "user": user.name if user else None,
        "address": (scope.get("client") or ("",))[0],
        "request": f"{scope['method']} {route}",
        "image": sha256_of_text(image)[:16] if image is not None else None,
        "status": status,
    }
    _logger.info(json.dumps(entry))
