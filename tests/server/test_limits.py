"""Limits that a running server shows only under load, such as the queue and bodies of unknown length."""

from __future__ import annotations

import asyncio
import errno
import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from fastapi import FastAPI, HTTPException
from starlette.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send

from medclipad.errors import Cancelled
from medclipad.volume import list_series, read_volume


def test_the_number_of_inferences_is_bounded_and_a_name_is_used_once() -> None:
    from medclipad.server.errors import RequestError
    from medclipad.server.inference.jobs import MAX_ACTIVE, Jobs

    jobs = Jobs()
    with ExitStack() as stack:
        for number in range(MAX_ACTIVE - 1):
            stack.enter_context(jobs.open(str(number)))
        with pytest.raises(RequestError, match="already running") as caught, jobs.open("0"):
            pass
        assert caught.value.status == 409
        stack.enter_context(jobs.open("last"))
        with pytest.raises(RequestError, match="waiting") as caught, jobs.open():
            pass
        assert caught.value.status == 503 and int((caught.value.headers or {})["Retry-After"]) > 0
    assert jobs.get("0").json()["state"] == "done"
    with jobs.open("0"):
        pass


def test_a_cancelled_job_stops_at_its_next_report() -> None:
    from medclipad.server.inference.jobs import Jobs

    jobs = Jobs()
    with pytest.raises(Cancelled), jobs.open("job") as job:
        job.report("detect", 1, 4, {})
        assert job.json()["fraction"] == 0.25
        jobs.cancel_all()
        job.report("detect", 2, 4, {})
    assert jobs.get("job").json()["state"] == "cancelled" and jobs.get("job").json()["done"] == 1


@pytest.mark.parametrize(("blocks", "status"), [(4, 200), (5, 413)])
def test_a_body_of_unknown_length_is_counted(blocks: int, status: int) -> None:
    from medclipad.server.security.guard import Guard

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["more_body"]:
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    sent = iter(range(1, blocks + 1))
    answers = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"x" * 10, "more_body": next(sent) < blocks}

    async def send(message: Message) -> None:
        answers.append(message)

    ends = {"client": ("127.0.0.1", 50000), "server": ("127.0.0.1", 8000)}
    scope = {"type": "http", "method": "PUT", "path": "/", "headers": [(b"host", b"localhost:8000")], **ends}
    asyncio.run(Guard(app, limit=40)(scope, receive, send))
    assert answers[0]["status"] == status


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (OSError(errno.ENOENT, "No such file", "Mustermann.nii.gz"), 404, "has been removed"),
        (OSError(errno.EIO, "Input/output error", "Mustermann.nii.gz"), 503, "Input/output error"),
        (OSError(errno.ESTALE, "Stale file handle"), 503, "cannot reach its files"),
        (OSError(errno.EMFILE, "Too many open files"), 503, "Too many open files"),
        (OSError(errno.EROFS, "Read-only file system"), 507, "may not write"),
        (OSError(errno.ENOSPC, "No space left"), 507, "disk is full"),
    ],
)
def test_what_goes_wrong_with_files_is_one_sentence(error: OSError, status: int, says: str) -> None:
    """In a route, and while a body is received, which FastAPI wraps; the answer names no file."""
    from medclipad.server import error_handlers

    app = FastAPI()
    error_handlers.install(app)

    @app.get("/route")
    def route() -> None:
        raise error

    @app.get("/body")
    async def body() -> None:
        raise HTTPException(400, "There was an error parsing the body") from error

    client = TestClient(app, raise_server_exceptions=False)
    answer = client.get("/route")
    assert answer.status_code == status and says in answer.json()["detail"] and "Mustermann" not in answer.text
    assert ("retry-after" in answer.headers) is (status == 503)
    assert client.get("/body").status_code == (507 if error.errno == errno.ENOSPC else 400)


@pytest.mark.parametrize("look", [read_volume, list_series])
def test_an_image_that_is_removed_while_it_is_asked_for_is_404(tmp_path: Path, look: Callable) -> None:
    """The reader's own message would name a path on the server."""
    from medclipad.server import error_handlers

    app = FastAPI()
    error_handlers.install(app)
    app.get("/gone")(lambda: look(tmp_path / "Mustermann.nii.gz"))
    app.get("/damaged")(lambda: look(tmp_path / "damaged.nii.gz"))
    (tmp_path / "damaged.nii.gz").write_bytes(b"none")
    client = TestClient(app, raise_server_exceptions=False)
    answer = client.get("/gone")
    assert answer.status_code == 404 and "has been removed" in answer.json()["detail"]
    assert "Mustermann" not in answer.text
    assert client.get("/damaged").status_code == 422


def test_a_version_gets_a_free_name_though_the_clock_was_set_back(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    from medclipad.server.params import parse_train_request
    from medclipad.server.training import service
    from medclipad.server.training.versions import VersionStore

    monkeypatch.setattr(service.time, "strftime", lambda *_: "20261025-023000")
    task = service.TrainingService("mediclip", VersionStore(tmp_path))
    plan = parse_train_request("mediclip", {})
    for name in ("mediclip-20261025-023000", "mediclip-20261025-023000-2", "mediclip-20261025-023000-3"):
        assert task.job(plan)["name"] == name
        (tmp_path / "mediclip" / name).mkdir(parents=True)
        (tmp_path / "mediclip" / name / "detector.json").write_text("{}")


def test_a_token_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from medclipad.server.security import access, guard

    compared = []
    monkeypatch.setattr(access.hmac, "compare_digest", lambda a, b: compared.append((a, b)) or a == b)
    client = TestClient(guard.Guard(FastAPI(), access.Tokens.of("correct-horse-battery", None)))
    answer = client.get("/", headers={"Authorization": "Bearer correct-horse-batterz"})
    assert answer.status_code == 401 and compared == [(b"correct-horse-batterz", b"correct-horse-battery")]


def test_files_with_our_own_process_number_are_an_earlier_servers(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container every server is process 1; the files of a killed one are removed nevertheless."""
    from medclipad.server.process_lifetime import own_temporary_folder
    from medclipad.server.stores.folder import StudyDatastore

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left = [tmp_path / f"medclipad-server-{os.getpid()}-x", tmp_path / "labels" / "final"]
    for folder in left:
        folder.mkdir(parents=True)
    parts = [left[1] / f".part-{pid}-140.nii.gz" for pid in (os.getpid(), os.getppid())]
    for part in parts:
        part.write_bytes(b"half")
    with own_temporary_folder():
        assert not left[0].exists()
    StudyDatastore(tmp_path)
    assert [part.exists() for part in parts] == [False, True], "what a living process writes stays"


@pytest.mark.parametrize(
    ("value", "plain_value"),
    [(float("nan"), None), ([1.0, float("inf")], [1.0, None]), ({"a": (1, "x")}, {"a": [1, "x"]})],
)
def test_what_is_sent_is_json(value: object, plain_value: object) -> None:
    import numpy as np

    from medclipad.server.params import to_json

    assert to_json(value) == plain_value
    assert to_json({"n": np.float32(0.5), "a": np.array([1.0, np.nan])}) == {"n": 0.5, "a": [1.0, None]}
