"""Clients of every kind at once, while the server is killed, its disk fills, its clock changes and its archive hangs.

    python -m benchmarks.server_load [--minutes 60] [--clients 16] [--json FILE] [--page FILE]

Each client uploads, labels, marks, asks for the next image, detects (also files that it sends, and some that it
cancels), downloads, removes, and sends files and requests that must be refused; one also trains. Meanwhile, in turn:

- the server is killed (SIGKILL) and started again, in another time zone each time;
- the disk of the studies and models (a tmpfs, where this user may mount one) is filled for some seconds;
- connections that never finish their header are opened, as many as one address may have;
- a second server, whose archive accepts connections and never answers, is asked for GET /info/ and for its images.

At the end the server is started once more, and everything that it acknowledged is looked for: images byte for byte,
labels, marks, info, removals, versions. Exits with 1 if anything is lost, unanswered or wrongly answered.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import requests
import typer

from benchmarks.machine import machine
from benchmarks.pages import markdown_table, replace_between
from benchmarks.server_clients import Book, ClientThread, Faults, lost
from benchmarks.server_hostile import half_sent
from benchmarks.server_process import ServerProcess, percentiles

ZONES = ("UTC", "Asia/Tokyo", "America/New_York", "Europe/London", "Pacific/Auckland")
DISK = "2g"
FULL_SECONDS = 4.0
HALF_SENT = 128
MARKS = ("<!-- load: written by benchmarks.server_load -->", "<!-- end of load -->")


def main(
    minutes: Annotated[float, typer.Option(help="Duration.")] = 60.0,
    clients: Annotated[int, typer.Option(help="Clients at once.")] = 16,
    json_file: Annotated[Path | None, typer.Option("--json", help="File for the figures.")] = None,
    page: Annotated[Path | None, typer.Option(help="Page whose table is replaced.")] = None,
) -> None:
    """Load a server with faults injected, and print what came of it."""
    with tempfile.TemporaryDirectory() as home, small_disk(Path(home) / "disk") as (disk, is_small):
        studies = disk / "studies"
        studies.mkdir()
        faults = Faults()
        memory: list[dict[str, float]] = []
        book = Book(faults)
        own = ServerProcess(studies, Path(home) / "log", "--log-file", str(Path(home) / "server.log"))
        with own as server, hanging_server(Path(home)) as other:
            server.start()
            until = time.monotonic() + minutes * 60
            threads = [ClientThread(number, server.url, book, until) for number in range(clients)]
            for thread in threads:
                thread.start()
            done = inject(server, faults, until, disk if is_small else None, other, book, memory)
            for thread in threads:
                thread.join()
            server.stop()
            server.start()
            missing = check(server.url, threads)
        log = (Path(home) / "server.log").read_text(encoding="utf-8")
        figures = report(book, threads, done, memory, missing, minutes, log)
    if json_file:
        json_file.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    text = f"{sentence(figures)}\n\n{table(figures)}"
    print(json.dumps(figures, indent=1), text, sep="\n\n")
    if page:
        replace_between(page, MARKS, f"\n{text}")
    raise typer.Exit(int(bool(missing or book.faults or book.unanswered)))


@contextmanager
def small_disk(folder: Path) -> Iterator[tuple[Path, bool]]:
    """Yield a folder on a disk of its own, and whether it is: only root may mount one."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", folder], capture_output=True)
    try:
        yield folder, mounted.returncode == 0
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", "-l", folder], check=True)


@contextmanager
def hanging_server(home: Path) -> Iterator[ServerProcess]:
    """Yield a server whose archive accepts connections and never answers."""
    (home / "empty").mkdir()
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as archive:
        address = f"http://127.0.0.1:{archive.getsockname()[1]}/dicom-web"
        with ServerProcess(address, home / "log", "--models", str(home / "empty")) as server:
            server.start()
            yield server


def inject(
    server: ServerProcess,
    faults: Faults,
    until: float,
    disk: Path | None,
    other: ServerProcess,
    book: Book,
    memory: list[dict[str, float]],
) -> dict[str, int]:
    """Do one thing after the other to a server until a moment; return how often each was done."""
    draw, done = random.Random(0), {"kills": 0, "full disks": 0, "half-sent requests": 0}
    alive, turn = time.monotonic(), 0
    while time.monotonic() < until - 10:
        watch(server, other, book, memory, min(time.monotonic() + draw.uniform(10, 30), until - 10), alive)
        if turn % 3 == 0:
            faults.kills.append((time.monotonic(), float("inf")))
            server.kill()
            done["kills"] += 1
            server.start(TZ=ZONES[done["kills"] % len(ZONES)])
            faults.kills[-1] = (faults.kills[-1][0], time.monotonic())
            alive = time.monotonic()
        elif turn % 3 == 1 and disk is not None:
            faults.full.append((time.monotonic(), float("inf")))
            fill(disk / "filler")
            time.sleep(FULL_SECONDS)
            (disk / "filler").unlink()
            faults.full[-1] = (faults.full[-1][0], time.monotonic() + 1)
            done["full disks"] += 1
        elif turn % 3 == 2:
            opened = half_sent(server.url, HALF_SENT)
            done["half-sent requests"] += len(opened)
            time.sleep(2)
            for connection in opened:
                connection.close()
        turn += 1
    return done


