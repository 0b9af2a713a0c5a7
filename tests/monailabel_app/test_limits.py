"""Limits that a running server would only show under load: the queue, and bodies of unknown length."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest

from medclipad.errors import Cancelled


def test_the_waiting_room_is_bounded_and_a_name_is_used_once() -> None:
    from monailabel_app.errors import RequestError
    from monailabel_app.jobs import WAITING_ROOM, Jobs

    jobs = Jobs()
    with ExitStack() as stack:
        for number in range(WAITING_ROOM - 1):
            stack.enter_context(jobs.open(str(number)))
        with pytest.raises(RequestError, match="under way") as caught, jobs.open("0"):
            pass
        assert caught.value.status == 409
        stack.enter_context(jobs.open("last"))
        with pytest.raises(RequestError, match="waiting") as caught, jobs.open():
            pass
        assert caught.value.status == 503 and int(caught.value.headers["Retry-After"]) > 0
    assert jobs.get("0").json()["state"] == "done"
    with jobs.open("0"):
        pass


def test_a_cancelled_job_stops_at_its_next_report() -> None:
    from monailabel_app.jobs import Jobs

    jobs = Jobs()
    with pytest.raises(Cancelled), jobs.open("job") as job:
        job.report("detect", 1, 4, {})
        assert job.json()["fraction"] == 0.25
        jobs.cancel_all()
        job.report("detect", 2, 4, {})
    assert jobs.get("job").json()["state"] == "cancelled" and jobs.get("job").json()["done"] == 1


@pytest.mark.parametrize(("blocks", "status"), [(4, 200), (5, 413)])
def test_a_body_of_unknown_length_is_counted(blocks: int, status: int) -> None:
    from monailabel_app.guard import Guard

    async def app(scope: dict, receive, send) -> None:
        while (await receive())["more_body"]:
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    sent = iter(range(1, blocks + 1))
    answers = []

    async def receive() -> dict:
        return {"type": "http.request", "body": b"x" * 10, "more_body": next(sent) < blocks}

    async def send(message: dict) -> None:
        answers.append(message)

    scope = {"type": "http", "method": "PUT", "headers": [(b"host", b"localhost:8000")]}
    asyncio.run(Guard(app, token=None, limit=40)(scope, receive, send))
    assert answers[0]["status"] == status


@pytest.mark.parametrize(
    ("value", "plain_value"),
    [(float("nan"), None), ([1.0, float("inf")], [1.0, None]), ({"a": (1, "x")}, {"a": [1, "x"]})],
)
def test_what_is_sent_is_json(value: object, plain_value: object) -> None:
    import numpy as np

    from monailabel_app.params import plain

    assert plain(value) == plain_value
    assert plain({"n": np.float32(0.5), "a": np.array([1.0, np.nan])}) == {"n": 0.5, "a": [1.0, None]}
