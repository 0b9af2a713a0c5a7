"""Images that MONAI Label's clients send for some inferences in a row, instead of adding them to the studies."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from medclipad.server.errors import RequestError
from medclipad.server.security.upload_limits import check_free_space

EXPIRY = 3600.0  # seconds since a session was last used, by default and at most
MAX_SESSIONS = 32


class Sessions:
    """The sessions of a server, whose files are removed with them. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sessions: dict[str, tuple[Path, float, float]] = {}  # by id: (file, expiry, last use)

    def add(self, file: Path, expiry: float = 0.0) -> str:
        """Keep a copy of a file and return the id of its session.

        Parameters
        ----------
        file
            The image.
        expiry
            Seconds without use after which it is removed; 0 for the default.

        Raises
        ------
        RequestError
            503 if there are too many sessions, 507 if the disk is full.
        """
        with self._lock:
            self._remove_expired()
            if len(self._sessions) >= MAX_SESSIONS:
                raise RequestError("Too many sessions are open: close one, or wait.", 503, {"Retry-After": "60"})
        check_free_space(tempfile.gettempdir(), file.stat().st_size)
        folder = Path(tempfile.mkdtemp(prefix="medclipad-session-"))
        kept = folder / file.name
        shutil.copyfile(file, kept)
        session = str(uuid.uuid4())
        with self._lock:
            self._sessions[session] = (kept, min(expiry, EXPIRY) if expiry > 0 else EXPIRY, time.monotonic())
        return session

    def path(self, session: str) -> str:
        """Return the file of a session, which counts as a use; raise RequestError 404 if there is none."""
        with self._lock:
            self._remove_expired()
            if session not in self._sessions:
                raise RequestError(f"Session {session!r} was not found, or has expired: send the image again.", 404)
            file, expiry, _ = self._sessions[session]
            self._sessions[session] = (file, expiry, time.monotonic())
            return str(file)

    def describe(self, session: str) -> dict[str, Any]:
        """Return what a client may know of a session; raise RequestError 404 if there is none."""
        name = os.path.basename(self.path(session))
        with self._lock:
            _, expiry, _ = self._sessions[session]
        return {"name": session, "image": name, "expiry": int(expiry), "meta": {}}

    def remove(self, session: str) -> None:
        """Remove a session; raise RequestError 404 if there is none."""
        self.path(session)
        with self._lock:
            self._drop(session)

    def _remove_expired(self) -> None:
        now = time.monotonic()
        for session, (_, expiry, used) in list(self._sessions.items()):
            if now - used > expiry:
                self._drop(session)

    def _drop(self, session: str) -> None:
        found = self._sessions.pop(session, None)
        if found is not None:
            shutil.rmtree(found[0].parent, ignore_errors=True)
