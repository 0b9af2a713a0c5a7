"""Progress of an inference, watched in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol

from medclipad.client.failures import ServerError
from medclipad.client.transport import SHORT_TIMEOUT
from medclipad.errors import Cancelled

Json = dict[str, Any]
Progress = Callable[[Json], None]
POLL_INTERVAL = 0.3  # seconds between two requests for progress


class InferenceRequests(Protocol):
    """What the watcher asks the server."""

    def progress(self, request_id: str) -> Json:
        """Return the progress of an inference."""
        ...

    def cancel(self, request_id: str) -> Json:
        """Cancel an inference."""
        ...


class ProgressWatcher:
    """Context manager that polls an inference's progress, and cancels it when asked to.

    If the inference was cancelled, the block ends with Cancelled, or with what a callback raised.

    Parameters
    ----------
    client : InferenceRequests
        A client for the watcher's thread alone.
    request_id : str
        Id of the inference.
    progress : callable or None
        Called with the server's progress.
    cancelled : callable or None
        Asked whether to cancel.
    """

    def __init__(
        self,
        client: InferenceRequests,
        request_id: str,
        progress: Progress | None,
        cancelled: Callable[[], bool] | None,
    ) -> None:
        self._client, self._id = client, request_id
        self._progress, self._cancelled = progress, cancelled
        self._reason: BaseException | None = None  # why the inference is to stop
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="MedCLIPAD progress", daemon=True)

    def check(self) -> None:
        """Raise Cancelled, or what a callback raised, if the inference is to stop."""
        if self._reason is not None:
            raise self._reason

    def __enter__(self) -> ProgressWatcher:
        if self._progress or self._cancelled:
            self._thread.start()
        return self

    def __exit__(self, error_class: Any, error: BaseException | None, traceback: Any) -> None:
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join(SHORT_TIMEOUT)
        if (error is None or isinstance(error, ServerError)) and self._reason is not None:
            raise self._reason from None

    def _watch(self) -> None:
        """Poll until the block ends."""
        while not self._over.wait(POLL_INTERVAL):
            try:
                if self._reason is None:
                    self._call_back()
                if self._reason is not None:
                    self._client.cancel(self._id)  # repeatedly, in case the request has not arrived yet
            except ServerError:
                continue  # the request has not arrived yet, or its answer is on the way

    def _call_back(self) -> None:
        """Call both callbacks, and note whether the inference is to stop."""
        try:
            if self._cancelled and self._cancelled():
                self._reason = Cancelled("The inference was cancelled.")
        except BaseException as error:  # whatever it is, the caller's thread raises it
            self._reason = error
        if self._progress is None or self._reason is not None:
            return
        state = self._client.progress(self._id)
        try:
            self._progress(state)
        except BaseException as error:
            self._reason = error
