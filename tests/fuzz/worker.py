"""One process that reads mutants, one after the other, and says of each what came of it.

    python -m tests.fuzz.worker HOME SEED FIRST LAST [KIND ...]

Lines on standard output are JSON: {"n", "kind", "stage"} before each stage, with "outcome" and "text" at the end.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import sys
import tempfile
import time
import warnings
from pathlib import Path

MEMORY = 2 * 1024**3
"""Bytes that a mutant may take beyond what the process has."""

FINE = ("refused", "read, the same", "read by us alone", "read")


def main(home: Path, seed: int, first: int, last: int, kinds: list[str]) -> None:
    import torch  # before the limit

    from medclipad import checkpoints
    from tests.fuzz.seeds import make_seeds

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in ("in", "out", "tmp"):
        shutil.rmtree(home / name, ignore_errors=True)
        (home / name).mkdir(parents=True)
    tempfile.tempdir = str(home / "tmp")
    with tempfile.TemporaryDirectory() as folder:
        seeds = make_seeds(Path(folder) / "seeds")
        contents = {
            name: {str(file.relative_to(_root(path))): file.read_bytes() for file in _files(path)}
            for name, path in seeds.items()
            if not kinds or name in kinds
        }
        starts = {name: str(path.relative_to(_root(path))) for name, path in seeds.items()}
    os.chdir(home)
    opened = _watch_writes(home)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    assert checkpoints
    for n in range(first, last):
        rng = random.Random(f"{seed}:{n}")
        kind = rng.choice(sorted(contents))
        source = _write_mutant(home / "in", contents[kind], starts[kind], rng)
        before = _listing(home)
        opened.clear()
        began = time.process_time()
        say = {"n": n, "kind": kind}
        _tell({**say, "stage": "read"})
        outcome, text = _read(source, kind, home / "out", lambda: _tell({**say, "stage": "compare"}))  # noqa: B023
        stray = [*opened, *(set(_listing(home)) ^ set(before))]
        if stray:
            outcome, text = "stray file", ", ".join(map(str, stray))
        if time.process_time() - began > 10 and outcome in FINE:
            outcome = "hang"
        if outcome not in FINE:
            shutil.copytree(home / "in", home / "kept" / str(n))
        _tell({**say, "stage": "done", "outcome": outcome, "text": text, "seconds": time.process_time() - began})


def _root(path: Path) -> Path:
    """The folder to copy: the seed's own, or for a file the one that holds it."""
    return path.parent


def _files(path: Path) -> list[Path]:
    beside = path.rglob("*") if path.is_dir() else path.parent.glob(f"{path.stem}.*")
    return sorted(file for file in beside if file.is_file())


def _write_mutant(folder: Path, files: dict[str, bytes], start: str, rng: random.Random) -> Path:
    from tests.fuzz.mutate import mutated

    shutil.rmtree(folder)
    folder.mkdir()
    chosen = rng.choice(sorted(files))
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(mutated(data, rng) if name == chosen else data)
    return folder / start


def _read(source: Path, kind: str, out: Path, read_done) -> tuple[str, str]:
    from medclipad.errors import MedCLIPADError

    try:
        if kind == "detector":
            return _read_detector(source)
        if kind == "checkpoint":
            from medclipad.checkpoints import read_checkpoint

            read_checkpoint(source)
            return "read", "not compared"
        return _read_volume(source, kind, out, read_done)
    except MedCLIPADError as error:
        text = str(error)
        if isinstance(error.__cause__, MemoryError) or "bad_alloc" in text:
            return "memory", text
        if "\n" in text or not text.endswith(".") or len(text) > 700:
            return "bad sentence", text
        return "refused", text
    except MemoryError as error:
        return "memory", repr(error)
    except Exception as error:
        return "exception", f"{type(error).__name__}: {error}"


def _read_volume(source: Path, kind: str, out: Path, read_done) -> tuple[str, str]:
    from medclipad.volume import read_volume, write_volume
    from tests.fuzz.second import CannotSay, difference, missing_slice, second_view

    volume = read_volume(source)
    if volume.array.nbytes < 1 << 20:
        write_volume(volume, out / "again.nii.gz")
        (out / "again.nii.gz").unlink()
    read_done()
    try:
        differs = missing_slice(volume, source) if "dicom" in kind else difference(volume, second_view(source))
    except CannotSay as error:
        return "read by us alone", str(error)
    notes = " | ".join(volume.notes)
    return ("DIFFERENT", f"{differs} [{notes}]") if differs else ("read, the same", notes)


def _read_detector(folder: Path) -> tuple[str, str]:
    import numpy as np

    from medclipad.storage import read_info, read_weights
    from tests.fuzz.second import second_detector

    info, weights = read_info(folder), read_weights(folder)
    their_info, their_weights = second_detector(folder)
    own_info = json.loads(info.model_dump_json(), parse_int=float)
    same = {**own_info, **their_info} == own_info and all(
        np.array_equal(weights[key].numpy(), value, equal_nan=True) for key, value in their_weights.items()
    )
    return ("read, the same", "") if same else ("DIFFERENT", str(their_info)[:200])


def _listing(home: Path) -> list[str]:
    return sorted(str(path.relative_to(home)) for path in home.rglob("*"))


def _watch_writes(home: Path) -> list[str]:
    """A list that grows by each file that Python opens for writing outside of `home`."""
    outside: list[str] = []

    def hook(event: str, arguments: tuple) -> None:
        if event != "open" or not isinstance(arguments[0], (str, bytes)):
            return
        path, _, flags = arguments
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) if isinstance(flags, int) else False
        place = os.path.abspath(os.fsdecode(path))
        if writes and not place.startswith(str(home)) and place != os.devnull:
            outside.append(place)

    sys.addaudithook(hook)
    return outside


def _tell(message: dict) -> None:
    os.write(_MESSAGES, json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    _MESSAGES = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # C libraries print there
    main(Path(sys.argv[1]).resolve(), *(int(number) for number in sys.argv[2:5]), sys.argv[5:])
