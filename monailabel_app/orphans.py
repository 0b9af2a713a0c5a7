"""Processes that MONAI Label starts end with the server that started them, however it went.

A server that is told to stop can stop them; one that is killed cannot, so they look themselves.
"""

from __future__ import annotations

import os
import threading
import time

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
