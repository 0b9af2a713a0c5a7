"""End the processes and remove the temporary files of a server with it, however it ends.

A server that is told to stop does both itself. One that is killed cannot: its child processes watch it, and the next
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

_SERVER = "MEDCLIPAD_SERVER_PID"  # environment variable, which child processes inherit


def mark_server() -> None:
    """Make this process the one whose child processes end with it."""
    os.environ[_SERVER] = str(os.getpid())


def end_with_server() -> None:
    """End this process within a second of its server's end; call it in a child process of a marked server."""
    server = int(os.environ.get(_SERVER, os.getpid()))
    if server == os.getpid():
        return

    def watch() -> None:
        while os.getppid() == server and psutil.pid_exists(server):  # on Windows the parent's number never changes
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, name="server-watch", daemon=True).start()


def is_stale(pid: str) -> bool:
    """Return whether the process that left a file is gone; call it before this process writes such files itself.

    Parameters
    ----------
    pid
        Number of the process, as the name of the file gives it.

    Notes
    -----
    In a container every server has the same number: a file with our own number belongs to an earlier server.
    """
    return pid.isdecimal() and (int(pid) == os.getpid() or not psutil.pid_exists(int(pid)))


@contextmanager
def own_temporary_folder() -> Iterator[None]:
    """Keep all temporary files of this process in one folder, removed after the block; remove those of dead servers."""
    default = tempfile.gettempdir()
    for folder in Path(default).glob("medclipad-server-*-*"):
        if is_stale(folder.name.split("-")[2]):
            shutil.rmtree(folder, ignore_errors=True)
    tempfile.tempdir = tempfile.mkdtemp(prefix=f"medclipad-server-{os.getpid()}-")
    try:
        yield
    finally:
        shutil.rmtree(tempfile.tempdir, ignore_errors=True)
        tempfile.tempdir = default
