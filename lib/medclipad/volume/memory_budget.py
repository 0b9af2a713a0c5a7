"""Compare the memory that a volume needs with what is free, before the work starts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil

from medclipad.errors import VolumeSizeError

_CGROUP = Path("/sys/fs/cgroup")
_largest: int | None = None  # bytes of voxels that this process may read
_FILES = (  # limit, use and pages that are freed on demand, in versions 2 and 1 of Linux's control groups
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def free_memory() -> int:
    """Return the bytes that this process can still allocate.

    The smallest of what is free on the machine, in its container (control group) and below the process's own limit.
    """
    free = [psutil.virtual_memory().available, *_left_in_groups()]
    if hasattr(psutil, "RLIMIT_AS"):  # on Linux and FreeBSD
        process = psutil.Process()
        limit, _ = process.rlimit(psutil.RLIMIT_AS)
        if limit != psutil.RLIM_INFINITY:
            free.append(limit - process.memory_info().vms)
    return max(0, min(free))


def limit_voxels(size: int | None) -> None:
    """Let this process read volumes of up to `size` bytes of uncompressed voxels; None removes the limit."""
    global _largest
    _largest = size


def require_allowed(voxels: float, name: str, shape: tuple[int, ...]) -> None:
    """Raise VolumeSizeError if voxels exceed the limit of `limit_voxels`.

    Parameters
    ----------
    voxels
        Bytes of the voxels by the header, as stored but uncompressed.
    name
        File, for the message.
    shape
        Size of the grid, for the message.
    """
    if _largest is not None and voxels > _largest:
        raise VolumeSizeError(
            f"{name}: its {in_words(shape)} take {bytes_in_words(voxels)}, more than the {bytes_in_words(_largest)} "
            "that may be read here; crop it, or save it with 16-bit values."
        )


def require_memory(needed: float, name: str, work: str) -> None:
    """Raise VolumeSizeError unless enough memory is free.

    Parameters
    ----------
    needed
        Bytes that the work takes at its peak.
    name
        Volume or file, for the message.
    work
        What needs the memory, such as "reading 512 x 512 x 40 voxels".

    Raises
    ------
    VolumeSizeError
        If fewer bytes are free.
    """
    free = free_memory()
    if needed > free:
        raise VolumeSizeError(
            f"{name}: {work} needs about {bytes_in_words(needed)} of memory, but only {bytes_in_words(free)} is free; "
            "use a machine with more memory, or crop or downsample the volume first."
        )


def in_words(shape: tuple[int, ...]) -> str:
    """Return the size of a grid as text.

    Examples
    --------
    >>> in_words((512, 512, 40))
    '512 x 512 x 40 voxels'
    """
    return f"{' x '.join(map(str, shape))} voxels"


def bytes_in_words(size: float) -> str:
    """Return a number of bytes as text.

    Examples
    --------
    >>> bytes_in_words(512e6), bytes_in_words(9.6e9)
    ('512 MB', '9.6 GB')
    """
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{max(1, round(size / 1e6))} MB"


def _left_in_groups() -> Iterator[int]:
    """Yield the bytes left in each control group that holds this process, outer groups included."""
    for folder in _groups():
        for limit, used, reclaimable in _FILES:
            try:
                most, now = (folder / limit).read_text().strip(), int((folder / used).read_text())
                pages = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            except (OSError, ValueError):  # no such version, or a group without limits
                continue
            if most != "max":
                yield int(most) - now + int(pages.get(reclaimable, 0))


def _groups() -> Iterator[Path]:
    """Yield the folders of the control groups that hold this process, innermost first."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:  # not on Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "" or "memory" in controllers.split(","):
            home = _CGROUP / controllers if controllers else _CGROUP
            group = home / path.strip("/")
            yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(home))
