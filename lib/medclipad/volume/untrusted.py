"""Read files of unknown origin in a child process, which a hostile or damaged one may end without harm.

ITK, GDCM and the other libraries that decode files are native code: a header that they do not expect can end the
process, hang it or fill the memory. Here a child reads the file under limits on memory and processor time, and hands
the voxels back through a pipe. The child is kept for the next file, and replaced after a crash.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from medclipad.errors import VolumeError, VolumeSizeError
from medclipad.volume.components import Component
from medclipad.volume.dicom.series_info import SeriesInfo
from medclipad.volume.memory_budget import require_memory
from medclipad.volume.read_errors import not_found_error
from medclipad.volume.volume import Volume

Source = str | Path | Sequence[str | Path]

_CHILDREN = 2  # that read at the same time: a long series must not keep a small file waiting
_SECONDS = 30  # of processor time for any file, and one more for each megabyte; honest ones take a tenth
_WALL = 10  # a child on a busy machine may take this many times as long as its processor time
_CHECK_SECONDS = 0.2  # between two looks at whether an answer is still wanted
_OUTSIDE = (9, signal.SIGTERM, signal.SIGINT)  # signals of a system without memory, or of a user
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def read_untrusted(
    source: Source,
    *,
    component: Component = None,
    series: str | None = None,
    tilt: Literal["refuse", "resample"] = "refuse",
    voxel_bytes: int | None = None,
    check: Callable[[], None] | None = None,
) -> Volume:
    """Read a volume as `read_volume` does, in a child process that a hostile file cannot take this one down from.

    Parameters
    ----------
    source, component, series, tilt
        As in `read_volume`.
    voxel_bytes
        Largest size of the voxels in bytes, uncompressed; by default what fits into the memory.
    check
        Called a few times a second, from another thread, while the file is read; what it raises ends the reading.

    Returns
    -------
    Volume
        What `read_volume` returns.

    Raises
    ------
    VolumeSizeError
        If the voxels are larger than `voxel_bytes`.
    VolumeError
        As from `read_volume`; or if the file ended the child or took too long. Such a file is not tried again.
    Exception
        What `check` raised.
    """
    options = {"component": component, "series": series, "tilt": tilt}
    return _ask({"what": "volume", "options": options, "voxel_bytes": voxel_bytes}, source, check)


def list_untrusted_series(source: Source) -> list[SeriesInfo]:
    """Return the DICOM series of a source as `list_series` does, read in a child process.

    Parameters
    ----------
    source
        As in `list_series`.

    Raises
    ------
    VolumeError
        As from `list_series` and `read_untrusted`.
    """
    return _ask({"what": "series", "voxel_bytes": None}, source)


class _Child:
    """A reader process, idle or reading one file."""

    def __init__(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="medclipad-reader-")
        self._timed_out = False
        self._stopped_by: BaseException | None = None  # what the check of the reading raised
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "medclipad.volume.reader_child", self._folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # what native code says when it ends
            env={**os.environ, **_ONE_THREAD},
        )

    @property
    def alive(self) -> bool:
        """Whether the process can be asked."""
        return self._process.poll() is None

    @property
    def stopped(self) -> bool:
        """Whether nobody wanted its answer any more."""
        return self._stopped_by is not None

    def ask(self, request: dict[str, Any], check: Callable[[], None]) -> dict[str, Any]:
        """Return the answer to a request, with the voxels as "array" if it is a volume.

        Raises
        ------
        EOFError
            If the process ended before its answer was complete.
        BaseException
            What `check` raised, which ends the process.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        answered = threading.Event()
        limit = time.monotonic() + _WALL * request["seconds"]
        watch = threading.Thread(target=self._watch, args=(answered, limit, check), name="reader-watch", daemon=True)
        watch.start()
        try:
            stdin.write(json.dumps(request).encode() + b"\n")
            stdin.flush()
            line = stdout.readline()
            if not line.endswith(b"\n"):
                raise EOFError
            answer = json.loads(line)
            if "stored" in answer:
                shape, dtype = tuple(answer["stored"]), np.dtype(answer["type"])
                require_memory(np.prod(shape, dtype=float) * dtype.itemsize, answer["name"], "the volume")
                voxels = np.empty(shape, dtype=dtype)
                if stdout.readinto(voxels.data.cast("B")) != voxels.nbytes:  # type: ignore[attr-defined]
                    raise EOFError
                answer["array"] = voxels.transpose(np.argsort(answer["order"]))
            return answer
        except BrokenPipeError as error:
            raise EOFError from error
        finally:
            answered.set()
            watch.join()
            if self._stopped_by is not None:
                raise self._stopped_by

    def end(self) -> bool:
        """End the process and remove its files; return whether something else than the file had ended it."""
        try:
            code = self._process.wait(1)  # it may still be ending
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)
        return not self._timed_out and -code in _OUTSIDE

    def _watch(self, answered: threading.Event, limit: float, check: Callable[[], None]) -> None:
        """Kill the process if it takes too long, or if nobody wants its answer any more."""
        while not answered.wait(_CHECK_SECONDS):
            self._timed_out = time.monotonic() > limit
            try:
                check()
            except BaseException as error:
                self._stopped_by = error
            if self._timed_out or self._stopped_by is not None:
                self._process.kill()
                return


