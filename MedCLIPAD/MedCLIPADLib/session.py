"""The connection to a server, and the jobs that use it. Nothing is sent before `connect` or `test` is called."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

from slicer.i18n import tr as _

from MedCLIPADLib.client import Client, Json
from MedCLIPADLib.errors import ModuleError
from MedCLIPADLib.jobs import Job, Jobs
from MedCLIPADLib.pending import Pending

Failed = Callable[[str], None]
CONNECT_WAIT = 10.0  # seconds that a server may take to answer Connect and Test connection


class Session:
    """folder: where unsent labels are kept. All methods are for the main thread; what they start calls back there."""

    def __init__(self, folder: Path) -> None:
        self.jobs = Jobs()
        self.pending = Pending(Path(folder) / "unsent")
        self._client: Client | None = None
        self.info: Json = {}
        self.versions: Json = {}

    # --- connection ---
    @property
    def connected(self) -> bool:
        return self._client is not None

    @property
    def url(self) -> str:
        return self._client.url if self._client else ""

    @property
    def limit(self) -> int | None:
        """Bytes that the server takes in one request."""
        return (self.info.get("medclipad") or {}).get("body_limit")

    def client(self) -> Client:
        """A client for a new thread; ModuleError if not connected."""
        if self._client is None:
            raise ModuleError(_("Connect to a server first, or start one on this computer, under Connection."))
        return self._client.twin()

    def test(self, url: str, token: str, done: Callable[[str], None], failed: Failed) -> Job:
        """Say what answers at an address, without connecting to it."""

        def work(job: Job) -> str:
            info = Client(url, token).info(CONNECT_WAIT)
            about = info["medclipad"]
            models = ", ".join(sorted(info.get("models", {}))) or _("no detector yet")
            return _("MedCLIPAD {version} answers, with {models}.").format(
                version=about.get("version", ""), models=models
            )

        return self.jobs.start("Test connection", work, done, failed)

    def connect(self, url: str, token: str, done: Callable[[], None], failed: Failed) -> Job:
        def work(job: Job) -> tuple:
            client = Client(url, token)
            return client, client.info(CONNECT_WAIT), client.versions()

        def finish(answer: tuple) -> None:
            self._client, self.info, self.versions = answer
            done()

        self.disconnect()
        return self.jobs.start("Connect", work, finish, failed)

    def disconnect(self) -> None:
        """Forget the server; what is under way is cancelled."""
        self.jobs.cancel_all()
        self._client, self.info, self.versions = None, {}, {}

    # --- what the server offers ---
    @property
    def methods(self) -> list[str]:
        """Methods with at least one detector."""
        return [name for name in self.info.get("models", {}) if name in self.versions or not self.versions]

    @property
    def strategies(self) -> list[str]:
        return list((self.info.get("medclipad") or {}).get("strategies") or self.info.get("strategies") or [])

    def of_method(self, method: str) -> list[Json]:
        """Versions of a method's detector, newest first."""
        return list((self.versions.get(method) or {}).get("versions") or [])

    def current(self, method: str) -> str:
        """Name of the version that serves, or ""."""
        return (self.versions.get(method) or {}).get("current") or ""

    def version(self, method: str, name: str) -> Json:
        """What is known of a version; "current" is the one that serves. {} if there is none."""
        name = self.current(method) if name in ("", "current") else name
        return next((version for version in self.of_method(method) if version["name"] == name), {})

    def refresh(self, done: Callable[[], None], failed: Failed) -> Job:
        """Ask again what the server offers: after a training, or when a version is gone."""
        client = self.client()

        def finish(answer: tuple) -> None:
            self.info, self.versions = answer
            done()

        return self.jobs.start("Refresh", lambda job: (client.info(), client.versions()), finish, failed)

    def select(self, method: str, version: str, done: Callable[[], None], failed: Failed) -> Job:
        """Let a version serve: use, keep or roll back."""
        client = self.client()

        def finish(entry: Any) -> None:
            self.versions = {**self.versions, method: entry}
            done()

        return self.jobs.start("Select version", lambda job: client.select(method, version), finish, failed)

    def delete(self, method: str, version: str, done: Callable[[], None], failed: Failed) -> Job:
        client = self.client()

        def finish(entry: Any) -> None:
            self.versions = {**self.versions, method: entry}
            done()

        return self.jobs.start("Delete version", lambda job: client.delete_version(method, version), finish, failed)
