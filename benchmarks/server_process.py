"""A real `medclipad serve` to measure: started, killed and started again on one port, with its memory."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import nibabel as nib
import numpy as np
import psutil
import requests

START_SECONDS = 1200.0  # most that a start may take on a busy machine before the measurement gives up


class ServerProcess:
    """A server on the loopback address, which keeps its port over restarts.

    Parameters
    ----------
    studies
        Folder with the volumes, or address of an archive.
    log
        File for all output.
    *options
        Further options of `medclipad serve`.
    **environment
        Environment variables to set.

    Attributes
    ----------
    url
        Address of the server.
    """

    def __init__(self, studies: Path | str, log: Path, *options: str, **environment: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        program = "from medclipad.cli.main import main; main()"
        self._command = [sys.executable, "-c", program, "serve", "--studies", str(studies), "--port", str(port)]
        self._command += options
        self._environment = environment
        self._output: IO[bytes] = log.open("ab")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, **environment: str) -> float:
        """Start the server and return the seconds until it answers GET /info/.

        Parameters
        ----------
        **environment
            Environment variables for this start alone.
        """
        variables = {**os.environ, **self._environment, **environment}
        started = time.perf_counter()
        self._process = subprocess.Popen(self._command, stdout=self._output, stderr=subprocess.STDOUT, env=variables)
        while time.perf_counter() - started < START_SECONDS:
            if self._process.poll() is not None:
                raise RuntimeError(f"The server ended with {self._process.returncode}: see {self._output.name}.")
            try:
                if requests.get(f"{self.url}/info/", timeout=60).ok:
                    return time.perf_counter() - started
            except requests.RequestException:
                time.sleep(0.05)
        raise RuntimeError(f"The server did not start in {START_SECONDS:g} s: see {self._output.name}.")

    def __enter__(self) -> ServerProcess:
        """Return the server, which is not started yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the server, whatever happened."""
        self.stop()

    def memory(self, children: bool = False) -> float:
        """Return the resident memory in MB, on request with that of the processes that read files and train."""
        process = psutil.Process(self.pid)
        family = [process, *(process.children(recursive=True) if children else [])]
        total = 0
        for member in family:
            try:
                total += member.memory_info().rss
            except psutil.NoSuchProcess:  # a child that has just ended
                continue
        return total / 1e6

    @property
    def pid(self) -> int:
        """Number of the running process."""
        assert self._process is not None, "start it first"
        return self._process.pid

    def kill(self) -> None:
        """Kill the server without any warning."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Tell the server to stop, and wait until it has."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(how)
            self._process.wait(60)


def head(shape: tuple[int, int, int], seed: int, lesion: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Return a textured ellipsoid, float32, and the mask of its lesion, uint8; both of `shape`."""
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij")
    texture = 100 + 12 * np.sin(7 * x + seed) + 12 * np.cos(6 * y - seed) + rng.normal(0, 2, shape)
    ball = ((x - 0.25) ** 2 + (y - 0.2) ** 2 + (z / 1.5) ** 2 < 0.06) & lesion
    inside = (x / 0.8) ** 2 + (y / 0.9) ** 2 + (z / 0.95) ** 2 < 1
    return (inside * np.where(ball, 220, texture)).astype(np.float32), ball.astype(np.uint8)


def write_nifti(path: Path, array: np.ndarray, spacing: float = 3.0) -> Path:
    """Write an array as a NIfTI file of cubic voxels, in mm, and return its path."""
    nib.save(nib.Nifti1Image(array, np.diag([spacing, spacing, spacing, 1.0])), path)
    return path


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Return number, median, 99th percentile and maximum, in milliseconds."""
    p50, p99 = np.percentile(seconds, [50, 99]) * 1000
    return {"n": len(seconds), "p50": round(p50, 1), "p99": round(p99, 1), "max": round(max(seconds) * 1000, 1)}
