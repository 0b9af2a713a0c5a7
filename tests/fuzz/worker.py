"""One process that reads mutants, one after the other, and reports the outcome of each.

    python -m tests.fuzz.worker HOME SEED FIRST LAST [KIND ...]

Lines on standard output are JSON: {"n", "kind", "stage"} before each stage, with "outcome" and "text" at the end.
"""

from __future__ import annotations

import gc
import json
import os
import random
import resource
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

MEMORY = 2 * 1024**3
"""Bytes that a mutant may take in addition to what the process already has."""

_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod")
"""Audit events whose first argument, and second where there are two paths, must lie in the worker's own folder."""

FINE = ("refused", "read, the same", "read by us alone", "read")
"""Outcomes that are not faults."""


def main(home: Path, seed: int, first: int, last: int, kinds: list[str]) -> None:
    """Read mutants `first` to `last` - 1 of some kinds of files, or of all."""
    import torch  # before the limit

    from benchmarks.memory import peak, start_peak
    from medclipad.detection import reference_checkpoints as checkpoints
    from medclipad.volume import read_volume
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
        slices = {name: read_volume(path).shape[2] for name, path in seeds.items() if "dicom" in name}
        gc.collect()  # temporary folders of their makers
        starts = {name: str(path.relative_to(_root(path))) for name, path in seeds.items()}
    os.chdir(home)
    opened = _watch_writes(home)
    used = _address_space()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    assert checkpoints
    for n in range(first, last):
        rng = random.Random(f"{seed}:{n}")
        kind = rng.choice(sorted(contents))
        source = _write_mutant(home / "in", contents[kind], starts[kind], rng)
        held, began = start_peak(), time.process_time()
        before = _listing(home)
        opened.clear()
        mutant, took = {"n": n, "kind": kind}, {}
        _report({**mutant, "stage": "read"})

        def read_done() -> None:
            took.update(seconds=time.process_time() - began, memory=peak() - held)  # noqa: B023
            _report({**mutant, "stage": "compare"})  # noqa: B023

        outcome, text = _read(source, kind, home / "out", read_done, slices.get(kind))
        if not took:  # refused
            took.update(seconds=time.process_time() - began, memory=peak() - held)
        stray = [*opened, *(set(_listing(home)) ^ set(before))]
        if stray:
            outcome, text = "stray file", ", ".join(map(str, stray))
        if took["seconds"] > 10 and outcome in FINE:
            outcome = "hang"
        if outcome not in FINE:
            shutil.copytree(home / "in", home / "kept" / str(n))
        _report({**mutant, "stage": "done", "outcome": outcome, "text": text, **took})
        if _address_space() > used + MEMORY // 4:  # GDCM, our second reader, leaks memory when it raises
            return  # the next mutant gets a new process, and all the memory


def _address_space() -> int:
    """Return the bytes of address space that this process uses, which RLIMIT_AS limits."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _root(path: Path) -> Path:
    """Return the folder to copy: the seed's own, or for a file the one that holds it."""
    return path.parent


def _files(path: Path) -> list[Path]:
    """Return the files of a seed, detached data included."""
    folder = path if path.is_dir() else path.parent if path.name == "DICOMDIR" else None
    beside = folder.rglob("*") if folder else path.parent.glob(f"{path.stem}.*")
    return sorted(file for file in beside if file.is_file())


def _write_mutant(folder: Path, files: dict[str, bytes], start: str, rng: random.Random) -> Path:
    """Write a seed with one of its files mutated, and return the source to read."""
    from tests.fuzz.mutate import mutated

    shutil.rmtree(folder)
    folder.mkdir()
    chosen = rng.choice(sorted(files))
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(mutated(data, rng) if name == chosen else data)
    return folder / start


def _read(source: Path, kind: str, out: Path, read_done: Callable[[], None], slices: int | None) -> tuple[str, str]:
    """Read a mutant, and return the outcome and its text."""
    from medclipad.errors import MedCLIPADError

    try:
        if kind == "detector":
            return _read_detector(source)
        if kind == "checkpoint":
            return _read_checkpoint(source)
        return _read_volume(source, kind, out, read_done, slices)
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


