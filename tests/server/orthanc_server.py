"""A real Orthanc with its DICOMweb plugin, on a free port, with an empty storage."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import requests
from live_server import free_port

PLUGIN = next(iter(Path("/usr").glob("share/orthanc/plugins/libOrthancDicomWeb.so")), None)
BINARY = shutil.which("Orthanc") or next(iter(Path("/usr/sbin").glob("Orthanc")), None)
MISSING = "" if PLUGIN and BINARY else "Orthanc is not installed (Debian packages orthanc, orthanc-dicomweb)"


class Orthanc:
    """Orthanc in its own process; with a password, only the user "reader" has access."""

    def __init__(self, folder: Path, password: str | None = None) -> None:
        self.port = free_port()
        self.auth = ("reader", password) if password else None
        self._folder = folder
        folder.mkdir(parents=True)
        settings = {
            "Name": "test",
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "HttpPort": self.port,
            "DicomServerEnabled": False,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": password is not None,
            "RegisteredUsers": {"reader": password} if password else {},
            "Plugins": [str(PLUGIN)],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
            "ConcurrentJobs": 1,
            "HttpThreadsCount": 4,
        }
        (folder / "orthanc.json").write_text(json.dumps(settings))
        self.start()

    @property
    def url(self) -> str:
        """Address of its DICOMweb service."""
        return f"http://127.0.0.1:{self.port}/dicom-web"

    def start(self) -> None:
        """Start the process and wait until it answers."""
        with open(self._folder / "log.txt", "ab") as log:
            self.process = subprocess.Popen([str(BINARY), self._folder / "orthanc.json"], stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while True:
            try:
                self.get("/system")
                return
            except requests.ConnectionError:
                assert self.process.poll() is None, (self._folder / "log.txt").read_text()[-2000:]
                assert time.monotonic() < deadline
                time.sleep(0.1)

    def stop(self, how: int = signal.SIGKILL) -> None:
        """End the process with a signal."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        self.process.wait(30)

    def request(self, method: str, path: str, **options: Any) -> requests.Response:
        """Send a request to Orthanc's own interface."""
        with requests.Session() as session:
            session.trust_env = False
            response = session.request(
                method, f"http://127.0.0.1:{self.port}{path}", auth=self.auth, timeout=30, **options
            )
            response.raise_for_status()
            return response

    def get(self, path: str) -> Any:
        """Return a JSON answer of Orthanc's own interface."""
        return self.request("GET", path).json()

    def add(self, folder: Path) -> None:
        """Send all files of a folder."""
        for file in sorted(folder.iterdir()):
            self.request("POST", "/instances", data=file.read_bytes())

    def series(self, modality: str) -> list[str]:
        """Return Orthanc's own ids of the series of a modality."""
        return self.request("POST", "/tools/find", json={"Level": "Series", "Query": {"Modality": modality}}).json()

    def files(self, modality: str) -> list[bytes]:
        """Return all stored objects of a modality."""
        found = []
        for series in self.series(modality):
            for instance in self.get(f"/series/{series}")["Instances"]:
                found.append(self.request("GET", f"/instances/{instance}/file").content)
        return found