class _Children:
    """The reader processes of this process, and the files that ended one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[_Child] = []
        self._free = threading.BoundedSemaphore(_CHILDREN)
        self._deadly: dict[int, set[str]] = {}

    def ask(self, request: dict[str, Any], files: list[Path], name: str, check: Callable[[], None]) -> dict[str, Any]:
        """Return the answer to a request about some files; raise VolumeError if they end a child, now or before."""
        size = sum(file.stat().st_size for file in files)
        if size in self._deadly and _content(files) in self._deadly[size]:
            raise _deadly_error(name)
        request["seconds"] = _SECONDS + size // 10**6
        with self._place(check):
            child = self._take()
            try:
                answer = child.ask(request, check)
            except EOFError as error:
                if child.end():
                    raise VolumeError(
                        f"{name}: the system stopped the process that read it, as it does when the memory is full; "
                        "close other programs and try again."
                    ) from error
                self._deadly.setdefault(size, set()).add(_content(files))
                raise _deadly_error(name) from error
            except BaseException:  # interrupted: its answer would be taken for that to the next request
                child.end()
                if child.stopped:  # the next file need not wait until a process has started
                    with self._lock:
                        self._idle.append(_Child())
                raise
            with self._lock:
                self._idle.append(child)
            return answer

    @contextmanager
    def _place(self, check: Callable[[], None]) -> Iterator[None]:
        """Wait until fewer than `_CHILDREN` children read, or until `check` raises."""
        while not self._free.acquire(timeout=_CHECK_SECONDS):
            check()
        try:
            yield
        finally:
            self._free.release()

    def _take(self) -> _Child:
        with self._lock:
            while self._idle:
                child = self._idle.pop()
                if child.alive:
                    return child
                child.end()
        return _Child()


_children = _Children()


def _ask(request: dict[str, Any], source: Source, check: Callable[[], None] | None = None) -> Any:
    """Return what a child makes of a source: a volume or a list of series."""
    several = not isinstance(source, (str, Path))
    paths = [Path(path).expanduser() for path in source] if several else [Path(source).expanduser()]  # type: ignore[arg-type]
    given = [str(path) for path in paths] if several else str(paths[0])
    name = paths[0].name if len(paths) == 1 else paths[0].parent.name if paths else "the list"
    whole = {**request, "source": given, "cwd": os.getcwd()}
    answer = _children.ask(whole, list(_files(paths)), name, check or _no_check)
    if "error" in answer:
        if answer["missing"]:
            raise VolumeError(answer["error"]) from not_found_error(paths[0]).__cause__
        raise (VolumeSizeError if answer["too_large"] else VolumeError)(answer["error"])
    if "series" in answer:
        return [SeriesInfo.from_json(found) for found in answer["series"]]
    return Volume(answer["array"], np.array(answer["affine"]), answer["name"], answer["modality"], answer["metadata"])


def _no_check() -> None:
    """Let a reading go on."""


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    """Yield the files of a source, those of folders included."""
    for path in paths:
        yield from (
            (file for file in sorted(path.rglob("*")) if file.is_file())
            if path.is_dir()
            else ([path] if path.is_file() else [])
        )


def _content(files: Sequence[Path]) -> str:
    """Return the SHA-256 (hex) of the content of files, in their order."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _deadly_error(name: str) -> VolumeError:
    return VolumeError(
        f"{name}: it crashed the program that reads such files, or kept it busy without end, and is not tried again; "
        "export it again from its source."
    )
