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
from filelock import FileLock, Timeout

from medclipad.errors import MedCLIPADError

LOCK_FILE = ".server.lock"
"""File in a studies folder that a running server has locked; the system frees it when the process ends, however."""

_held: dict[Path, FileLock] = {}
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


def hold_folder(folder: Path) -> None:
    """Keep a studies folder for this process until it ends: two servers would overwrite what the other one saved.

    Parameters
    ----------
    folder
        The folder. One that cannot be written to needs no protection.

    Raises
    ------
    MedCLIPADError
        If another server holds it.
    """
    if folder in _held:
        return
    lock = FileLock(folder / LOCK_FILE, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise MedCLIPADError(
            f"Another server is running on {folder}: stop it first, or give this one a folder of its own."
        ) from None
    except OSError:
        return
    _held[folder] = lock


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
