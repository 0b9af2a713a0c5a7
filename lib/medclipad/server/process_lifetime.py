"""Nothing outlives a server, however it ended: neither the processes that it started nor its temporary files.

A server that is told to stop can see to both; one that is killed cannot, so its children look themselves, and the next
server removes its files.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

_SERVER = "MEDCLIPAD_SERVER_PID"  # environment variable, which the children inherit


def mark_server() -> None:
    """Make this process the one whose children end with it."""
    os.environ[_SERVER] = str(os.getpid())


def end_with_server() -> None:
    """In a child of a marked server: watch it in a thread, and end this process within a second of its end."""
    server = int(os.environ.get(_SERVER, os.getpid()))
    if server == os.getpid():
        return

    def watch() -> None:
        while os.getppid() == server and psutil.pid_exists(server):  # on Windows only the second one changes
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, name="server-watch", daemon=True).start()


def is_stale(pid: str) -> bool:
    """Whether what a process with this number left is no one's, asked before this process writes anything itself.

    In a container every server has the same number: what bears ours is an earlier server's.
    """
    return pid.isdecimal() and (int(pid) == os.getpid() or not psutil.pid_exists(int(pid)))


@contextmanager
def own_temporary_folder() -> Iterator[None]:
    """All temporary files of this process in one folder, which goes with the block; those of killed servers go too."""
    before = tempfile.gettempdir()
    for folder in Path(before).glob("medclipad-server-*-*"):
        if is_stale(folder.name.split("-")[2]):
            shutil.rmtree(folder, ignore_errors=True)
    tempfile.tempdir = tempfile.mkdtemp(prefix=f"medclipad-server-{os.getpid()}-")
    try:
        yield
    finally:
        shutil.rmtree(tempfile.tempdir, ignore_errors=True)
        tempfile.tempdir = before