def _read_volume(
    source: Path, kind: str, out: Path, read_done: Callable[[], None], slices: int | None
) -> tuple[str, str]:
    """Read a volume, write it, and compare it with the second reader."""
    from medclipad.volume import read_volume, write_volume
    from tests.fuzz.second import DAMAGE, CannotSay, difference, in_zip, missing_slice, second_view

    volume = read_volume(source)
    if volume.array.nbytes < 1 << 20:
        write_volume(volume, out / "again.nii.gz")
        (out / "again.nii.gz").unlink()
    read_done()
    if slices not in (None, volume.shape[2]) and not any("left out" in note for note in volume.notes):
        return "DIFFERENT", f"{volume.shape[2]} slices of {slices}, without a note"
    try:
        if "dicom" in kind:
            differs = (in_zip if source.suffix == ".zip" else missing_slice)(volume, source)
        else:
            differs = difference(volume, second_view(source))
    except CannotSay as error:
        return "read by us alone", str(error)
    except DAMAGE as error:
        return "DIFFERENT", f"the second reader finds it damaged: {error}"
    notes = " | ".join(volume.notes)
    if differs.endswith("lies outside") and "left out" in notes:  # the reader says that it is not in the volume
        differs = ""
    return ("DIFFERENT", f"{differs} [{notes}]") if differs else ("read, the same", notes)


def _read_detector(folder: Path) -> tuple[str, str]:
    """Read a detector folder, and compare it with the second reader."""
    import numpy as np

    from medclipad.detection.storage import read_info, read_weights
    from tests.fuzz.second import second_detector

    info = read_info(folder)
    weights = read_weights(folder, info.weights_sha256)
    their_info, their_weights = second_detector(folder)
    own_info = json.loads(info.model_dump_json(), parse_int=float)
    same = _with_defaults(their_info, own_info) == own_info and all(
        np.array_equal(weights[key].numpy(), value, equal_nan=True) for key, value in their_weights.items()
    )
    return ("read, the same", "") if same else ("DIFFERENT", str(their_info)[:200])


def _with_defaults(info: dict, defaults: dict) -> dict:
    """Return the second reader's JSON, completed at every level by the fields that may be left out."""
    completed = {**defaults, **info}
    for key in ("config", "options", "calibration", "acquisition"):
        if isinstance(info.get(key), dict) and isinstance(defaults.get(key), dict):
            completed[key] = _with_defaults(info[key], defaults[key])
    return completed


def _read_checkpoint(path: Path) -> tuple[str, str]:
    """Read a checkpoint, and compare it with the second reader."""
    from medclipad.detection.reference_checkpoints import read_checkpoint
    from tests.fuzz.second import second_checkpoint

    ours = {
        value.untyped_storage().data_ptr(): bytes(value.untyped_storage())
        for part in read_checkpoint(path).parts.values()
        for value in part.values()
    }
    try:
        theirs = second_checkpoint(path)
    except Exception as error:
        wrong = "CRC" in str(error)  # not so for a name that an archive has twice, in two ways
        return ("DIFFERENT" if wrong else "read by us alone"), f"zipfile does not read it: {error}"
    return ("read, the same", "") if sorted(ours.values()) == sorted(theirs) else ("DIFFERENT", f"{ours} {theirs}")


def _listing(home: Path) -> list[str]:
    """Return the files in the worker's folder."""
    kept = home / "kept"
    return [str(path.relative_to(home)) for path in home.rglob("*") if not path.is_relative_to(kept)]


def _watch_writes(home: Path) -> list[str]:
    """Return a list that collects each file that Python writes, creates, moves or removes outside `home`."""
    outside: list[str] = []

    def hook(event: str, arguments: tuple) -> None:
        if event in _CHANGES:
            paths = [os.path.abspath(os.fsdecode(path)) for path in arguments[:2] if isinstance(path, (str, bytes))]
            outside.extend(path for path in paths if not path.startswith(str(home)))
        if event != "open" or not isinstance(arguments[0], (str, bytes)):
            return
        path, _, flags = arguments
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) if isinstance(flags, int) else False
        target = os.path.abspath(os.fsdecode(path))
        if writes and not target.startswith(str(home)) and target != os.devnull:
            outside.append(target)

    sys.addaudithook(hook)
    return outside


def _report(message: dict) -> None:
    """Write one line of JSON for the parent process."""
    os.write(_MESSAGES, json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    _MESSAGES = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # C libraries print there
    own_seed, begin, end = (int(number) for number in sys.argv[2:5])
    main(Path(sys.argv[1]).resolve(), own_seed, begin, end, sys.argv[5:])
