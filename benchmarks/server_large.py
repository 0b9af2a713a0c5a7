"""Inference of a large CT over HTTP: the first sign of progress, cancelling, and memory.

    python -m benchmarks.server_large [--slices 600] [--whole] [--json FILE]

A synthetic CT of 512 x 512 pixels a slice lies compressed in the studies of a real server. It is asked for and
cancelled while it is read, and again while it is analysed; after each, a small volume shows when the server is free
again. With `--whole` it is then analysed to the end.
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import nibabel as nib
import numpy as np
import requests
import typer

from benchmarks.machine import machine
from benchmarks.server_process import ServerProcess, head, write_nifti

SIDE = 512
POLL = 0.1  # seconds between two looks at the progress


def main(
    slices: Annotated[int, typer.Option(help="Slices of 512 x 512 pixels.")] = 600,
    whole: Annotated[bool, typer.Option("--whole", help="Analyse the volume to the end, too.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="File for the figures.")] = None,
) -> None:
    """Measure how a large volume is read, cancelled and, on request, analysed."""
    with tempfile.TemporaryDirectory() as home:
        studies = Path(home) / "studies"
        studies.mkdir()
        make_ct(studies / "large.nii.gz", slices)
        write_nifti(studies / "small.nii", head((48, 48, 16), 0)[0])
        with ServerProcess(studies, Path(home) / "log", MEDCLIPAD_SCORING="off") as server:
            server.start()
            Inference(server, "small").wait()  # loads the detector
            figures: dict[str, Any] = {"slices": slices, "idle MB": round(server.memory(children=True))}
            figures["cancelled while reading"] = cancelled(server, lambda progress: progress["phase"] == "load")
            figures["cancelled while analysing"] = cancelled(server, lambda progress: progress["done"] > 1)
            if whole:
                running = Inference(server, "large")
                running.wait()
                figures["whole"] = running.figures()
    figures["machine"] = machine()
    text = json.dumps(figures, indent=1)
    if json_file:
        json_file.write_text(text, encoding="utf-8")
    print(text)


def make_ct(path: Path, slices: int) -> None:
    """Write a body of noisy organs in Hounsfield units, int16, compressed."""
    rng = np.random.default_rng(0)
    x = np.linspace(-1, 1, SIDE, dtype=np.float32)
    flat = x[:, None] ** 2 + x**2
    organs = 40 + 30 * np.sin(9 * x[:, None]) * np.cos(7 * x)
    noise = rng.normal(0, 15, (SIDE, SIDE)).astype(np.float32)
    array = np.full((SIDE, SIDE, slices), -1000, np.int16)
    for index in range(slices):
        array[..., index] = np.where(flat < 0.6, organs + np.roll(noise, index, axis=0), -1000)
    nib.save(nib.Nifti1Image(array, np.diag([0.8, 0.8, 1.0, 1.0])), path)


class Inference:
    """One inference, with what its progress said and the memory meanwhile."""

    def __init__(self, server: ServerProcess, image: str) -> None:
        self._server, self._name = server, uuid.uuid4().hex
        self._started = time.monotonic()
        self.status, self.seconds = 0, 0.0
        self.first: dict[str, float] = {}  # seconds until each phase was first seen
        self.longest, self.peak = 0.0, 0.0
        data = {"params": json.dumps({"request_id": self._name, "force_modality": True})}
        address = f"{server.url}/infer/mediclip?output=json&image={image}"
        self._thread = threading.Thread(target=self._ask, args=(address, data))
        self._thread.start()

    def _ask(self, address: str, data: dict[str, str]) -> None:
        self.status = requests.post(address, data=data, timeout=7200).status_code
        self.seconds = time.monotonic() - self._started

    def wait(self, stop: Callable[[dict[str, Any]], bool] | None = None) -> None:
        """Follow the progress until the answer, or until `stop(progress)` is true."""
        changed, last = self._started, ""
        while self._thread.is_alive():
            answer = requests.get(f"{self._server.url}/progress/{self._name}", timeout=60)
            now = time.monotonic()
            self.peak = max(self.peak, self._server.memory(children=True))
            if answer.ok:
                progress = answer.json()
                state = f"{progress['phase']} {progress['done']} {progress['info']}"
                if state != last:
                    self.longest, changed, last = max(self.longest, now - changed), now, state
                if progress["phase"]:
                    self.first.setdefault(progress["phase"], round(now - self._started, 2))
                if stop is not None and stop(progress):
                    return
            time.sleep(POLL)

    def cancel(self) -> float:
        """Cancel the inference and return the seconds until its request was answered."""
        asked = time.monotonic()
        requests.delete(f"{self._server.url}/progress/{self._name}", timeout=60)
        self._thread.join()
        return time.monotonic() - asked

    def figures(self) -> dict[str, Any]:
        """Return what was seen, in JSON's types."""
        return {
            "status": self.status,
            "seconds": round(self.seconds, 1),
            "first seen": self.first,
            "longest without a change": round(self.longest, 1),
            "peak MB": round(self.peak),
        }


def cancelled(server: ServerProcess, when: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Cancel the large volume at a moment; return how soon it was answered, and how soon another one was done."""
    running = Inference(server, "large")
    running.wait(when)
    time.sleep(1)
    seconds = running.cancel()
    after = time.monotonic()
    requests.post(f"{server.url}/infer/mediclip?output=json&image=small", timeout=600).raise_for_status()
    other = time.monotonic() - after
    return {**running.figures(), "answered after": round(seconds, 2), "another image after": round(other, 2)}


if __name__ == "__main__":
    typer.run(main)
