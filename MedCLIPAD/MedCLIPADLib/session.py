"""The connection to a server, and the jobs that use it.

Nothing is sent before `connect` or `test` is called.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

from slicer.i18n import tr as _

from MedCLIPADLib.client import Client, Json
from MedCLIPADLib.errors import ModuleError
from MedCLIPADLib.jobs import Job, Jobs
from MedCLIPADLib.pending import Pending

Failed = Callable[[str], Any]  # called with one sentence
CONNECT_TIMEOUT = 10.0  # seconds that a server may take to answer Connect and Test connection


class Session:
    """A connection to one server at a time, for the main thread.

    Methods that return a Job come back at once; their callbacks are called in the main thread, as `Jobs.start` says.

    Parameters
    ----------
    folder : Path
        Where unsent labels and marks are kept.

    Attributes
    ----------
    jobs : Jobs
        All jobs of the module.
    pending : Pending
        Labels and marks that have not been sent yet.
    info : dict
        The server's answer to GET /info/; {} without a connection.
    versions : dict
        The server's answer to GET /versions/; {} without a connection.
    on_disconnect : callable or None
        Called when a server is left.
    """

    def __init__(self, folder: Path) -> None:
        self.jobs = Jobs()
        self.pending = Pending(Path(folder) / "unsent")
        self._client: Client | None = None
        self.info: Json = {}
        self.versions: Json = {}
        self.on_disconnect: Callable[[], Any] | None = None

    # --- connection ---
    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self._client is not None

    @property
    def url(self) -> str:
        """Address of the server; "" without a connection."""
        return self._client.url if self._client else ""

    @property
    def limit(self) -> int | None:
        """Bytes that the server accepts in one request; None if not known."""
        return (self.info.get("medclipad") or {}).get("body_limit")

    def client(self) -> Client:
        """Return a client for a new thread; ModuleError without a connection."""
        if self._client is None:
            raise ModuleError(_("Connect to a server first, or start one on this computer, under Connection."))
        return self._client.copy()

    def test(self, url: str, token: str, done: Callable[[str], Any], failed: Failed, ca_file: str = "") -> Job:
        """Find out what is running at an address, without connecting to it.

        The parameters are as in `connect`; `done` gets a sentence.
        """

        def work(job: Job) -> str:
            info = Client(url, token, ca_file).info(CONNECT_TIMEOUT)
            methods = ", ".join(sorted(info.get("models", {})))
            words = _("MedCLIPAD {version} is running, with detectors of {methods}.")
            if not methods:
                words = _("MedCLIPAD {version} is running, without a detector yet.")
            return words.format(version=info["medclipad"].get("version", ""), methods=methods)

        return self.jobs.start("Test connection", work, done, failed)

    def connect(self, url: str, token: str, done: Callable[[], Any], failed: Failed, ca_file: str = "") -> Job:
        """Connect to a server, and disconnect from any other.

        Parameters
        ----------
        url, token, ca_file : str
            As in `Client`.
        done, failed : callable
            Callbacks; see `Jobs.start`.
        """

        def work(job: Job) -> tuple[Client, Json, Json]:
            client = Client(url, token, ca_file)
            return client, client.info(CONNECT_TIMEOUT), client.versions()

        def finish(answer: tuple[Client, Json, Json]) -> None:
            self._client, self.info, self.versions = answer
            done()

        self.disconnect()
        return self.jobs.start("Connect", work, finish, failed)

    def disconnect(self) -> None:
        """Forget the server and cancel all jobs."""
        self.jobs.cancel_all()
        self._client, self.info, self.versions = None, {}, {}
        if self.on_disconnect is not None:
            self.on_disconnect()

    def cancel_scene_jobs(self) -> None:
        """Cancel the jobs whose results belong into a scene that is being closed; those of the server go on."""
        for name in ("Detect", "Regions", "Segmentation", "Body", "Next volume"):
            for job in self.jobs.active(name):
                job.cancel()

    # --- what the server offers ---
    @property
    def methods(self) -> list[str]:
        """Methods with at least one detector."""
        return [name for name in self.info.get("models", {}) if name in self.versions or not self.versions]

    @property
    def strategies(self) -> list[str]:
        """Strategies of active learning."""
        return list((self.info.get("medclipad") or {}).get("strategies") or self.info.get("strategies") or [])

    def versions_of(self, method: str) -> list[Json]:
        """Return the versions of a method's detector, newest first."""
        return list((self.versions.get(method) or {}).get("versions") or [])

    def current(self, method: str) -> str:
        """Return the name of the version in use, or ""."""
        return (self.versions.get(method) or {}).get("current") or ""

    def version(self, method: str, name: str) -> Json:
        """Return what is known about a version, or {} if there is none.

        "current" and "" stand for the version in use.
        """
        name = self.current(method) if name in ("", "current") else name
        return next((version for version in self.versions_of(method) if version["name"] == name), {})

    def refresh(self, done: Callable[[], Any], failed: Failed) -> Job:
        """Update `info` and `versions`, as needed after a training or a deletion."""
        client = self.client()

        def finish(answer: tuple[Json, Json]) -> None:
            self.info, self.versions = answer
            done()

        return self.jobs.start("Refresh", lambda job: (client.info(), client.versions()), finish, failed)

    def select(self, method: str, version: str, done: Callable[[], Any], failed: Failed) -> Job:
        """Put a version in use, a new or an old one."""
        client = self.client()
        return self._change("Select version", method, lambda: client.select_version(method, version), done, failed)

    def delete(self, method: str, version: str, done: Callable[[], Any], failed: Failed) -> Job:
        """Delete a version from the server."""
        client = self.client()
        return self._change("Delete version", method, lambda: client.delete_version(method, version), done, failed)

    def _change(
        self, name: str, method: str, request: Callable[[], Json], done: Callable[[], Any], failed: Failed
    ) -> Job:
        """Start a request that returns the new versions of a method."""

        def finish(entry: Json) -> None:
            self.versions = {**self.versions, method: entry}
            done()

        return self.jobs.start(name, lambda job: request(), finish, failed)
