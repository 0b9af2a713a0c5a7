"""A server on a studies folder with thousands of volumes: start, latencies and memory.

    python -m benchmarks.server_scale [--images 5000] [--labels 500] [--requests 1000] [--json FILE]

Makes a folder of small volumes in a temporary place, a tenth of them labelled, and starts a real server on it: once
without and once with `datastore_v2.json`. All images get scores of made-up values, as the background scoring would
leave them after hours; the scoring itself is switched off. Every request has a connection of its own.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import requests
import typer

from benchmarks.machine import machine
from benchmarks.pages import markdown_table
from benchmarks.server_process import ServerProcess, head, percentiles, write_nifti
from medclipad.active_learning import PROJECTED_WIDTH, STRATEGIES, Candidate
from medclipad.compat import ensure_monailabel, ensure_torchvision

SHAPE = (32, 32, 8)  # voxels: what is measured is their number
SLICES = 24  # scored slices of an image, in each made-up score file
REPEATS = 50  # requests of each kind but GET /info/


def main(
    images: Annotated[int, typer.Option(help="Volumes in the folder.")] = 5000,
    labels: Annotated[int, typer.Option(help="Volumes with a final label.")] = 500,
    count: Annotated[int, typer.Option("--requests", help="Requests before the memory is looked at again.")] = 1000,
    json_file: Annotated[Path | None, typer.Option("--json", help="File for the figures.")] = None,
) -> None:
    """Measure a server on a folder with many volumes, and print a table."""
    with tempfile.TemporaryDirectory() as home:
        studies = make_studies(Path(home) / "studies", images, labels)
        figures: dict[str, Any] = {"images": images, "labels": labels}
        with ServerProcess(studies, Path(home) / "log", MEDCLIPAD_SCORING="off") as server:
            first = server.start()
            server.stop()
            score(studies, images)
            figures["start"] = {"first": round(first, 1), "second": round(server.start(), 1)}
            figures |= measure(server.url, studies, server.memory, count)
    figures["machine"] = machine()
    if json_file:
        json_file.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    rows = [[name, *(f"{value[key]:g}" for key in ("n", "p50", "p99", "max"))] for name, value in figures["ms"].items()]
    print(markdown_table(["request", "n", "p50 (ms)", "p99 (ms)", "most (ms)"], rows))
    print(json.dumps({key: value for key, value in figures.items() if key != "ms"}))


def make_studies(folder: Path, images: int, labels: int) -> Path:
    """Write a folder of volumes with different contents, the first of them labelled; return it."""
    (folder / "labels" / "final").mkdir(parents=True)
    array, mask = head(SHAPE, 0, lesion=True)
    label = write_nifti(folder / "label.nii", mask)
    for number in range(images):
        array[0, 0, 0] = number
        write_nifti(folder / f"{name_of(number)}.nii", array)
        if number < labels:
            shutil.copyfile(label, folder / "labels" / "final" / f"{name_of(number)}.nii")
    label.unlink()
    return folder


def name_of(number: int) -> str:
    """Return the id of an image."""
    return f"case_{number:05}"


def score(studies: Path, images: int) -> None:
    """Store made-up scores of all images for the detector that ships with the server."""
    ensure_monailabel()
    ensure_torchvision()
    import monailabel_app  # the server's parts import MONAI Label, which needs both remedies
    from medclipad.server.inference.scoring import ScoreStore
    from medclipad.server.stores.file_state import file_state
    from medclipad.server.training.versions import identity, starter_folder

    detector = identity(starter_folder(Path(monailabel_app.__path__[0])))
    store, rng = ScoreStore(studies / "models" / "scores"), np.random.default_rng(0)
    for name in map(name_of, range(images)):
        slices = rng.random(SLICES)
        features = rng.normal(size=(SLICES, PROJECTED_WIDTH)).astype(np.float16)
        state = file_state(studies / f"{name}.nii")
        store.put(detector, name, state, Candidate(name, float(slices.max()), slices, 0.5, features))


def measure(url: str, studies: Path, memory: Callable[[], float], count: int) -> dict[str, Any]:
    """Return latencies by kind of request, and the memory before and after `count` requests of all kinds."""
    image = (studies / f"{name_of(0)}.nii").read_bytes()
    label = (studies / "labels" / "final" / f"{name_of(0)}.nii").read_bytes()

    def next_sample(strategy: str) -> Callable[[int], requests.Response]:
        return lambda _: requests.post(f"{url}/activelearning/{strategy}", json={"method": "mediclip"}, timeout=60)

    kinds: dict[str, Callable[[int], requests.Response]] = {
        "GET /info/": lambda _: requests.get(f"{url}/info/", timeout=60),
        "GET /health": lambda _: requests.get(f"{url}/health", timeout=60),
        **{f"POST /activelearning/{strategy}": next_sample(strategy) for strategy in STRATEGIES},
        "GET /scoring/": lambda _: requests.get(f"{url}/scoring/", timeout=60),
        "GET /datastore/?output=all": lambda _: requests.get(f"{url}/datastore/?output=all", timeout=60),
        "GET /datastore/image": lambda i: requests.get(f"{url}/datastore/image?image={name_of(i)}", timeout=60),
        "PUT /datastore/image": lambda i: requests.put(
            f"{url}/datastore/image?image=new_{i}", files={"file": ("new.nii", image)}, timeout=60
        ),
        "PUT /datastore/image/info": lambda i: requests.put(
            f"{url}/datastore/image/info?image={name_of(i)}", data={"info": json.dumps({"note": i})}, timeout=60
        ),
        "PUT /datastore/label": lambda i: requests.put(
            f"{url}/datastore/label?image={name_of(i)}", files={"label": ("label.nii", label)}, timeout=60
        ),
        "PUT /marks": lambda i: requests.put(
            f"{url}/marks?image={name_of(i)}", json={"plane": "axial", "normal": [i % SHAPE[2]]}, timeout=60
        ),
    }
    before = memory()
    first = {name: round(timed(ask, REPEATS) * 1000, 1) for name, ask in kinds.items()}
    warm = memory()
    repeats = {name: count if name == "GET /info/" else REPEATS for name in kinds}
    seconds = {name: [timed(ask, number) for number in range(repeats[name])] for name, ask in kinds.items()}
    middle = memory()
    for number in range(count):
        list(kinds.values())[number % 8](number)  # those that change nothing
    return {
        "first ms": first,
        "ms": {name: percentiles(values) for name, values in seconds.items()},
        "memory MB": {
            "started": round(before),
            "each once": round(warm),
            "after the table": round(middle),
            f"after {count} more": round(memory()),
        },
    }


def timed(ask: Callable[[int], requests.Response], number: int) -> float:
    """Return the seconds that a request takes; raise if it is refused."""
    started = time.perf_counter()
    response = ask(number)
    if not response.ok:
        raise RuntimeError(f"{response.request.method} {response.url}: {response.status_code} {response.text[:300]}")
    return time.perf_counter() - started


if __name__ == "__main__":
    typer.run(main)
