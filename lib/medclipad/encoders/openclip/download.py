"""Weights by open_clip's names: fetched on first use into the caches that open_clip uses too, whole or not at all."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from medclipad.errors import DetectorError
from medclipad.files import atomic_file, sha256_of_file

if TYPE_CHECKING:
    from medclipad.volume.progress import Progress

CHUNK = 1 << 20  # bytes
TIMEOUT = 30  # seconds without an answer
HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


def fetch(config: dict, progress: Progress | None = None) -> Path:
    """The local file of an entry of open_clip's registry: {"url": …} or {"hf_hub": "owner/model/[file]"}, or both.

    The Hugging Face hub comes first if both are named, as in open_clip. Without `progress` a bar is drawn on standard
    error. Raises DetectorError if the file is not what its address says, OSError or the hub's errors if it cannot be
    had.
    """
    if config.get("hf_hub"):
        return _from_hub(config["hf_hub"], progress)
    return _from_url(config["url"], progress)


def expected_sha256(url: str) -> str:
    """The (first digits of the) SHA-256 that OpenAI and open_clip put into their addresses, else ""."""
    if "openaipublic" in url:
        return url.split("/")[-2]
    if "mlfoundations" in url:
        return Path(url).stem.rpartition("-")[2]
    return ""


def _from_url(url: str, progress: Progress | None) -> Path:
    import requests

    folder = Path.home() / ".cache" / "clip"
    target = folder / url.rpartition("/")[2]
    wanted = expected_sha256(url)
    if target.is_file():
        if sha256_of_file(target).startswith(wanted):
            return target
        raise DetectorError(f"{target} is not the file of its name (its SHA-256 differs): remove it to fetch it again.")
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_file(target) as temp_path, requests.get(url, stream=True, timeout=TIMEOUT) as answer:
        answer.raise_for_status()
        total, digest = int(answer.headers.get("Content-Length", 0)), hashlib.sha256()
        with (
            temp_path.open("wb") as file,
            _bar(progress)(total=total, unit="B", unit_scale=True, desc=target.name) as bar,
        ):
            # requests raises ChunkedEncodingError, an OSError, if the connection ends early.
            for chunk in answer.iter_content(CHUNK):
                file.write(chunk)
                digest.update(chunk)
                bar.update(len(chunk))
        if not digest.hexdigest().startswith(wanted):
            raise DetectorError(f"{target.name} came with another SHA-256 than its address says: try again later.")
    return target


def _from_hub(name: str, progress: Progress | None) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    repository, _, file = name.rpartition("/")
    for candidate in (file,) if file else HUB_FILES:
        try:
            return Path(hf_hub_download(repository, candidate, tqdm_class=_bar(progress)))
        except LocalEntryNotFoundError:  # there is no network
            raise
        except EntryNotFoundError as error:  # of the names that open_clip's models have, the next
            missing = error
    raise missing


def _bar(progress: Progress | None) -> type[tqdm]:
    """tqdm, or one that tells `progress` instead of drawing."""
    if progress is None:
        return tqdm

    class Reporting(tqdm):
        def __init__(self, *args, **kwargs) -> None:
            kwargs.pop("name", None)  # the hub's own bars have one
            super().__init__(*args, **{**kwargs, "file": _Nowhere(), "disable": False, "mininterval": 0})

        def update(self, n: float | None = 1) -> bool | None:
            answer = super().update(n)
            progress("download", int(self.n) >> 20, max(int(self.total or self.n) >> 20, 1), {})
            return answer

    return Reporting


class _Nowhere:
    def write(self, text: str) -> None:
        """Draw nothing."""

    def flush(self) -> None:
        """Draw nothing."""