def watch(
    server: ServerProcess,
    other: ServerProcess,
    book: Book,
    memory: list[dict[str, float]],
    until: float,
    alive: float,
) -> None:
    """Note the server's memory, and ask the one whose archive hangs, until a moment."""
    while time.monotonic() < until:
        up = round(time.monotonic() - alive)
        memory.append({"up": up, "server": round(server.memory()), "all": round(server.memory(children=True))})
        for path in ("/info/", "/datastore/?output=all"):
            kind, address = f"archive hangs: GET {path}", f"{other.url}{path}"
            book.ask(kind, lambda address=address: requests.get(address, timeout=60))
        time.sleep(1)


def fill(file: Path) -> None:
    """Take all the space of a disk but a few blocks, however others use it meanwhile."""
    with file.open("wb") as stream:
        free = shutil.disk_usage(file.parent).free
        try:
            os.posix_fallocate(stream.fileno(), 0, max(free - 8192, 1))
        except OSError:  # another file has just taken some: a full disk is what is wanted
            return


def check(url: str, threads: list[ClientThread]) -> list[str]:
    """Return what the server acknowledged to its clients and does not hold."""
    objects = requests.get(f"{url}/datastore/?output=all", timeout=120).json()["objects"]
    versions = {each["name"] for each in requests.get(f"{url}/versions/", timeout=120).json()["mediclip"]["versions"]}
    return [missing for thread in threads for missing in lost(thread, objects, url, versions)]


def report(
    book: Book,
    threads: list[ClientThread],
    done: dict[str, int],
    memory: list[dict[str, float]],
    missing: list[str],
    minutes: float,
    log: str,
) -> dict[str, Any]:
    """Return all figures, in JSON's types."""
    requests_by_status: dict[str, dict[int, int]] = {}
    for (kind, status), number in sorted(book.statuses.items()):
        requests_by_status.setdefault(kind, {})[status] = number
    return {
        "minutes": minutes,
        "clients": len(threads),
        "injected": done,
        "uploads": sum(len(thread.images) + len(thread.removed) for thread in threads),
        "uploaded MB": round(sum(thread.uploaded_bytes for thread in threads) / 1e6),
        "writes checked": sum(len(thread.images) + len(thread.written) + len(thread.removed) for thread in threads),
        "hostile requests": sum(n for (kind, _), n in book.statuses.items() if kind.startswith("hostile")),
        "trainings": sum(len(thread.versions) for thread in threads),
        "cut by a kill": book.cut,
        "lost": missing,
        "unanswered": dict(book.unanswered),
        "wrong answers": dict(book.faults),
        "ms": {kind: percentiles(seconds) for kind, seconds in sorted(book.seconds.items())},
        "statuses": requests_by_status,
        "memory MB": {
            "in the first minute after a start": max((m["server"] for m in memory if m["up"] < 60), default=0),
            "later": max((m["server"] for m in memory if m["up"] >= 60), default=0),
            "with child processes": max((m["all"] for m in memory), default=0),
        },
        "log": {"bytes": len(log), "tracebacks": log.count("Traceback")},
        "machine": machine(),
    }


def sentence(figures: dict[str, Any]) -> str:
    """Return the figures that are no latencies, in words."""
    done, memory, host = figures["injected"], figures["memory MB"], figures["machine"]
    return (
        f"{figures['minutes']:g} minutes, {figures['clients']} clients, on {host['cores']} cores of "
        f"{host['processor']} ({host['date']}): {done['kills']} kills, {done['full disks']} full disks, "
        f"{done['half-sent requests']} half-sent and {figures['hostile requests']} hostile requests, "
        f"{figures['uploads']} uploads, {figures['trainings']} trainings; {figures['cut by a kill']} requests were "
        f"cut by a kill. Of {figures['writes checked']} acknowledged writes {len(figures['lost'])} were lost; "
        f"{sum(figures['unanswered'].values())} requests were unanswered, {sum(figures['wrong answers'].values())} "
        f"answered wrongly. Memory: at most {memory['later']} MB "
        f"later than a minute after a start ({memory['in the first minute after a start']} MB before), "
        f"{memory['with child processes']} MB with the processes that read files and train."
    )


def table(figures: dict[str, Any]) -> str:
    """Return the latencies as a table in Markdown, hostile requests as one row."""
    rows = [
        [kind, *(f"{values[key]:g}" for key in ("n", "p50", "p99", "max"))]
        for kind, values in figures["ms"].items()
        if not kind.startswith("hostile")
    ]
    return markdown_table(["request", "n", "p50 (ms)", "p99 (ms)", "most (ms)"], rows)


if __name__ == "__main__":
    typer.run(main)
