"""A real server process, and small synthetic heads for it to analyse."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np

from medclipad.client import Client
from medclipad.detection.regions import region_labels
from medclipad.volume import Volume, write_volume

SHAPE = (48, 40, 24)
SMALL = {"planes": "axial", "shots": 8, "epochs": 2, "memory_share": 0.9}  # the least training that shows that it works
OBLIQUE = np.array([[2.9, 0.5, 0.0, -61.5], [-0.4, 3.1, 0.7, -60.25], [0.1, -0.6, 4.9, -48.125], [0, 0, 0, 1]])


def head(seed: int, lesion: bool = False) -> tuple[Volume, Volume]:
    """Return a head and its lesion mask: a textured ellipsoid on an oblique, anisotropic grid, and a bright ball."""
    rng = np.random.default_rng(seed)
    i, j, k = (np.linspace(-1, 1, n) for n in SHAPE)
    x, y, z = np.meshgrid(i, j, k, indexing="ij")
    inside = (x / 0.8) ** 2 + (y / 0.9) ** 2 + (z / 0.95) ** 2 < 1
    texture = 100 + 12 * np.sin(7 * x + seed) + 12 * np.cos(6 * y - seed) + rng.normal(0, 2, SHAPE)
    ball = ((x - 0.25) ** 2 + (y - 0.2) ** 2 + (z / 1.5) ** 2 < 0.06) & lesion
    array = (inside * np.where(ball, 220, texture)).astype(np.float32)
    return Volume(array, OBLIQUE), Volume(ball.astype(np.uint8), OBLIQUE)


def regions_of(anomaly_map: np.ndarray, scores: dict) -> np.ndarray:
    """Return where a labelmap is set, bool (I, J, K), from the map and the scores that the server answered with it."""
    return region_labels(anomaly_map, scores["threshold"], scores["region_limit"])[0] > 0


def fill(studies: Path) -> Path:
    """Write two normal heads and two with a labelled lesion, in three formats, and one damaged file."""
    (studies / "labels" / "final").mkdir(parents=True)
    for name, seed, lesion in [
        ("normal_1.nii.gz", 1, False),
        ("normal_2.nrrd", 2, False),
        ("lesion_1.mha", 3, True),
        ("lesion_2.nii.gz", 4, True),
    ]:
        volume, mask = head(seed, lesion)
        write_volume(volume, studies / name)
        if lesion:
            write_volume(mask, studies / "labels" / "final" / f"{name.partition('.')[0]}.nii.gz")
    (studies / "damaged.nii.gz").write_bytes(b"this is not a volume")
    (studies / "notes.txt").write_text("not an image")
    return studies


def free_port() -> int:
    """Return a port of the loopback address that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """`medclipad serve` as its own process, on a port that the system chooses."""

    models: Path  # folder of the detectors, where a test needs it

    def __init__(
        self, studies: Path | str, *options: str, prefix: tuple[str, ...] = (), wait: bool = True, **environment: str
    ) -> None:
        self.studies = Path(studies)
        command = [
            sys.executable,
            "-c",
            "from medclipad.cli.main import main; main()",
            "serve",
            "--studies",
            str(studies),
        ]
        self.process = subprocess.Popen(
            [*prefix, *command, "--port", "0", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **environment},
        )
        self.output: list[str] = []
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._ready.wait(240)  # other programs may have the processor
        if not wait:
            return
        found = re.search(r"ready at (https?://\S+)", self.log)
        if not found:
            self.process.kill()
            raise AssertionError(f"The server did not start:\n{self.log}")
        self.url = found.group(1)
        self.client = Client(self.url, timeout=120)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output.append(line)
            if "ready" in line:
                self._ready.set()
        self._ready.set()

    @property
    def log(self) -> str:
        """All output so far."""
        return "".join(self.output)

    def stop(self, how: int = signal.SIGTERM) -> None:
        """End the server with a signal."""
        self.process.send_signal(how)
        self.process.wait(15)
        self._reader.join(5)
