"""A small stand-in of the Hugging Face hub: repositories are created, written by commits, and read by file."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_a_token_of_the_tests"
REVISION = "0" * 40


class Handler(BaseHTTPRequestHandler):
    """Answers as the hub does, to whoever has the token."""

    protocol_version = "HTTP/1.1"
    server: Any

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer(401, {"error": "Invalid credentials"})
        elif self.path == "/api/repos/create":
            sent = json.loads(body)
            self.server.repositories[f"{sent['organization']}/{sent['name']}"] = sent
            self._answer(200, {"url": f"{self._address}/{sent['organization']}/{sent['name']}"})
        elif self.path == "/api/validate-yaml":
            self._answer(200, {"errors": [], "warnings": []})
        elif self.path.endswith("/preupload/main"):
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            self._answer(200, {"files": files})
        elif "/commit/main" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            repository = self.path.removeprefix("/api/models/").partition("/commit/")[0]
            address = f"{self._address}/{repository}/commit/{REVISION}"
            self._answer(200, {"commitOid": REVISION, "commitUrl": address})
        else:
            self._answer(404, {})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        _, _, file = self.path.partition(f"/resolve/{REVISION}/")
        if file in self.server.files and self.headers.get("Authorization") == f"Bearer {TOKEN}":
            self._answer(200, self.server.files[file])
        elif "/tree/" in self.path:
            self._answer(200, [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in self.server.files.items()
            ])  # fmt: skip
        elif self.path.startswith("/api/models/") and self.server.files:
            siblings = [{"rfilename": name} for name in self.server.files]
            self._answer(200, {"id": "me/detector", "modelId": "me/detector", "sha": REVISION, "siblings": siblings})
        else:
            self._answer(404, {})

    @property
    def _address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def _answer(self, status: int, content: Any) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", REVISION)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        """Quiet."""


@contextmanager
def running() -> Iterator[Any]:
    """Run the stand-in; its `files` and `repositories` are what was written."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub: Any = server
        hub.files, hub.repositories = {}, {}
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()
